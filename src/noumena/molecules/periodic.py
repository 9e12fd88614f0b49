"""Molecules in a periodic box: unit cells, and putting together what its walls cut apart."""

from collections import deque

import numpy as np

# No molecule fits a smaller box: such cells are placeholders, as PDB files of single molecules have them.
_LEAST_HEIGHT = 3.0


def cell_vectors(lengths: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
    """Box vectors a, b, c as rows, with a along x and b in the xy plane.

    Args:
        lengths: shape (frames, 3).
        angles_deg: alpha, beta, gamma in degrees, shape (frames, 3).

    Returns:
        Shape (frames, 3, 3), in the unit of ``lengths``.
    """
    alpha, beta, gamma = np.deg2rad(np.asarray(angles_deg, dtype=np.float64)).T
    a, b, c = np.asarray(lengths, dtype=np.float64).T
    zero = np.zeros_like(a)
    cx = np.cos(beta)
    with np.errstate(divide="ignore", invalid="ignore"):
        cy = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    cz = np.sqrt(np.clip(1 - cx**2 - cy**2, 0, None))
    rows = [[a, zero, zero], [b * np.cos(gamma), b * np.sin(gamma), zero], [c * cx, c * cy, c * cz]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def usable(cell: np.ndarray | None) -> np.ndarray | None:
    """The cells in angstrom, shape (frames, 3, 3), or ``None`` where there are none or only placeholders."""
    if cell is None or not np.isfinite(cell).all():
        return None
    volume = np.abs(np.linalg.det(cell))
    faces = np.linalg.norm(np.cross(np.roll(cell, -1, 1), np.roll(cell, -2, 1)), axis=2).max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        height = volume / faces
    return cell if len(cell) and bool((height >= _LEAST_HEIGHT).all()) else None


def nearest_image(vectors: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
    """Difference vectors, each to the nearest periodic image; exact for those shorter than half the cell's height.

    Args:
        vectors: shape (frames, ..., 3).
        cell: shape (frames, 3, 3), or ``None`` for no box.
    """
    if cell is None:
        return vectors
    flat = vectors.reshape(len(vectors), -1, 3)
    fractions = np.einsum("fvi,fij->fvj", flat, np.linalg.inv(cell))
    return (flat - np.einsum("fvi,fij->fvj", np.round(fractions), cell)).reshape(vectors.shape)


def make_whole(xyz: np.ndarray, cell: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Molecules with every bond to the nearest image, walking along the bonds from the first atom.

    Args:
        xyz: shape (frames, atoms, 3), in angstrom.
        cell: shape (frames, 3, 3), rows are the box vectors.
        bonds: int64, shape (bonds, 2), connecting all atoms.

    Returns:
        The coordinates, and which frames were changed, bool, shape (frames,).
    """
    parent, levels = _tree(xyz.shape[1], bonds)
    fractions = np.einsum("fai,fij->faj", xyz - xyz[:, parent], np.linalg.inv(cell))
    # Whole box vectors to add to an atom: those of its own bond and of all bonds before it.
    shift = -np.round(fractions)
    for atoms in levels:
        shift[:, atoms] += shift[:, parent[atoms]]
    changed = shift.any((1, 2))
    moved = xyz + np.einsum("fai,fij->faj", shift, cell)
    return np.where(changed[:, None, None], moved, xyz).astype(xyz.dtype), changed


def _tree(n: int, bonds: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The atom before each atom on the way from atom 0, and the atoms one, two, ... bonds away from it."""
    around: list[list[int]] = [[] for _ in range(n)]
    for i, j in bonds.tolist():
        around[i].append(j)
        around[j].append(i)
    parent, depth = np.zeros(n, np.int64), np.full(n, -1)
    depth[0] = 0
    queue = deque([0])
    while queue:
        atom = queue.popleft()
        for other in around[atom]:
            if depth[other] < 0:
                depth[other], parent[other] = depth[atom] + 1, atom
                queue.append(other)
    return parent, [np.flatnonzero(depth == level) for level in range(1, int(depth.max()) + 1)]
