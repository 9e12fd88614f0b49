"""Planners: action sequences of low cost under a model's roll-out, searched for many episodes at once.

All of them draw or follow *candidates* of shape (episodes, samples, horizon, action), roll all of them out in one call
(in pieces where memory asks for it) and keep the actions within what the world allows.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.worldmodels.model import WorldModel

# Latents that a piece of a roll-out may hold: 64 MiB in float32.
_MOST_NUMBERS = 1 << 24


class Cost(Protocol):
    """What a plan is to make small."""

    def __call__(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The cost of candidates.

        Args:
            latents: states after each action, shape (episodes, samples, horizon, latent).
            actions: shape (episodes, samples, horizon, action), in the units of the data.

        Returns:
            Shape (episodes, samples), to be small.
        """
        ...


@dataclass(frozen=True)
class Limit:
    """The actions that are possible: a disc around 0 (a step of bounded length), or a box.

    Attributes:
        size: largest norm of an action (disc), or largest absolute value of each component (box).
        box: whether components are bounded separately.
    """

    size: float
    box: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size) and self.size > 0):
            raise ConfigError(f"the largest action: expected a number above 0, got {self.size}.")

    def project(self, actions: Tensor) -> Tensor:
        """The nearest possible actions, of the same shape (..., action)."""
        if self.box:
            return actions.clamp(-self.size, self.size)
        norm = torch.linalg.vector_norm(actions.detach(), dim=-1, keepdim=True)
        return actions * (self.size / norm.clamp(min=self.size))


class Planner(Protocol):
    """A search for actions."""

    def plan(
        self,
        model: WorldModel,
        start: Tensor,
        cost: Cost,
        *,
        horizon: int,
        limit: Limit,
        generator: torch.Generator,
        warm_start: Tensor | None = None,
    ) -> Tensor:
        """Actions of low cost for each episode.

        Args:
            model: whose roll-out foresees the consequences.
            start: latents that the plans begin with, shape (episodes, latent).
            cost: what is to be small.
            horizon: number of actions.
            limit: the actions that are possible.
            generator: source of all draws, on the device of ``start``; same state, same plan.
            warm_start: a plan to begin with, shape (episodes, horizon, action); zeros where missing.

        Returns:
            Shape (episodes, horizon, action), within ``limit``.
        """
        ...


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method: a Gaussian over plans, fitted again and again to the best of its samples.

    Rubinstein 1999; with the noise that is correlated in time and the elites that are kept of iCEM (Pinneri et al.
    2020). White noise (``colour`` 0) averages to nothing over a long horizon, so that no sample gets far; red noise
    keeps a direction for several steps and finds doors.

    Attributes:
        samples: candidates per iteration and episode.
        iterations: number of fits.
        elites: candidates that the Gaussian is fitted to.
        kept: elites that compete again in the next iteration.
        momentum: share of the old mean and deviation in the new ones.
        spread: deviation of the first Gaussian, in units of the largest action.
        min_spread: lower bound of the deviation, likewise.
        colour: exponent of the power spectrum 1/f**colour of the noise along the horizon: 0 white, 2 red.
    """

    samples: int = 256
    iterations: int = 5
    elites: int = 24
    kept: int = 6
    momentum: float = 0.1
    spread: float = 0.75
    min_spread: float = 0.05
    colour: float = 2.0

    def __post_init__(self) -> None:
        _at_least("cem", samples=(self.samples, 2), iterations=(self.iterations, 1), elites=(self.elites, 2))
        if not self.elites <= self.samples or not 0 <= self.kept <= self.elites:
            raise ConfigError(
                f"cem: expected kept <= elites <= samples, got {self.kept}, {self.elites} and {self.samples}."
            )
        _check_spread("cem", self.spread, self.min_spread)
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"cem.momentum: expected 0 <= momentum < 1, got {self.momentum}.")

    def plan(
        self,
        model: WorldModel,
        start: Tensor,
        cost: Cost,
        *,
        horizon: int,
        limit: Limit,
        generator: torch.Generator,
        warm_start: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Planner.plan`; the best candidate of all that were tried."""
        mean = _first(model, start, horizon, limit, warm_start)
        std = torch.full_like(mean, self.spread * limit.size)
        # The plan of before, and standing still, are candidates too.
        pool = torch.stack([mean, torch.zeros_like(mean)], dim=1)
        pool_costs = costs_of(model, start, pool, cost)
        for _ in range(self.iterations):
            noise = coloured_noise((len(start), self.samples, *mean.shape[1:]), self.colour, start, generator)
            fresh = limit.project(mean[:, None] + std[:, None] * noise)
            pool = torch.cat([pool, fresh], dim=1)
            pool_costs = torch.cat([pool_costs, costs_of(model, start, fresh, cost)], dim=1)
            pool, pool_costs = _best(pool, pool_costs, self.elites)
            old, new = self.momentum, 1 - self.momentum
            mean = old * mean + new * pool.mean(1)
            std = (old * std + new * pool.std(1)).clamp(min=self.min_spread * limit.size)
            pool, pool_costs = pool[:, : max(1, self.kept)], pool_costs[:, : max(1, self.kept)]
        return pool[:, 0]


