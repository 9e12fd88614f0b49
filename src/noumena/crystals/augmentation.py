"""Random descriptions of the same crystal, and damage to mend."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.seeding import Noise
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.networks.packing import Packing
from noumena.crystals.origin import moved


def random_rotations(normal: Tensor) -> Tensor:
    """Rotation matrices, uniform over all rotations, shape (batch, 3, 3).

    Args:
        normal: standard normal numbers, shape (batch, 4): unit quaternions in a random direction (Shoemake 1992).
    """
    w, x, y, z = functional.normalize(normal, dim=1).unbind(1)
    rows = (
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
    )
    return torch.stack(rows, -2)


def augmented(batch: CrystalBatch, noise: Noise) -> CrystalBatch:
    """Each crystal turned at random and counted from a random origin: another description of the same."""
    turned = batch.lattice @ random_rotations(noise.normal_like(batch.lattice.new_empty(len(batch), 4)))
    shift = noise.uniform_like(batch.lattice.new_empty(len(batch), 3))
    return moved(replace(batch, lattice=turned), shift)


class Draws:
    """Random numbers of each token that do not depend on which other crystals are in the batch."""

    def __init__(self, noise: Noise, batch: CrystalBatch, most: int) -> None:
        self.noise = noise
        self.batch = batch
        self.number = torch.arange(len(batch.crystal), device=batch.device) - batch.offsets[batch.crystal]
        self._like = batch.frac_coords.new_empty(len(batch), most)

    def uniform(self) -> Tensor:
        """In [0, 1), shape (atoms,)."""
        return self.noise.uniform_like(self._like)[self.batch.crystal, self.number]

    def normal_of_atoms(self, size: int) -> Tensor:
        """Standard normal, shape (atoms, size)."""
        wide = self._like[..., None].expand(-1, -1, size)
        return self.noise.normal_like(wide)[self.batch.crystal, self.number]

    def normal(self, packing: Packing, size: int) -> Tensor:
        """Standard normal, shape (tokens, size)."""
        wide = self._like[..., None].expand(-1, -1, size)
        return self.noise.normal_like(wide)[packing.crystal, packing.within]


def corrupted(batch: CrystalBatch, share: float, draws: Draws, distance: float = 0.1) -> CrystalBatch:
    """Some atoms without their element and off their place, for the decoder to mend.

    Args:
        batch: crystals.
        share: of the atoms.
        draws: random numbers of their atoms.
        distance: standard deviation of the displacement along each axis, in angstrom.
    """
    hit = draws.uniform() < share
    push = distance * draws.normal_of_atoms(3)
    # Displacements are drawn in angstrom, coordinates are in units of the cell.
    push = torch.einsum("ai,aij->aj", push, torch.linalg.inv(batch.lattice)[batch.crystal])
    frac = torch.where(hit[:, None], batch.frac_coords + push, batch.frac_coords)
    return replace(batch, frac_coords=frac, atom_types=batch.atom_types.masked_fill(hit, 0))
