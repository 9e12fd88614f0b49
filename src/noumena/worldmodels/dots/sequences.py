"""Data sets of moving dots: sequences made when they are asked for, or once and kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from noumena.core.seeding import fold
from noumena.worldmodels.dots.noise import WALK, Scene
from noumena.worldmodels.dots.randomness import folded
from noumena.worldmodels.dots.world import walk
from noumena.worldmodels.sequences import EVALUATION_SEQUENCES, Sequences

# Sequences that are made at a time when all are to be kept.
_CHUNK = 256
_CPU = torch.device("cpu")


def sequence_keys(seed: int, stream: int, epoch: int, index: Tensor) -> Tensor:
    """What the random numbers of sequences are functions of.

    Args:
        seed: of the data set.
        stream: which of its parts; sequences of different streams have nothing in common.
        epoch: of training.
        index: of the sequences, int64, shape (batch,).

    Returns:
        int64, shape (batch,).
    """
    return folded(fold(seed, stream, epoch), index)


@dataclass(frozen=True, eq=False)
class Dots:
    """Sequences of moving dots, each a function of (seed, stream, epoch, index): always the same, never stored.

    Attributes:
        scene: the world, its noise and the photographs it is made of.
        steps: frames of a sequence.
        count: sequences.
        seed, stream, epoch: see :func:`sequence_keys`.
        images_of: source and fingerprint of the photographs, for the schema.
        place: where the sequences are made.
    """

    scene: Scene
    steps: int
    count: int
    seed: int
    stream: int
    epoch: int = 0
    images_of: Mapping[str, str] | None = None
    place: torch.device = _CPU

    evaluation_rows: ClassVar[int] = EVALUATION_SEQUENCES

    @property
    def schema(self) -> Mapping[str, Any]:
        """Frames in units of the brightness of a dot's centre, actions and positions in pixels."""
        world = self.scene.world
        return {
            "kind": "dots",
            "frame": list(world.frame),
            "steps": self.steps,
            "actions": ["dx", "dy"],
            "state": list(world.names),
            "state_dims": 2,
            "state_unit": "px",
            "world": {
                **world.to_json(),
                **self.scene.overlays.to_json(),
                "images": None if self.images_of is None else dict(self.images_of),
            },
        }

    def __len__(self) -> int:
        return self.count

    @property
    def device(self) -> torch.device:
        """Where the sequences are made."""
        return self.place

    def batch(self, index: Tensor) -> Sequences:
        """The sequences at ``index`` (int64, shape (batch,)).

        The actions are those of the first dot as commanded; at a border it moves less.

        Raises:
            IndexError: there is no such sequence (looked at on the CPU only: elsewhere it would wait for the device).
        """
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.count:
            raise IndexError(f"sequences 0 to {self.count - 1} exist, got {int(index.min())} to {int(index.max())}")
        keys = sequence_keys(self.seed, self.stream, self.epoch, index)
        positions, commanded = walk(self.scene.world, folded(keys, WALK), self.steps)
        return Sequences(self.scene.frames(positions, keys), commanded[:, :, 0].contiguous(), positions)

    def to(self, device: torch.device) -> Self:
        """The same sequences, made on ``device``."""
        return self if device == self.place else replace(self, scene=self.scene.to(device), place=device)

    @property
    def nbytes(self) -> int:
        """Memory of the photographs, in bytes; the sequences take none."""
        return 0 if self.scene.images is None else self.scene.images.nbytes

    def fingerprint(self) -> str:
        """A hash of everything the sequences are functions of; where the photographs lie is none of it."""
        world = {**self.scene.world.to_json(), **self.scene.overlays.to_json()}
        images = None if self.images_of is None else self.images_of["fingerprint"]
        drawn = [type(self).__name__, self.steps, self.count, self.seed, self.stream, self.epoch]
        facts = json.dumps([world, images, drawn], sort_keys=True)
        return f"sha256:{hashlib.sha256(facts.encode()).hexdigest()}"


class FreshDots(Dots):
    """Sequences of moving dots, new ones in each epoch."""

    def at_epoch(self, epoch: int) -> Dots:
        """The sequences of an epoch; those of epoch 0 are the data set's own."""
        return replace(self, epoch=epoch)


@dataclass(frozen=True, eq=False)
class StoredDots:
    """Sequences of moving dots that were made once and are kept in memory; see :func:`stored`.

    Attributes:
        source: what they were made by.
        sequences: all of them.
    """

    source: Dots
    sequences: Sequences

    evaluation_rows: ClassVar[int] = EVALUATION_SEQUENCES

    @property
    def schema(self) -> Mapping[str, Any]:
        """See :attr:`Dots.schema`."""
        return self.source.schema

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def device(self) -> torch.device:
        """Where the sequences are."""
        return self.source.device

    def batch(self, index: Tensor) -> Sequences:
        """The sequences at ``index`` (int64, shape (batch,))."""
        return self.sequences[index]

    def to(self, device: torch.device) -> "StoredDots":
        """The same sequences on ``device``."""
        return self if device == self.device else StoredDots(self.source.to(device), self.sequences.to(device))

    @property
    def nbytes(self) -> int:
        """Memory of the sequences and of the photographs, in bytes."""
        kept = (self.sequences.frames, self.sequences.actions, self.sequences.state)
        return self.source.nbytes + sum(tensor.nbytes for tensor in kept if tensor is not None)

    def fingerprint(self) -> str:
        """See :meth:`Dots.fingerprint`."""
        return self.source.fingerprint()


def stored(dots: Dots) -> StoredDots:
    """All sequences of ``dots`` at its epoch, kept in memory."""
    source = Dots(**{item.name: getattr(dots, item.name) for item in fields(Dots)})
    frame, count = dots.scene.world.frame, dots.scene.world.count
    # Filled part by part: joining the parts at the end would take the memory twice.
    frames = torch.empty(dots.count, dots.steps, *frame, device=dots.place)
    actions = torch.empty(dots.count, dots.steps - 1, 2, device=dots.place)
    state = torch.empty(dots.count, dots.steps, count, 2, device=dots.place)
    for index in torch.arange(dots.count, device=dots.place).split(_CHUNK):
        some = source.batch(index)
        assert some.state is not None
        frames[index], actions[index], state[index] = some.frames, some.actions, some.state
    return StoredDots(source, Sequences(frames, actions, state))
