"""From paths to crystals in memory: several sources, shipped samples, folders of the field's layout, lists of ids."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.reading import Reading, Skipped, read
from noumena.crystals.reduction import Reduction

SAMPLE = "sample:"

UNITS = {
    "band_gap": "eV",
    "dir_gap": "eV",
    "ind_gap": "eV",
    "formation_energy_per_atom": "eV/atom",
    "energy_per_atom": "eV/atom",
    "e_above_hull": "eV/atom",
    "energy_above_hull": "eV/atom",
    "bulk_modulus": "GPa",
    "mag_density": "muB/angstrom^3",
}
"""Of properties by the names that the field's files use."""

_ID_COLUMNS = ("material_id", "id", "name", "mp_id", "mpid", "structure_id", "filename", "identifier", "refcode")
_FIRST = 5  # skipped structures that are named


@dataclass(frozen=True)
class Options:
    """How to read; see :func:`noumena.crystals.data.open_crystals`."""

    reduction: Reduction = "niggli"
    max_atoms: int | None = None
    strict: bool = False
    properties: Sequence[str] | None = None
    id_column: str | None = None
    workers: int | None = None
    cache: str | None = None


@dataclass(frozen=True)
class Loaded:
    """Crystals of several sources, one after the other.

    Attributes:
        crystals: all of them.
        properties: numbers by name, NaN where a source has none, each of shape (crystals,).
        source: number of each crystal's source, int64, shape (crystals,).
        skipped: what was left out on reading.
        reasons: how many structures were left out for each reason.
    """

    crystals: CrystalBatch
    properties: dict[str, Tensor]
    source: Tensor
    skipped: list[Skipped]
    reasons: dict[str, int]


def load(sources: Sequence[str], options: Options) -> Loaded:
    """All crystals of some sources, in order.

    Raises:
        DataError, ConfigError, NotSupportedError: as :func:`noumena.crystals.reading.read`; or nothing is left.
    """
    parts = [_read(source, options) for source in sources]
    names = list(dict.fromkeys(name for part in parts for name in part.properties))
    crystals = CrystalBatch.cat([part.crystals for part in parts])
    return Loaded(
        crystals,
        {name: torch.cat([_property(part, name) for part in parts]) for name in names},
        torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part.crystals) for part in parts])),
        [entry for part in parts for entry in part.skipped],
        dict(sum((Counter(part.about["skipped_reasons"]) for part in parts), Counter[str]()).most_common()),
    )


def _read(source: str, options: Options) -> Reading:
    return read(
        source,
        reduction=options.reduction,
        max_atoms=options.max_atoms,
        strict=options.strict,
        properties=options.properties,
        id_column=options.id_column,
        workers=options.workers,
        cache=options.cache,
    )


def _property(part: Reading, name: str) -> Tensor:
    missing = torch.full((len(part.crystals),), float("nan"), dtype=torch.float64)
    return part.properties.get(name, missing)


def sources_of(path: str | Path) -> list[str]:
    """The sources that a text names: itself if it is a file or folder, or those between its commas.

    Raises:
        ConfigError: it is empty, or names a sample that is not shipped.
    """
    text = str(path)
    parts = [text] if text and Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigError("path: expected a file, a folder, several with commas between them, or sample:mp20.")
    return [str(sample_path(part)) if part.startswith(SAMPLE) else part for part in parts]


def sample_path(name: str) -> Path:
    """The shipped file for a name such as ``sample:mp20``.

    Raises:
        ConfigError: there is no such sample.
    """
    folder = Path(str(resources.files("noumena.crystals") / "samples"))
    known = [SAMPLE + file.stem for file in sorted(folder.glob("*.parquet"))]
    if name not in known:
        raise ConfigError(f"no data '{name}' in the package. {did_you_mean(name, known)}")
    return folder / f"{name.removeprefix(SAMPLE)}.parquet"


def files_of_parts(path: str) -> dict[str, str]:
    """The files ``train``, ``val`` and ``test`` of a folder in the field's layout, whatever their ending; or none.

    Raises:
        DataError: a part has several.
    """
    folder = Path(path)
    if not folder.is_dir():
        return {}
    found: dict[str, str] = {}
    for part in ("train", "val", "test"):
        files = sorted(file for file in folder.glob(f"{part}.*") if file.name.partition(".")[0] == part)
        files += [folder / part] if (folder / part).is_dir() else []
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise DataError(
                f"{path}: several files for {part} ({names}). Keep one, or name them in path and {part}_path."
            )
        if files:
            found[part] = str(files[0])
    return found if "train" in found and len(found) > 1 else {}


def ids_of(path: str, options: Options) -> set[str]:
    """The ids, or names, of the crystals in some files; of a table or a text file without reading structures.

    Args:
        path: .csv or .parquet files with a column of ids, a .txt file with an id on each line, or files of crystals;
            several with commas between them.
        options: how structures are read, and which column has the ids.

    Raises:
        DataError: a file cannot be read, or a table has no such column.
    """
    found: set[str] = set()
    for source in sources_of(path):
        suffix = Path(source).suffix.lower()
        if suffix == ".txt":
            found |= _lines(Path(source))
        elif suffix in (".csv", ".parquet"):
            found |= _column(Path(source), options.id_column)
        else:
            found |= set(_read(source, options).crystals.names)
    return found


def _lines(path: Path) -> set[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of ids ({error}). Write one id on each line.") from error
    return {line.strip() for line in text.splitlines() if line.strip()}


def _column(path: Path, name: str | None) -> set[str]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.suffix.lower() == ".parquet":
            columns = parquet.read_schema(path).names
            chosen = _id_column(path, columns, name)
            values: Any = parquet.read_table(path, columns=[chosen]).column(0)
        else:
            multiline = csv.ParseOptions(newlines_in_values=True)
            with csv.open_csv(path, parse_options=multiline) as file:
                chosen = _id_column(path, file.schema.names, name)
            convert = csv.ConvertOptions(include_columns=[chosen], column_types={chosen: pa.string()})
            values = csv.read_csv(path, parse_options=multiline, convert_options=convert).column(0)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as a table of ids ({error}). Check the file.") from error
    return {str(value) for value in values.to_pylist() if value is not None}


def _id_column(path: Path, columns: Sequence[str], name: str | None) -> str:
    wanted = _ID_COLUMNS if name is None else (name,)
    chosen = next((column for column in wanted if column in columns), None)
    if chosen is None:
        raise DataError(f"{path}: no column of ids ({', '.join(wanted)}) among {', '.join(columns)}. Set id_column.")
    return chosen


def skipped_in_words(loaded: Loaded) -> dict[str, Any]:
    """How many structures were skipped for each reason, and the first of them; empty if none was."""
    if not loaded.skipped:
        return {}
    return {"skipped": loaded.reasons, "first_skipped": [str(entry) for entry in loaded.skipped[:_FIRST]]}
