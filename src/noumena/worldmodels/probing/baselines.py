"""What needs no model of images: guesses of the state from its mean, its true beginning, and the actions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from noumena.worldmodels.probing.ridge import RidgeProbe

WORDS = {
    "constant": "mean state",
    "repeat": "first state repeated",
    "linear": "linear in the first state",
    "actions": "first state + actions",
    "actions_clamped": "first state + actions, kept inside",
    "regression": "regression on first state and actions",
}
"""What each baseline is, in words."""

# Only there to keep normal equations of collinear inputs solvable.
_RIDGE = 1e-9


def baselines(
    train_state: Tensor, train_actions: Tensor, state: Tensor, actions: Tensor, schema: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The state as each baseline guesses it. All but ``constant`` are told the true first state.

    Args:
        train_state, train_actions: what regressions are fitted to, shapes (batch, time, things, dims) and
            (batch, time - 1, action).
        state, actions: of the sequences to guess.
        schema: of the data; says whether actions are displacements, and where the walls are.

    Returns:
        Shape (batch, time, things, dims) by the names of :data:`WORDS`; sums of actions only where the actions are
        displacements in the unit of the state, clamped ones only where the walls are known, and the regression only
        for sequences as long as those it was fitted to.
    """
    time = state.shape[1]
    first = state[:, :1].expand(-1, time, -1, -1)
    found = {
        "constant": train_state.mean((0, 1)).expand_as(state),
        "repeat": first,
        "linear": _linear(train_state, state),
    }
    if are_displacements(schema):
        found["actions"] = _summed(state, actions)
        limits = walls(schema)
        if limits is not None:
            found["actions_clamped"] = found["actions"].clamp(*limits)
    if train_state.shape[1] == time:
        found["regression"] = _regression(train_state, train_actions, state, actions)
    return found


def are_displacements(schema: Mapping[str, Any]) -> bool:
    """Whether an action moves the first thing by as many pixels."""
    return list(schema["actions"])[:2] == ["dx", "dy"] and schema.get("state_unit") == "px"


def walls(schema: Mapping[str, Any]) -> tuple[float, float] | None:
    """Least and greatest coordinate a thing can have, in pixels, or ``None`` where the data do not say."""
    world = schema.get("world")
    if not world:
        return None
    if schema.get("kind") == "dots":
        # A dot keeps two deviations from the centres of the outermost pixels.
        return 2 * world["dot_std"], world["size"] - 1 - 2 * world["dot_std"]
    from noumena.worldmodels.environments.worlds import world_of

    bounds = getattr(world_of(schema), "bounds", None)
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def _linear(train_state: Tensor, state: Tensor) -> Tensor:
    """One regression of the state at any step on the true first state of all things."""

    def inputs(x: Tensor) -> Tensor:
        return x[:, :1].flatten(2).expand(-1, x.shape[1], -1).double()

    return RidgeProbe.fit(inputs(train_state), train_state, ridge=_RIDGE).predict(inputs(state)).to(state)


def _summed(state: Tensor, actions: Tensor) -> Tensor:
    """The first thing pushed by all past actions, without walls; the others stay."""
    guess = state[:, :1].repeat(1, state.shape[1], 1, 1)
    guess[:, 1:, 0] += actions[..., :2].cumsum(1).to(guess)
    return guess


def _regression(train_state: Tensor, train_actions: Tensor, state: Tensor, actions: Tensor) -> Tensor:
    """For each step a regression on the true first state and the actions before that step."""
    guesses = [state[:, :1]]
    for step in range(1, state.shape[1]):
        # Rows of one step: (batch, 1, things * dims + step * action).
        parts = ((train_state, train_actions), (state, actions))
        known, asked = (
            torch.cat([s[:, 0].flatten(1), a[:, :step].flatten(1).to(s)], dim=1)[:, None].double() for s, a in parts
        )
        probe = RidgeProbe.fit(known, train_state[:, step : step + 1], ridge=_RIDGE)
        guesses.append(probe.predict(asked).to(state))
    return torch.cat(guesses, dim=1)
