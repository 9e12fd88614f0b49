"""Conformations that cannot be: atoms that clash and bonds that are broken."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from noumena.molecules.elements import HYDROGEN
from noumena.molecules.geometry import distances
from noumena.molecules.metrics import all_distances, chunks
from noumena.molecules.topology import Topology

CLASH_BONDS = 4
"""Pairs of atoms fewer bonds apart than this are held near each other by bonds, angles and torsions: no clash."""

CLASH_LIMITS = (2.2, 1.6, 1.4)
"""Distances in angstrom below which a pair clashes: without hydrogen, with one, of two.

Measured on frames of molecular dynamics: the nearest pairs without hydrogen are at 2.39 (Aib9, 700 K) and 2.29
(aspirin); with one hydrogen at 1.59 (alanine dipeptide, 600 K; 0.1 % of the frames below 1.71); of two hydrogens 0.01 %
of the frames are below 1.37 and 0.1 % below 1.59 (the same). Fewer than 0.1 % of all these frames clash. Very strong
hydrogen bonds come nearer than 1.6: look at the rate of the data themselves, which is reported beside.
"""

BROKEN_BOND = 0.25
"""Angstrom by which a bond is off its mean over the training frames when it is called broken."""


@dataclass(frozen=True)
class Flaws:
    """Which frames have a clash, and which a broken bond; bool, shape (frames,)."""

    clash: Tensor
    broken: Tensor

    @property
    def bad(self) -> Tensor:
        """Frames with either."""
        return self.clash | self.broken

    @property
    def rates(self) -> dict[str, float]:
        """Share of the frames that are ``bad``, have a ``clash`` and a ``broken`` bond."""
        return {name: float(getattr(self, name).double().mean()) for name in ("bad", "clash", "broken")}


@dataclass(frozen=True)
class Validity:
    """What makes a frame of a molecule impossible.

    Attributes:
        limits: least distance of each pair in angstrom, 0 for pairs that cannot clash, shape (atoms, atoms).
        bonds: int64, shape (bonds, 2).
        lengths: mean length of each bond over the training frames in angstrom, shape (bonds,).
    """

    limits: Tensor
    bonds: Tensor
    lengths: Tensor

    @classmethod
    def fit(cls, xyz: Tensor, topology: Topology) -> Self:
        """Take the bond lengths from training frames (frames, atoms, 3)."""
        bonds = torch.from_numpy(topology.bond_index)
        hydrogen = (np.asarray(topology.elements) == HYDROGEN).astype(np.int64)
        limits = np.asarray(CLASH_LIMITS, dtype=np.float32)[hydrogen[:, None] + hydrogen[None, :]]
        limits = np.where(topology.bonds_between >= CLASH_BONDS, limits, np.float32(0.0))
        return cls(torch.from_numpy(limits), bonds, distances(xyz, bonds).double().mean(0).to(xyz.dtype))

    def flaws(self, xyz: Tensor) -> Flaws:
        """Check frames of shape (frames, atoms, 3)."""
        clash, broken = [xyz.new_zeros(0, dtype=torch.bool)], [xyz.new_zeros(0, dtype=torch.bool)]
        for rows in chunks(len(xyz), len(self.limits)):
            clash.append((all_distances(xyz[rows]) < self.limits).flatten(1).any(1))
            broken.append(((distances(xyz[rows], self.bonds) - self.lengths).abs() > BROKEN_BOND).any(1))
        return Flaws(torch.cat(clash), torch.cat(broken))
