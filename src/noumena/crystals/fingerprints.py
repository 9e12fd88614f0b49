"""Fixed-length descriptions of composition and structure, for coverage, nearest crystals and baselines.

They stand where CDVAE (Xie et al. 2022) has Magpie's and CrystalNN's of matminer, and are not those: coverage computed
with them is not CDVAE's number.
"""

import torch
from torch import Tensor

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import counts_of
from noumena.crystals.elements import COVALENT_RADII, ELECTRONEGATIVITIES, GROUPS, MASSES, PERIODS
from noumena.crystals.geometry import volume_of
from noumena.crystals.measures.distances import neighbours, prepared

PROPERTIES = ("atomic number", "mass", "period", "group", "electronegativity", "covalent radius")
"""Of the elements, whose statistics describe a composition."""

STATISTICS = ("mean", "spread", "least", "greatest")
"""Over the atoms of a crystal; the spread is the mean absolute deviation from the mean."""

_STABLE = 94  # elements that properties are standardised over
_RADIUS, _POINTS, _WIDTH = 3.0, 48, 0.08  # of the structure's fingerprint, in units of (V / N)^(1/3)


def element_table() -> Tensor:
    """Properties of the elements (:data:`PROPERTIES`), each with mean 0 and standard deviation 1 over hydrogen to
    plutonium; float64, shape (119, 6). An element without a value has the mean.
    """
    columns = (range(119), MASSES, PERIODS, GROUPS, ELECTRONEGATIVITIES, COVALENT_RADII)
    table = torch.tensor([[float(value) for value in column] for column in columns], dtype=torch.float64).T
    known = table[1 : _STABLE + 1]
    mean = known.nanmean(0)
    spread = (known - mean).square().nanmean(0).sqrt()
    return ((table - mean) / spread).nan_to_num(0.0)


def composition_features(crystals: CrystalBatch) -> Tensor:
    """Statistics of the elements' properties over the atoms of each crystal, in standard deviations of the property
    over the elements; float64, shape (crystals, 24). Blind to the structure, and the same for a supercell.
    """
    return features_of_counts(counts_of(crystals).cpu())


def features_of_counts(counts: Tensor) -> Tensor:
    """:func:`composition_features` of counts of elements, shape (crystals, 119)."""
    table = element_table()
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ table  # (crystals, properties)
    parts: list[Tensor] = []
    for block, some, centre in zip(share.split(4096), counts.split(4096), mean.split(4096), strict=True):
        absent = (some == 0)[:, :, None]
        spread = torch.einsum("ce,cep->cp", block, (table[None] - centre[:, None]).abs())
        least = torch.where(absent, torch.inf, table[None]).min(1).values
        greatest = torch.where(absent, -torch.inf, table[None]).max(1).values
        parts.append(torch.cat([centre, spread, least, greatest], 1))
    return torch.cat(parts) if parts else table.new_zeros(0, len(PROPERTIES) * len(STATISTICS))


def structure_features(crystals: CrystalBatch) -> Tensor:
    r"""The radial distribution of all atoms, without scale and without elements; float64, shape (crystals, 48).

    .. math:: g(s) = \frac{1}{N} \sum_i \sum_{j \ne i} \frac{\mathcal N(s; s_{ij}, 0.08)}{4 \pi s^2}, \qquad
        s_{ij} = r_{ij} / (V / N)^{1/3}

    at 48 points up to 3, with all periodic images: 1 is the mean density. NaN for what is no cell.
    """
    some, kept = prepared(crystals)
    found = torch.full((len(crystals), _POINTS), torch.nan, dtype=torch.float64)
    scale = (volume_of(some.lattice) / some.num_atoms) ** (1.0 / 3.0)
    grid = torch.linspace(0.0, _RADIUS, _POINTS + 1, dtype=torch.float64)[1:]
    cut = _RADIUS + 3.0 * _WIDTH
    for block in neighbours(some, cut * scale):
        atoms = block.distances.shape[1]
        reduced = block.distances / scale[block.crystals, None, None]
        row, near = reduced.flatten(1).lt(cut).nonzero(as_tuple=True)
        values = reduced.flatten(1)[row, near]
        bumps = torch.exp(-0.5 * ((grid - values[:, None]) / _WIDTH).square())  # (neighbours, points)
        sums = torch.zeros(len(block.crystals), _POINTS, dtype=torch.float64).index_add_(0, row, bumps)
        shell = 4.0 * torch.pi * grid.square() * _WIDTH * (2.0 * torch.pi) ** 0.5
        found[kept[block.crystals]] = sums / (atoms * shell)
    return found


def nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square difference to the nearest reference, and its number; each of shape (queries,).

    Args:
        queries, references: features, shapes (queries, features) and (references, features). Rows with NaN are near to
            nothing.
    """
    distances = feature_distances(queries, references)
    return distances.min(1)


def feature_distances(queries: Tensor, references: Tensor) -> Tensor:
    """Root mean square differences, shape (queries, references); infinite for rows with NaN."""
    return (torch.cdist(queries, references) / queries.shape[1] ** 0.5).nan_to_num(torch.inf, posinf=torch.inf)
