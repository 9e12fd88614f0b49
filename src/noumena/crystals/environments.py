"""Which atoms are around which, over periodic images, for many crystals at once and on any device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.crystals.batch import CrystalBatch

# Square angstrom below which two sites are one: an atom is no neighbour of itself.
_SAME = 1e-4


@dataclass(frozen=True, eq=False)
class Environments:
    """Pairs of an atom and a neighbour of it; both directions of every pair are there.

    Attributes:
        centre, neighbour: numbers of the atoms within the batch, int64, shape (pairs,).
        vector: from the centre to the neighbour in angstrom, shape (pairs, 3).
        distance: its length, shape (pairs,).
    """

    centre: Tensor
    neighbour: Tensor
    vector: Tensor
    distance: Tensor

    def select(self, chosen: Tensor) -> "Environments":
        """Some of the pairs; ``chosen`` int64 or bool."""
        return Environments(self.centre[chosen], self.neighbour[chosen], self.vector[chosen], self.distance[chosen])


def environments(batch: CrystalBatch, cutoff: float) -> Environments:
    """All neighbours nearer than ``cutoff``, however small or skewed the cell.

    Image n of a site whose fractional difference f is in [-1/2, 1/2] is at least abs(n_k + f_k) h_k away, with h_k the
    distance of the lattice planes, so that images up to floor(cutoff / h_k + 1/2) hold all neighbours. Each crystal
    has as many images as it needs; nothing is padded.

    Args:
        batch: crystals of volumes above 0.
        cutoff: in angstrom.
    """
    owner = batch.crystal
    shifts, images, first_image = _images(batch.lattice, cutoff)
    centre, member = _each(batch.num_atoms[owner])
    neighbour = member + batch.offsets[owner[centre]]
    off = batch.frac_coords[neighbour] - batch.frac_coords[centre]
    off = torch.einsum("pi,pij->pj", off - off.round(), batch.lattice[owner[centre]])
    pair, image = _each(images[owner[centre]])
    vector = off[pair] + shifts[image + first_image[owner[centre[pair]]]]
    square = vector.square().sum(-1)
    near = ((square < cutoff * cutoff) & (square > _SAME)).nonzero()[:, 0]
    pair, vector = pair[near], vector[near]
    return Environments(centre[pair], neighbour[pair], vector, square[near].sqrt())


def _images(lattice: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Translations of all crystals in angstrom (images, 3); how many each has, and its first, int64 (crystals,)."""
    heights = 1.0 / torch.linalg.vector_norm(torch.linalg.inv(lattice), dim=-2)  # (crystals, 3)
    reach = torch.floor(cutoff / heights + 0.5).long()
    size = 2 * reach + 1
    count = size.prod(-1)
    crystal, number = _each(count)
    _, second, third = size[crystal].unbind(-1)
    steps = torch.stack([number // (second * third), number // third % second, number % third], -1) - reach[crystal]
    shifts = torch.einsum("ni,nij->nj", steps.to(lattice.dtype), lattice[crystal])
    return shifts, count, count.cumsum(0) - count


def _each(count: Tensor) -> tuple[Tensor, Tensor]:
    """0, 1, 2, ... repeated ``count`` times each, and 0 to count - 1 beside; int64, shape (sum of count,)."""
    owner = torch.repeat_interleave(count)
    return owner, torch.arange(owner.shape[0], device=count.device) - (count.cumsum(0) - count)[owner]
