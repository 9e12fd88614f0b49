"""Distances, angles, torsions, signed volumes and superposition of batches of coordinates, differentiable."""

import torch
from torch import Tensor


def distances(xyz: Tensor, pairs: Tensor) -> Tensor:
    """Distances of pairs of atoms in angstrom.

    Args:
        xyz: shape (batch, atoms, 3).
        pairs: int64, shape (pairs, 2).

    Returns:
        Shape (batch, pairs). The gradient at distance 0 is 0.
    """
    return _norm(xyz.index_select(1, pairs[:, 0]) - xyz.index_select(1, pairs[:, 1]))


def _norm(vectors: Tensor) -> Tensor:
    """Length over the last axis, with a finite gradient at 0."""
    return vectors.square().sum(-1).clamp_min(1e-12).sqrt()


def angles(xyz: Tensor, triples: Tensor) -> Tensor:
    """Angles i-j-k in radians, 0 to pi.

    Args:
        xyz: shape (batch, atoms, 3).
        triples: int64, shape (angles, 3).

    Returns:
        Shape (batch, angles).
    """
    i, j, k = (xyz.index_select(1, triples[:, column]) for column in range(3))
    first, second = i - j, k - j
    # atan2 keeps its digits near 0 and pi, where the arc cosine loses them.
    return torch.atan2(_norm(torch.linalg.cross(first, second)), (first * second).sum(-1))


def torsions(xyz: Tensor, quadruples: Tensor) -> Tensor:
    """Torsions i-j-k-l in radians, -pi to pi, positive clockwise along j to k (IUPAC 1974).

    Args:
        xyz: shape (batch, atoms, 3).
        quadruples: int64, shape (torsions, 4).

    Returns:
        Shape (batch, torsions). Changes its sign in the mirror.
    """
    sin, cos = torsion_vector(xyz, quadruples)
    return torch.atan2(sin, cos)


def torsion_vector(xyz: Tensor, quadruples: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers proportional, with a factor above 0, to sine and cosine of torsions; each of shape (batch, torsions).

    Args:
        xyz: shape (batch, atoms, 3).
        quadruples: int64, shape (torsions, 4).
    """
    i, j, k, last = (xyz.index_select(1, quadruples[:, column]) for column in range(4))
    first, axis, third = j - i, k - j, last - k
    n1, n2 = torch.linalg.cross(first, axis), torch.linalg.cross(axis, third)
    # Blondel & Karplus 1996, eq. 3 and its sine: no division, no arc cosine.
    sin = _norm(axis) * (first * n2).sum(-1)
    return sin, (n1 * n2).sum(-1)


def signed_volumes(xyz: Tensor, quadruples: Tensor) -> Tensor:
    """Triple product (b - a) . ((c - a) x (d - a)) of atoms a, b, c, d in cubic angstrom.

    Args:
        xyz: shape (batch, atoms, 3).
        quadruples: int64, shape (volumes, 4).

    Returns:
        Shape (batch, volumes). Changes its sign in the mirror.
    """
    a, b, c, d = (xyz.index_select(1, quadruples[:, column]) for column in range(4))
    return ((b - a) * torch.linalg.cross(c - a, d - a)).sum(-1)


def rotation_onto(moving: Tensor, target: Tensor, *, reflect: bool = False) -> Tensor:
    """The rotation that superposes centred ``moving`` on centred ``target`` with least squares (Kabsch 1976).

    Args:
        moving, target: shape (batch, atoms, 3), centroids at the origin.
        reflect: allow mirror images, for comparison only.

    Returns:
        Shape (batch, 3, 3), to be applied as ``moving @ rotation``. Outside the gradient graph.
    """
    with torch.no_grad():
        covariance = torch.einsum("nai,naj->nij", moving, target)
        u, _, vh = torch.linalg.svd(covariance)
        if not reflect:
            sign = torch.linalg.det(u) * torch.linalg.det(vh)
            # The direction of least spread is turned round where the best fit would be a mirror image.
            flip = torch.ones_like(u[:, 0])
            flip[:, 2] = torch.where(sign < 0, -1.0, 1.0)
            u = u * flip[:, None, :]
        return u @ vh


def superposed(moving: Tensor, target: Tensor, *, reflect: bool = False) -> Tensor:
    """``moving`` turned and shifted onto ``target``; shape (batch, atoms, 3) each.

    The gradient treats the rotation as constant, which is exact at the optimum (the envelope theorem).
    """
    centre = target.mean(1, keepdim=True)
    moving = moving - moving.mean(1, keepdim=True)
    return moving @ rotation_onto(moving, target - centre, reflect=reflect) + centre


def aligned_square_deviation(moving: Tensor, target: Tensor, *, reflect: bool = False) -> Tensor:
    """Mean square deviation over atoms after the best superposition, in square angstrom, shape (batch,).

    Args:
        moving, target: shape (batch, atoms, 3).
        reflect: allow mirror images.
    """
    return (superposed(moving, target, reflect=reflect) - target).square().sum(-1).mean(1)
