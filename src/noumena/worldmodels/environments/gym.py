"""The worlds as gymnasium environments: ``noumena/DotReaching-v0`` and ``noumena/TwoRooms-v0``.

They need gymnasium: ``pip install 'noumena[rl]'``. Call :func:`register` once, then ``gymnasium.make`` knows them.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.worldmodels.dots.noise import Overlays, Scene
from noumena.worldmodels.dots.world import DotWorld
from noumena.worldmodels.environments.dots import DotReaching
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.environments.worlds import World, reached

try:
    import gymnasium
except ImportError as error:
    raise NotSupportedError(
        "environments of reinforcement learning need gymnasium. Install it: pip install 'noumena[rl]'"
    ) from error

Observation = dict[str, np.ndarray]
# The colours of the first channels in pictures, red, green, blue from 0 to 1: the dot, then the walls.
_COLOURS = ((1.0, 1.0, 1.0), (0.35, 0.45, 0.65))
_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
_GOAL_COLOUR = (0.1, 0.85, 0.35)


class WorldEnv(gymnasium.Env[Observation, np.ndarray]):
    """One episode of a :class:`~noumena.worldmodels.environments.worlds.World` at a time.

    Observations are a dictionary: ``observation``, the frame, and ``goal``, the frame as it would be at the goal, both
    uint8 of shape (height, width, channels), the world's greatest intensity being 255; and
    ``state`` and ``goal_state``, the positions in pixels (x to the right, y down), float32 of shape (2,), for probes
    and for learning without pictures.

    Actions are displacements in units of the longest step (``world.max_step`` pixels), float32 of shape (2,), each
    component from -1 to 1; one that is longer than 1 as a whole is shortened to it. The reward is minus the distance to
    the goal in the same units. The episode terminates at the goal (``info["success"]``) and is truncated after
    ``max_steps``.
    """

    metadata = _METADATA

    def __init__(self, world: World, *, render_mode: str | None = None) -> None:
        """
        Args:
            world: the rules.
            render_mode: "rgb_array" or nothing.

        Raises:
            ConfigError: another render mode.
        """
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode={render_mode!r}: expected 'rgb_array' or None.")
        self.render_mode = render_mode
        self.world = world
        channels, height, width = world.frame
        image = gymnasium.spaces.Box(0, 255, (height, width, channels), np.uint8)
        place = gymnasium.spaces.Box(0.0, float(max(height, width)), (2,), np.float32)
        spaces: dict[str, gymnasium.Space[Any]] = {
            "observation": image,
            "goal": image,
            "state": place,
            "goal_state": place,
        }
        self.observation_space: Any = gymnasium.spaces.Dict(spaces)
        self.action_space: Any = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Any]:
        """Begin an episode; its start, goal and scene follow from ``seed``, if there is one."""
        super().reset(seed=seed)
        generator = torch.Generator().manual_seed(int(self.np_random.integers(2**62)))
        self._scenes = self.world.scenes(1, generator)
        self._position, self._goal = self.world.reset(1, generator, self._scenes)
        self._steps = 0
        self._goal_frame = self._frame(self._goal)
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move, and see."""
        displacement = self.world.max_step * torch.as_tensor(np.asarray(action, np.float32).reshape(1, 2))
        self._position = self.world.move(self._position, displacement, self._scenes)
        self._steps += 1
        info = self._info()
        truncated = self._steps >= self.world.max_steps
        return self._observe(), -info["distance"] / self.world.max_step, info["success"], truncated, info

    def render(self) -> Any:
        """The scene in colours, the goal as a green dot: uint8, shape (height, width, 3); ``None`` without a mode."""
        if self.render_mode is None:
            return None
        frame, goal = (self._bright(position) for position in (self._position, self._goal))
        colours = torch.tensor(_COLOURS)[: len(frame)]
        picture = torch.einsum("chw,cr->hwr", frame, colours)
        # The goal's dot shows where the agent's is not: both frames hold the same walls.
        mark = (goal[0] - frame[0]).clamp(min=0)[..., None] * torch.tensor(_GOAL_COLOUR)
        return _bytes(picture + mark)

    def _observe(self) -> Observation:
        return {
            "observation": self._frame(self._position),
            "goal": self._goal_frame.copy(),
            "state": self._position[0].numpy().astype(np.float32),
            "goal_state": self._goal[0].numpy().astype(np.float32),
        }

    def _info(self) -> dict[str, Any]:
        distance = float((self._position - self._goal).norm())
        return {"distance": distance, "success": bool(reached(self.world, self._position, self._goal))}

    def _bright(self, position: Tensor) -> Tensor:
        """The frame in the range from 0 to 1, shape (channels, height, width)."""
        return self.world.render(position, self._scenes, time=self._steps)[0] / self.world.brightest

    def _frame(self, position: Tensor) -> np.ndarray:
        return _bytes(self._bright(position).permute(1, 2, 0))


class DotReachingEnv(WorldEnv):
    """:class:`WorldEnv` of :class:`~noumena.worldmodels.environments.dots.DotReaching`, uniform noise or none."""

    def __init__(
        self,
        *,
        size: int = 28,
        dot_std: float = 1.3,
        max_step: float = 4.0,
        fixed: float = 0.0,
        changing: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            size, dot_std, max_step: see :class:`~noumena.worldmodels.dots.world.DotWorld`.
            fixed, changing: levels of the noise, see :class:`~noumena.worldmodels.dots.noise.Overlays`.
            render_mode: "rgb_array" or nothing.
        """
        scene = Scene(DotWorld(size=size, dot_std=dot_std, max_step=max_step), Overlays(fixed=fixed, changing=changing))
        super().__init__(DotReaching(scene), render_mode=render_mode)


class TwoRoomsEnv(WorldEnv):
    """:class:`WorldEnv` of :class:`~noumena.worldmodels.environments.rooms.TwoRooms`."""

    def __init__(self, *, render_mode: str | None = None, **parameters: Any) -> None:
        super().__init__(TwoRooms(**parameters), render_mode=render_mode)


def register() -> None:
    """Make ``gymnasium.make("noumena/DotReaching-v0")`` and ``"noumena/TwoRooms-v0"`` known; again does no harm.

    Keyword arguments of ``gymnasium.make`` are the parameters of the worlds.
    """
    here = "noumena.worldmodels.environments.gym"
    for name, place in (("DotReaching", DotReachingEnv), ("TwoRooms", TwoRoomsEnv)):
        if f"noumena/{name}-v0" not in gymnasium.registry:
            gymnasium.register(f"noumena/{name}-v0", entry_point=f"{here}:{place.__name__}")


def _bytes(picture: Tensor) -> np.ndarray:
    """Intensities from 0 to 1 as uint8."""
    return (255 * picture.clamp(0, 1)).round().to(torch.uint8).numpy()
