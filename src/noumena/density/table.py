"""Rows of numbers with named columns: the one form in which the density family trains, scores and evaluates."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.readers.checks import (
    LISTED_NAMES,
    Overflow,
    check_rows,
    check_unique,
    column_names,
    listed,
    missing_columns,
)

_HASHED_ROWS = 65536


@dataclass(frozen=True, eq=False)
class Table:
    """A table in memory. Made by the readers of :mod:`noumena.density.data` or by :func:`as_table`.

    Attributes:
        rows: the features, float32, shape (rows, columns); finite.
        columns: one name per column of ``rows``.
        labels: bool, shape (rows,), True = anomaly; used in evaluation only.
        groups: int64, shape (rows,), the trajectory or group a row belongs to.
        layout: JSON-able facts that, with the columns, let a further file be read the same way.
    """

    rows: Tensor
    columns: tuple[str, ...]
    labels: Tensor | None = None
    groups: Tensor | None = None
    layout: Mapping[str, Any] = field(default_factory=lambda: {"kind": "table"})

    @property
    def schema(self) -> dict[str, Any]:
        """What one row is: ``{"columns": [...], **layout}``; :func:`noumena.density.stream.stream_rows` reads by it."""
        return {"columns": list(self.columns), **self.layout}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.rows.device

    def batch(self, index: Tensor) -> Tensor:
        """The rows at ``index`` (int64, shape (batch,)), shape (batch, columns)."""
        return self.rows.index_select(0, index)

    def subset(self, index: Tensor) -> Self:
        """The table of the rows at ``index`` (int64, shape (rows of the subset,)), in that order."""
        index = index.to(self.rows.device)
        return self._map(lambda tensor: tensor.index_select(0, index))

    def to(self, device: torch.device | str) -> Self:
        """The same table on ``device``; itself when it is there already."""
        if self.rows.device == torch.device(device):
            return self
        return self._map(lambda tensor: tensor.to(device))

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        return sum(tensor.nbytes for tensor in (self.rows, self.labels, self.groups) if tensor is not None)

    def fingerprint(self) -> str:
        """``sha256:`` over shape, column names and every cell; labels and groups are not trained on and not hashed."""
        digest = hashlib.sha256(repr((tuple(self.rows.shape), self.columns)).encode())
        for part in self.rows.split(_HASHED_ROWS):
            digest.update(part.contiguous().cpu().numpy().data)
        return f"sha256:{digest.hexdigest()}"

    def _map(self, change: Any) -> Self:
        labels = None if self.labels is None else change(self.labels)
        groups = None if self.groups is None else change(self.groups)
        return replace(self, rows=change(self.rows), labels=labels, groups=groups)


def as_table(data: Any, columns: Sequence[str] | None = None, *, overflow: Overflow = "refuse") -> Table:
    """Anything that holds rows of numbers, as a :class:`Table`.

    Args:
        data: a ``Table``, a tensor, an array or nested list of shape (rows, columns), a pandas or polars data frame,
            or the path of a table file (all its rows). Float32 tensors and arrays are shared, not copied.
        columns: names. Of data that carry their own names (table, data frame, file) these columns are taken, in this
            order; for data without names they are the names. Default: the data's own, else ``x_0``, ``x_1``, ...
        overflow: see :func:`check_rows`.

    Raises:
        DataError: the data are not a table of finite numbers, or lack a column.
    """
    if isinstance(data, Table):
        return data if columns is None else _columns_of(data, columns)
    if isinstance(data, str | Path):
        return _table_of_file(data, columns, overflow)
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):
        array, names = _array_of_frame(data, columns)
        return Table(check_rows(array, names, "the data frame", overflow=overflow), names)
    where = "the tensor" if isinstance(data, Tensor) else "the array"
    array = data if isinstance(data, Tensor) else _array_of_values(data, where)
    width = array.shape[1] if array.ndim == 2 else 0
    names = column_names("x", width) if columns is None else tuple(map(str, columns))
    return Table(check_rows(array, names, where, overflow=overflow), names)


def _array_of_values(data: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(data)
    except ValueError as error:
        raise DataError(f"{where}: expected rows of equal length, found {error}. Pass a table of numbers.") from error


def _array_of_frame(frame: Any, columns: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values, shape (rows, columns), and names of a pandas-like data frame; text columns are refused by name."""
    own = {str(name): name for name in frame.columns}
    check_unique([str(name) for name in frame.columns], "the data frame")
    names = tuple(own) if columns is None else tuple(columns)
    if words := missing_columns(names, list(own)):
        raise DataError(f"the data frame: {words}")
    if not names:
        raise DataError("the data frame: expected at least one column, found none.")
    values = {name: _array_of_series(frame[own[name]]) for name in names}
    if text := [name for name, array in values.items() if array.dtype.kind not in "fiub"]:
        raise DataError(
            f"the data frame: {listed(text)} of type {values[text[0]].dtype} {'is' if len(text) == 1 else 'are'} "
            f"not numeric. Encode as numbers, or drop: frame.drop(columns={text[:LISTED_NAMES]})."
        )
    return np.column_stack(list(values.values())), names


def _array_of_series(series: Any) -> np.ndarray:
    """One column; pandas' nullable numbers become floats with NaN for what is missing."""
    if getattr(series.dtype, "na_value", None) is not None and getattr(series.dtype, "kind", "O") in "fiub":
        return series.to_numpy(dtype="float64", na_value=float("nan"))
    return series.to_numpy()


def _columns_of(table: Table, columns: Sequence[str]) -> Table:
    if tuple(columns) == table.columns:
        return table
    if words := missing_columns(columns, table.columns):
        raise DataError(f"the table: {words}")
    place = {name: number for number, name in enumerate(table.columns)}
    index = torch.tensor([place[name] for name in columns], device=table.rows.device)
    return replace(table, rows=table.rows.index_select(1, index), columns=tuple(columns))


def _table_of_file(path: str | Path, columns: Sequence[str] | None, overflow: Overflow) -> Table:
    from noumena.readers.tables import choose_columns, open_table_file

    file = open_table_file(path)
    if columns is not None and (words := missing_columns(columns, file.columns)):
        raise DataError(f"{path}: {words}")
    names = choose_columns(file, list(columns) if columns is not None else None)
    return Table(
        torch.cat(list(_checked(file.blocks(names, ()), names, str(path), overflow))), names, layout=file.layout
    )


def _checked(blocks: Iterator[Any], names: Sequence[str], where: str, overflow: Overflow) -> Iterator[Tensor]:
    for block in blocks:
        yield check_rows(block.rows, names, where, block.first_row, overflow)
