"""The checks that values, masks, groups and side quantities pass before they become observations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.multimodal.modality import Modality, Surface
from noumena.readers.checks import check_dtype

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def as_matrix(value: Any, where: str) -> np.ndarray:
    """As a matrix (rows, size); further axes are flattened."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{where}: expected rows of equal length, found {error}.") from error
    check_dtype(array.dtype, where)
    if array.ndim < 2:
        remedy = "Use x.reshape(1, -1) for one row, x.reshape(-1, 1) for one column." if array.ndim else "Pass rows."
        raise DataError(f"{where}: expected shape (rows, size), found {array.shape}. {remedy}")
    if 0 in array.shape:
        raise DataError(f"{where}: expected rows and columns, found none (shape {array.shape}).")
    # float16 cannot hold the bound that numbers are compared with.
    return array.reshape(len(array), -1).astype(np.float32 if array.dtype == np.float16 else array.dtype, copy=False)


def common_length(arrays: Mapping[str, np.ndarray], where: str) -> int:
    """The number of rows that all arrays have.

    Raises:
        DataError: they differ.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"'{name}' has {length}" for name, length in lengths.items())
        raise DataError(f"{where}: every modality needs the same number of rows, found: {found}. Align the arrays.")
    return next(iter(lengths.values()))


def as_mask(mask: Any, rows: int, where: str, first_row: int) -> np.ndarray | None:
    """A mask of shape (rows,) as bool; ``None`` stays.

    Raises:
        DataError: another shape, or an entry that is neither true nor false.
    """
    if mask is None:
        return None
    array = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)
    if array.shape != (rows,) or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected {rows} entries that are true or false, found {array.dtype} {array.shape}.")
    if (other := ~np.isin(array, (0, 1))).any():
        row = int(other.argmax())
        raise DataError(
            f"{where}: row {first_row + row} (counted from 0) is {array[row]}; expected true (it is there) or false "
            "(it is missing). Recode the mask."
        )
    return array.astype(bool)


def checked_values(
    array: np.ndarray, modality: Modality, mask: np.ndarray | None, where: str, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """float32 values with 0 in missing rows, and which rows are there."""
    if array.shape[1] != modality.size:
        raise DataError(f"{where}: expected {modality.size} numbers in a row, found {array.shape[1]}.")
    nan = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    has = np.asarray(~nan.all(1) if mask is None else mask)
    partly = np.asarray(nan.any(1) & has)
    if partly.any():
        row = int(partly.argmax())
        raise DataError(
            f"{where}: row {first_row + row} (counted from 0), column '{modality.columns[int(nan[row].argmax())]}' is "
            "NaN while others of the row are numbers. A modality is there or it is not: fill the number in, or make "
            "the whole row NaN."
        )
    beyond = ~(np.abs(array) <= _FLOAT32_MAX) & has[:, None] if array.dtype.kind == "f" else np.zeros_like(nan)
    if beyond.any():
        row = int(beyond.any(1).argmax())
        column = int(beyond[row].argmax())
        raise DataError(
            f"{where}: row {first_row + row} (counted from 0), column '{modality.columns[column]}' is "
            f"{array[row, column]:g}; expected a finite float32 number. Replace it or leave the row out."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        plain = array.astype(np.float32)
    if not has.all():
        plain = np.where(has[:, None], plain, np.float32(0.0))
    return plain, has


def group_numbers(groups: Any, rows: int, where: str) -> Tensor:
    """Groups of any type as numbers from 0, in their own order; whole numbers written as text are ordered as numbers.

    Raises:
        DataError: another number of entries than rows, or one is missing.
    """
    array = np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)
    if array.shape != (rows,):
        raise DataError(f"{where}: groups need one entry for each of {rows} rows, found shape {array.shape}.")
    array = array.astype(str) if array.dtype.kind in "OS" else array
    missing = (
        np.isnan(array) if array.dtype.kind == "f" else np.asarray(array == "") if array.dtype.kind == "U" else None
    )
    if missing is not None and missing.any():
        raise DataError(f"{where}: row {int(missing.argmax())} (counted from 0) has no group. Name it.")
    if array.dtype.kind == "U" and np.char.isdecimal(array).all():
        array = array.astype(np.int64)
    return torch.from_numpy(np.unique(array, return_inverse=True)[1].astype(np.int64))


def as_side(value: Any, rows: int, where: str, first_row: int) -> Tensor:
    """A side quantity as float32, shape (rows,) or (rows, k); NaN stays.

    Raises:
        DataError: another shape or type, or an infinity.
    """
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    check_dtype(array.dtype, where)
    if array.ndim not in (1, 2) or len(array) != rows:
        raise DataError(f"{where}: expected one entry or row for each of {rows} rows, found shape {array.shape}.")
    with np.errstate(over="ignore"):
        plain = array.astype(np.float32)
    if (infinite := np.isinf(plain).reshape(rows, -1).any(1)).any():
        row = first_row + int(infinite.argmax())
        raise DataError(
            f"{where}: row {row} (counted from 0) is infinite or beyond float32. Write NaN where it is not known."
        )
    return torch.from_numpy(plain)


def check_surface(surface: Surface | None, modalities: Sequence[Modality], where: str) -> None:
    """Refuse a surface that has not the points of the one modality of displacements.

    Raises:
        DataError: it says what was found.
    """
    if surface is None:
        return
    on_it = [modality for modality in modalities if modality.kind == "displacement"]
    if len(on_it) != 1 or on_it[0].size != 3 * len(surface.nodes):
        found = ", ".join(f"{modality.name} ({modality.size // 3} points)" for modality in on_it) or "none"
        raise DataError(
            f"{where}: a surface of {len(surface.nodes)} points needs one modality of kind 'displacement' of as many "
            f"points, found {found}."
        )
