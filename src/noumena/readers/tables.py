"""One view of every table file: its columns, its rows if known, and its blocks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.readers.arrays import ArrayInfo, array_blocks, check_two_dimensional, list_arrays, whole_array
from noumena.readers.checks import column_names, missing_columns
from noumena.readers.columns import CsvFile, ParquetFile
from noumena.readers.common import COLUMN_SUFFIXES, TABLE_SUFFIXES, Block, TableFile, suffix_of

# How pandas writes a row index into CSV and Parquet: never a feature unless asked for by name.
_INDEX_NAMES = ("", "__index_level_0__")


class ArrayTable:
    """A 2-D array of a .npy, .npz or HDF5 file; labels and groups are 1-D arrays of the same file."""

    def __init__(self, path: Path, key: str | None, arrays: Mapping[str, ArrayInfo]) -> None:
        self.path = path
        self.arrays = arrays
        self.key = _choose_key(path, key, arrays)
        info = arrays[self.key]
        check_two_dimensional(path, self.key, info)
        self.rows: int | None = info.shape[0]
        self.columns = column_names("x", info.shape[1])
        # The width tells a further file of all columns from one that holds the chosen columns only.
        self.layout: dict[str, Any] = {"kind": "table", "width": info.shape[1], **({"key": key} if key else {})}

    def not_numeric(self, names: Sequence[str]) -> dict[str, str]:
        """None: the type of the array has been checked."""
        return {}

    def blocks(self, features: Sequence[str], side: Sequence[str]) -> Iterator[Block]:
        """See :class:`~noumena.readers.common.TableFile`."""
        texts = {name: whole_array(self.path, name).astype(str) for name in side}
        place = {name: number for number, name in enumerate(self.columns)}
        chosen = [place[name] for name in features]
        every = chosen == list(range(len(self.columns)))
        first_row = 0
        for arrays in array_blocks(self.path, [self.key]):
            rows = arrays[self.key] if every else arrays[self.key][:, chosen]
            stop = first_row + len(rows)
            yield Block(rows, {name: text[first_row:stop] for name, text in texts.items()}, first_row)
            first_row = stop


def open_table_file(path: str | Path, key: str | None = None) -> TableFile:
    """Read the header of a table file.

    Args:
        path: .csv, .parquet, .pq, .npy, .npz, .h5 or .hdf5.
        key: the 2-D array of an .npz or HDF5 file; default ``X`` or the only one.

    Raises:
        DataError: the file is missing, damaged, empty, pickled or of another format.
        ConfigError: ``key`` does not fit the file.
    """
    path = Path(path)
    suffix = suffix_of(path, TABLE_SUFFIXES)
    if key is not None and suffix in (*COLUMN_SUFFIXES, ".npy"):
        raise ConfigError(f"{path}: key='{key}' names an array of an .npz or HDF5 file; leave it out for {suffix}.")
    if suffix == ".csv":
        return CsvFile(path)
    if suffix in COLUMN_SUFFIXES:
        return ParquetFile(path)
    return ArrayTable(path, key, list_arrays(path))


def choose_columns(
    file: TableFile,
    columns: list[str] | None = None,
    exclude: list[str] | None = None,
    side: Sequence[str] = (),
) -> tuple[str, ...]:
    """The feature columns: those asked for, in that order, else all but ``exclude`` and ``side``.

    Raises:
        ConfigError: a name is unknown or contradictory.
        DataError: a column is not numeric, is a row index, or none is left.
    """
    _check_names(file, columns, exclude, side)
    left_out = {*(exclude or ()), *side}
    names = tuple(columns) if columns is not None else tuple(name for name in file.columns if name not in left_out)
    if not names:
        raise DataError(f"{file.path}: no column is left to train on. Exclude fewer of: {', '.join(file.columns)}.")
    if columns is None and (index := [name for name in names if name in _INDEX_NAMES]):
        raise DataError(
            f"{file.path}: column {file.columns.index(index[0])} is named '{index[0]}', as pandas writes a row index. "
            f"Leave it out with exclude={index}, or write the file with index=False."
        )
    if text := file.not_numeric(names):
        listed = ", ".join(f"'{name}' ({what})" for name, what in text.items())
        leave_out = f", or leave out with exclude={list(text)}" if columns is None else ""
        raise DataError(f"{file.path}: not numeric: {listed}. Encode as numbers{leave_out}.")
    return names


def check_side(file: TableFile, option: str, name: str | None) -> None:
    """Refuse a label or group that the file does not have.

    Raises:
        ConfigError: unknown name, or a format that holds a single array.
        DataError: another number of entries than rows.
    """
    if name is None:
        return
    if not isinstance(file, ArrayTable):
        if words := missing_columns([name], file.columns):
            raise ConfigError(f"{option}='{name}': {file.path} has {words}")
        return
    if file.path.suffix.lower() == ".npy":
        raise ConfigError(f"{option}='{name}': {file.path} holds one array. Save both in one .npz file.")
    flat = {other: info for other, info in file.arrays.items() if len(info.shape) == 1}
    if name not in flat:
        raise ConfigError(f"{option}='{name}': {file.path} has no such 1-D array. {did_you_mean(name, flat)}")
    if (found := flat[name].shape[0]) != file.rows:
        raise DataError(
            f"{file.path}: '{name}' has {found} entries but '{file.key}' has {file.rows} rows. Give one for each row."
        )


def _check_names(file: TableFile, columns: list[str] | None, exclude: list[str] | None, side: Sequence[str]) -> None:
    if columns is not None and exclude is not None:
        raise ConfigError("give columns (what to use) or exclude (what to leave out), not both.")
    for option, names in (("columns", columns), ("exclude", exclude)):
        if names is not None and (words := missing_columns(names, file.columns)):
            raise ConfigError(f"{option}: {file.path} has {words}")
    if columns is not None and len(set(columns)) < len(columns):
        raise ConfigError(f"columns: a name occurs twice in {columns}. Name each column once.")
    if both := sorted(set(columns or ()) & set(side)):
        raise ConfigError(f"columns: '{both[0]}' is the label or the group and cannot be a feature. Leave it out.")


def _choose_key(path: Path, key: str | None, arrays: Mapping[str, ArrayInfo]) -> str:
    """The name of the 2-D array to read."""
    if "" in arrays:
        return ""
    tables = [name for name, info in arrays.items() if len(info.shape) == 2]
    if key is not None:
        if key not in arrays:
            raise ConfigError(f"{path}: no array '{key}'. {did_you_mean(key, arrays)}")
        return key
    if "X" in arrays:
        return "X"
    if len(tables) == 1:
        return tables[0]
    if "observations" in arrays:
        raise DataError(
            f"{path}: holds episodes ({', '.join(tables)}). Open it as such (open_episodes, data.kind=episodes), "
            "or name one array with key=..."
        )
    found = f"{len(tables)} of them ({', '.join(tables[:10])})" if tables else f"none among {list(arrays)[:10]}"
    raise DataError(f"{path}: expected one 2-D array or one named 'X', found {found}. Name it with key=...")
