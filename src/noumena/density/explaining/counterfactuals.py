"""What would have to change for an anomaly to be normal: the nearest point of the region that is called normal."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.detector import Detector
from noumena.density.differentiable import Differentiable, column_mask, column_scale, reference_rows
from noumena.density.explaining.nearest import NearestSearch
from noumena.density.explaining.path_integrals import gradient

Space = Literal["latent", "data"]

_ITERATIONS = 24
_ROUNDS = 2
_RESTORATIONS = 6
_LATENT_STEPS = 120
_LATENT_RATE = 0.1
_LATENT_LINE = 17
_HALVINGS = 8
_BISECTIONS = 24
# The target is passed by so much of it, because the verdict is in single precision and the search is not.
_MARGIN = 2e-5


@dataclass(frozen=True)
class Change:
    """What would make rows normal.

    Attributes:
        rows: the changed rows, float32, shape (rows, columns). Where ``reached`` is false, the best that was found.
        change: ``rows`` minus the rows as they were, float64, shape (rows, columns), in the units of the data.
        in_sd: the same in standard deviations of the columns, shape (rows, columns).
        distance: Euclidean length of ``in_sd``, shape (rows,).
        score: of the changed rows, as ``score_samples`` gives it, shape (rows,).
        target: the score to reach.
        reached: bool, shape (rows,): whether the model itself, asked again, scores the changed row at the target.
    """

    rows: np.ndarray
    change: np.ndarray
    in_sd: np.ndarray
    distance: np.ndarray
    score: np.ndarray
    target: float
    reached: np.ndarray


@torch.inference_mode(False)
def what_would_change(
    model: Detector,
    rows: Any,
    *,
    target_p: float | None = None,
    keep: Sequence[str | int] = (),
    space: Space | None = None,
    reference: Any = None,
) -> Change:
    """The smallest change found, in standard deviations of the columns, that makes each row normal.

    ``latent`` moves the latent of a row, decodes it, and goes back towards the row as far as the score allows, so that
    columns change together as they do in the data. ``data`` moves the columns themselves to the nearest point of the
    region's edge, by the iteration of Hasofer & Lind (1974) and Rackwitz & Fiessler (1978) with a line search (Zhang &
    Der Kiureghian 1995). Both find a point that no small move betters, not a proven minimum. What is found is scored
    again by the model; ``reached`` is its verdict.

    Args:
        model: a trained model with a threshold, or calibrated.
        rows: to change; any form that ``score_samples`` takes. Those at the target already stay as they are.
        target_p: the p-value to reach, in (0, 1]; the model's threshold when missing.
        keep: columns, by name or number, that may not change.
        space: ``latent`` for models that decode latents, and by default for them; ``data`` for any.
        reference: normal rows (rows, columns). With them ``data`` also starts from the nearest normal one, which helps
            where the score is flat around an anomaly.

    Raises:
        NotSupportedError: no threshold or no calibration, no gradient, or no latents for ``latent``.
        ConfigError: an option is out of range, or every column is kept.
    """
    target = _target(model, target_p)
    kept = column_mask(model, keep)
    if bool(kept.all()):
        raise ConfigError("keep: every column is kept, so nothing can change. Leave one out.")
    space = ("latent" if model.has_latents else "data") if space is None else space
    if space not in ("latent", "data"):
        raise ConfigError(f"space: expected latent or data, got {space!r}.")
    if space == "latent" and not model.has_latents:
        raise NotSupportedError(f"{type(model).__name__} has no latents. Use space='data'.")
    exact = Differentiable.of(model)
    given = None if reference is None else reference_rows(model, reference)
    start = exact.rows(rows)
    if not len(start):
        raise DataError("expected at least one row to change, found none.")
    scale = column_scale(model, given).to(start) * ~kept.to(start.device)
    problem = _Problem(exact, start, scale, target + _MARGIN * max(1.0, abs(target)))
    wanting = torch.from_numpy(~(model.score_samples(rows) >= target)).to(start.device)
    moved = torch.zeros_like(start)
    numbers = wanting.nonzero()[:, 0]
    for part in numbers.split(exact.block) if len(numbers) else ():
        some = problem.of(part)
        others = [] if given is None else [_towards_normal(model, some, given)]
        u = _by_latents(some) if space == "latent" else _by_columns(some, [torch.zeros_like(some.start), *others])
        moved[part] = u * scale
    return _verdict(model, problem, moved, kept.to(start.device), target)


def _target(model: Detector, target_p: float | None) -> float:
    """The score to reach."""
    if target_p is None:
        model.is_anomaly(np.zeros(0))
        return float(model.threshold)
    if not 0.0 < target_p <= 1.0:
        raise ConfigError(f"target_p: expected a p-value in (0, 1], got {target_p}.")
    if not model.calibration_rows:
        raise NotSupportedError("target_p needs a calibrated model: call calibrate(rows), or leave target_p out.")
    scores = model.calibration.cpu().numpy()
    # p = (1 + #{calibration <= score}) / (n + 1) is at least target_p from the rank-th lowest score on.
    rank = math.ceil(target_p * (len(scores) + 1) * (1.0 - 1e-12)) - 1
    finite = scores[np.isfinite(scores)]
    return max(float(scores[max(rank, 1) - 1]), float(finite[0])) if len(finite) else float("inf")


@dataclass(frozen=True)
class _Problem:
    """Rows to change by ``u`` standard deviations per column, until their score is ``target``.

    Attributes:
        start: the rows, shape (rows, columns).
        scale: unit of each column, 0 where it may not change, shape (columns,).
    """

    exact: Differentiable
    start: Tensor
    scale: Tensor
    target: float

    def of(self, which: Tensor) -> "_Problem":
        """The problem of the rows at ``which`` (int64)."""
        return _Problem(self.exact, self.start[which], self.scale, self.target)

    def scores(self, u: Tensor) -> Tensor:
        """Scores of the changed rows, (..., rows), for ``u`` of shape (..., rows, columns)."""
        points = self.start + u * self.scale
        return self.exact.scores(points.flatten(0, -2)).unflatten(0, points.shape[:-1])

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and gradients with respect to ``u``, shape (rows, columns)."""
        score, slope = gradient(self.exact.score, self.start + u * self.scale)
        return score, (slope * self.scale).nan_to_num(0.0, 0.0, 0.0)

    def units(self, rows: Tensor) -> Tensor:
        """The change that leads to ``rows``, as far as the columns may change."""
        free = self.scale > 0
        return torch.where(free, (rows - self.start) / torch.where(free, self.scale, 1.0), 0.0)


