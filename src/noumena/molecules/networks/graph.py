"""What message passing needs of a molecule: neighbours, and features of distances and directions."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ConfigError
from noumena.molecules.fixed import register_fixed
from noumena.molecules.symmetry import topological_classes
from noumena.molecules.topology import Topology

LOCAL_BONDS = 3
"""Every pair at most this many bonds apart (bonds, angles and torsions) is an edge of every graph."""


@dataclass(frozen=True)
class Neighbours:
    """The edges of a graph as one row of neighbours for each atom.

    Attributes:
        index: neighbour of each atom, int64, shape (atoms, neighbours); the atom itself where ``mask`` is 0.
        mask: 1 where there is an edge, float32, shape (atoms, neighbours).
        kind: class of the edge, int64, shape (atoms, neighbours): edges of one kind have ends of the same classes and
            the same number of bonds between them; 0 where there is no edge.
        kinds: number of kinds, that of absent edges included.
    """

    index: np.ndarray
    mask: np.ndarray
    kind: np.ndarray
    kinds: int


def neighbours(topology: Topology, count: int) -> Neighbours:
    """Neighbours of every atom: all within three bonds, then others spread along the molecule.

    The choice depends on classes and numbers of bonds alone, so that exchanging exchangeable atoms exchanges their
    edges. Further neighbours are branching heavy atoms first, at evenly spread numbers of bonds; exchangeable ones are
    taken together or not at all.

    Args:
        topology: of the molecule.
        count: neighbours to fill up to; an atom with more than these within three bonds keeps them all.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"neighbours: expected at least 1 for each atom, got {count}.")
    classes = topological_classes(topology)
    rows = [_row(topology, classes, atom, count) for atom in range(len(topology))]
    width = max(len(row) for row in rows)
    index = np.tile(np.arange(len(topology), dtype=np.int64)[:, None], (1, width))
    mask = np.zeros(index.shape, dtype=np.float32)
    kind = np.zeros_like(index)
    number: dict[tuple[int, int, int], int] = {}
    for atom, row in enumerate(rows):
        index[atom, : len(row)] = row
        mask[atom, : len(row)] = 1
        for slot, other in enumerate(row):
            key = (int(classes[atom]), int(classes[other]), int(topology.bonds_between[atom, other]))
            kind[atom, slot] = number.setdefault(key, len(number) + 1)
    return Neighbours(index, mask, kind, len(number) + 1)


def _row(topology: Topology, classes: np.ndarray, atom: int, count: int) -> list[int]:
    """Neighbours of one atom."""
    apart = topology.bonds_between[atom].astype(int)
    row = [int(j) for j in np.flatnonzero((apart >= 1) & (apart <= LOCAL_BONDS))]
    groups: dict[tuple[int, int], list[int]] = {}
    for j in np.flatnonzero(apart > LOCAL_BONDS):
        groups.setdefault((int(apart[j]), int(classes[j])), []).append(int(j))
    for rank in range(3):  # branching heavy atoms, the other heavy atoms, hydrogens
        tier = [groups[key] for key in sorted(groups) if _tier(topology, groups[key][0]) == rank]
        free = min(count - len(row), len(tier))
        if free <= 0:
            continue
        spread = np.unique(np.linspace(0, len(tier) - 1, free).round().astype(int)).tolist()
        rest = sorted(set(range(len(tier))) - set(spread))
        for chosen in [*spread, *rest]:
            if len(row) + len(tier[chosen]) <= count:
                row += tier[chosen]
    return row


def _tier(topology: Topology, atom: int) -> int:
    if topology.elements[atom] == 1:
        return 2
    return 0 if sum(topology.elements[j] > 1 for j in topology.neighbours[atom]) >= 3 else 1


def gather(values: Tensor, index: Tensor) -> Tensor:
    """``values`` (batch, atoms, ...) of each atom's neighbours: (batch, atoms, neighbours, ...).

    Args:
        values: at least three axes.
        index: int64, shape (atoms, neighbours).
    """
    return values.index_select(1, index.flatten()).unflatten(1, (index.shape[0], index.shape[1]))


def cosine_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """1 at distance 0, 0 from ``cutoff`` on, with a continuous slope (Behler & Parrinello 2007)."""
    return 0.5 * (torch.cos(distance.clamp_max(cutoff) * (math.pi / cutoff)) + 1)


class ExponentialNormalBasis(nn.Module):
    """Gaussians of exp(-distance), fine where atoms are close (Unke & Meuwly 2019, eq. 7).

    Args:
        size: number of functions.
        cutoff: in angstrom.
    """

    centres: Tensor

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.decay = 5.0 / cutoff
        first = math.exp(-5.0)
        self.sharpness = (2 / size * (1 - first)) ** -2
        register_fixed(self, "centres", np.linspace(first, 1, size))

    def forward(self, distance: Tensor) -> Tensor:
        """Shape (..., size) from distances in angstrom of any shape."""
        scaled = torch.exp(-self.decay * distance)[..., None]
        return torch.exp(-self.sharpness * (scaled - self.centres).square())


def spherical_harmonics(unit: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics of degrees 1 to ``degree`` of unit vectors, together of length 1.

    Args:
        unit: shape (..., 3).
        degree: 1 or 2.

    Returns:
        Shape (..., 3) or (..., 8).
    """
    if degree == 1:
        return unit
    x, y, z = unit.unbind(-1)
    root = math.sqrt(3)
    second = (root * x * y, root * y * z, 1.5 * z * z - 0.5, root * x * z, 0.5 * root * (x * x - y * y))
    # Each degree has length 1; the two together would have the square root of 2.
    return torch.cat([unit, torch.stack(second, -1)], -1) / math.sqrt(2)
