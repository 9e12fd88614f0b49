"""Rows of numbers with named columns: the one form in which the density family trains, scores and evaluates."""

import difflib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError, did_you_mean

Overflow = Literal["refuse", "clip"]
_FLOAT32_MAX = torch.finfo(torch.float32).max
_HASHED_ROWS = 65536
_LISTED_NAMES = 20


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


def check_rows(
    array: np.ndarray | Tensor,
    columns: Sequence[str],
    where: str,
    first_row: int = 0,
    overflow: Overflow = "refuse",
) -> Tensor:
    """The one gate that every row passes: a non-empty table of finite numbers, as float32.

    Args:
        array: shape (rows, columns), any real, integer or bool type. A float32 tensor or array is not copied.
        columns: one name per column.
        where: what the array is, for messages: a file, "the data frame".
        first_row: number of the array's first row within ``where``, for messages.
        overflow: finite numbers beyond the float32 range: "refuse" them (training), or "clip" them to the largest
            float32 (scoring: a far row must be scored as far, never lost).

    Returns:
        float32 tensor, shape (rows, columns), on the array's device.

    Raises:
        DataError: wrong shape or type, no rows, no columns, NaN, infinity, or (with "refuse") beyond float32.
    """
    values = _real_tensor(array, where)
    _check_shape(values, columns, where)
    rows = _as_float32(values)
    if _is_finite(rows):
        return rows
    _refuse_not_finite(values, columns, where, first_row)
    if overflow == "refuse":
        _refuse(rows.isinf(), values, columns, where, first_row, "Rescale the column, or convert it to other units.")
    return values.clamp(-_FLOAT32_MAX, _FLOAT32_MAX).to(torch.float32)


def check_dtype(dtype: np.dtype, where: str) -> None:
    """Refuse, in words, an array whose type is not real, integer or bool.

    Raises:
        DataError: it holds objects, text, complex numbers, dates or named fields.
    """
    if dtype.kind in "fiub":
        return
    found, remedy = {
        "O": ("Python objects", "Convert it to numbers, e.g. array.astype('float32')"),
        "c": ("complex numbers", "Split it into real and imaginary columns"),
        "V": ("records with named fields", "Save a plain 2-D array, or a CSV or Parquet file with named columns"),
        "M": ("dates", "Convert them to numbers, e.g. seconds since a start"),
        "m": ("time spans", "Convert them to numbers, e.g. seconds"),
    }.get(dtype.kind, ("text", "Encode it as numbers"))
    raise DataError(f"{where}: expected numbers, found {found} (type {dtype}). {remedy}.")


def column_names(prefix: str, width: int) -> tuple[str, ...]:
    """``prefix_0``, ``prefix_1``, ... for columns that carry no names."""
    return tuple(f"{prefix}_{number}" for number in range(width))


def check_unique(names: Sequence[str], where: str) -> None:
    """Refuse column names that occur twice, since a column could not be told by its name.

    Raises:
        DataError: it names them.
    """
    if len(set(names)) == len(names):
        return
    twice = sorted({name for name in names if names.count(name) > 1})
    raise DataError(f"{where}: column names must differ, found more than once: {_listed(twice)}. Rename them.")


def missing_columns(wanted: Sequence[str], known: Sequence[str]) -> str | None:
    """Words about the ``wanted`` columns that are not ``known``, with the nearest known name; None if all are there."""
    missing = [name for name in wanted if name not in set(known)]
    if not missing:
        return None
    more = "" if len(missing) == 1 else f" and {len(missing) - 1} further ones"
    # Of a wide table only a few names help; the nearest one is found among all.
    near = did_you_mean(missing[0], known if len(known) <= _LISTED_NAMES else _nearest(missing[0], known))
    return f"no column '{missing[0]}'{more} among {len(known)} columns. {near}"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or list(known[:_LISTED_NAMES])
    return [*near, "..."]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_LISTED_NAMES])
    return shown if len(names) <= _LISTED_NAMES else f"{shown} and {len(names) - _LISTED_NAMES} more"


