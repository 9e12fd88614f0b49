"""What planners know of a world: many episodes at once, as tensors."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from noumena.core.errors import DataError


@runtime_checkable
class World(Protocol):
    """A point that moves in the plane and has to reach a goal; all functions take a batch of episodes.

    Positions, goals and actions are in pixels, x to the right and y down. A *scene* is what stays the same during an
    episode but differs between episodes (where the door is, the seed of the background); ``None`` where there is none.
    Nothing is kept between calls: whoever runs episodes keeps positions and scenes.
    """

    @property
    def max_step(self) -> float:
        """Longest displacement of one action, in pixels; longer actions are shortened to it."""
        ...

    @property
    def success_radius(self) -> float:
        """A goal is reached when the position is at most this far from it, in pixels."""
        ...

    @property
    def max_steps(self) -> int:
        """Actions an episode may take."""
        ...

    @property
    def obstructed(self) -> bool:
        """Whether the straight way to a goal may be barred."""
        ...

    @property
    def frame(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame."""
        ...

    @property
    def brightest(self) -> float:
        """Greatest intensity that a pixel of a frame may have."""
        ...

    def scenes(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Scenes of ``n`` episodes, shape (n, ...), on the generator's device."""
        ...

    def reset(self, n: int, generator: torch.Generator, scenes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Where ``n`` episodes begin and what their goals are: two tensors (n, 2) on the generator's device."""
        ...

    def move(self, positions: Tensor, actions: Tensor, scenes: Tensor | None = None) -> Tensor:
        """Positions after one action each.

        Args:
            positions, actions: shape (n, ..., 2).
            scenes: shape (n, ...); further axes of positions share the scene of their episode.
        """
        ...

    def render(self, positions: Tensor, scenes: Tensor | None = None, *, time: int = 0) -> Tensor:
        """Frames, a function of what is passed and nothing else.

        Args:
            positions: shape (n, 2), or (n, times, 2) of as many successive steps.
            scenes: shape (n, ...), where episodes have any.
            time: step within the episode of the (first) positions; backgrounds may change with it.

        Returns:
            float32, shape (n, channels, height, width) or (n, times, channels, height, width).
        """
        ...

    def random_actions(self, n: int, generator: torch.Generator) -> Tensor:
        """Actions of a policy that knows nothing: heading uniform, length uniform up to ``max_step``, shape (n, 2)."""
        ...

    def oracle_action(self, positions: Tensor, goals: Tensor, scenes: Tensor | None = None) -> Tensor:
        """The next action on the shortest way from positions to goals, shape (n, ..., 2)."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The parameters, as a data set's schema holds them under ``world``."""
        ...


def reached(world: World, positions: Tensor, goals: Tensor) -> Tensor:
    """Whether positions (..., 2) are at their goals, bool, shape (...)."""
    return (positions - goals).norm(dim=-1) <= world.success_radius


def world_of(schema: Mapping[str, Any]) -> World:
    """The world that data were made in, to act in it.

    Args:
        schema: of a dataset or a model: ``kind`` and the ``world``'s parameters.

    Raises:
        DataError: the data were made in no world that can be rebuilt.
    """
    from noumena.worldmodels.environments.dots import DotReaching
    from noumena.worldmodels.environments.rooms import TwoRooms

    makers: dict[str, Callable[[Mapping[str, Any]], World]]
    makers = {"dots": DotReaching.from_json, "two-rooms": TwoRooms.from_json}
    make = makers.get(schema.get("kind", ""))
    if make is None or not schema.get("world"):
        raise DataError(
            f"data of kind '{schema.get('kind')}' come with no world to act in. Plan with a model of "
            f"{' or '.join(makers)}."
        )
    return make(schema["world"])