class _Best:
    """The smallest change that reaches the target, of each row; the best score while none does."""

    def __init__(self, problem: _Problem) -> None:
        self.problem = problem
        self.u = torch.zeros_like(problem.start)
        self._score = problem.scores(self.u)

    def look_at(self, u: Tensor, score: Tensor) -> None:
        """Take further changes (rows, columns) and their scores (rows,) into account."""
        reached, was = score >= self.problem.target, self._score >= self.problem.target
        nearer = u.square().sum(1) < self.u.square().sum(1)
        better = torch.where(reached & was, nearer, torch.where(reached == was, score > self._score, reached))
        self.u = torch.where(better[:, None], u, self.u)
        self._score = torch.where(better, score, self._score)

    def shortened(self) -> Tensor:
        """The changes, scaled back as far as the score allows, shape (rows, columns)."""
        low, high = torch.zeros_like(self._score), torch.ones_like(self._score)
        reached = self._score >= self.problem.target
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            enough = self.problem.scores(middle[:, None] * self.u) >= self.problem.target
            high = torch.where(enough, middle, high)
            low = torch.where(enough, low, middle)
        return torch.where(reached, high, 1.0)[:, None] * self.u


def _by_columns(problem: _Problem, starts: Sequence[Tensor]) -> Tensor:
    """Search in the columns, from each of ``starts``, shapes (rows, columns); the smallest change found of each row."""
    best = _Best(problem)
    for start in starts:
        u = start
        for _ in range(_ROUNDS):
            u = _rackwitz_fiessler(problem, u)
            best.look_at(u, problem.scores(u))
    return best.u


def _rackwitz_fiessler(problem: _Problem, u: Tensor) -> Tensor:
    """Step to the nearest point of the tangent plane of ``score = target``, as far as it betters length and gap.

    Returns:
        The best point on the way, shortened as far as the score allows.
    """
    best = _Best(problem)
    factors = 0.5 ** torch.arange(_HALVINGS, dtype=u.dtype, device=u.device)
    for _ in range(_ITERATIONS):
        score, slope = problem.slopes(u)
        best.look_at(u, score)
        steep = slope.square().sum(1).clamp(min=1e-300)
        reach = ((slope * u).sum(1) + problem.target - score) / steep
        step = reach[:, None] * slope - u
        # Above |u| / |slope| the gap outweighs the length (Zhang & Der Kiureghian 1995, eq. 10).
        weight = (2.0 * u.square().sum(1).sqrt() + 10.0) / steep.sqrt()
        u = u + _line_search(problem, u, step, weight, factors)[:, None] * step
    _restore(problem, u, best)
    return best.shortened()


def _restore(problem: _Problem, u: Tensor, best: _Best) -> None:
    """Close what is left of the gap by Newton steps along the gradient, the last ones a little too long."""
    beyond = problem.target + _MARGIN * max(1.0, abs(problem.target))
    for _ in range(_RESTORATIONS):
        score, slope = problem.slopes(u)
        best.look_at(u, score)
        short = (beyond - score).clamp(min=0.0) / slope.square().sum(1).clamp(min=1e-300)
        u = (u + short[:, None] * slope).nan_to_num(0.0, 0.0, 0.0)
    best.look_at(u, problem.scores(u))


