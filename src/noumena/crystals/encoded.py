"""Crystals encoded once: what the prior trains on."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.dataset import Crystals


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Crystals and their latents.

    Attributes:
        crystals: elements and sizes; their places are not used.
        atoms: latents of the atoms, shape (atoms, latent).
        cells: latents of the cells, shape (crystals, latent).
    """

    crystals: CrystalBatch
    atoms: Tensor
    cells: Tensor

    def __len__(self) -> int:
        return len(self.crystals)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same on ``device``."""
        return type(self)(
            self.crystals.to(device, non_blocking=non_blocking),
            self.atoms.to(device, non_blocking=non_blocking),
            self.cells.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True, eq=False)
class Encoded:
    """A dataset of crystals with their latents, in the order of the crystals.

    Attributes:
        data: the crystals.
        atoms, cells: see :class:`EncodedBatch`, of all of them.
    """

    data: Crystals
    atoms: Tensor
    cells: Tensor

    @property
    def schema(self) -> dict[str, Any]:
        """That of the crystals."""
        return self.data.schema

    def __len__(self) -> int:
        return len(self.data)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.atoms.device

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        return self.data.nbytes + self.atoms.nbytes + self.cells.nbytes

    def batch(self, index: Tensor) -> EncodedBatch:
        """The crystals at ``index``, int64, shape (batch,)."""
        rows = self.data.crystals.atoms_of(index)
        return EncodedBatch(self.data.batch(index), self.atoms[rows], self.cells[index])

    def to(self, device: torch.device) -> Self:
        """The same on ``device``; itself when it is there already."""
        if self.device == torch.device(device):
            return self
        return type(self)(self.data.to(device), self.atoms.to(device), self.cells.to(device))

    def fingerprint(self) -> str:
        """That of the crystals."""
        return self.data.fingerprint()
