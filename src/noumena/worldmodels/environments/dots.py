"""Dot-reaching: a dot in a square without walls has to go to a place, in front of a background of noise or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.worldmodels.dots.data import open_scene
from noumena.worldmodels.dots.noise import Overlays, Scene
from noumena.worldmodels.dots.world import DotWorld, move
from noumena.worldmodels.environments.actions import random_displacements, shortened, towards


@dataclass(frozen=True)
class DotReaching:
    """The world of the moving dots with a goal; an action beyond the border ends at the nearest point inside.

    Scenes of episodes are the keys of their noise, int64, shape (n,), where there is noise.

    Attributes:
        scene: the square, its one dot, and the noise.
        success_radius: about one deviation of the dot, where two dots all but coincide.
        max_steps: some 2.5 times the longest way, a diagonal of the square.
    """

    scene: Scene = field(default_factory=lambda: Scene(DotWorld(), Overlays()))
    success_radius: float = 1.5
    max_steps: int = 20

    def __post_init__(self) -> None:
        if self.scene.world.count != 1:
            raise NotSupportedError(
                f"dot-reaching is for one dot, not for {self.scene.world.count}. Plan with a model of data.dots=single."
            )
        if min(self.success_radius, self.max_steps) <= 0:
            raise ConfigError("dot-reaching: expected a radius and a number of steps above 0. Correct them.")

    @property
    def frame(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame."""
        return self.scene.world.frame

    @property
    def max_step(self) -> float:
        """Longest action, in pixels."""
        return self.scene.world.max_step

    @property
    def obstructed(self) -> bool:
        """Whether the straight way may be barred: there are no walls."""
        return False

    @property
    def brightest(self) -> float:
        """Greatest intensity of a pixel: the peak of the dot on top of the brightest background."""
        return 1.0 + self.scene.overlays.fixed + self.scene.overlays.changing

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest coordinate of the dot's centre."""
        return self.scene.world.low, self.scene.world.high

    def scenes(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Keys of the noise of ``n`` episodes, shape (n,); ``None`` without noise."""
        if not (self.scene.overlays.fixed or self.scene.overlays.changing):
            return None
        return torch.randint(2**62, (n,), generator=generator, device=generator.device)

    def reset(self, n: int, generator: torch.Generator, scenes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Starts and goals of ``n`` episodes, uniform over the square the dot may be in: two tensors (n, 2)."""
        low, high = self.bounds
        start, goal = low + (high - low) * torch.rand(2, n, 2, generator=generator, device=generator.device)
        return start, goal

    def move(self, positions: Tensor, actions: Tensor, scenes: Tensor | None = None) -> Tensor:
        """Positions (n, ..., 2) after actions (n, ..., 2)."""
        return move(self.scene.world, positions, shortened(actions, self.max_step))

    def render(self, positions: Tensor, scenes: Tensor | None = None, *, time: int = 0) -> Tensor:
        """Frames of positions (n, 2) or (n, times, 2), see :class:`~noumena.worldmodels.environments.worlds.World`.

        The intensity is in units of the clean dot's peak.

        Raises:
            ConfigError: there is noise, and no scenes are passed.
        """
        noisy = self.scene.overlays.fixed or self.scene.overlays.changing
        if noisy and scenes is None:
            raise ConfigError("episodes differ in their background: pass the scenes of the episodes.")
        keys = torch.zeros(len(positions), dtype=torch.int64, device=positions.device) if scenes is None else scenes
        places = positions.float().reshape(len(positions), -1, 1, 2)  # (n, times, dot, xy)
        frames = self.scene.to(positions.device).frames(places, keys.to(positions.device), first=time)
        return frames.reshape(*positions.shape[:-1], *self.frame)

    def random_actions(self, n: int, generator: torch.Generator) -> Tensor:
        """Heading uniform, length uniform up to ``max_step``: shape (n, 2)."""
        return random_displacements(n, self.max_step, generator)

    def oracle_action(self, positions: Tensor, goals: Tensor, scenes: Tensor | None = None) -> Tensor:
        """Straight to the goal, shape (n, ..., 2)."""
        return towards(positions, goals, self.max_step)

    def to_json(self) -> dict[str, Any]:
        """The parameters of the square and of the noise; of photographs only that there are some."""
        return {**self.scene.world.to_json(), **self.scene.overlays.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DotReaching":
        """The world of a data set of moving dots; backgrounds of photographs are those that training did not see.

        Raises:
            DataError: a value is missing, or the photographs are not there any more.
            ConfigError: a value is out of range.
            NotSupportedError: three dots.
        """
        return cls(open_scene(values))
