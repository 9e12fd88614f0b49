"""Conformations of one molecule: what the family trains and evaluates on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.molecules.topology import Topology

_HASHED_FRAMES = 4096


@dataclass(frozen=True, eq=False)
class Conformations:
    """Frames of one molecule. A batch is a tensor of coordinates, shape (batch, atoms, 3), in angstrom.

    Attributes:
        xyz: float32, shape (frames, atoms, 3), in angstrom, each frame's centroid at the origin.
        topology: of the molecule.
        trajectory: int64, shape (frames,): which trajectory each frame is from.
        frame: int64, shape (frames,): its number within that trajectory, from 0.
        side: further numbers of each frame that no model sees, such as energies, for evaluation and colours; float32,
            shape (frames,); NaN where one is not known.
        layout: what to remember in order to read further files the same way; JSON-able, with ``kind``.
        evaluation_rows: frames that a loss without gradients should take at a time, at most, for the memory it needs.
    """

    xyz: Tensor
    topology: Topology
    trajectory: Tensor
    frame: Tensor
    side: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    layout: Mapping[str, Any] = field(default_factory=lambda: {"kind": "trajectory"})
    evaluation_rows: int | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """What one frame is; stored with a model."""
        return {**self.layout, "topology": self.topology.to_json()}

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def device(self) -> torch.device:
        """Where the frames are."""
        return self.xyz.device

    @property
    def nbytes(self) -> int:
        """Memory of the frames in bytes."""
        return self.xyz.nbytes

    def batch(self, index: Tensor) -> Tensor:
        """The frames at ``index`` (int64, shape (batch,)), shape (batch, atoms, 3), in angstrom."""
        return self.xyz.index_select(0, index)

    def to(self, device: torch.device | str) -> Self:
        """The same frames on ``device``; itself when they are there already."""
        if self.device == torch.device(device):
            return self
        moved = {name: getattr(self, name).to(device) for name in ("xyz", "trajectory", "frame")}
        return replace(self, **moved, side={name: values.to(device) for name, values in self.side.items()})

    def subset(self, index: Tensor) -> Self:
        """Some frames; ``index`` int64 or bool."""
        chosen = {name: getattr(self, name)[index] for name in ("xyz", "trajectory", "frame")}
        return replace(self, **chosen, side={name: values[index] for name, values in self.side.items()})

    def fingerprint(self) -> str:
        """A hash of the topology and the frames."""
        digest = hashlib.sha256(json.dumps(self.topology.to_json(), sort_keys=True).encode())
        for part in self.xyz.split(_HASHED_FRAMES):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def as_frames(xyz: Any, atoms: int, *, where: str = "coordinates") -> Tensor:
    """Coordinates as a float tensor of shape (frames, atoms, 3), not copied where it is one.

    Raises:
        DataError: another shape, or a number that is not finite.
    """
    frames = xyz if isinstance(xyz, Tensor) else torch.as_tensor(np.asarray(xyz))
    if frames.ndim == 2:
        frames = frames[None]
    if frames.ndim != 3 or frames.shape[1:] != (atoms, 3):
        raise DataError(
            f"{where}: expected coordinates of shape (frames, {atoms}, 3) in angstrom, got {tuple(frames.shape)}."
        )
    if not frames.is_floating_point():
        frames = frames.float()
    if not bool(torch.isfinite(frames).all()):
        bad = int((~torch.isfinite(frames)).flatten(1).any(1).nonzero()[0])
        atom = int((~torch.isfinite(frames[bad])).any(1).nonzero()[0])
        raise DataError(f"{where}: frame {bad} has NaN or infinity at atom {atom + 1}. Leave it out or mend it.")
    return frames


def centred(xyz: Tensor) -> Tensor:
    """Frames with their centroids at the origin; shape (..., atoms, 3)."""
    return xyz - xyz.mean(-2, keepdim=True)
