"""What is minimised: errors of distances, of the superposed molecule, of torsions and of handedness, all per molecule.

Every term is a mean over what it is made of within a molecule (pairs, bonds, atoms, torsions) and then over the batch,
never over pairs of two molecules. Those of distances are in square angstrom, so ``beta`` of the model is in square
angstrom per nat.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import DataError
from noumena.molecules.elements import HYDROGEN
from noumena.molecules.fixed import register_fixed
from noumena.molecules.geometry import aligned_square_deviation, distances, signed_volumes, torsion_vector
from noumena.molecules.symmetry import centres
from noumena.molecules.topology import Topology

Loss = Literal["bond", "pairwise"]

# Atoms this many bonds apart or more do not touch.
NOT_BONDED = 4
# Beyond this many atoms, distances are gathered pair by pair: a matrix would be mostly thrown away.
_LEAST_DISTANCE = 1e-6


def distance_matrix(xyz: Tensor) -> Tensor:
    """All distances within each molecule, shape (batch, atoms, atoms), in angstrom; exact also for near atoms.

    Args:
        xyz: shape (batch, atoms, 3).
    """
    # The faster form by matrix products loses the digits that bond lengths need.
    return torch.cdist(xyz, xyz, compute_mode="donot_use_mm_for_euclid_dist")


def pairwise_distance_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all interatomic distances of each molecule.

    Blind to rotation, translation *and reflection*: mirror images have the same distances (see
    :func:`chirality_loss`).

    Args:
        predicted, target: coordinates in angstrom, shape (batch, atoms, 3).

    Returns:
        Scalar, in square angstrom: mean over pairs within a molecule, then over the batch.

    Raises:
        DataError: the shapes differ or there is a single atom.
    """
    if predicted.shape != target.shape or predicted.shape[1] < 2:
        raise DataError(
            f"pairwise distances: expected two batches of the same shape (batch, 2 or more atoms, 3), got "
            f"{tuple(predicted.shape)} and {tuple(target.shape)}."
        )
    return _matrix_loss(distance_matrix(predicted), distance_matrix(target))


def _matrix_loss(predicted: Tensor, target: Tensor) -> Tensor:
    atoms = predicted.shape[1]
    return (predicted - target).square().sum() / (len(predicted) * atoms * (atoms - 1))


def pair_loss(predicted: Tensor, target: Tensor, pairs: Tensor) -> Tensor:
    """Mean squared error of the distances of some pairs, such as bonds, in square angstrom.

    Args:
        predicted, target: coordinates in angstrom, shape (batch, atoms, 3).
        pairs: int64, shape (pairs, 2).
    """
    return (distances(predicted, pairs) - distances(target, pairs)).square().mean()


def torsion_loss(predicted: Tensor, target: Tensor, quadruples: Tensor) -> Tensor:
    """Mean of 1 - cos of the torsions' differences, which tells a torsion from its mirror image.

    Args:
        predicted, target: coordinates in angstrom, shape (batch, atoms, 3).
        quadruples: int64, shape (torsions, 4).
    """
    if len(quadruples) == 0:
        return predicted.new_zeros(())
    sin, cos = torsion_vector(predicted, quadruples)
    with torch.no_grad():
        sin_target, cos_target = torsion_vector(target, quadruples)
        norm = (sin_target.square() + cos_target.square()).clamp_min(1e-12).rsqrt()
    cosine = (cos * cos_target + sin * sin_target) * norm * (sin.square() + cos.square()).clamp_min(1e-12).rsqrt()
    return (1.0 - cosine).mean()


def chirality_loss(predicted: Tensor, target: Tensor, quadruples: Tensor) -> Tensor:
    """Mean squared error of the signed volumes of quadruples of atoms, taken to the cube root's unit of length.

    Mirror images differ by the sign of every volume, so this term tells them apart where distances cannot.

    Args:
        predicted, target: coordinates in angstrom, shape (batch, atoms, 3).
        quadruples: int64, shape (volumes, 4).

    Returns:
        Scalar, in square angstrom.
    """
    if len(quadruples) == 0:
        return predicted.new_zeros(())
    volume = signed_volumes(target, quadruples)
    difference = signed_volumes(predicted, quadruples) - volume
    # Divided by the typical area, the error of a volume is that of a height over it.
    area = volume.square().mean().detach().clamp_min(1e-6) ** (1 / 3)
    return (difference / area).square().mean()


@dataclass(frozen=True)
class Weights:
    """Weights of the terms beside the bond or pair distances.

    Attributes:
        aligned: of the mean square deviation after superposition by a proper rotation.
        local: of the squared errors of distances of atoms one or two bonds apart.
        torsion: of :func:`torsion_loss`.
        chirality: of :func:`chirality_loss`.
        clash: of the squared overlap of atoms four or more bonds apart.
    """

    aligned: float
    local: float
    torsion: float
    chirality: float
    clash: float


class Reconstruction(nn.Module):
    """The reconstruction terms of one molecule, with the index lists they need."""

    def __init__(self, topology: Topology, loss: Loss, weights: Weights) -> None:
        super().__init__()
        self.kind: Loss = loss
        self.weights = weights
        lists = {
            "bonds": topology.bond_index,
            "near": topology.pair_index(1, 2),
            "far": topology.pair_index(NOT_BONDED),
            "quadruples": topology.torsion_index,
            "centres": centres(topology),
        }
        for name, entries in lists.items():
            register_fixed(self, name, entries)
        register_fixed(self, "limits", clash_limits(topology, lists["far"]))

    def _index(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def forward(self, predicted: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and each unweighted, of coordinates of shape (batch, atoms, 3)."""
        weights = self.weights
        if self.kind == "bond":
            parts = {"bond": pair_loss(predicted, target, self._index("bonds"))}
        else:
            parts = {"pairwise": pairwise_distance_loss(predicted, target)}
        total = next(iter(parts.values()))
        if weights.local:
            parts["local"] = pair_loss(predicted, target, self._index("near"))
            total = total + weights.local * parts["local"]
        if weights.aligned:
            parts["aligned"] = aligned_square_deviation(predicted, target).mean()
            total = total + weights.aligned * parts["aligned"]
        if weights.torsion:
            parts["torsion"] = torsion_loss(predicted, target, self._index("quadruples"))
            total = total + weights.torsion * parts["torsion"]
        if weights.chirality:
            parts["chirality"] = chirality_loss(predicted, target, self._index("centres"))
            total = total + weights.chirality * parts["chirality"]
        if weights.clash:
            parts["clash"] = self.overlaps(predicted).mean()
            total = total + weights.clash * parts["clash"]
        return total, parts

    def overlaps(self, xyz: Tensor) -> Tensor:
        """Squared overlap of atoms that do not touch, summed over pairs, in square angstrom, shape (batch,)."""
        pairs = self._index("far")
        if len(pairs) == 0:
            return xyz.new_zeros(len(xyz))
        gap = self._index("limits") - distances(xyz, pairs)
        return gap.clamp_min(0.0).square().sum(1)


def clash_limits(topology: Topology, pairs: np.ndarray) -> np.ndarray:
    """The distance in angstrom that the pairs are kept apart in training, float64, shape (pairs,).

    A little more than the nearest that atoms four or more bonds apart come in simulations at 600 to 700 K, so that
    decoded molecules stay on the safe side of it.
    """
    hydrogens = (np.asarray(topology.elements)[pairs] == HYDROGEN).sum(1)
    return np.asarray([2.5, 1.8, 1.7])[hydrogens]