@dataclass(frozen=True)
class MPPI:
    """Model-predictive path integral control: samples around a plan, averaged with weights exp(-cost / temperature).

    Williams et al. 2017. The temperature is in units of the deviation of the costs of an episode's samples, so that it
    need not follow the scale of the cost.

    Attributes:
        samples: candidates per iteration and episode.
        iterations: number of averages.
        temperature: small trusts the best sample alone, large averages all.
        spread: deviation of the samples, in units of the largest action.
        colour: as in :class:`CEM`.
    """

    samples: int = 512
    iterations: int = 5
    temperature: float = 0.1
    spread: float = 0.5
    colour: float = 2.0

    def __post_init__(self) -> None:
        _at_least("mppi", samples=(self.samples, 2), iterations=(self.iterations, 1))
        _check_spread("mppi", self.spread, 0.0)
        if not self.temperature > 0:
            raise ConfigError(f"mppi.temperature: expected a number above 0, got {self.temperature}.")

    def plan(
        self,
        model: WorldModel,
        start: Tensor,
        cost: Cost,
        *,
        horizon: int,
        limit: Limit,
        generator: torch.Generator,
        warm_start: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Planner.plan`; the weighted mean of the last iteration."""
        mean = _first(model, start, horizon, limit, warm_start)
        for _ in range(self.iterations):
            candidates = _around(mean, self.samples, self.spread, self.colour, limit, generator)
            costs = costs_of(model, start, candidates, cost)
            scale = self.temperature * costs.std(1, keepdim=True).clamp(min=torch.finfo(costs.dtype).tiny)
            weights = torch.softmax((costs.amin(1, keepdim=True) - costs) / scale, dim=1)
            mean = torch.einsum("ns,nsha->nha", weights, candidates)
        return mean


@dataclass(frozen=True)
class GradientPlanner:
    """Adam on the actions, through the differentiable roll-out, from several beginnings at once.

    Attributes:
        starts: beginnings per episode: the plan of before, and random ones.
        iterations: steps of Adam.
        lr: its step size, in units of the largest action.
        spread: deviation of the random beginnings, likewise.
        colour: as in :class:`CEM`.
    """

    starts: int = 8
    iterations: int = 40
    lr: float = 0.1
    spread: float = 0.5
    colour: float = 2.0

    def __post_init__(self) -> None:
        _at_least("gradient", starts=(self.starts, 1), iterations=(self.iterations, 1))
        _check_spread("gradient", self.spread, 0.0)
        if not self.lr > 0:
            raise ConfigError(f"gradient.lr: expected a number above 0, got {self.lr}.")

    def plan(
        self,
        model: WorldModel,
        start: Tensor,
        cost: Cost,
        *,
        horizon: int,
        limit: Limit,
        generator: torch.Generator,
        warm_start: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Planner.plan`; the best of all iterates, so never worse than the plan of before."""
        mean = _first(model, start, horizon, limit, warm_start)
        actions = _around(mean, self.starts, self.spread, self.colour, limit, generator)
        best, best_costs = actions, torch.full(actions.shape[:2], torch.inf, dtype=start.dtype, device=start.device)
        adam = torch.optim.Adam([actions.requires_grad_()], lr=self.lr * limit.size)
        for step in range(self.iterations + 1):
            # cuDNN has no backward pass for recurrent networks in evaluation mode.
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                costs = costs_of(model, start.detach(), actions, cost)
            better = costs.detach() < best_costs
            best_costs = torch.where(better, costs.detach(), best_costs)
            best = torch.where(better[..., None, None], actions.detach(), best.detach())
            if step == self.iterations:
                break
            # Episodes and beginnings do not touch each other: the gradient of the sum is each one's own.
            (actions.grad,) = torch.autograd.grad(costs, actions, torch.ones_like(costs))
            adam.step()
            with torch.no_grad():
                actions.copy_(limit.project(actions))
        return _best(best, best_costs, 1)[0][:, 0]


def costs_of(model: WorldModel, start: Tensor, candidates: Tensor, cost: Cost) -> Tensor:
    """The cost of each candidate.

    Args:
        start: shape (episodes, latent).
        candidates: shape (episodes, samples, horizon, action).

    Returns:
        Shape (episodes, samples); infinite where it is not a number, so that such a candidate is never taken.
    """
    episodes, samples, horizon = candidates.shape[:3]
    piece = max(1, _MOST_NUMBERS // (episodes * horizon * start.shape[-1]))
    found: list[Tensor] = []
    for some in candidates.split(piece, dim=1):
        begin = start[:, None].expand(-1, some.shape[1], -1).flatten(0, 1)
        latents = model.rollout(begin, some.flatten(0, 1)).unflatten(0, (episodes, some.shape[1]))
        found.append(cost(latents, some))
    costs = torch.cat(found, dim=1)
    if costs.shape != (episodes, samples):
        raise DataError(f"the cost: expected shape ({episodes}, {samples}), got {tuple(costs.shape)}.")
    return costs.nan_to_num(nan=torch.inf, posinf=torch.inf)


def coloured_noise(shape: tuple[int, ...], colour: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise whose power along the second to last axis falls with frequency as 1/f**colour.

    Timmer & Koenig 1995, as in iCEM (Pinneri et al. 2020); its variance over draws is 1 at each step.

    Args:
        shape: (..., horizon, action).
        colour: 0 is white, 2 is red.
        like: its dtype and device are taken.
    """
    white = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    horizon = shape[-2]
    if colour == 0 or horizon == 1:
        return white
    # A real series of n steps from one of 2n: the beginning of a plan is not to resemble its end, as in a cycle.
    second = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    spectrum = torch.fft.rfft(torch.cat([white, second], dim=-2), dim=-2)
    frequency = torch.arange(spectrum.shape[-2], dtype=like.dtype, device=like.device).clamp(min=1) / (2 * horizon)
    gain = frequency ** (-colour / 2)
    # White noise has the same power at all frequencies, each inner one twice (positive and negative).
    times = torch.full_like(gain, 2.0)
    times[0] = times[-1] = 1.0
    gain = gain / ((times * gain**2).sum() / (2 * horizon)).sqrt()
    return torch.fft.irfft(spectrum * gain[:, None], n=2 * horizon, dim=-2)[..., :horizon, :]


def _first(model: WorldModel, start: Tensor, horizon: int, limit: Limit, warm_start: Tensor | None) -> Tensor:
    if start.ndim != 2:
        raise DataError(f"start: expected shape (episodes, latent), got {tuple(start.shape)}.")
    if horizon < 1:
        raise ConfigError(f"the horizon: expected at least 1 action, got {horizon}.")
    if warm_start is None:
        if model.action_dim is None:
            raise DataError("the model has no action_dim yet: fit it before planning with it.")
        return start.new_zeros(len(start), horizon, model.action_dim)
    if warm_start.ndim != 3 or warm_start.shape[:2] != (len(start), horizon):
        raise DataError(f"warm_start: expected shape ({len(start)}, {horizon}, action), got {tuple(warm_start.shape)}.")
    return limit.project(warm_start.to(start))


def _around(mean: Tensor, count: int, spread: float, colour: float, limit: Limit, generator: torch.Generator) -> Tensor:
    """A plan (episodes, horizon, action), and random ones around it, shape (episodes, count, horizon, action)."""
    noise = coloured_noise((len(mean), count, *mean.shape[1:]), colour, mean, generator)
    noise[:, 0] = 0
    return limit.project(mean[:, None] + spread * limit.size * noise)


def _best(candidates: Tensor, costs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cheapest candidates of each episode, cheapest first, and their costs."""
    order = costs.argsort(dim=1, stable=True)[:, :count]
    index = order[..., None, None].expand(-1, -1, *candidates.shape[2:])
    return candidates.gather(1, index), costs.gather(1, order)


def _at_least(name: str, **settings: tuple[int, int]) -> None:
    for setting, (value, least) in settings.items():
        if value < least:
            raise ConfigError(f"{name}.{setting}: expected at least {least}, got {value}.")


def _check_spread(name: str, spread: float, least: float) -> None:
    if not 0 <= least <= spread or not spread > 0:
        raise ConfigError(f"{name}.spread: expected a number above 0 and at least {least}, got {spread}.")
