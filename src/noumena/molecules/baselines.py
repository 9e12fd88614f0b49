"""What alignment and a matrix give: mean structure and principal components of superposed training frames."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.molecules.geometry import superposed
from noumena.molecules.metrics import all_distances, chunks

# Beyond so many training frames evenly spaced ones are taken: a handful of components needs no more.
MAX_FRAMES = 50_000
# Above so many coordinates the covariance matrix is not formed, and the components are found by random projection.
_EXACT_COORDINATES = 3000
_CHUNK = 4096
# Few: the mean of unlike conformations shrinks from round to round, and what is superposed on it is superposed badly.
# On the last fifth of 12,000 frames of a helix with two hands, 16 components then leave 0.98 instead of 0.88 angstrom.
_ROUNDS = 2


def thinned(frames: int, most: int) -> Tensor:
    """Numbers of at most ``most`` evenly spaced of ``frames`` frames, int64."""
    return torch.arange(frames) if frames <= most else torch.linspace(0, frames - 1, most).round().long()


def aligned_to(xyz: Tensor, reference: Tensor) -> Tensor:
    """Frames (frames, atoms, 3), each superposed by a proper rotation on ``reference`` (atoms, 3)."""
    return torch.cat([superposed(part, reference.expand_as(part)) for part in xyz.split(_CHUNK)])


def mean_structure(xyz: Tensor) -> Tensor:
    """The mean of frames superposed on the first one, and again on that mean (Gower 1975, for few rounds).

    Args:
        xyz: shape (frames, atoms, 3).

    Returns:
        Shape (atoms, 3), centroid at the origin.
    """
    mean = xyz[0] - xyz[0].mean(0)
    for _ in range(_ROUNDS):
        mean = aligned_to(xyz, mean).mean(0)
        mean = mean - mean.mean(0)
    return mean


def mean_distances(xyz: Tensor) -> Tensor:
    """Mean distance of every two atoms in angstrom, shape (atoms, atoms): no one structure needs to have them."""
    total = torch.zeros(xyz.shape[1], xyz.shape[1], dtype=torch.float64)
    for rows in chunks(len(xyz), xyz.shape[1]):
        total += all_distances(xyz[rows]).sum(0, dtype=torch.float64)
    return (total / len(xyz)).to(xyz.dtype)


def mean_distance_rmse(xyz: Tensor, mean: Tensor) -> float:
    """Root mean square deviation of the distances of frames (frames, atoms, 3) from ``mean`` (atoms, atoms)."""
    atoms = len(mean)
    found = [(all_distances(xyz[rows]) - mean).square().mean((1, 2)) for rows in chunks(len(xyz), atoms)]
    return math.sqrt(float(torch.cat(found).double().mean()) * atoms / (atoms - 1))


@dataclass(frozen=True)
class AlignedPCA:
    """Principal components of the coordinates of frames superposed on their mean structure.

    Attributes:
        reference: what frames are superposed on, shape (atoms, 3).
        mean: of the superposed training frames, shape (atoms, 3).
        axes: orthonormal rows, shape (components, 3 atoms); no component is the mean structure alone.
        spread: standard deviation along each axis in the training frames, shape (components,).
    """

    reference: Tensor
    mean: Tensor
    axes: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, xyz: Tensor, components: int) -> Self:
        """Fit to frames (frames, atoms, 3); at most as many components as there are internal degrees of freedom.

        Raises:
            DataError: no frame.
        """
        if not len(xyz):
            raise DataError("principal components need one training frame or more, got none.")
        xyz = xyz[thinned(len(xyz), MAX_FRAMES)].double()
        mean = mean_structure(xyz)
        rows = aligned_to(xyz, mean).flatten(1)
        centre = rows.mean(0)
        rows = rows - centre
        kept = min(components, len(xyz) - 1, max(1, rows.shape[1] - 6))
        values, axes = _components(rows, kept)
        spread = values.clamp_min(0.0).sqrt()
        return cls(mean.float(), centre.reshape_as(mean).float(), axes.float(), spread.float())

    def first(self, components: int) -> "AlignedPCA":
        """With the first ``components`` only."""
        return AlignedPCA(self.reference, self.mean, self.axes[:components], self.spread[:components])

    def encode(self, xyz: Tensor) -> Tensor:
        """Components of frames, shape (frames, components)."""
        return (aligned_to(xyz, self.reference) - self.mean).flatten(1) @ self.axes.T

    def decode(self, z: Tensor) -> Tensor:
        """Frames of components, shape (frames, atoms, 3)."""
        return self.mean + (z @ self.axes).unflatten(1, self.mean.shape)

    def reconstruct(self, xyz: Tensor) -> Tensor:
        """Frames encoded and decoded, shape (frames, atoms, 3), superposed on the mean structure."""
        return self.decode(self.encode(xyz))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` frames of the normal distribution that the components have, shape (n, atoms, 3)."""
        return self.decode(torch.randn(n, len(self.axes), generator=generator) * self.spread)


def _components(rows: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Largest variances (kept,) and their orthonormal directions (kept, columns) of centred rows."""
    if kept < 1:
        return rows.new_zeros(0), rows.new_zeros(0, rows.shape[1])
    if rows.shape[1] <= _EXACT_COORDINATES:
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        return values.flip(0)[:kept], vectors.flip(1).T[:kept]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, singular, vectors = torch.svd_lowrank(rows, q=min(kept + 10, *rows.shape), niter=8)
    return (singular / math.sqrt(len(rows))).square()[:kept], vectors.T[:kept]
