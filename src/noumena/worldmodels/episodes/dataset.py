"""Data sets of recorded episodes: windows of frames with their actions, cut out when they are asked for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from noumena.readers.checks import column_names
from noumena.worldmodels.sequences import EVALUATION_SEQUENCES, Sequences


@dataclass(frozen=True, eq=False)
class Episodes:
    """Windows of equal length over the frames of episodes, which lie one after the other; none spans two episodes.

    Attributes:
        frames: shape (frames, channels, height, width), uint8 or float32.
        actions: shape (frames, action), float32; row ``t`` leads from frame ``t`` to ``t + 1``, and that of the last
            frame of an episode is of no meaning.
        state: shape (frames, things, dims), float32, or ``None``.
        starts: first frame of each window, int64, shape (windows,).
        layout: schema.
    """

    frames: Tensor
    actions: Tensor
    state: Tensor | None
    starts: Tensor
    layout: Mapping[str, Any]

    evaluation_rows: ClassVar[int] = EVALUATION_SEQUENCES

    @property
    def schema(self) -> Mapping[str, Any]:
        """What frames, actions and states are, and how they were read."""
        return self.layout

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def device(self) -> torch.device:
        """Where the frames are."""
        return self.frames.device

    def batch(self, index: Tensor) -> Sequences:
        """The windows at ``index`` (int64, shape (batch,)): one gather."""
        steps = self.layout["steps"]
        rows = self.starts[index][:, None] + torch.arange(steps, device=self.device)  # (batch, time)
        state = None if self.state is None else self.state[rows]
        return Sequences(self.frames[rows], self.actions[rows[:, :-1]], state)

    def to(self, device: torch.device) -> "Episodes":
        """The same on ``device``."""
        if device == self.device:
            return self
        state = None if self.state is None else self.state.to(device)
        return replace(
            self,
            frames=self.frames.to(device),
            actions=self.actions.to(device),
            state=state,
            starts=self.starts.to(device),
        )

    @property
    def nbytes(self) -> int:
        """Memory of all tensors, in bytes."""
        state = 0 if self.state is None else self.state.nbytes
        return self.frames.nbytes + self.actions.nbytes + self.starts.nbytes + state

    def fingerprint(self) -> str:
        """A hash of frames, actions and windows; the state, which no model sees, is not part of it."""
        return _hash([self.layout["steps"]], self.frames, self.actions, self.starts)


@dataclass(frozen=True, eq=False)
class Given:
    """Sequences that are at hand already, as a data set."""

    sequences: Sequences
    layout: Mapping[str, Any]

    evaluation_rows: ClassVar[int] = EVALUATION_SEQUENCES

    @property
    def schema(self) -> Mapping[str, Any]:
        """What frames, actions and states are."""
        return self.layout

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def device(self) -> torch.device:
        """Where the frames are."""
        return self.sequences.frames.device

    def batch(self, index: Tensor) -> Sequences:
        """The sequences at ``index`` (int64, shape (batch,))."""
        return self.sequences[index]

    def to(self, device: torch.device) -> "Given":
        """The same on ``device``."""
        return self if device == self.device else replace(self, sequences=self.sequences.to(device))

    @property
    def nbytes(self) -> int:
        """Memory of all tensors, in bytes."""
        state = 0 if self.sequences.state is None else self.sequences.state.nbytes
        return self.sequences.frames.nbytes + self.sequences.actions.nbytes + state

    def fingerprint(self) -> str:
        """A hash of frames and actions."""
        return _hash(["given"], self.sequences.frames, self.sequences.actions)


def given(sequences: Sequences, schema: Mapping[str, Any] | None) -> Given:
    """Sequences as a data set.

    Args:
        sequences: frames, actions and perhaps states.
        schema: of a model that is to see them; names are taken from it where their number fits.
    """
    known = schema or {"kind": "episodes"}
    things, dims = (0, 1) if sequences.state is None else sequences.state.shape[2:]
    actions, state = list(known.get("actions", [])), list(known.get("state", []))
    layout = {
        **known,
        "frame": list(sequences.frames.shape[2:]),
        "steps": sequences.steps,
        "actions": _names("action", actions, sequences.actions.shape[2]),
        "state": _names("state", state, things),
        "state_dims": dims,
        "state_unit": known.get("state_unit", "") if len(state) == things else "",
    }
    return Given(sequences, layout)


def _names(prefix: str, known: list[str], width: int) -> list[str]:
    return known if len(known) == width else list(column_names(prefix, width))


def _hash(facts: list[Any], *tensors: Tensor) -> str:
    shapes = [[str(tensor.dtype), list(tensor.shape)] for tensor in tensors]
    digest = hashlib.sha256(json.dumps([facts, shapes]).encode())
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return f"sha256:{digest.hexdigest()}"
