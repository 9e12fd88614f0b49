"""All atoms of a cell from those that symmetry leaves different."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from noumena.crystals import libraries

SPECIAL = 0.05
"""Angstrom: a site as close as this to its own image lies on the symmetry element; digits cut off move it."""
_GRID = 1e-5
_OFF_GRID = 0.3137e-5  # fractions of special positions are not on the border of bins
_MIX = np.array([1, 10**5, 10**10])


@dataclass(frozen=True)
class Operations:
    """Symmetry operations.

    Attributes:
        rotation: shape (operations, 3, 3), acting on columns of fractional coordinates.
        translation: shape (operations, 3).
    """

    rotation: np.ndarray
    translation: np.ndarray

    def __len__(self) -> int:
        return len(self.translation)


@functools.lru_cache(maxsize=1024)
def operations_of(triplets: tuple[str, ...]) -> Operations:
    """Operations of their names, such as ``-x,y+1/2,-z``.

    Raises:
        ValueError, RuntimeError: one cannot be read.
    """
    gemmi: Any = libraries.gemmi()
    found = [gemmi.Op(triplet) for triplet in triplets]
    return Operations(
        np.array([op.rot for op in found], np.float64) / gemmi.Op.DEN,
        np.array([op.tran for op in found], np.float64) / gemmi.Op.DEN,
    )


def expanded(frac: np.ndarray, lattice: np.ndarray, operations: Operations) -> tuple[np.ndarray, np.ndarray]:
    """Every site and its images, once each.

    A site within :data:`SPECIAL` of some of its images is moved to the mean of them, which is on the symmetry element.

    Args:
        frac: shape (sites, 3).
        lattice: shape (3, 3).
        operations: the identity among them, or not.

    Returns:
        Coordinates, shape (atoms, 3), and the site each is of, shape (atoms,).
    """
    metric = lattice @ lattice.T
    gap = _images(frac, operations) - frac[:, None]
    gap -= np.rint(gap)
    own = np.einsum("soi,ij,soj->so", gap, metric, gap) < SPECIAL**2
    count = np.maximum(own.sum(1), 1)
    mean = frac + np.einsum("so,soi->si", own, gap) / count[:, None]
    images = _images(mean, operations)
    points = len(operations) / count
    kept = np.stack([_distinct(places, metric, number) for places, number in zip(images, points, strict=True)])
    site, operation = np.nonzero(kept)
    return images[site, operation], site


def _images(frac: np.ndarray, operations: Operations) -> np.ndarray:
    """Images of sites, shape (sites, operations, 3)."""
    return np.einsum("oij,sj->soi", operations.rotation, frac) + operations.translation


def _distinct(places: np.ndarray, metric: np.ndarray, count: float) -> np.ndarray:
    """Which places are the first at their point of the crystal, bool, shape (places,).

    Args:
        places: images of one site, shape (places, 3).
        metric: of the cell, shape (3, 3).
        count: of the points, if the operations are a group.
    """
    # Images that coincide do so to rounding error, and then fall into the same bin of a fine grid.
    bins = np.rint((places - np.floor(places) + _OFF_GRID) / _GRID).astype(np.int64) % round(1 / _GRID)
    _, first = np.unique(bins @ _MIX, return_index=True)
    kept = np.zeros(len(places), bool)
    kept[first] = True
    if len(first) == count:
        return kept
    # On the border of two bins, or operations that are no group: compare all pairs.
    gap = places[:, None] - places[None]
    gap -= np.rint(gap)
    same = np.einsum("abi,ij,abj->ab", gap, metric, gap) < SPECIAL**2
    return ~np.tril(same, -1).any(1)
