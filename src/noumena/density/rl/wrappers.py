"""A gymnasium environment that says how far each step is from the data. Needs ``pip install 'noumena[rl]'``."""

from typing import Any

import numpy as np

from noumena.core.errors import DataError, NotSupportedError
from noumena.density.penalty import DensityPenalty

try:
    import gymnasium
except ImportError as error:
    raise NotSupportedError("the wrapper needs gymnasium. Install it: pip install 'noumena[rl]'") from error


class DensityPenaltyWrapper(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Adds ``penalty``, ``log_density`` and ``p_value`` (of a calibrated model) of each step to ``info``.

    With ``subtract`` the reward is less by the penalty, and ``info["raw_reward"]`` is what the environment gave.
    """

    def __init__(
        self,
        env: "gymnasium.Env[np.ndarray, np.ndarray]",
        penalty: DensityPenalty,
        *,
        subtract: bool = False,
    ) -> None:
        """
        Args:
            env: its observations and actions are vectors as wide as those the model was trained on.
            penalty: see :class:`~noumena.density.penalty.DensityPenalty`.
            subtract: whether the reward pays the penalty.

        Raises:
            NotSupportedError: observations or actions are no vectors.
            DataError: they are not as wide as in training.
        """
        super().__init__(env)
        _check_widths(env, penalty)
        self.penalty = penalty
        self.subtract = subtract
        self._seen: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See :meth:`gymnasium.Env.reset`; a first observation pays nothing."""
        self._seen, info = self.env.reset(seed=seed, options=options)
        return self._seen, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See :meth:`gymnasium.Env.step`."""
        # A copy: an environment may change its observation in place.
        before = None if self._seen is None else np.array(self._seen)
        self._seen, reward, terminated, truncated, info = self.env.step(action)
        found = self.penalty.evaluate(self._seen, np.asarray(action), before)
        known = {name: float(value) for name, value in found._asdict().items() if value is not None}
        info = {**info, **known}
        if self.subtract:
            info["raw_reward"] = float(reward)
            reward = float(reward) - known["penalty"]
        return self._seen, float(reward), terminated, truncated, info


def _check_widths(env: "gymnasium.Env[np.ndarray, np.ndarray]", penalty: DensityPenalty) -> None:
    """Refuse at once what would fail at the first step."""
    found: dict[str, int] = {}
    for name, space in (("observation", env.observation_space), ("action", env.action_space)):
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise NotSupportedError(
                f"{env}: expected vectors as {name}s, found {space}. Wrap it, e.g. in gymnasium.wrappers."
                "FlattenObservation; a density of actions needs actions in a Box."
            )
        found[name] = space.shape[0]
    found["next_observation"] = found["observation"]
    layout = penalty.layout
    wrong = {part: found[part] for part in layout.parts if layout.widths and layout.widths[part] != found[part]}
    if wrong or sum(found[part] for part in layout.parts) != layout.columns:
        words = ", ".join(f"{part} ({found[part]})" for part in layout.parts)
        raise DataError(f"{env}: has {words}; the model was trained on {layout}. Is it a model of this task?")
