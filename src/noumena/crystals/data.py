"""Opening crystals for a recipe, reading them for a model, and streaming files of any size.

The keyword arguments of :func:`open_crystals` are the ``data`` section of a recipe of kind ``crystals``.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import composition_keys
from noumena.crystals.dataset import Crystals
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.loading import UNITS, Loaded, Options, files_of_parts, ids_of, load, skipped_in_words, sources_of
from noumena.crystals.reading import Skipped, stream
from noumena.crystals.reduction import Reduction
from noumena.crystals.splits import (
    NOWHERE,
    PARTS,
    TRAIN,
    Division,
    Rule,
    drawn,
    identities,
    overlap,
    without_duplicates,
)
from noumena.readers.common import check_choice

log = logging.getLogger(__name__)

_NAMED = 3  # skipped structures in a message
_MOST_ROWS = 4096  # of a batch in a stream: the texts of more CIF files than these take some memory


def open_crystals(
    path: str,
    *,
    val_path: str | None = None,
    test_path: str | None = None,
    split: Rule | None = None,
    draw_from: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    val_rows: int | None = None,
    test_rows: int | None = None,
    seed: int = 0,
    exclude: str | None = None,
    reduction: Reduction = "niggli",
    max_atoms: int | None = None,
    strict: bool = False,
    properties: list[str] | None = None,
    id_column: str | None = None,
    workers: int | None = None,
    cache: str | None = None,
) -> Splits:
    """Crystals from files, divided into train, val and test, none of them in two parts.

    A part with a file of its own (``val_path``, ``test_path``, or one in a folder of the field's layout) is that file;
    the others are drawn from the crystals of ``path``. Rows are drawn as they stand in the files, before anything is
    left out for another reason than that it cannot be read. Crystals with the same id and the same reduced composition
    then stay in one part only, test before val before train, and in the first of several files.

    Args:
        path: what :func:`noumena.crystals.reading.read` takes; several of these with commas between them; a folder with
            ``train``, ``val`` and ``test`` of any such ending, as the field's MP-20 (``train.csv`` ...); or
            ``sample:mp20``.
        val_path, test_path: files of these parts.
        split: how rows are drawn: at random; whole reduced compositions at random; or not at all, where every part has
            a file. Default: at random, for parts without a file.
        draw_from: the one of several files in ``path`` that held-out rows are drawn from, by its path or its name; the
            others are for training alone.
        val_fraction, test_fraction: shares of the crystals that are drawn from; 0 leaves the part out, its file too.
        val_rows, test_rows: counts in place of the shares.
        seed: of every random choice; at random, rows are those of ``numpy.random.default_rng(seed).permutation``.
        exclude: files whose ids are left out of every part: .csv or .parquet with a column of ids, .txt with one on
            each line, or files of crystals; commas between several.
        reduction: the form that cells are brought to; see :func:`noumena.crystals.reading.read`.
        max_atoms: skip cells with more atoms.
        strict: refuse what is else skipped and listed.
        properties: columns of numbers to keep; all if none is named.
        id_column: of a table, the column with the names.
        workers: processes that read; as many as there are processors if missing.
        cache: folder in which read structures are kept, by the content of their file; ``auto`` is one of the user's.

    Raises:
        ConfigError: an option is out of range or contradicts another.
        DataError: a file is missing or damaged, there are too few crystals, a part is left empty, or, if ``strict``, a
            structure cannot be read.
        NotSupportedError: a library that the format needs is not installed.
    """
    if split is not None:
        check_choice("split", split, ("random", "composition", "files"))
    division = Division(split or "random", val_fraction, test_fraction, val_rows, test_rows, seed)
    options = Options(reduction, max_atoms, strict, properties, id_column, workers, cache)
    files = _files(path, {"val": val_path, "test": test_path}, division, pooled=split in ("random", "composition"))
    wanted = {name: name not in files and division.counts(1)[name] > 0 for name in ("val", "test")}
    if split == "files" and any(wanted.values()):
        missing = " or ".join(name for name, lacks in wanted.items() if lacks)
        raise ConfigError(
            f"split=files: there is no file for {missing}. Set {missing.split()[0]}_path=FILE, "
            f"{missing.split()[0]}_fraction=0 to go without, or another split."
        )
    sources = {name: sources_of(entry) for name, entry in files.items()}
    first = _source_to_draw_from(draw_from, sources["train"]) if any(wanted.values()) else None
    loaded = load([source for entry in sources.values() for source in entry], options)
    keys = composition_keys(loaded.crystals)
    part, words = _parts(loaded, keys, sources, first, division, wanted, path)
    part, left_out = _left_out(part, keys, loaded, exclude, options)
    _check_filled(part, {"train", *sources, *(name for name, draws in wanted.items() if draws)}, left_out, path)
    # A model is made for the cells it will be measured on, too: else the largest would be refused after the training.
    most = int(loaded.crystals.num_atoms[part >= 0].max())
    numbers = sorted(set(part.tolist()) - {NOWHERE})
    parts = {PARTS[number]: _dataset(loaded, part == number, reduction, most) for number in numbers}
    about = {
        "source": path,
        "split": words,
        "crystals": {name: len(entry) for name, entry in parts.items()},
        "atoms": {name: entry.crystals.atom_types.shape[0] for name, entry in parts.items()},
        "cells": reduction,
        "composition_also_in_training": overlap(part, keys),
        "left_out": left_out,
        **skipped_in_words(loaded),
    }
    return Splits(parts["train"], parts.get("val"), parts.get("test"), {}, about)


def read_crystals(
    path: str | Path,
    *,
    schema: Mapping[str, Any] | None = None,
    reduction: Reduction = "niggli",
    max_atoms: int | None = None,
    strict: bool = False,
    properties: Sequence[str] | None = None,
    id_column: str | None = None,
    workers: int | None = None,
    cache: str | None = None,
) -> Crystals:
    """All crystals of some files, in their order.

    Args:
        path: as for :func:`open_crystals`; of a folder in the field's layout, every part.
        schema: of a model: cells are reduced as its training data were, and what it cannot take is skipped.
        reduction, max_atoms, strict, properties, id_column, workers, cache: as for :func:`open_crystals`.

    Raises:
        ConfigError, DataError, NotSupportedError: as :func:`open_crystals`; or no crystal is left.
    """
    form = reduction if schema is None else schema.get("reduction", reduction)
    options = Options(form, max_atoms, strict, properties, id_column, workers, cache)
    loaded = load(_all_files(path), options)
    keep, skipped = (None, []) if schema is None else _fitting(loaded.crystals, schema, str(path), strict)
    every = torch.ones(len(loaded.crystals), dtype=torch.bool) if keep is None else keep
    report = Report(Counter(entry.reason for entry in skipped), skipped, int(every.sum()))
    report.finish(str(path))
    return _dataset(loaded, every, form)


def stream_crystals(
    path: str | Path, schema: Mapping[str, Any], *, batch_rows: int = 65536, strict: bool = False
) -> Iterator[CrystalBatch]:
    """The crystals of some files, in their order, a bounded number at a time; memory does not grow with the files.

    Cells are reduced as those that the model was trained on. A structure that cannot be read, one with more atoms than
    any in the data of the training, and one with an element that the training had not are skipped, for a model says
    nothing of them; how many and why is logged at the end. Names tell what is left.

    Args:
        path: as for :func:`open_crystals`; of a folder in the field's layout, every part.
        schema: of the crystals a model was trained on.
        batch_rows: crystals of a batch at most, and never more than 4,096.
        strict: refuse what is else skipped.

    Yields:
        Batches in float64, with names.

    Raises:
        ConfigError: an option is out of range.
        DataError: a file is missing or damaged; if ``strict``, a structure is refused; or no crystal is left.
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows={batch_rows}: expected at least one crystal in a batch.")
    return _stream(_all_files(path), schema, min(batch_rows, _MOST_ROWS), strict, str(path))


def _stream(
    sources: Sequence[str], schema: Mapping[str, Any], rows: int, strict: bool, where: str
) -> Iterator[CrystalBatch]:
    report = Report()
    for reading in stream(sources, reduction=schema["reduction"], strict=strict, batch_rows=rows):
        report.add(reading.about["skipped_reasons"], reading.skipped)
        if not len(reading.crystals):
            continue
        keep, refused = _fitting(reading.crystals, schema, where, strict)
        report.add(Counter(entry.reason for entry in refused), refused)
        if bool(keep.any()):
            report.kept += int(keep.sum())
            yield reading.crystals if bool(keep.all()) else reading.crystals.select(keep)
    report.finish(where)


def _all_files(path: str | Path) -> list[str]:
    parts = files_of_parts(str(path))
    return [source for entry in (parts.values() or [str(path)]) for source in sources_of(entry)]


def _files(path: str, given: Mapping[str, str | None], division: Division, *, pooled: bool) -> dict[str, str]:
    """The files of train, and those of other parts that have one."""
    counts = division.counts(1)
    chosen = {name: file for name, file in given.items() if file is not None and counts[name] > 0}
    folder = files_of_parts(path)
    if not folder:
        return {"train": path, **chosen}
    if not any(counts.values()):
        raise ConfigError(
            f"{path} has files for {', '.join(folder)}, and without val and test it is not said which to take. Name "
            f"one, such as {folder['train']}, or several with commas between them."
        )
    if pooled:
        return {"train": ",".join(folder.values()), **chosen}
    return {"train": folder["train"], **{name: file for name, file in folder.items() if counts.get(name)}, **chosen}


def _source_to_draw_from(draw_from: str | None, sources: Sequence[str]) -> int | None:
    """Number of the source among those of train, or none for all of them."""
    if draw_from is None:
        return None
    wanted = Path(draw_from).expanduser()
    found = [n for n, source in enumerate(sources) if source == draw_from or Path(source).resolve() == wanted.resolve()]
    found = found or [n for n, source in enumerate(sources) if Path(source).name == draw_from]
    if len(found) != 1:
        known = did_you_mean(draw_from, [Path(source).name for source in sources])
        raise ConfigError(f"draw_from={draw_from}: expected one of the files in path, found {len(found)}. {known}")
    return found[0]


def _parts(
    loaded: Loaded,
    keys: Tensor,
    sources: Mapping[str, Sequence[str]],
    first: int | None,
    division: Division,
    wanted: Mapping[str, bool],
    where: str,
) -> tuple[Tensor, str]:
    """The part of each crystal, by its file or drawn, and the rule in words."""
    of_source = torch.tensor([PARTS.index(name) for name, entry in sources.items() for _ in entry])
    part = of_source[loaded.source]
    pieces: list[str] = []
    if any(wanted.values()):
        rows = (part == TRAIN) if first is None else (loaded.source == first)
        place = where if first is None else sources["train"][first]
        part[rows], words = drawn(keys[rows], division, wanted, place)
        pieces.append(f"{words}, of {Path(place).name}" if first is not None else words)
    own = [name for name in sources if name != "train"]
    if own:
        pieces.append(f"{' and '.join(own)} from {'its file' if len(own) == 1 else 'their files'}")
    return part, "; ".join(piece for piece in pieces if piece) or "all for training"


def _left_out(
    part: Tensor, keys: Tensor, loaded: Loaded, exclude: str | None, options: Options
) -> tuple[Tensor, dict[str, int]]:
    """Parts without excluded ids and without duplicates, and how many crystals that left out, by reason."""
    names = loaded.crystals.names
    counts: dict[str, int] = {}
    if exclude is not None:
        if not names:
            raise DataError("exclude: the crystals have no ids to compare. Set id_column=COLUMN.")
        excluded = torch.from_numpy(np.isin(np.asarray(names), np.asarray(sorted(ids_of(exclude, options)), dtype=str)))
        counts["by an id of exclude"] = int(excluded.sum())
        part = torch.where(excluded, NOWHERE, part)
    part, duplicates = without_duplicates(part, identities(names, keys, loaded.source), loaded.source)
    return part, {**counts, **duplicates}


def _check_filled(part: Tensor, expected: set[str], left_out: Mapping[str, int], where: str) -> None:
    for number, name in enumerate(PARTS):
        if name in expected and not bool((part == number).any()):
            reasons = "; ".join(f"{count:,} left out {reason}" for reason, count in left_out.items())
            raise DataError(
                f"{where}: no crystal is left for {name}{f' ({reasons})' if reasons else ''}. Add crystals."
            )


def _dataset(loaded: Loaded, keep: Tensor, reduction: str, most: int | None = None) -> Crystals:
    properties = {name: values[keep] for name, values in loaded.properties.items()}
    units = {name: UNITS[name] for name in properties if name in UNITS}
    crystals = loaded.crystals if bool(keep.all()) else loaded.crystals.select(keep)
    return Crystals(crystals, properties, units, reduction, most_atoms=most)


def _fitting(batch: CrystalBatch, schema: Mapping[str, Any], where: str, strict: bool) -> tuple[Tensor, list[Skipped]]:
    """Which crystals a model can take, bool, shape (crystals,); and of the others the reason."""
    most = int(schema["max_atoms"])
    known = torch.zeros(len(SYMBOLS), dtype=torch.bool)
    known[torch.tensor(schema["elements"])] = True
    strange = ~known[batch.atom_types]
    foreign = torch.zeros(len(batch), dtype=torch.int64).index_add(0, batch.crystal, strange.long()) > 0
    large = batch.num_atoms > most
    # The heaviest of a crystal's strange elements stands for all of them.
    worst = torch.zeros(len(batch), dtype=torch.int64).scatter_reduce(
        0, batch.crystal, torch.where(strange, batch.atom_types, 0), "amax"
    )
    skipped: list[Skipped] = []
    for i in (large | foreign).nonzero()[:, 0].tolist():
        reason = f"more atoms than any in the data of the training, {most}"
        if not bool(large[i]):
            reason = f"an element that the training had not, {SYMBOLS[int(worst[i])]}"
        skipped.append(Skipped(where, batch.names[i] if batch.names else str(i), reason))
    if strict and skipped:
        one = skipped[0]
        raise DataError(
            f"{one.where}: {one.name} has {one.reason}; the model cannot be trusted with it, nor with "
            f"{len(skipped) - 1} others of its chunk. Leave them out, train on such crystals, or do without strict."
        )
    return ~(large | foreign), skipped


@dataclass
class Report:
    """What is told of skipped structures when all are read.

    Attributes:
        reasons: how many for each reason.
        first: some of them.
        kept: crystals that were not skipped.
    """

    reasons: Counter[str] = field(default_factory=Counter[str])
    first: list[Skipped] = field(default_factory=list[Skipped])
    kept: int = 0

    def add(self, reasons: Mapping[str, int], skipped: Sequence[Skipped]) -> None:
        """Note some more."""
        self.reasons.update(reasons)
        self.first += skipped[: max(0, _NAMED - len(self.first))]

    def finish(self, where: str) -> None:
        """Log how many were skipped and why.

        Raises:
            DataError: no crystal is left.
        """
        count = self.reasons.total()
        words = "; ".join(f"{number:,}: {reason}" for reason, number in self.reasons.most_common())
        first = ", ".join(entry.name or entry.where for entry in self.first[:_NAMED])
        if not self.kept:
            raise DataError(f"{where}: no crystal is left that the model can take, of {count:,}. {words}.")
        if count:
            log.warning("%d of %d structures skipped. %s. First: %s.", count, count + self.kept, words, first)