def _real_tensor(array: np.ndarray | Tensor, where: str) -> Tensor:
    """The array as a tensor of a type torch computes with; shares memory where that is safe."""
    if isinstance(array, Tensor):
        if array.is_complex() or array.layout != torch.strided:
            raise DataError(f"{where}: expected a dense real tensor, found {array.dtype}, {array.layout}.")
        return array.detach()
    check_dtype(array.dtype, where)
    # float64 is kept so that a number beyond float32 is told from an infinity; every integer fits in float32's range.
    kept = np.float64 if array.dtype.kind == "f" and array.dtype.itemsize > 4 else np.float32
    with np.errstate(over="ignore"):
        plain = np.ascontiguousarray(array, dtype=kept)
    if plain.shape != array.shape:  # ascontiguousarray makes a scalar 1-D
        plain = plain.reshape(array.shape)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())


def _as_float32(values: Tensor) -> Tensor:
    # numpy where it can: one thread is enough, and torch's many wait for each other on a busy machine.
    if values.device.type == "cpu" and values.dtype == torch.float64:
        with np.errstate(over="ignore"):
            return torch.from_numpy(values.numpy().astype(np.float32))
    return values.to(torch.float32)


def _is_finite(rows: Tensor) -> bool:
    if rows.device.type == "cpu":
        return bool(np.isfinite(rows.numpy()).all())
    return bool(rows.isfinite().all())


def _check_shape(values: Tensor, columns: Sequence[str], where: str) -> None:
    shape = tuple(values.shape)
    if values.ndim != 2:
        remedy = {
            0: "Pass a table.",
            1: "Use x.reshape(1, -1) for one row, x.reshape(-1, 1) for one column.",
        }.get(values.ndim, "Flatten the further axes, e.g. x.reshape(len(x), -1).")
        raise DataError(f"{where}: expected a table of shape (rows, columns), found shape {shape}. {remedy}")
    if shape[0] == 0:
        raise DataError(f"{where}: expected at least one row, found none (shape {shape}). Check how it was made.")
    if shape[1] == 0:
        raise DataError(f"{where}: expected at least one column, found none (shape {shape}). Check how it was made.")
    if shape[1] != len(columns):
        raise DataError(
            f"{where}: expected {len(columns)} columns ({_listed(columns)}), found {shape[1]}. "
            "Pass the same columns, in the same order."
        )


def _refuse_not_finite(values: Tensor, columns: Sequence[str], where: str, first_row: int) -> None:
    if bool((bad := values.isnan()).any()):
        remedy = "Fill in or leave out such rows; in training, missing='drop' leaves them out of a table file."
        _refuse(bad, values, columns, where, first_row, remedy)
    if bool((bad := values.isinf()).any()):
        remedy = "Replace infinities by finite numbers, or leave out such rows."
        _refuse(bad, values, columns, where, first_row, remedy)


def _refuse(bad: Tensor, values: Tensor, columns: Sequence[str], where: str, first_row: int, remedy: str) -> None:
    """Raise for the first True of ``bad`` (shape (rows, columns)), in row order."""
    rows = bad.any(dim=1)
    row = int(rows.to(torch.uint8).argmax())
    column = int(bad[row].to(torch.uint8).argmax())
    value = float(values[row, column])
    found = "NaN" if math.isnan(value) else f"{value:g}"
    beyond = ", beyond the float32 range (3.4e38)" if math.isfinite(value) else ""
    count = int(bad.sum())
    others = "the only one" if count == 1 else f"one of {count:,} such values in {int(rows.sum()):,} rows"
    raise DataError(
        f"{where}: row {first_row + row} (counted from 0), column '{columns[column]}' is {found}{beyond}: {others} "
        f"among the rows {first_row} to {first_row + len(rows) - 1}. {remedy}"
    )


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
            f"the data frame: {_listed(text)} of type {values[text[0]].dtype} {'is' if len(text) == 1 else 'are'} "
            f"not numeric. Encode as numbers, or drop: frame.drop(columns={text[:_LISTED_NAMES]})."
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
    from noumena.density.files_tables import choose_columns, open_table_file

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
