"""Reading crystals from files of any format: checked, reduced to one form of the cell, in parallel, cached."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.crystals import cache as cached
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.checks import keeping_all
from noumena.crystals.formats.objects import ase_atoms, pymatgen_structures
from noumena.crystals.formats.raw import Raw, Skipped
from noumena.crystals.formats.sources import Source, open_source
from noumena.crystals.formats.texts import Texts
from noumena.crystals.processing import Options, process, process_all
from noumena.crystals.reduction import Reduction

__all__ = ["Reading", "Skipped", "from_ase", "from_pymatgen", "read", "stream"]

Progress = Callable[[int, int], None]

_PIECE = 1024
_SHOWN = 5
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reading:
    """Crystals that were read, and what was left out.

    Attributes:
        crystals: float64, coordinates in [0, 1), right-handed cells, with names.
        properties: float64, shape (crystals,), by name; NaN where one is not known.
        skipped: structures that were left out, each with its place and the reason.
        about: JSON-able facts for reports: source, format, structures read and left out (by reason), reduction.
    """

    crystals: CrystalBatch
    properties: dict[str, Tensor]
    skipped: tuple[Skipped, ...] = ()
    about: dict[str, Any] = field(default_factory=dict[str, Any])


def read(
    path: str | Path | Sequence[str | Path],
    *,
    reduction: Reduction = "niggli",
    tolerance: float = 0.01,
    max_atoms: int | None = None,
    strict: bool = False,
    properties: Sequence[str] | None = None,
    id_column: str | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Reading:
    """All crystals of a file, a folder or an archive.

    CIF (every block with atoms is a crystal), extended XYZ, POSCAR; folders and archives (.zip, .tar, .tar.gz ...) of
    them; CSV and Parquet with a column ``cif``; Parquet with columns ``atomic_numbers``, ``frac_coords``, ``lattice``.

    Structures that are no crystals with one arrangement of whole atoms in a sound cell are left out and listed:
    partial occupancy, disorder, no atoms, unknown elements, texts that cannot be read, cells that no numbers close,
    volumes per atom or distances that cannot be, more than ``max_atoms`` atoms.

    Args:
        path: of the source, or several.
        reduction: ``niggli`` gives the Niggli cell of the primitive lattice, ``primitive`` reduces only cells that are
            not primitive, ``none`` keeps cells as they are. See :func:`~noumena.crystals.reduction.reduce`.
        tolerance: how far atoms may be from where a translation of the crystal takes others, in angstrom.
        max_atoms: crystals of more atoms, once reduced, are left out; None keeps all.
        strict: refuse the source at the first structure that would be left out.
        properties: columns of numbers of a table; None takes all of them.
        id_column: of a table, for the names; None takes ``material_id``, ``id``, ``name`` or the number of the row.
        workers: processes that read texts; None takes as many as processors are there. A script that reads more than
            about 30,000 texts calls this under ``if __name__ == "__main__":``, or with ``workers=1``.
        cache: folder for what was read, found again by content and options; ``auto`` is one in the user's cache folder.
        progress: called with the number of structures read and of all, 0 if that is not known beforehand.

    Raises:
        DataError: the source is missing, damaged, of no known format, or has no crystal at all; or ``strict``.
        ConfigError: an option is unknown or out of range, or a column is not there.
        NotSupportedError: the package for the format is not installed.
    """
    options = Options(reduction, tolerance, max_atoms)
    options.check()
    sources = _sources(path, properties, id_column)
    key = ""
    if cache is not None:
        settings = {**asdict(options), "properties": None if properties is None else list(properties), "id": id_column}
        key = cached.key_of(_all_files(sources), settings)
        found = cached.load(cached.folder_of(cache), key)
        if found is not None:
            _report(progress, found.seen, found.seen)
            return _whole(found, sources, options, strict, from_cache=True)
    parts: list[Raw] = []
    for part in _raws(sources, options, workers, _PIECE, progress):
        _refuse(part, strict)
        parts.append(part)
    raw = Raw.join(parts)
    if cache is not None:
        cached.store(cached.folder_of(cache), key, raw)
    return _whole(raw, sources, options, strict, from_cache=False)


def stream(
    path: str | Path | Sequence[str | Path],
    *,
    batch_rows: int = 1024,
    reduction: Reduction = "niggli",
    tolerance: float = 0.01,
    max_atoms: int | None = None,
    strict: bool = False,
    properties: Sequence[str] | None = None,
    id_column: str | None = None,
    workers: int | None = 1,
    progress: Progress | None = None,
) -> Iterator[Reading]:
    """The crystals of a source, some at a time, at bounded memory.

    Args:
        path, reduction, tolerance, max_atoms, strict, properties, id_column, workers, progress: as for :func:`read`.
        batch_rows: crystals in a reading, at most. One may have none, only some that were left out.

    Raises:
        DataError, ConfigError, NotSupportedError: as :func:`read`, when the structure is reached.
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows={batch_rows}: expected at least 1.")
    options = Options(reduction, tolerance, max_atoms)
    options.check()
    sources = _sources(path, properties, id_column)
    crystals, skipped = 0, list[Skipped]()
    for raw in _raws(sources, options, workers, batch_rows, progress):
        _refuse(raw, strict)
        crystals += len(raw)
        skipped.extend(raw.skipped[: max(0, _SHOWN - len(skipped))])
        for part in _split(raw, batch_rows):
            yield _reading(part, _facts(part, sources, options))
    if not crystals:
        raise _none_left(sources, skipped)


