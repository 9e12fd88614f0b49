"""Crystals of tables: CSV and Parquet with a column of CIF texts, Parquet with columns of numbers."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.crystals.formats.cells import cell, impossible
from noumena.crystals.formats.raw import Raw, Skipped
from noumena.crystals.formats.texts import Text, Texts

_IDS = ("material_id", "id", "name", "mp_id", "mpid", "structure_id", "filename", "identifier", "refcode")
_NOT_PROPERTIES = frozenset(
    ("", "Unnamed: 0", "__index_level_0__", "num_atoms", "nsites", "a", "b", "c", "alpha", "beta", "gamma", "volume")
)
_UNKNOWN = frozenset(("", "nan", "none", "null", "na", "n/a", "?", "-"))
_NO_CELL = [[math.nan] * 3] * 3
_BLOCK = 1 << 25  # bytes; a row is never longer


@dataclass(frozen=True)
class Columns:
    """What is read of a table.

    Attributes:
        id: column of the names; None numbers the rows.
        properties: columns of numbers.
        cif: column of CIF texts; None reads ``atomic_numbers``, ``frac_coords`` and ``lattice``.
    """

    id: str | None
    properties: tuple[str, ...]
    cif: str | None


def csv_pieces(path: Path, rows: int, properties: Sequence[str] | None, id_column: str | None) -> Iterator[Texts]:
    """The rows of a CSV file with a column ``cif``; compressed (.csv.gz) or not.

    Args:
        path: of the file.
        rows: in a piece, at most.
        properties: columns of numbers; None takes those whose first values are numbers.
        id_column: of the names; None takes ``material_id``, ``id``, ``name`` ... or the number of the row.

    Raises:
        DataError: no such column, a property that is no number, or a damaged file.
        ConfigError: a column asked for is not there.
    """
    import pyarrow as pa

    names = _csv_names(path)
    try:
        chosen: Columns | None = None
        row = 0
        for batch in _csv_batches(path, names):
            table: Any = pa.Table.from_batches([batch])
            if chosen is None:
                chosen = _csv_columns(path, table, properties, id_column)
            for start in range(0, table.num_rows, rows):
                part = table.slice(start, rows)
                yield _rows_of_text(path, part, chosen, row)
                row += part.num_rows
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: it cannot be read as CSV: {error}.") from error


def parquet_pieces(
    path: Path, rows: int, properties: Sequence[str] | None, id_column: str | None
) -> Iterator[Texts | Raw]:
    """The rows of a Parquet file: with a column ``cif``, or with columns of numbers, which take no loop over rows.

    Numbers are ``atomic_numbers`` (list), ``frac_coords`` (list of triples, or one list of three times as many) and
    ``lattice`` (nine numbers by rows, or three lists of three), or in its place ``a``, ``b``, ``c``, ``alpha``,
    ``beta``, ``gamma``.

    Args:
        path, rows, id_column: as for :func:`csv_pieces`.
        properties: columns of numbers; None takes all but those that say what the cell is.

    Raises:
        DataError, ConfigError: as there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file: Any = pq.ParquetFile(path)
        chosen, wanted = _parquet_columns(path, file.schema_arrow, properties, id_column)
        row = 0
        for batch in file.iter_batches(batch_size=rows, columns=wanted):
            table: Any = pa.Table.from_batches([batch])
            read = _rows_of_text if chosen.cif else _rows_of_numbers
            yield read(path, table, chosen, row)
            row += table.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {error}.") from error


