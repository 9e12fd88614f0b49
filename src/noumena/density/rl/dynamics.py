"""A learned dynamics model whose rewards carry a penalty for transitions that the data do not cover."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from noumena.core.errors import DataError
from noumena.density.penalty import DensityPenalty

Termination = Callable[[Any, Any, Any], Any]
"""Takes observations, actions and next observations; says which episodes have ended, bool of shape (batch,)."""


class Dynamics(Protocol):
    """A model of an environment that makes one step of many episodes at once, in numpy or in torch."""

    def step(self, obs: Any, action: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
        """One step.

        Args:
            obs: shape (..., observation).
            action: shape (..., action).

        Returns:
            Next observations (..., observation), rewards and whether the episodes have ended, each (...) or (..., 1),
            and a dictionary of further facts.
        """
        ...


class PenalisedDynamics:
    """Dynamics with the reward ``r - penalty(next observation, action)``.

    It is a :class:`Dynamics` itself. ``info`` gains ``penalty``, ``log_density``, ``p_value`` (of a calibrated model)
    and ``raw_reward``, the reward before; each has the shape of the reward.
    """

    def __init__(self, dynamics: Dynamics, penalty: DensityPenalty, *, termination: Termination | None = None) -> None:
        """
        Args:
            dynamics: what makes the steps.
            penalty: see :class:`~noumena.density.penalty.DensityPenalty`.
            termination: decides which episodes have ended, in the place of the dynamics' own answer.
        """
        self.dynamics = dynamics
        self.penalty = penalty
        self.termination = termination

    def step(self, obs: Any, action: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
        """See :meth:`Dynamics.step`."""
        next_obs, reward, terminal, info = self.dynamics.step(obs, action)
        found = self.penalty.evaluate(next_obs, action, obs)
        known = {name: _like(value, reward, name) for name, value in found._asdict().items() if value is not None}
        if self.termination is not None:
            terminal = _like(self.termination(obs, action, next_obs), reward, "termination")
        return next_obs, reward - known["penalty"], terminal, {**info, **known, "raw_reward": reward}


def _like(values: Any, reward: Any, name: str) -> Any:
    """``values`` in the shape of the rewards, which may have an axis of length 1 at the end."""
    if isinstance(values, Tensor) != isinstance(reward, Tensor):
        raise DataError(
            f"{name} is a {type(values).__name__}, the reward a {type(reward).__name__}; expected the same of both."
        )
    shape = tuple(np.shape(reward))
    found = tuple(np.shape(values))
    if shape not in (found, (*found, 1)) and found != (*shape, 1):
        raise DataError(f"{name} has shape {found}, the rewards {shape}; expected one for each transition.")
    return values if found == shape else values.reshape(shape)