def _line_search(problem: _Problem, u: Tensor, step: Tensor, weight: Tensor, factors: Tensor) -> Tensor:
    """The factor of the step, of those on offer, with the least merit; 0 where none betters where we are."""
    tried = torch.cat([factors.new_zeros(1), factors])
    points = u + tried[:, None, None] * step  # (factors, rows, columns)
    gap = (problem.scores(points) - problem.target).abs()
    merit = 0.5 * points.square().sum(-1) + weight * gap
    return tried[merit.nan_to_num(float("inf")).argmin(0)]


def _towards_normal(model: Detector, problem: _Problem, reference: Tensor) -> Tensor:
    """The change to the nearest normal row, (rows, columns); none where the reference has no normal row."""
    search = NearestSearch(model, problem.start.float(), column_scale(model, reference))
    search.look_at(reference)
    return problem.units(torch.from_numpy(search.found.rows).to(problem.start)).nan_to_num(0.0)


def _by_latents(problem: _Problem) -> Tensor:
    """Move latents by Adam (Kingma & Ba 2015) on the squared change plus a weight times the lacking score.

    They start where the way to the middle of the prior first reaches the target. The weight of a row grows while its
    target is not reached and shrinks while it is, so that the latent settles where the score is just enough.

    Returns:
        The smallest change found of each row, shape (rows, columns).
    """
    model, best = problem.exact.model, _Best(problem)
    z, u, score = _towards_middle(problem, best)
    weight = (u.square().sum(1) + 1.0) / ((problem.target - score).clamp(min=0.0) + 1.0)
    rate = _Adam(z, _LATENT_RATE)

    def objective(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        change = problem.units(model.decode(point))
        found = problem.exact.score(problem.start + change * problem.scale)
        return change.square().sum(1) + weight * (problem.target - found).clamp(min=0.0), change, found

    for _ in range(_LATENT_STEPS):
        slope, u, score = _slope(objective, z)
        best.look_at(u, score)
        weight = (weight * torch.where(score >= problem.target, 0.9, 1.1)).clamp(1e-12, 1e12)
        z = rate.step(z, slope)
    return best.shortened()


@torch.no_grad()
def _towards_middle(problem: _Problem, best: _Best) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (rows, latent), shrunk as little as it takes to reach the target, with their changes and scores."""
    model = problem.exact.model
    whole = model.encode(problem.start).mean.detach().to(problem.start)
    z = whole
    u = problem.units(model.decode(z))
    score = problem.scores(u)
    best.look_at(u, score)
    for factor in torch.linspace(1.0, 0.0, _LATENT_LINE).tolist()[1:]:
        point = factor * whole
        change = problem.units(model.decode(point))
        found = problem.scores(change)
        best.look_at(change, found)
        better = (score < problem.target) & (found > score)
        z, u = torch.where(better[:, None], point, z), torch.where(better[:, None], change, u)
        score = torch.where(better, found, score)
    return z, u, score


def _slope(objective: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the objective at ``z`` (rows, latent), and what else it gives."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        value, change, score = objective(point)
        (slope,) = torch.autograd.grad(value.sum(), point)
    return slope.nan_to_num(0.0, 0.0, 0.0), change.detach(), score.detach()


class _Adam:
    """Adam on a tensor whose rows are separate problems."""

    def __init__(self, z: Tensor, rate: float) -> None:
        self._rate, self._count = rate, 0
        self._mean, self._square = torch.zeros_like(z), torch.zeros_like(z)

    def step(self, z: Tensor, slope: Tensor) -> Tensor:
        """``z`` after a step."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * slope
        self._square = 0.99 * self._square + 0.01 * slope.square()
        mean, square = self._mean / (1.0 - 0.9**self._count), self._square / (1.0 - 0.99**self._count)
        return z - self._rate * mean / (square.sqrt() + 1e-12)


def _verdict(model: Detector, problem: _Problem, moved: Tensor, kept: Tensor, target: float) -> Change:
    """What the model says of the changed rows, in its own precision."""
    old = problem.start.float()
    new = torch.where(kept | (moved == 0), old, (problem.start + moved).float())
    change = new.double() - old.double()
    scale = torch.where(problem.scale > 0, problem.scale, 1.0)
    in_sd = change / scale
    score = model.score_samples(new)
    return Change(
        new.cpu().numpy(),
        change.cpu().numpy(),
        in_sd.cpu().numpy(),
        in_sd.square().sum(1).sqrt().cpu().numpy(),
        score,
        target,
        score >= target,
    )
