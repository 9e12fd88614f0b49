"""Gradients of a score integrated along straight paths, with Gauss-Legendre panels that are halved where needed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Rows (batch, columns) to scores (batch,), differentiable."""

_NODES = 8
# Panels narrower than this hold a jump of the score, which no further halving resolves.
_NARROWEST = 2.0**-32
_SMALL_SUM = 0.01
_NUMBERS_AT_ONCE = 2**25


@dataclass(frozen=True)
class PathIntegral:
    """Integrated gradients of rows.

    Attributes:
        values: per column, shape (rows, columns).
        base, score: of the start and of the end of each path, shape (rows,).
        steps: points of each path at which a gradient was taken, int64, shape (rows,).
        converged: whether the error found is within the tolerance, bool, shape (rows,).
    """

    values: Tensor
    base: Tensor
    score: Tensor
    steps: Tensor
    converged: Tensor


def integrated_gradients(
    score: Score, start: Tensor, stop: Tensor, *, steps: int, max_steps: int, tolerance: float, block: int
) -> PathIntegral:
    r"""What each column adds on the straight path from ``start`` to ``stop``.

    .. math:: c_i = (b_i - a_i) \int_0^1 \partial_i f(a + t (b - a))\, dt, \qquad \sum_i c_i = f(b) - f(a)

    (Sundararajan, Taly & Yan 2017, eq. 1). Each panel of the path has a known error, its part of the sum against the
    difference of the scores at its two ends. The panels of a row that err most are halved until the errors add up to at
    most ``tolerance`` of the row's difference of scores (of 1 % of the absolute contributions, where those nearly
    cancel), and so does the root of their sum of squares, lest they cancel by chance.

    Args:
        score: the function ``f``; float64 keeps its rounding away from the tolerance.
        start, stop: ``a`` and ``b``, shape (rows, columns).
        steps: gradients per row to begin with.
        max_steps: gradients per row at most; a row that reaches it is returned as it is, not converged.
        tolerance: see above.
        block: points to evaluate at once.
    """
    group = max(1, _NUMBERS_AT_ONCE // (max(max_steps // _NODES, 1) * max(start.shape[1], 1)))
    paths = [_Path(score, a, b, block) for a, b in zip(start.split(group), stop.split(group), strict=True)]
    parts = [_integrated(path, max(1, steps // _NODES), max_steps, tolerance) for path in paths]
    names = ("values", "base", "score", "steps", "converged")
    return PathIntegral(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class _Path:
    """Straight paths and the score on them."""

    score: Score
    start: Tensor
    stop: Tensor
    block: int

    def at(self, row: Tensor, t: Tensor) -> Tensor:
        """Points (points, columns) of the paths ``row`` at ``t``, both of shape (points,)."""
        return torch.lerp(self.start[row], self.stop[row], t[:, None])

    def scores(self, row: Tensor, t: Tensor) -> Tensor:
        """Scores at these points, shape (points,)."""
        with torch.no_grad():
            return torch.cat([self.score(part) for part in self.at(row, t).split(self.block)])

    def gradients(self, row: Tensor, t: Tensor) -> Tensor:
        """Gradients at these points, shape (points, columns)."""
        return torch.cat([gradient(self.score, part)[1] for part in self.at(row, t).split(self.block)])


def gradient(score: Score, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (rows,) and their gradients (rows, columns)."""
    with torch.enable_grad():
        x = rows.detach().clone().requires_grad_()
        found = score(x)
        (slope,) = torch.autograd.grad(found.sum(), x)
    return found.detach(), slope


@dataclass(frozen=True)
class _Panels:
    """Pieces of paths: which row, from where to where, the scores at both ends, the integral, its error."""

    row: Tensor
    low: Tensor
    high: Tensor
    score_low: Tensor
    score_high: Tensor
    values: Tensor
    error: Tensor

    @classmethod
    def of(
        cls, path: _Path, row: Tensor, low: Tensor, high: Tensor, score_low: Tensor, score_high: Tensor
    ) -> "_Panels":
        """Integrate the pieces; all arguments of shape (panels,)."""
        nodes, weights = (torch.from_numpy(part).to(low) for part in np.polynomial.legendre.leggauss(_NODES))
        width = high - low
        t = low[:, None] + 0.5 * width[:, None] * (nodes + 1.0)
        slopes = path.gradients(row.repeat_interleave(_NODES), t.flatten()).unflatten(0, (-1, _NODES))
        mean = torch.einsum("n,pnc->pc", 0.5 * weights, slopes)
        values = width[:, None] * mean * (path.stop - path.start)[row]
        return cls(row, low, high, score_low, score_high, values, score_high - score_low - values.sum(1))

    def halved(self, path: _Path, chosen: Tensor) -> "_Panels":
        """The chosen panels (bool, shape (panels,)) in halves, behind the others."""
        row, low, high = self.row[chosen], self.low[chosen], self.high[chosen]
        middle = 0.5 * (low + high)
        score = path.scores(row, middle)
        halves = _Panels.of(
            path,
            torch.cat([row, row]),
            torch.cat([low, middle]),
            torch.cat([middle, high]),
            torch.cat([self.score_low[chosen], score]),
            torch.cat([score, self.score_high[chosen]]),
        )
        return _Panels(
            *(torch.cat([old[~chosen], new]) for old, new in zip(self._parts(), halves._parts(), strict=True))
        )

    def _parts(self) -> tuple[Tensor, ...]:
        return self.row, self.low, self.high, self.score_low, self.score_high, self.values, self.error

    def by_row(self, numbers: Tensor, rows: int) -> Tensor:
        """Sums of ``numbers`` (panels, ...) over the panels of each row, shape (rows, ...)."""
        return numbers.new_zeros(rows, *numbers.shape[1:]).index_add(0, self.row, numbers)

    def least_worth(self, allowed: Tensor, rows: int) -> Tensor:
        """The error above which halving a panel pays, by row, shape (rows,): less than the row's largest."""
        share = allowed / self.by_row(torch.ones_like(self.error), rows).sqrt()
        largest = allowed.new_zeros(rows).scatter_reduce(0, self.row, self.error.abs(), "amax")
        return 0.5 * torch.minimum(share, largest)


def _integrated(path: _Path, count: int, max_steps: int, tolerance: float) -> PathIntegral:
    rows = len(path.start)
    every = torch.arange(rows, device=path.start.device)
    edges = torch.linspace(0.0, 1.0, count + 1, dtype=path.start.dtype, device=path.start.device)
    scores = path.scores(every.repeat_interleave(count + 1), edges.repeat(rows)).unflatten(0, (rows, count + 1))
    ends = (edges[:-1].repeat(rows), edges[1:].repeat(rows))
    panels = _Panels.of(path, every.repeat_interleave(count), *ends, scores[:, :-1].flatten(), scores[:, 1:].flatten())
    steps = torch.full_like(every, count * _NODES)
    while True:
        values = panels.by_row(panels.values, rows)
        # The errors' signs vary from panel to panel: both what they add up to and their size are held.
        error = torch.maximum(
            panels.by_row(panels.error, rows).abs(), panels.by_row(panels.error.square(), rows).sqrt()
        )
        difference = scores[:, -1] - scores[:, 0]
        allowed = tolerance * torch.maximum(difference.abs(), _SMALL_SUM * values.abs().sum(1))
        unfinished = (error > allowed) & (steps < max_steps)
        chosen = unfinished[panels.row] & (panels.error.abs() > panels.least_worth(allowed, rows)[panels.row])
        chosen &= panels.high - panels.low > _NARROWEST
        if not bool(chosen.any()):
            return PathIntegral(values, scores[:, 0], scores[:, -1], steps, error <= allowed)
        # Both halves are integrated anew.
        steps += 2 * _NODES * panels.by_row(chosen.to(steps), rows)
        panels = panels.halved(path, chosen)
