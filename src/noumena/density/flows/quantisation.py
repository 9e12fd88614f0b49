"""Columns that hold few values on a regular grid: counts, grades, rounded measurements.

A density of such a column has no upper bound: it may rise on every value and vanish between them. Spreading each value
evenly over its cell of the grid gives a density that has one (uniform dequantisation; Theis, van den Oord & Bethge
2016). On a continuous column the same noise would only hide structure, so the grid is looked for, never assumed.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Rows per value of a column that holds few values, and the most values: a density of finite resolution cannot tell a
# finer grid from a continuous column.
_ROWS_PER_LEVEL = 10
_MOST_LEVELS = 1024
_PROBED_ROWS = 65_536
# Distance from the grid, in steps, that a value may have besides the rounding to float32.
_TOLERANCE = 0.01
# Values nearer than that many roundings are the same.
_SAME = 4.0
# The step is the least gap between two values or a small fraction of it: {0, 2, 5} lies on a grid of 1.
_FRACTIONS = 6


class Grids(NamedTuple):
    """The grid of each column.

    Attributes:
        step: distance of neighbouring values, 0 for a continuous column, float64, shape (columns,).
        origin: one value of the grid, float64, shape (columns,).
    """

    step: Tensor
    origin: Tensor


@torch.no_grad()
def find_grids(rows: Tensor) -> Grids:
    """Which columns lie on a regular grid of few values, and its step.

    A column does when it has at least 10 rows for each of its values, 1,024 values at most, and all of them lie within
    a hundredth of a step of the grid (rounding apart). A column of a single value has no grid.

    Args:
        rows: shape (rows, columns).

    Returns:
        The grids, on the device of ``rows``.
    """
    found = [_grid(column) for column in rows.T]
    step, origin = (torch.tensor(part, dtype=torch.float64, device=rows.device) for part in zip(*found, strict=True))
    return Grids(step, origin)


def snap(rows: Tensor, step: Tensor, origin: Tensor) -> Tensor:
    """``rows`` (rows, columns) moved to the nearest value of the grid, in the columns that have one."""
    cell = torch.where(step > 0, step, torch.ones_like(step))
    return torch.where(step > 0, origin + torch.round((rows - origin) / cell) * cell, rows)


def _grid(column: Tensor) -> tuple[float, float]:
    """Step and origin of one column, shape (rows,)."""
    most = min(_MOST_LEVELS, len(column) // _ROWS_PER_LEVEL)
    if most < 2 or len(column[:_PROBED_ROWS].unique()) > most:
        return 0.0, 0.0
    values = column.unique().double()
    rounding = float(values.abs().max()) * torch.finfo(torch.float32).eps
    values = values[values.diff(prepend=values[:1] - 1.0 - _SAME * rounding) > _SAME * rounding]
    if not 2 <= len(values) <= most:
        return 0.0, 0.0
    origin, span = float(values[0]), float(values[-1] - values[0])
    gap = float(values.diff().min())
    for divisor in range(1, _FRACTIONS + 1):
        # The gap carries the rounding of two values; the whole span has the least error per step.
        step = span / max(1, round(span * divisor / gap))
        place = (values - origin) / step
        if float((place - place.round()).abs().max()) <= _TOLERANCE + rounding / step:
            return step, origin
    return 0.0, 0.0
