"""Random walks in two rooms: sequences made when they are asked for."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.core.seeding import fold
from noumena.worldmodels.dots.randomness import folded, uniform, von_mises
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.sequences import EVALUATION_SEQUENCES, Sequences

# How far from the wall and from the middle of the door a walk starts that starts near the door, in steps.
_NEAR_STEPS = 2.5
# A step that ends this far from where it was to end, in pixels, was stopped.
_STOPPED = 1e-3


@dataclass(frozen=True)
class Walker:
    """How the dot walks when it gathers data.

    A heading turns a little from step to step, by von Mises angles, so that walks get somewhere; a step that is stopped
    is followed by one in any direction. Lengths of steps are uniform up to the longest.

    Attributes:
        kappa: concentration of the turns; 0 is a new heading in each step, and the larger, the straighter.
        near_door: share of the sequences that start beside the door and head for it, without which few pass it; the
            others start anywhere in the rooms.
    """

    kappa: float = 4.0
    near_door: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.kappa <= 1e4:
            raise ConfigError(f"data.kappa: expected 0 to 10,000, got {self.kappa}.")
        if not 0 <= self.near_door <= 1:
            raise ConfigError(f"data.near_door: expected a share from 0 to 1, got {self.near_door}.")


def walk(world: TwoRooms, walker: Walker, keys: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Random walks, each a function of its key.

    Args:
        world: the rooms.
        walker: the way of walking.
        keys: int64, shape (batch,).
        steps: frames of a sequence; there is one action fewer.

    Returns:
        Positions, shape (batch, steps, 2), the actions as commanded, before walls and border shortened them, shape
        (batch, steps - 1, 2), and the scenes, shape (batch, 1), if episodes differ; float32, in pixels.
    """
    moves = steps - 1
    door, place, choice, draws = uniform(keys, 5 + 3 * moves).split([1, 2, 2, 3 * moves], dim=1)
    scenes = world.door_heights(door) if world.vary_door else None
    turns, anew, lengths = draws.unflatten(1, (moves, 3)).unbind(-1)  # each (batch, moves)
    turns, anew, lengths = von_mises(turns, walker.kappa), 2 * math.pi * anew, world.max_step * lengths
    path = torch.empty(len(keys), steps, 2, device=keys.device)
    actions = torch.empty(len(keys), moves, 2, device=keys.device)
    near = choice[:, 1] < walker.near_door
    path[:, 0], aim = _starts(world, place, choice[:, 0] < 0.5, near, scenes)
    heading = torch.where(near, aim, anew[:, 0])
    # Where a step ends depends on where the one before ended: time is the one loop.
    for time in range(moves):
        heading = heading + turns[:, time]
        actions[:, time] = lengths[:, time, None] * torch.stack([heading.cos(), heading.sin()], dim=-1)
        path[:, time + 1] = world.move(path[:, time], actions[:, time], scenes)
        missed = (path[:, time + 1] - path[:, time] - actions[:, time]).norm(dim=-1)
        heading = torch.where(missed > _STOPPED, anew[:, (time + 1) % moves], heading)
    return path, actions, scenes


def _starts(world: TwoRooms, place: Tensor, left: Tensor, near: Tensor, scenes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where walks begin, and in which direction the door is from there.

    Args:
        world: the rooms.
        place: numbers in [0, 1), shape (batch, 2).
        left, near: in which room, and whether beside the door, bool, shape (batch,).
        scenes: of the rooms.

    Returns:
        Positions, shape (batch, 2), and headings, shape (batch,).
    """
    reach = _NEAR_STEPS * world.max_step
    passage = world.passage(place, scenes)
    door = (passage.top + passage.bottom) / 2
    beside = torch.where(left, passage.left - reach * place[:, 0], passage.right + reach * place[:, 0])
    there = torch.stack([beside, door + reach * (2 * place[:, 1] - 1)], dim=-1).clamp(*world.bounds)
    start = torch.where(near[:, None], there, world.places(place, left))
    return start, torch.atan2(door - start[:, 1], world.wall_x - start[:, 0])


@dataclass(frozen=True, eq=False)
class Rooms:
    """Random walks in two rooms, each a function of (seed, stream, epoch, index): always the same, never stored.

    Attributes:
        world: the rooms.
        walker: the way of walking.
        steps: frames of a sequence.
        count: sequences.
        seed, stream, epoch: what the random numbers are functions of; streams are the parts of a data set.
        place: where the sequences are made.
    """

    world: TwoRooms
    walker: Walker
    steps: int
    count: int
    seed: int
    stream: int
    epoch: int = 0
    place: torch.device = field(default_factory=lambda: torch.device("cpu"))

    evaluation_rows: ClassVar[int] = EVALUATION_SEQUENCES

    @property
    def schema(self) -> Mapping[str, Any]:
        """Frames from 0 to 1 (dot, walls), actions and positions in pixels."""
        return {
            "kind": "two-rooms",
            "frame": list(self.world.frame),
            "steps": self.steps,
            "actions": ["dx", "dy"],
            "state": ["dot"],
            "state_dims": 2,
            "state_unit": "px",
            "world": {**self.world.to_json(), **asdict(self.walker)},
        }

    def __len__(self) -> int:
        return self.count

    @property
    def device(self) -> torch.device:
        """Where the sequences are made."""
        return self.place

    def batch(self, index: Tensor) -> Sequences:
        """The sequences at ``index`` (int64, shape (batch,)), with the actions as commanded.

        Raises:
            IndexError: there is no such sequence (looked at on the CPU only: elsewhere it would wait for the device).
        """
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.count:
            raise IndexError(f"sequences 0 to {self.count - 1} exist, got {int(index.min())} to {int(index.max())}")
        keys = folded(fold(self.seed, self.stream, self.epoch), index)
        positions, actions, scenes = walk(self.world, self.walker, keys, self.steps)
        return Sequences(self.world.render(positions, scenes), actions, positions[:, :, None])

    def to(self, device: torch.device) -> "Rooms":
        """The same sequences, made on ``device``."""
        return self if device == self.place else replace(self, place=device)

    @property
    def nbytes(self) -> int:
        """Memory of the sequences before they are asked for: none."""
        return 0

    def fingerprint(self) -> str:
        """A hash of everything the sequences are functions of."""
        drawn = [self.count, self.seed, self.stream, self.epoch, type(self).__name__]
        facts = json.dumps({**self.schema, "drawn": drawn}, sort_keys=True)
        return f"sha256:{hashlib.sha256(facts.encode()).hexdigest()}"


class FreshRooms(Rooms):
    """Random walks in two rooms, new ones in each epoch."""

    def at_epoch(self, epoch: int) -> Rooms:
        """The sequences of an epoch; those of epoch 0 are the data set's own."""
        return replace(self, epoch=epoch)
