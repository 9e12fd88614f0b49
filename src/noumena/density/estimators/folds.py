"""Dividing the rows of a ``fit`` into those that train, those that choose the weights and those that calibrate."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import split_groups, split_rows
from noumena.density.table import Table
from noumena.readers.checks import check_rows, column_names

# With fewer rows a fold of its own would hold one or two, which say nothing about the others.
_FEWEST_ROWS = 10


@dataclass(frozen=True)
class Folds:
    """Tables of the same columns.

    Attributes:
        train: rows to train on.
        validation: rows that choose the weights and compare models; None where there are none.
        calibration: rows that neither saw; None of data too small to spare any.
    """

    train: Table
    validation: Table | None
    calibration: Table | None


def as_named_table(rows: np.ndarray, names: np.ndarray | None) -> Table:
    """Checked rows (rows, columns) as a table; without names its columns are ``x_0``, ``x_1``, ...

    Raises:
        DataError: a number is beyond float32.
    """
    columns = column_names("x", rows.shape[1]) if names is None else tuple(map(str, names))
    return Table(check_rows(rows, columns, "X"), columns)


def divide(table: Table, *, validation: float, calibration: float, groups: np.ndarray | None, seed: int) -> Folds:
    """Deal rows to the folds at random; whole groups where ``groups`` are given.

    Args:
        table: all rows. Of fewer than 10, all train.
        validation, calibration: shares of the rows, 0 for no such fold.
        groups: the group of each row, shape (rows,), numbers or text.
        seed: of the deal.

    Raises:
        ConfigError: the shares leave nothing to train on.
        DataError: fewer groups than folds, or another number of groups than rows.
    """
    if not (validation >= 0.0 and calibration >= 0.0 and validation + calibration < 1.0):
        raise ConfigError(
            f"validation_fraction={validation} and calibration_fraction={calibration}: expected shares of at least 0 "
            "that leave rows to train on. Lower them."
        )
    if groups is not None:
        numbers = _group_numbers(groups, len(table))
        parts = split_groups(
            numbers,
            val_fraction=validation,
            test_fraction=calibration,
            seed=seed,
            where="fit",
            what="groups",
            remedy="Give rows of more groups, or leave groups out.",
        )
    elif len(table) < _FEWEST_ROWS:
        return Folds(table, None, None)
    else:
        parts = split_rows(
            len(table), shuffle=True, val_fraction=validation, test_fraction=calibration, seed=seed, where="fit"
        )
    folds = {name: table.subset(index) for name, index in parts.items()}
    return Folds(folds["train"], folds.get("val"), folds.get("test"))


def halves(table: Table, seed: int) -> tuple[Table, Table]:
    """Validation data that were given apart, as a validation and a calibration fold; one row is both."""
    if len(table) < 2:
        return table, table
    parts = split_rows(len(table), shuffle=True, val_fraction=0.5, test_fraction=0.0, seed=seed, where="X_val")
    return table.subset(parts["train"]), table.subset(parts["val"])


def _group_numbers(groups: np.ndarray, rows: int) -> Tensor:
    """The groups of the rows as int64 from 0."""
    given = np.asarray(groups)
    if given.shape != (rows,):
        raise DataError(f"groups: expected one group for each of {rows} rows, found shape {given.shape}.")
    return torch.from_numpy(np.unique(given, return_inverse=True)[1].astype(np.int64))


@dataclass(frozen=True)
class Reservoir:
    """A uniform draw from all rows ever added, of bounded size: calibration rows of a stream.

    Every row draws a number and the rows of the largest ones stay (Vitter 1985 in the form of a bottom-k sketch), so
    that the draw does not depend on how the rows were cut into pieces.

    Attributes:
        rows: float32, shape (kept, columns).
        keys: the numbers drawn, float64, shape (kept,).
    """

    rows: np.ndarray
    keys: np.ndarray

    _CAPACITY = 10_000

    @classmethod
    def empty(cls, columns: int) -> Self:
        """One without rows."""
        return cls(np.empty((0, columns), dtype=np.float32), np.empty(0))

    def add(self, rows: np.ndarray, seed: int) -> "Reservoir":
        """The reservoir after further ``rows`` (rows, columns) have gone by."""
        keys = np.concatenate([self.keys, np.random.default_rng(seed).random(len(rows))])
        every = np.concatenate([self.rows, rows.astype(np.float32)])
        if len(every) <= self._CAPACITY:
            return Reservoir(every, keys)
        kept = np.sort(np.argpartition(keys, -self._CAPACITY)[-self._CAPACITY :])
        return Reservoir(every[kept], keys[kept])
