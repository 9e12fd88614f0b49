"""Sets of conformations side by side: held-out frames, their reconstructions, training frames and samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from noumena.molecules.distributions import backbone_pairs, basin_populations
from noumena.molecules.handedness import Centres, Handedness
from noumena.molecules.metrics import Internal, internal, radius_of_gyration
from noumena.molecules.topology import Topology
from noumena.molecules.validity import Flaws, Validity


@dataclass(frozen=True)
class Molecule:
    """What frames of one molecule are measured by.

    Attributes:
        topology: of the molecule.
        validity: limits of clashes, and mean bond lengths of the training frames.
        handedness: coordinate of the hand, where there is one.
        centres: atoms whose neighbours keep their arrangement in the training frames.
    """

    topology: Topology
    validity: Validity
    handedness: Handedness | None
    centres: Centres

    @classmethod
    def fit(cls, topology: Topology, train: Tensor, handedness: Handedness | None) -> Self:
        """Take mean bond lengths and signs of centres from training frames (frames, atoms, 3)."""
        return cls(topology, Validity.fit(train, topology), handedness, Centres.find(topology, train))


@dataclass(frozen=True)
class Ensemble:
    """A set of conformations and what is measured of each.

    Attributes:
        key: its prefix in the metrics, empty for reconstructions.
        label: its name in tables and pictures.
        xyz: shape (frames, atoms, 3), in angstrom.
        parts: bond lengths, angles and torsions.
        flaws: clashes and broken bonds.
        molecule: what it was measured by.
    """

    key: str
    label: str
    xyz: Tensor
    parts: Internal
    flaws: Flaws
    molecule: Molecule

    @classmethod
    def of(cls, key: str, label: str, xyz: Tensor, molecule: Molecule) -> Self:
        """Measure frames of shape (frames, atoms, 3)."""
        xyz = xyz.detach().to("cpu", torch.float32)
        return cls(key, label, xyz, internal(xyz, molecule.topology), molecule.validity.flaws(xyz), molecule)

    def __len__(self) -> int:
        return len(self.xyz)

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """``bonds``, ``angles`` and ``torsions`` as arrays, shape (frames, ...)."""
        return {name: getattr(self.parts, name).numpy() for name in ("bonds", "angles", "torsions")}

    @cached_property
    def zeta(self) -> Tensor | None:
        """The coordinate of the hand in radians, shape (frames,), where there is one."""
        hand = self.molecule.handedness
        return None if hand is None else hand.zeta(self.parts.torsions)

    @cached_property
    def basins(self) -> dict[str, float]:
        """Share of all residues' phi and psi in each basin; empty without phi and psi."""
        pairs = list(backbone_pairs(self.molecule.topology).values())
        if not pairs:
            return {}
        phi, psi = (list(column) for column in zip(*pairs, strict=True))
        return basin_populations(self.arrays["torsions"][:, phi], self.arrays["torsions"][:, psi])

    @cached_property
    def hands(self) -> dict[str, float]:
        """Share of the frames that are left, right and neither; empty without a coordinate of the hand."""
        hand = self.molecule.handedness
        return {} if hand is None or self.zeta is None else hand.fractions(self.zeta)

    @cached_property
    def chirality(self) -> dict[str, float]:
        """Share of the frames that keep the arrangement of all stereocentres, and of all prochiral ones."""
        return self.molecule.centres.rates(self.xyz)

    @cached_property
    def gyration(self) -> tuple[float, float]:
        """Mean and standard deviation of the radius of gyration in angstrom."""
        radius = radius_of_gyration(self.xyz).double()
        return float(radius.mean()), float(radius.std(correction=0))

    def metrics(self) -> dict[str, float]:
        """What is true of the set by itself, by name."""
        found = {**self.flaws.rates, **self.hands, **self.chirality, "gyration": self.gyration[0]}
        found |= {f"basin_{name}": share for name, share in self.basins.items()}
        handed = self.hands.get("left", 0.0) + self.hands.get("right", 0.0)
        if handed > 0:
            found["left_of_handed"] = self.hands["left"] / handed
        return {f"{self.key}/{name}" if self.key else name: value for name, value in found.items()}
