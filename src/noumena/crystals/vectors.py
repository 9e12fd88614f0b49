"""Vectors of crystals, computed once: what a property head is trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from noumena.crystals.dataset import Crystals


@dataclass(frozen=True, eq=False)
class VectorBatch:
    """Vectors of crystals (crystals, size), and the property of each (crystals,), in its own unit."""

    vectors: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same on ``device``."""
        moved = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.vectors, self.target))
        return replace(self, **dict(zip(("vectors", "target"), moved, strict=True)))


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of a data set, computed once: what a head is trained on."""

    data: VectorBatch
    source: Crystals

    @property
    def schema(self) -> Mapping[str, Any]:
        """That of the crystals."""
        return self.source.schema

    def __len__(self) -> int:
        return len(self.data)

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.data.vectors.device

    @property
    def nbytes(self) -> int:
        """Memory of the vectors in bytes."""
        return self.data.vectors.nbytes + self.data.target.nbytes

    def batch(self, index: Tensor) -> VectorBatch:
        """The vectors at ``index``."""
        return VectorBatch(self.data.vectors[index], self.data.target[index])

    def to(self, device: torch.device) -> Self:
        """The same vectors on ``device``; itself when they are there already."""
        return self if self.device == device else replace(self, data=self.data.to(device))

    def fingerprint(self) -> str:
        """That of the crystals."""
        return self.source.fingerprint()