def from_pymatgen(
    structures: Iterable[Any],
    *,
    names: Sequence[str] | None = None,
    reduction: Reduction = "niggli",
    tolerance: float = 0.01,
    max_atoms: int | None = None,
    strict: bool = False,
) -> Reading:
    """Crystals of pymatgen ``Structure`` objects.

    Args:
        structures: of them.
        names: one each; None numbers them.
        reduction, tolerance, max_atoms, strict: as for :func:`read`.

    Raises:
        DataError: none is a crystal that can be used; or ``strict``.
        ConfigError: an option is out of range, or there are not as many names.
    """
    return _from_objects(structures, pymatgen_structures, names, Options(reduction, tolerance, max_atoms), strict)


def from_ase(
    atoms: Iterable[Any],
    *,
    names: Sequence[str] | None = None,
    reduction: Reduction = "niggli",
    tolerance: float = 0.01,
    max_atoms: int | None = None,
    strict: bool = False,
) -> Reading:
    """Crystals of ASE ``Atoms`` objects.

    Args:
        atoms: of them.
        names, reduction, tolerance, max_atoms, strict: as for :func:`from_pymatgen`.

    Raises:
        DataError, ConfigError: as there.
    """
    return _from_objects(atoms, ase_atoms, names, Options(reduction, tolerance, max_atoms), strict)


def _from_objects(
    objects: Iterable[Any],
    convert: Callable[[Iterable[Any], Sequence[str] | None], Raw],
    names: Sequence[str] | None,
    options: Options,
    strict: bool,
) -> Reading:
    options.check()
    every = list(objects)
    if names is not None and len(names) != len(every):
        raise ConfigError(f"names: {len(names)} of them for {len(every)} structures; give one each.")
    raw = process(convert(every, names), options)
    _refuse(raw, strict)
    if not len(raw):
        raise _none_left([], list(raw.skipped))
    return _reading(raw, _facts(raw, [], options))


def _sources(
    path: str | Path | Sequence[str | Path], properties: Sequence[str] | None, id_column: str | None
) -> list[Source]:
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise ConfigError("path: it is an empty list; give at least one file, folder or archive.")
    return [open_source(Path(one).expanduser(), properties, id_column) for one in paths]


def _all_files(sources: Sequence[Source]) -> dict[str, Path]:
    return {f"{number}/{name}": path for number, one in enumerate(sources) for name, path in one.files.items()}


def _raws(
    sources: Sequence[Source], options: Options, workers: int | None, rows: int, progress: Progress | None
) -> Iterator[Raw]:
    """Crystals of all sources, piece by piece."""
    expected = sum(one.expected for one in sources) if all(one.expected for one in sources) else 0

    def pieces() -> Iterator[Texts | Raw]:
        for one in sources:
            yield from one.pieces(rows)

    done = 0
    for raw in process_all(pieces(), options, workers):
        done += raw.seen
        _report(progress, done, expected)
        yield raw


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _refuse(raw: Raw, strict: bool) -> None:
    if strict and raw.skipped:
        raise DataError(f"{raw.skipped[0]}. Mend or leave out the structure, or read without strict to skip it.")


def _split(raw: Raw, rows: int) -> Iterator[Raw]:
    """Parts of at most ``rows`` crystals; what was left out goes with the first."""
    if len(raw) <= rows:
        yield raw
        return
    for start in range(0, len(raw), rows):
        part = raw.select(np.arange(start, min(start + rows, len(raw))))
        yield replace(part, skipped=raw.skipped if start == 0 else ())


def _whole(raw: Raw, sources: Sequence[Source], options: Options, strict: bool, *, from_cache: bool) -> Reading:
    _refuse(raw, strict)
    if not len(raw):
        raise _none_left(sources, list(raw.skipped))
    facts = {**_facts(raw, sources, options), "from_cache": from_cache}
    if raw.skipped:
        remedy = keeping_all(one.reason for one in raw.skipped)
        words = "%d of %d structures left out, the first: %s.%s"
        _LOG.warning(words, len(raw.skipped), raw.seen, raw.skipped[0], remedy)
    return _reading(raw, facts)


def _none_left(sources: Sequence[Source], skipped: list[Skipped]) -> DataError:
    where = ", ".join(str(one.path) for one in sources) or "structures"
    reasons = "; ".join(str(one) for one in skipped[:_SHOWN]) or "it holds no structures"
    remedy = keeping_all(one.reason for one in skipped)
    return DataError(f"{where}: there is no crystal that can be used: {reasons}.{remedy}")


def _facts(raw: Raw, sources: Sequence[Source], options: Options) -> dict[str, Any]:
    return {
        "source": [one.path.name for one in sources],
        "format": sorted({one.format for one in sources}) or ["objects"],
        "ignored_files": sum(one.ignored for one in sources),
        "crystals": len(raw),
        "skipped": len(raw.skipped),
        "skipped_reasons": dict(Counter(_kind(one.reason) for one in raw.skipped).most_common()),
        "reduction": options.reduction,
        "tolerance": options.tolerance,
        "max_atoms": options.max_atoms,
    }


def _kind(reason: str) -> str:
    """A reason with dots for its numbers and names, so that like ones are counted together."""
    words = reason.split(":")[0].split(";")[0].split()
    plain = ["…" if any(letter.isdigit() or letter in "'\"(" for letter in word) else word for word in words]
    return " ".join(word for word, before in zip(plain, ["", *plain], strict=False) if word != "…" or before != "…")


def _reading(raw: Raw, about: dict[str, Any]) -> Reading:
    crystals = CrystalBatch(
        torch.from_numpy(raw.atom_types),
        torch.from_numpy(raw.frac_coords),
        torch.from_numpy(raw.lattice),
        torch.from_numpy(raw.num_atoms),
        tuple(raw.names),
    )
    return Reading(
        crystals, {name: torch.from_numpy(values) for name, values in raw.properties.items()}, raw.skipped, about
    )
