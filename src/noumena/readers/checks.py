"""The checks every row of numbers passes, whatever file or array it comes from."""

import difflib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError, did_you_mean

Overflow = Literal["refuse", "clip"]
_FLOAT32_MAX = torch.finfo(torch.float32).max
LISTED_NAMES = 20


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
    raise DataError(f"{where}: column names must differ, found more than once: {listed(twice)}. Rename them.")


def missing_columns(wanted: Sequence[str], known: Sequence[str]) -> str | None:
    """Words about the ``wanted`` columns that are not ``known``, with the nearest known name; None if all are there."""
    missing = [name for name in wanted if name not in set(known)]
    if not missing:
        return None
    more = "" if len(missing) == 1 else f" and {len(missing) - 1} further ones"
    # Of a wide table only a few names help; the nearest one is found among all.
    near = did_you_mean(missing[0], known if len(known) <= LISTED_NAMES else _nearest(missing[0], known))
    return f"no column '{missing[0]}'{more} among {len(known)} columns. {near}"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or list(known[:LISTED_NAMES])
    return [*near, "..."]


def listed(names: Sequence[str]) -> str:
    """Names in quotes; of many only the first."""
    shown = ", ".join(f"'{name}'" for name in names[:LISTED_NAMES])
    return shown if len(names) <= LISTED_NAMES else f"{shown} and {len(names) - LISTED_NAMES} more"


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
            f"{where}: expected {len(columns)} columns ({listed(columns)}), found {shape[1]}. "
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
