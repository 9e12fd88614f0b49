"""Short videos with the actions between their frames: the batches that every model of the family takes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError

# Sequences whose loss is computed at a time where no gradient is wanted: frames take memory.
EVALUATION_SEQUENCES = 256
_MOST_SEQUENCES = 1 << 40
_MOST_STEPS = 10_000

_World = TypeVar("_World")


@dataclass(frozen=True)
class Sequences:
    """A batch of sequences of equal length.

    Attributes:
        frames: shape (batch, time, channels, height, width), float, or uint8 as stored in files. Models standardise
            them, so their scale is free, but it is the same for training and use.
        actions: shape (batch, time - 1, action), float; action ``t`` leads from frame ``t`` to frame ``t + 1``.
        state: what a probe is to read from latents, shape (batch, time, things, dims), float: the positions of dots
            in pixels (x to the right, y down), or single numbers of a state vector (dims = 1). Never seen by models
            that learn without labels. ``None`` where it is not known.
    """

    frames: Tensor
    actions: Tensor
    state: Tensor | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 5:
            raise DataError(
                f"frames: expected shape (batch, time, channels, height, width), got {tuple(self.frames.shape)}."
            )
        batch, time = self.frames.shape[:2]
        if self.actions.ndim != 3 or self.actions.shape[:2] != (batch, time - 1):
            raise DataError(
                f"actions: expected shape ({batch}, {time - 1}, action), one action fewer than the {time} frames of "
                f"each sequence, got {tuple(self.actions.shape)}."
            )
        if self.state is not None and (self.state.ndim != 4 or self.state.shape[:2] != (batch, time)):
            raise DataError(f"state: expected shape ({batch}, {time}, things, dims), got {tuple(self.state.shape)}.")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def steps(self) -> int:
        """Frames of each sequence."""
        return self.frames.shape[1]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Sequences":
        """The same on ``device``."""
        return self._each(lambda x: x.to(device, non_blocking=non_blocking))

    def __getitem__(self, index: Any) -> "Sequences":
        """Some of the sequences: a slice or an index tensor of the batch axis."""
        return self._each(lambda x: x[index])

    def _each(self, function: Any) -> "Sequences":
        state = None if self.state is None else function(self.state)
        return replace(self, frames=function(self.frames), actions=function(self.actions), state=state)


def from_values(world: type[_World], values: Mapping[str, Any]) -> _World:
    """A world, a dataclass, with the values of a data set's schema; further keys are not looked at.

    Raises:
        DataError: a value is missing.
        ConfigError: a value is out of range.
    """
    names = [field.name for field in fields(cast("Any", world))]
    if missing := [name for name in names if name not in values]:
        raise DataError(f"world: expected the values {', '.join(names)}; missing: {', '.join(missing)}.")
    return world(**{name: values[name] for name in names})


def check_counts(*, steps: int, sequences: int, val_sequences: int = 0, test_sequences: int = 0) -> None:
    """Refuse sizes of data that are made.

    Raises:
        ConfigError: fewer than 2 frames, no sequence, or more of either than anybody has time for; it names the option.
    """
    for name, value, least, most in (
        ("steps", steps, 2, _MOST_STEPS),
        ("sequences", sequences, 1, _MOST_SEQUENCES),
        ("val_sequences", val_sequences, 0, _MOST_SEQUENCES),
        ("test_sequences", test_sequences, 0, _MOST_SEQUENCES),
    ):
        if not least <= value <= most:
            raise ConfigError(f"data.{name}: expected {least} to {most:,}, got {value}.")


def joined(parts: list[Sequences]) -> Sequences:
    """Several batches as one."""
    states = [part.state for part in parts if part.state is not None]
    return Sequences(
        torch.cat([part.frames for part in parts]),
        torch.cat([part.actions for part in parts]),
        torch.cat(states) if len(states) == len(parts) else None,
    )
