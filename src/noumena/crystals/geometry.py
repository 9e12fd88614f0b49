"""Cells and periodic distances: lengths and angles, metric, logarithm of the cell, minimum image.

A lattice is a matrix whose rows are the cell vectors in angstrom; ``cart = frac @ lattice``.
"""

import torch
from torch import Tensor

_PAIRS = ((1, 2), (0, 2), (0, 1))  # vectors that alpha, beta and gamma are between
_UPPER = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # Voigt's order


def lengths_of(lattice: Tensor) -> Tensor:
    """Lengths a, b, c in angstrom, shape (..., 3), of lattices of shape (..., 3, 3)."""
    return torch.linalg.vector_norm(lattice, dim=-1)


def angles_of(lattice: Tensor) -> Tensor:
    """Angles alpha, beta, gamma in degrees, shape (..., 3), of lattices of shape (..., 3, 3)."""
    unit = lattice / lengths_of(lattice)[..., None]
    cosines = torch.stack([(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in _PAIRS], -1)
    return torch.rad2deg(torch.arccos(cosines.clamp(-1.0, 1.0)))


def lattice_of(lengths: Tensor, angles: Tensor) -> Tensor:
    """The lattice with a along x and b in the plane of x and y, shape (..., 3, 3).

    Args:
        lengths: a, b, c in angstrom, shape (..., 3).
        angles: alpha, beta, gamma in degrees, shape (..., 3). Three angles that close no cell give NaN.
    """
    cos_a, cos_b, cos_g = torch.deg2rad(angles).cos().unbind(-1)
    sin_g = torch.deg2rad(angles[..., 2]).sin()
    a, b, c = lengths.unbind(-1)
    zero = torch.zeros_like(a)
    y = (cos_a - cos_b * cos_g) / sin_g
    z = (1.0 - cos_b.square() - y.square()).sqrt()
    rows = (
        torch.stack([a, zero, zero], -1),
        torch.stack([b * cos_g, b * sin_g, zero], -1),
        torch.stack([c * cos_b, c * y, c * z], -1),
    )
    return torch.stack(rows, -2)


def standard(lattice: Tensor) -> Tensor:
    """The same cell turned so that a is along x and b in the plane of x and y, right-handed; shape (..., 3, 3)."""
    # The Cholesky factor of the metric is the cell in that orientation.
    return torch.linalg.cholesky(lattice @ lattice.mT)


def volume_of(lattice: Tensor) -> Tensor:
    """Volume in cubic angstrom, shape (...)."""
    return torch.linalg.det(lattice).abs()


def log_cell(lattice: Tensor) -> Tensor:
    r"""Six numbers that say everything of a cell but its orientation, shape (..., 6).

    .. math:: S = \tfrac12 \log (L L^\top)

    in Voigt's order (11, 22, 33, 23, 13, 12), lengths in angstrom. Any six numbers are a valid cell
    (:func:`cell_of_log`), a change of them is a strain, and their first three add up to the logarithm of the volume.
    """
    values, vectors = torch.linalg.eigh(lattice @ lattice.mT)
    log = (vectors * (0.5 * values.clamp_min(1e-12).log())[..., None, :]) @ vectors.mT
    return torch.stack([log[..., i, j] for i, j in _UPPER], -1)


def cell_of_log(log: Tensor) -> Tensor:
    """The lattice with a along x and b in the plane of x and y of :func:`log_cell`, shape (..., 3, 3)."""
    xx, yy, zz, yz, xz, xy = log.unbind(-1)
    rows = (torch.stack([xx, xy, xz], -1), torch.stack([xy, yy, yz], -1), torch.stack([xz, yz, zz], -1))
    return standard(torch.linalg.matrix_exp(torch.stack(rows, -2)))


def wrapped(difference: Tensor) -> Tensor:
    """Differences of fractional coordinates brought to [-1/2, 1/2]."""
    return difference - difference.round()


def images(reach: int = 1, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Integer translations up to ``reach`` cells along each vector, shape ((2 reach + 1)^3, 3)."""
    steps = torch.arange(-reach, reach + 1, device=device, dtype=dtype)
    return torch.cartesian_prod(steps, steps, steps)


def image_distances(difference: Tensor, lattice: Tensor, *, reach: int = 1) -> Tensor:
    """Distances in angstrom between two sites over periodic images, shape (..., (2 reach + 1)^3).

    Args:
        difference: of their fractional coordinates, shape (..., 3).
        lattice: shape (..., 3, 3).
        reach: cells to look at on each side; 1 holds the shortest distance of every Niggli-reduced cell.
    """
    shift = images(reach, device=difference.device, dtype=difference.dtype)
    return torch.linalg.vector_norm((wrapped(difference)[..., None, :] + shift) @ lattice, dim=-1)
