"""CSV and Parquet files: named columns, read block by block at constant memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noumena.core.errors import DataError
from noumena.readers.checks import check_unique
from noumena.readers.common import Block, block_rows, reading

# A line of the file must fit in one block of the CSV parser.
_CSV_BLOCK_BYTES = 1 << 20
_PARQUET_BUFFER_BYTES = 1 << 16
# What Arrow's own parser takes as a number.
_NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))\s*$"


class CsvFile:
    """A comma-separated file whose first line names the columns; empty cells are missing values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout: dict[str, Any] = {"kind": "table"}
        self.rows: int | None = None  # not known before the file is read
        self.columns: tuple[str, ...] = ()
        with reading(path), self._open([], text=True) as reader:
            self.columns = tuple(reader.schema.names)
        _check_header(path, self.columns)
        check_unique(self.columns, str(path))

    def not_numeric(self, names: Sequence[str]) -> dict[str, str]:
        """Column to an example, for the columns that hold text in the first block."""
        with reading(self.path), self._open(names, text=True) as reader:
            batch = next(iter(reader), None)
        if batch is None:
            return {}
        places = {name: _first_text(batch.column(name)) for name in names}
        return {n: f"row {row} is '{batch.column(n)[row]}'" for n, row in places.items() if row is not None}

    def blocks(self, features: Sequence[str], side: Sequence[str]) -> Iterator[Block]:
        """See :class:`~noumena.readers.common.TableFile`."""
        import pyarrow as pa

        first_row = 0
        with reading(self.path):
            try:
                with self._open([*features, *side], text=False, side=side) as reader:
                    for batch in reader:
                        if batch.num_rows:
                            yield _block(batch, features, side, first_row)
                            first_row += batch.num_rows
            except pa.ArrowInvalid:
                self._explain(features)
                raise  # something else was the trouble

    def _explain(self, features: Sequence[str]) -> None:
        """Read again as text, and raise for the first cell that is not a number."""
        first_row = 0
        with self._open(features, text=True) as reader:
            for batch in reader:
                places = {name: _first_text(batch.column(name)) for name in features}
                found = {name: row for name, row in places.items() if row is not None}
                if found:
                    name, row = min(found.items(), key=lambda item: item[1])
                    raise DataError(
                        f"{self.path}: row {first_row + row} (counted from 0), column '{name}' is "
                        f"'{batch.column(name)[row]}', which is not a number. Correct it, or leave the cell empty if "
                        "it is missing."
                    )
                first_row += batch.num_rows

    def _open(self, include: Sequence[str], *, text: bool, side: Sequence[str] = ()) -> Any:
        import pyarrow as pa
        from pyarrow import csv

        types = {name: pa.string() if text or name in side else pa.float64() for name in include}
        options = csv.ConvertOptions(include_columns=list(include), column_types=types, strings_can_be_null=True)
        return csv.open_csv(
            self.path,
            # One thread: the parser then tells the line of an error, and is no slower.
            read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
            # A blank line is a missing value where there is a single column, and nothing elsewhere.
            parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(self.columns) != 1),
            convert_options=options,
        )


class ParquetFile:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self.path = path
        self.layout: dict[str, Any] = {"kind": "table"}
        with reading(path):
            self._schema = parquet.read_schema(path)
            self.rows: int | None = parquet.read_metadata(path).num_rows
        self.columns: tuple[str, ...] = tuple(self._schema.names)
        check_unique(self.columns, str(path))
        if self.rows == 0:
            raise DataError(f"{path}: expected at least one row, found none. Check how the file was made.")

    def not_numeric(self, names: Sequence[str]) -> dict[str, str]:
        """Column to its type, for the columns that are not numeric."""
        types = {name: self._schema.field(name).type for name in names}
        return {name: str(kind) for name, kind in types.items() if not _is_numeric(kind)}

    def blocks(self, features: Sequence[str], side: Sequence[str]) -> Iterator[Block]:
        """See :class:`~noumena.readers.common.TableFile`."""
        from pyarrow import parquet

        first_row = 0
        wanted = list(dict.fromkeys([*features, *side]))
        with (
            reading(self.path),
            parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file,
        ):
            for batch in file.iter_batches(batch_size=block_rows(len(wanted)), columns=wanted, use_threads=False):
                if batch.num_rows:
                    yield _block(batch, features, side, first_row)
                    first_row += batch.num_rows


def _block(batch: Any, features: Sequence[str], side: Sequence[str], first_row: int) -> Block:
    import pyarrow as pa

    rows = np.empty((batch.num_rows, len(features)))
    for number, name in enumerate(features):
        column = batch.column(name)
        # safe=False: an integer above 2^53 is rounded, not refused.
        plain = column if column.type == pa.float64() else column.cast(pa.float64(), safe=False)
        rows[:, number] = plain.to_numpy(zero_copy_only=False)
    texts = {name: batch.column(name).cast(pa.string()).fill_null("") for name in side}
    beside = {name: text.to_numpy(zero_copy_only=False).astype(str) for name, text in texts.items()}
    return Block(rows, beside, first_row)


def _first_text(column: Any) -> int | None:
    """Row of the first cell of a text column that is neither missing nor a number."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made at run time, where no type checker sees them
    row = compute.index(compute.match_substring_regex(column, _NUMBER), False).as_py()
    return None if row < 0 else row


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    test = pa.types
    return (
        test.is_integer(kind)
        or test.is_floating(kind)
        or test.is_boolean(kind)
        or test.is_decimal(kind)
        or test.is_null(kind)
    )


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuse two headers that would be read without complaint and be wrong.

    Raises:
        DataError: another separator than the comma, or data where the names should be.
    """
    if len(names) == 1 and (mark := next((mark for mark in (";", "\t", "|") if mark in names[0]), None)):
        shown = "a tab" if mark == "\t" else f"'{mark}'"
        raise DataError(f"{path}: columns seem separated by {shown}. Write the file with commas, or as Parquet.")
    # Column names 0, 1, 2, ... are what pandas writes for a frame without names.
    numbers = list(map(_number, names))
    if None not in numbers and numbers != list(range(len(names))):
        raise DataError(
            f"{path}: the first line should name the columns, found numbers ({', '.join(names[:4])}...). "
            "Add a line of names."
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
