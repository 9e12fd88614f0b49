"""Two rooms with a door between them: a dot that must find its way around a wall."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.worldmodels.environments.actions import random_displacements, shortened, towards
from noumena.worldmodels.environments.passage import Passage
from noumena.worldmodels.sequences import from_values

Goals = Literal["other-room", "any"]


@dataclass(frozen=True)
class TwoRooms:
    """A square of two rooms, parted by a vertical wall with a door.

    A dot of Gaussian intensity moves along straight segments and stops where it meets a wall; it does not slide. An
    action beyond the border ends at the nearest point inside. The collision radius of the dot is its deviation.

    Attributes:
        size: pixels of a side.
        dot_std: deviation of the dot, in pixels.
        max_step: longest action, in pixels.
        wall_x: column of the middle of the wall; pixel centres are whole numbers.
        wall_width: of the wall between the rooms and of the border, in pixels.
        door_y: row of the middle of the door.
        door_size: height of the opening, in pixels.
        vary_door: put the door of each episode at a random height instead of ``door_y``. Scenes of episodes are then
            these heights, shape (n, 1).
        goals: "other-room" puts goals across the wall from the start, "any" anywhere.
        success_radius: less than one step, so that only stopping at the goal counts, and 5 % of the width, where two
            dots all but coincide.
        max_steps: some 2.5 times the shortest way between the corners that are farthest apart.
    """

    size: int = 64
    dot_std: float = 2.0
    max_step: float = 4.5
    wall_x: float = 31.5
    wall_width: float = 2.0
    door_y: float = 31.5
    door_size: float = 12.0
    vary_door: bool = False
    goals: Goals = "other-room"
    success_radius: float = 3.0
    max_steps: int = 50

    def __post_init__(self) -> None:
        low, high = self.bounds
        gap = self._half_gap
        if min(self.size, self.dot_std, self.max_step, self.wall_width, self.success_radius, self.max_steps) <= 0:
            raise ConfigError("two rooms: expected sizes, steps and radii above 0. Correct the parameters.")
        if gap <= 0:
            raise ConfigError(
                f"door_size={self.door_size}: the dot is {2 * self.dot_std:g} px wide and cannot pass. "
                f"Expected more than that."
            )
        if not low < self.wall_x - self._half_wall < self.wall_x + self._half_wall < high:
            raise ConfigError(f"wall_x={self.wall_x}: leaves no room on one side. Expected about {self.size // 2}.")
        if high - low < 2 * gap or not low + gap <= self.door_y <= high - gap:
            raise ConfigError(
                f"door_y={self.door_y}: the door is not inside the rooms. Expected a height from {low + gap:g} to "
                f"{high - gap:g} px, or a smaller door."
            )
        if self.goals not in ("other-room", "any"):
            raise ConfigError(f"goals={self.goals!r}: expected 'other-room' or 'any'.")

    # Geometry, in pixels

    @property
    def frame(self) -> tuple[int, int, int]:
        """Channels (dot, walls), height and width of a frame."""
        return (2, self.size, self.size)

    @property
    def obstructed(self) -> bool:
        """Whether the straight way may be barred: by the wall."""
        return True

    @property
    def brightest(self) -> float:
        """Greatest intensity of a pixel."""
        return 1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest coordinate of the dot's centre."""
        margin = self.wall_width - 0.5 + self.dot_std  # the border covers the outermost pixels, from -0.5 on
        return margin, self.size - 1 - margin

    @property
    def _half_wall(self) -> float:
        return self.wall_width / 2 + self.dot_std

    @property
    def _half_gap(self) -> float:
        return self.door_size / 2 - self.dot_std

    def passage(self, like: Tensor, scenes: Tensor | None = None) -> Passage:
        """Where the dot's centre may not be, for positions ``like`` (n, ..., 2) and scenes (n, 1)."""
        door = self._doors(like, scenes)
        left, right = (like.new_tensor(self.wall_x + side * self._half_wall) for side in (-1, 1))
        return Passage(left, right, door - self._half_gap, door + self._half_gap)

    def _doors(self, like: Tensor, scenes: Tensor | None) -> Tensor:
        """Height of the door for positions (n, ..., 2), of a shape that broadcasts to (n, ...)."""
        if scenes is None:
            if self.vary_door:
                raise ConfigError("the door differs between episodes (vary_door): pass their scenes.")
            return like.new_tensor(self.door_y)
        return scenes.to(like)[:, 0].reshape(-1, *[1] * (like.ndim - 2))

    # Episodes

    def scenes(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Heights of the doors of ``n`` episodes, shape (n, 1); ``None`` where all have the same."""
        if not self.vary_door:
            return None
        return self.door_heights(torch.rand(n, 1, generator=generator, device=generator.device))

    def door_heights(self, uniform: Tensor) -> Tensor:
        """Heights of doors for numbers in [0, 1)."""
        low, high = self.bounds
        return low + self._half_gap + uniform * (high - low - 2 * self._half_gap)

    def reset(self, n: int, generator: torch.Generator, scenes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Starts and goals of ``n`` episodes, uniform over the rooms: two tensors (n, 2)."""
        uniform = torch.rand(2, n, 2, generator=generator, device=generator.device)
        side = torch.rand(2, n, generator=generator, device=generator.device) < 0.5
        other = ~side[0] if self.goals == "other-room" else side[1]
        return self.places(uniform[0], side[0]), self.places(uniform[1], other)

    def places(self, uniform: Tensor, left: Tensor) -> Tensor:
        """Positions in the rooms for numbers (..., 2) in [0, 1); ``left`` says in which room, bool, shape (...)."""
        low, high = self.bounds
        x = torch.where(
            left,
            low + uniform[..., 0] * (self.wall_x - self._half_wall - low),
            high - uniform[..., 0] * (high - self.wall_x - self._half_wall),
        )
        return torch.stack([x, low + uniform[..., 1] * (high - low)], dim=-1)

    def move(self, positions: Tensor, actions: Tensor, scenes: Tensor | None = None) -> Tensor:
        """Positions (n, ..., 2) after actions (n, ..., 2); see the class for the rules and the scenes."""
        targets = (positions + shortened(actions, self.max_step)).clamp(*self.bounds)
        return self.passage(positions, scenes).walk(positions, targets)

    def random_actions(self, n: int, generator: torch.Generator) -> Tensor:
        """Heading uniform, length uniform up to ``max_step``: shape (n, 2)."""
        return random_displacements(n, self.max_step, generator)

    def oracle_action(self, positions: Tensor, goals: Tensor, scenes: Tensor | None = None) -> Tensor:
        """The next action on the shortest way through the door, shape (n, ..., 2)."""
        return towards(positions, self.passage(positions, scenes).next_corner(positions, goals), self.max_step)

    # Pictures

    def render(self, positions: Tensor, scenes: Tensor | None = None, *, time: int = 0) -> Tensor:
        """Frames of positions (n, ..., 2): shape (n, ..., 2, size, size), float32, from 0 to 1.

        The first channel is the dot, whose peak is 1; the second is the share of each pixel that walls cover. Nothing
        changes with time.
        """
        pixels = torch.arange(self.size, device=positions.device, dtype=torch.float32)
        # separable: exp(-dx^2 / 2s^2) exp(-dy^2 / 2s^2), the axes being (..., xy, pixel)
        profile = (-0.5 * ((pixels - positions[..., None].float()) / self.dot_std).square()).exp()
        frames = positions.new_empty((*positions.shape[:-1], *self.frame), dtype=torch.float32)
        torch.mul(profile[..., 1, :, None], profile[..., 0, None, :], out=frames[..., 0, :, :])
        frames[..., 1, :, :] = self._walls(pixels, self._doors(positions, scenes).float())
        return frames

    def _walls(self, pixels: Tensor, doors: Tensor) -> Tensor:
        """The share of each pixel that walls cover, for doors (...): shape (..., size, size)."""
        border = 1 - _covered(pixels, self.wall_width - 0.5, self.size - self.wall_width - 0.5)
        wall = _covered(pixels, self.wall_x - self.wall_width / 2, self.wall_x + self.wall_width / 2)
        door = _covered(pixels, (doors - self.door_size / 2)[..., None], (doors + self.door_size / 2)[..., None])
        between = (1 - door)[..., :, None] * wall
        return torch.maximum(between, torch.maximum(border[:, None], border[None, :]))

    def to_json(self) -> dict[str, Any]:
        """All parameters, and the least and greatest coordinate of the dot."""
        low, high = self.bounds
        return {**asdict(self), "low": low, "high": high}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TwoRooms":
        """The world that :meth:`to_json` describes; further keys are not looked at.

        Raises:
            DataError: a value is missing.
            ConfigError: a value is out of range.
        """
        return from_values(cls, values)


def _covered(pixels: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """The share of each pixel, one unit wide, that lies between ``low`` and ``high``."""
    first = torch.maximum(pixels - 0.5, torch.as_tensor(low).to(pixels))
    last = torch.minimum(pixels + 0.5, torch.as_tensor(high).to(pixels))
    return (last - first).clamp(min=0)
