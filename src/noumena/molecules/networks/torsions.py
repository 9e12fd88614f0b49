"""The encoder that looks at torsions and distances."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.preprocessing import Standardizer
from noumena.molecules.fixed import register_fixed
from noumena.molecules.geometry import distances, torsion_vector
from noumena.molecules.internal import InternalCoordinates
from noumena.molecules.networks.heads import ResidualMLP
from noumena.molecules.symmetry import unique_atoms
from noumena.molecules.topology import Topology

# Beyond this many pairs of atoms, those of fewer atoms are taken.
_MOST_PAIRS = 2048
_LEAST_SPREAD = 0.01
"""Of a cosine, a sine or a distance in angstrom; heat spreads each of them several times as much."""


class TorsionEncoder(nn.Module):
    """Features of a molecule from the cosines and sines of its torsions and from distances of pairs of atoms.

    Invariant to rotation and translation by its inputs. The sines change their sign in the mirror; with
    ``symmetry="E3"`` they are left out, and so are atoms that have a like one, whose labels would betray the hand:
    mirror images then have the same features.
    """

    def __init__(self, topology: Topology, *, width: int, blocks: int, symmetry: str) -> None:
        super().__init__()
        self.signed = symmetry == "SE3"
        quadruples = InternalCoordinates(topology).torsion_quadruples()
        distinct = np.asarray([len(set(q)) == 4 for q in quadruples.tolist()], dtype=bool)
        atoms = np.arange(len(topology)) if self.signed else unique_atoms(topology)
        if not self.signed:
            distinct &= np.isin(quadruples, atoms).all(1)
        pairs = chosen_pairs(topology, atoms)
        register_fixed(self, "quadruples", quadruples[distinct])
        register_fixed(self, "pairs", pairs)
        inputs = len(pairs) + int(distinct.sum()) * (2 if self.signed else 1)
        self.standardizer = Standardizer(max(1, inputs))
        self.network = ResidualMLP(max(1, inputs), width, blocks)

    def inputs(self, xyz: Tensor) -> Tensor:
        """Torsions and distances of ``xyz``, shape (batch, atoms, 3): shape (batch, inputs)."""
        sin, cos = torsion_vector(xyz, cast("Tensor", self.quadruples))
        norm = (sin.square() + cos.square()).clamp_min(1e-12).rsqrt()
        parts = [cos * norm, *([sin * norm] if self.signed else []), distances(xyz, cast("Tensor", self.pairs))]
        found = torch.cat(parts, 1)
        return found if found.shape[1] else found.new_zeros(len(found), 1)

    def calibrate(self, xyz: Tensor) -> None:
        """Take mean and spread of the inputs over training frames ``xyz``, shape (frames, atoms, 3)."""
        self.standardizer.fit(torch.cat([self.inputs(part) for part in xyz.split(1024)]))
        # What hardly varies is rounding, such as the cosine of a torsion that geometry fixes: it must not be blown up.
        self.standardizer.scale.clamp_(min=_LEAST_SPREAD)

    def forward(self, xyz: Tensor) -> Tensor:
        """Features, shape (batch, width), of coordinates in angstrom, shape (batch, atoms, 3)."""
        return self.network(self.standardizer(self.inputs(xyz)))


def chosen_pairs(topology: Topology, atoms: np.ndarray) -> np.ndarray:
    """Pairs of ``atoms`` two or more bonds apart, int64, shape (pairs, 2): all if they are few.

    Otherwise those of heavy atoms, of atoms with two or more neighbours, and of evenly chosen ones of these, whichever
    is the first to be few enough.
    """
    inner = np.asarray([len(own) > 1 for own in topology.neighbours])
    chosen = atoms
    for keep in (np.ones(len(topology), dtype=bool), topology.heavy, topology.heavy & inner):
        chosen = atoms[keep[atoms]]
        if len(chosen) * (len(chosen) - 1) // 2 <= _MOST_PAIRS:
            break
    else:
        most = int((2 * _MOST_PAIRS) ** 0.5)
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).round().astype(np.int64)]
    apart = np.triu(topology.bonds_between[np.ix_(chosen, chosen)], 1) >= 2
    return chosen[np.argwhere(apart)].astype(np.int64).reshape(-1, 2)