def parquet_rows(path: Path) -> int:
    """How many rows a Parquet file has.

    Raises:
        DataError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(cast("Any", pq.ParquetFile(path)).metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {error}.") from error


def _csv_names(path: Path) -> list[str]:
    import pyarrow as pa

    with pa.input_stream(str(path), compression="detect") as stream:
        head = bytes(stream.read(1 << 20)).decode("utf-8-sig", "replace")
    names = next(csv.reader(head.splitlines()), [])
    if "cif" not in names:
        raise DataError(f"{path}: it has no column 'cif'; the columns are {', '.join(names) or 'none'}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: several columns have the name '{twice[0]}'; give each its own.")
    return names


def _csv_batches(path: Path, names: Sequence[str]) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv as reader

    options: Any = reader
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from options.open_csv(
            stream,
            read_options=options.ReadOptions(block_size=_BLOCK, use_threads=False),
            parse_options=options.ParseOptions(newlines_in_values=True),
            convert_options=options.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )


def _csv_columns(path: Path, table: Any, properties: Sequence[str] | None, id_column: str | None) -> Columns:
    names: list[str] = table.column_names
    name = _id_column(path, names, id_column)
    if properties is None:
        others = [column for column in names if column not in _NOT_PROPERTIES and column not in ("cif", name)]
        properties = [column for column in others if _is_numeric(table[column].to_pylist())]
    _check_known(path, properties, names)
    return Columns(name, tuple(properties), "cif")


def _is_numeric(texts: Sequence[str]) -> bool:
    known = [text for text in texts if text.strip().lower() not in _UNKNOWN]
    try:
        return bool(known) and all(np.isfinite(float(text)) or True for text in known)
    except ValueError:
        return False


def _parquet_columns(
    path: Path, schema: Any, properties: Sequence[str] | None, id_column: str | None
) -> tuple[Columns, list[str]]:
    """What to read, and the columns that holds."""
    import pyarrow.types as kinds

    names: list[str] = schema.names
    name = _id_column(path, names, id_column)
    cell = ["lattice"] if "lattice" in names else ["a", "b", "c", "alpha", "beta", "gamma"]
    numbers = ["atomic_numbers", "frac_coords", *cell]
    cif = None if set(numbers) <= set(names) else "cif"
    if cif and "cif" not in names:
        raise DataError(
            f"{path}: expected a column 'cif', or columns 'atomic_numbers', 'frac_coords' and 'lattice'; the columns "
            f"are {', '.join(names)}."
        )
    if properties is None:
        kind: Any = kinds
        numeric = [one.name for one in schema if kind.is_floating(one.type) or kind.is_integer(one.type)]
        properties = [column for column in numeric if column not in _NOT_PROPERTIES and column != name]
    _check_known(path, properties, names)
    chosen = Columns(name, tuple(properties), cif)
    return chosen, list(dict.fromkeys([*([cif] if cif else numbers), *([name] if name else []), *properties]))


def _id_column(path: Path, names: Sequence[str], asked: str | None) -> str | None:
    if asked is None:
        return next((name for name in _IDS if name in names), None)
    _check_known(path, [asked], names)
    return asked


def _check_known(path: Path, asked: Sequence[str], names: Sequence[str]) -> None:
    for name in asked:
        if name not in names:
            raise ConfigError(f"{path}: there is no column '{name}'. {did_you_mean(name, names)}")


def _labels(path: Path, table: Any, chosen: Columns, first: int) -> tuple[list[str], list[str]]:
    """Names and places of the rows."""
    rows = range(first, first + table.num_rows)
    where = [f"{path.name}: row {row}" for row in rows]
    if chosen.id is None:
        return [f"{path.stem}:{row}" for row in rows], where
    given: list[Any] = table[chosen.id].to_pylist()
    return [str(row) if name in (None, "") else str(name) for name, row in zip(given, rows, strict=True)], where


def _rows_of_text(path: Path, table: Any, chosen: Columns, first: int) -> Texts:
    names, where = _labels(path, table, chosen, first)
    texts: list[Any] = table["cif"].to_pylist()
    return Texts(
        [Text(place, name, "cif", text or "", row=True) for place, name, text in zip(where, names, texts, strict=True)],
        _properties(path, table, chosen, first),
    )


def _properties(path: Path, table: Any, chosen: Columns, first: int) -> Mapping[str, np.ndarray]:
    return {name: _floats(path, name, table[name], first) for name in chosen.properties}


def _floats(path: Path, name: str, column: Any, first: int) -> np.ndarray:
    """A column as float64, shape (rows,); NaN where there is no number."""
    import pyarrow as pa
    import pyarrow.types as kinds

    kind: Any = kinds
    if kind.is_floating(column.type) or kind.is_integer(column.type) or kind.is_boolean(column.type):
        return np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    values = np.full(len(column), np.nan)
    for row, text in enumerate(column.to_pylist()):
        if text is None or str(text).strip().lower() in _UNKNOWN:
            continue
        try:
            values[row] = float(text)
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: row {first + row}, column '{name}' is '{str(text)[:40]}'; expected a number, or nothing "
                "where it is not known. Name the columns of numbers as properties."
            ) from None
    return values


def _rows_of_numbers(path: Path, table: Any, chosen: Columns, first: int) -> Raw:
    names, where = _labels(path, table, chosen, first)
    types, type_counts = _flat(table["atomic_numbers"])
    frac, counts = _flat(table["frac_coords"])
    lattice, cell_known = _lattices(table)
    good = (type_counts > 0) & (counts == 3 * type_counts) & cell_known
    skipped = [
        Skipped(where[row], names[row], _why_not(int(type_counts[row]), int(counts[row]), bool(cell_known[row])))
        for row in np.flatnonzero(~good).tolist()
    ]
    kept = np.flatnonzero(good)
    properties = _properties(path, table, chosen, first)
    return Raw(
        lattice=lattice[kept],
        frac_coords=frac[np.repeat(good, counts)].reshape(-1, 3).astype(np.float64),
        atom_types=types[np.repeat(good, type_counts)].astype(np.int64),
        num_atoms=type_counts[kept],
        names=[names[row] for row in kept.tolist()],
        where=[where[row] for row in kept.tolist()],
        properties={name: values[kept] for name, values in properties.items()},
        skipped=tuple(skipped),
    )


def _why_not(types: int, coords: int, cell_known: bool) -> str:
    if not types:
        return "it has no atoms"
    if coords != 3 * types:
        return f"it has {types} atomic numbers and {coords} coordinates; expected three per atom"
    return "its cell is missing" if not cell_known else "its cell has not nine numbers"


def _flat(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of a column of (nested) lists one after the other, and how many each row has, int64, (rows,)."""
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    compute, kind = cast("Any", pc), cast("Any", kinds)
    array = column.combine_chunks()
    owner = np.arange(len(array))
    while kind.is_list(array.type) or kind.is_large_list(array.type) or kind.is_fixed_size_list(array.type):
        parents = compute.list_parent_indices(array).to_numpy(zero_copy_only=False)
        owner = owner[parents.astype(np.int64)]
        array = compute.list_flatten(array)
    values = array.to_numpy(zero_copy_only=False)
    return values, np.bincount(owner, minlength=len(column)).astype(np.int64)


def _lattices(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the rows, shape (rows, 3, 3), and whether each is given."""
    if "lattice" in table.column_names:
        values, counts = _flat(table["lattice"])
        known = counts == 9
        lattice = np.full((len(counts), 3, 3), np.nan)
        lattice[known] = values[np.repeat(known, counts)].reshape(-1, 3, 3)
        return lattice, known
    given = [table[name].to_numpy(zero_copy_only=False) for name in ("a", "b", "c", "alpha", "beta", "gamma")]
    parameters = np.stack(given, 1).astype(np.float64)
    known = np.array(np.isfinite(parameters).all(1))
    rows = [cell(row) if impossible(row) is None else _NO_CELL for row in parameters.tolist()]
    return np.array(rows).reshape(-1, 3, 3), known
