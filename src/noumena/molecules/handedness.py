"""Left and right: a coordinate that tells a helix's hand, and the signs of stereocentres."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, did_you_mean
from noumena.molecules.elements import HYDROGEN
from noumena.molecules.geometry import signed_volumes
from noumena.molecules.symmetry import topological_classes
from noumena.molecules.topology import Topology

HANDS = ("left", "right", "neither")
THRESHOLD_PER_TORSION = math.radians(36.0)
"""Mean torsion beyond which a conformation is called handed: five phi add up to 180 degrees."""

_INNER = 5
_CONSTANT = 0.999
_CHUNK = 8192


@dataclass(frozen=True)
class Handedness:
    """The coordinate zeta: the sum of some torsions, each from -pi to pi; it changes its sign in the mirror.

    A frame is left-handed where zeta is above the threshold (positive phi, the left-handed helix), right-handed where
    it is below its negative, and neither between.

    Attributes:
        names: of the torsions.
        columns: their numbers in :attr:`Topology.torsions`.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, topology: Topology, names: Sequence[str] | None = None) -> Self | None:
        """The coordinate of a molecule.

        Args:
            topology: of the molecule.
            names: the torsions; by default the phi of a peptide's five inner residues where it has so many, else none.

        Returns:
            ``None`` when no torsions are given and the molecule is no such peptide, or an empty list is given.

        Raises:
            ConfigError: a torsion that the molecule does not have, or one given twice.
        """
        known = list(topology.torsions)
        if names is None:
            phi = [name for name in known if name.startswith("phi:")]
            start = (len(phi) - _INNER) // 2
            names = phi[start : start + _INNER] if start >= 0 else []
        for number, name in enumerate(names):
            if name not in known:
                raise ConfigError(f"evaluate.handedness: no torsion '{name}'. {did_you_mean(name, known)}")
            if name in names[:number]:
                raise ConfigError(f"evaluate.handedness: '{name}' is given twice. Give it once.")
        return cls(tuple(names), tuple(known.index(name) for name in names)) if names else None

    @property
    def threshold(self) -> float:
        """In radians."""
        return THRESHOLD_PER_TORSION * len(self.names)

    def zeta(self, torsions: Tensor) -> Tensor:
        """The coordinate in radians, shape (frames,), of all torsions of frames, shape (frames, torsions)."""
        return torsions[:, list(self.columns)].sum(1)

    def hands(self, zeta: Tensor) -> Tensor:
        """0 for left, 1 for right, 2 for neither, as in :data:`HANDS`; int64, shape (frames,)."""
        return torch.where(zeta > self.threshold, 0, torch.where(zeta < -self.threshold, 1, 2))

    def fractions(self, zeta: Tensor) -> dict[str, float]:
        """Share of the frames of each of :data:`HANDS`."""
        counts = torch.bincount(self.hands(zeta), minlength=3).double() / max(1, len(zeta))
        return dict(zip(HANDS, counts.tolist(), strict=True))

    def confusion(self, original: Tensor, reconstructed: Tensor) -> np.ndarray:
        """Number of frames by the hand of the original (rows) and of its reconstruction (columns), shape (3, 3)."""
        flat = 3 * self.hands(original) + self.hands(reconstructed)
        return torch.bincount(flat, minlength=9).reshape(3, 3).numpy()

    def kept(self, original: Tensor, reconstructed: Tensor) -> dict[str, float]:
        """How many frames are handed, and what becomes of them.

        Returns:
            ``handed_frames``, their number; ``handed_right``, the share of them whose zeta has the same sign in the
            reconstruction; ``handed_kept``, the share that is beyond the threshold there as well. NaN where no frame
            is handed.
        """
        handed = self.hands(original) < 2
        first, second = original[handed], reconstructed[handed]
        return {
            "handed_right": float((first.sign() == second.sign()).double().mean()),
            "handed_kept": float((self.hands(first) == self.hands(second)).double().mean()),
            "handed_frames": float(handed.sum()),
        }


@dataclass(frozen=True)
class Centres:
    """Atoms whose neighbours keep their arrangement in the training frames.

    Attributes:
        labels: such as ``CA9`` of each.
        quadruples: atoms of the signed volume of each, int64, shape (centres, 4).
        signs: of the volume in the training frames, shape (centres,).
        stereogenic: whether the neighbours differ chemically, bool, shape (centres,). Else they differ by their label
            only (prochiral, as the two methyls of an Aib residue), and another sign is the same molecule relabelled.
    """

    labels: tuple[str, ...]
    quadruples: Tensor
    signs: Tensor
    stereogenic: np.ndarray

    @classmethod
    def find(cls, topology: Topology, xyz: Tensor) -> Self:
        """Centres with at most one hydrogen whose volume has one sign in 99.9 % of the frames (frames, atoms, 3)."""
        candidates = _candidates(topology)
        quadruples = torch.tensor([atoms for _, atoms in candidates], dtype=torch.int64).reshape(-1, 4)
        positive = sum(((signed_volumes(part, quadruples) > 0).sum(0) for part in xyz.split(_CHUNK)), torch.tensor(0))
        share = positive.double() / max(1, len(xyz))
        constant = ((share >= _CONSTANT) | (share <= 1 - _CONSTANT)).numpy().nonzero()[0].tolist()
        kinds = topological_classes(topology).tolist()
        chosen = [candidates[i] for i in constant]
        stereogenic = [
            len({kinds[n] for n in topology.neighbours[c]}) == len(topology.neighbours[c]) for c, _ in chosen
        ]
        labels = tuple(f"{topology.names[c]} ({topology.residue_names[c]}{topology.residue_ids[c]})" for c, _ in chosen)
        signs = torch.where(share[constant] > 0.5, 1.0, -1.0)
        return cls(labels, quadruples[constant], signs, np.asarray(stereogenic, dtype=bool))

    def __len__(self) -> int:
        return len(self.labels)

    def kept(self, xyz: Tensor) -> Tensor:
        """Which centres of frames (frames, atoms, 3) have the sign of the training frames, bool, (frames, centres)."""
        if not len(self):
            return torch.zeros(len(xyz), 0, dtype=torch.bool)
        return torch.cat([signed_volumes(part, self.quadruples) * self.signs > 0 for part in xyz.split(_CHUNK)])

    def rates(self, xyz: Tensor) -> dict[str, float]:
        """Share of frames in which every stereocentre keeps its sign, ``chirality``, and every prochiral one, too."""
        kept = self.kept(xyz)
        kinds = {"chirality": self.stereogenic, "prochirality": ~self.stereogenic}
        return {
            name: float(kept[:, torch.from_numpy(which)].all(1).double().mean())
            for name, which in kinds.items()
            if which.any() and len(xyz)
        }


def _candidates(topology: Topology) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Centres and the atoms whose volume tells their arrangement: four neighbours, or the centre and its three."""
    found: list[tuple[int, tuple[int, int, int, int]]] = []
    for centre, around in enumerate(topology.neighbours):
        if sum(topology.elements[a] == HYDROGEN for a in around) > 1:
            continue
        if len(around) == 4:
            found.append((centre, (around[0], around[1], around[2], around[3])))
        elif len(around) == 3:
            found.append((centre, (centre, around[0], around[1], around[2])))
    return found
