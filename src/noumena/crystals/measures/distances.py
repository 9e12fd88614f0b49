"""Distances between sites of periodic crystals, exact for every cell, reduced or not."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.geometry import lengths_of, volume_of
from noumena.crystals.measures.cells import SMALLEST_VOLUME

_AT_ONCE = 1 << 21  # distances in memory
_ROUNDS = 100
MOST_IMAGES = 200_000
"""Translations that are looked at; a cell so flat that it needs more has no distances (NaN)."""


@dataclass(frozen=True)
class Neighbours:
    """Distances in some crystals of equal size.

    Attributes:
        crystals: their numbers in the batch, int64, shape (n,).
        distances: in angstrom, from each atom to all atoms and images, shape (n, atoms, others); the atom itself is at
            infinity.
    """

    crystals: Tensor
    distances: Tensor


def valid_cells(crystals: CrystalBatch) -> Tensor:
    """Which cells are cells: all numbers finite, and a volume above 0.1 cubic angstrom; bool, shape (crystals,)."""
    finite = torch.isfinite(crystals.lattice).flatten(1).all(1)
    broken = ~torch.isfinite(crystals.frac_coords).all(1)
    finite[crystals.crystal[broken]] = False
    # NaN compares as false.
    return finite & (volume_of(torch.where(finite[:, None, None], crystals.lattice, 0.0)) > SMALLEST_VOLUME)


def shortened(lattice: Tensor) -> Tensor:
    """Shorter vectors of the same lattices: no vector gets shorter by taking away a multiple of another.

    Not unique and not Niggli's cell, but short enough that few images hold the nearest sites.

    Args:
        lattice: float64, shape (crystals, 3, 3), of volumes above 0.
    """
    lattice = lattice.clone()
    for _ in range(_ROUNDS):
        before = lattice.clone()
        for i, j in ((1, 0), (2, 0), (2, 1), (0, 1), (0, 2), (1, 2)):
            one, other = lattice[:, i], lattice[:, j]
            times = (one * other).sum(1) / other.square().sum(1)
            # A tie (half a vector) would go to and fro.
            lattice[:, i] = one - torch.where(times.abs() > 0.5 + 1e-9, times.round(), 0.0)[:, None] * other
        if torch.equal(before, lattice):
            break
    return lattice


def neighbours(crystals: CrystalBatch, radius: Tensor) -> Iterator[Neighbours]:
    """All distances up to ``radius`` (and some beyond), for crystals of equal size at a time.

    An image n of a site whose fractional difference f is in [-1/2, 1/2] is at least |n_i + f_i| h_i away, with h_i the
    distance of the lattice planes: so none beyond radius / h_i + 1/2 is nearer than the radius.

    Args:
        crystals: valid ones (:func:`valid_cells`), float64, with short cell vectors (:func:`shortened`).
        radius: angstrom, shape (crystals,).
    """
    planes = 1.0 / torch.linalg.vector_norm(torch.linalg.inv(crystals.lattice), dim=1)  # (crystals, 3)
    reach = (radius[:, None] / planes + 0.5 + 1e-9).floor().long()
    images = (2 * reach + 1).double().prod(1)
    kinds = torch.cat([crystals.num_atoms[:, None], reach], 1)
    for kind in kinds[images <= MOST_IMAGES].unique(dim=0):
        size, steps = int(kind[0]), [int(step) for step in kind[1:]]
        shifts = torch.cartesian_prod(*(torch.arange(-s, s + 1, dtype=torch.float64) for s in steps)).reshape(-1, 3)
        chosen = (kinds == kind).all(1).nonzero()[:, 0]
        for some in chosen.split(max(1, _AT_ONCE // (size * size * len(shifts)))):
            yield Neighbours(some, _distances(crystals, some, size, shifts))


def _distances(crystals: CrystalBatch, some: Tensor, size: int, shifts: Tensor) -> Tensor:
    frac = crystals.frac_coords[crystals.atoms_of(some)].reshape(len(some), size, 3)
    lattice = crystals.lattice[some]
    off = frac[:, None] - frac[:, :, None]
    off = (off - off.round()) @ lattice[:, None]  # (n, atoms, atoms, 3) in angstrom
    far = shifts @ lattice  # (n, images, 3)
    found = torch.linalg.vector_norm(off[:, :, :, None] + far[:, None, None], dim=-1)
    itself = torch.eye(size, dtype=torch.bool)[:, :, None] & (shifts == 0.0).all(1)
    return found.masked_fill(itself, math.inf).flatten(2)


def prepared(crystals: CrystalBatch) -> tuple[CrystalBatch, Tensor]:
    """Valid crystals in float64 with short cell vectors, and their numbers, int64."""
    kept = valid_cells(crystals).nonzero()[:, 0]
    some = replace(crystals, names=()).to("cpu", torch.float64).select(kept.cpu())
    lattice = shortened(some.lattice)
    cart = some.cart_coords
    frac = torch.linalg.solve(lattice.mT[some.crystal], cart)
    return replace(some, frac_coords=frac, lattice=lattice), kept.cpu()


def nearest_distance(crystals: CrystalBatch) -> Tensor:
    """Distance in angstrom of the two nearest atoms, periodic images included, float64, shape (crystals,).

    Exact for any cell: the images that are looked at are chosen from the cell, whose shortest vector is an upper bound
    (an atom is that far from its own image). NaN for what is no cell.
    """
    some, kept = prepared(crystals)
    found = torch.full((len(crystals),), math.nan, dtype=torch.float64)
    for block in neighbours(some, lengths_of(some.lattice).min(1).values):
        found[kept[block.crystals]] = block.distances.flatten(1).min(1).values
    return found
