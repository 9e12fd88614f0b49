"""Errors of reconstructed conformations: distances, superposition, bonds, angles and torsions, in bounded memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.molecules.geometry import aligned_square_deviation, angles, distances, torsions
from noumena.molecules.topology import Topology

# Numbers in the largest temporary tensor: (frames, atoms, atoms) distances are never held for a whole set.
_CHUNK_NUMBERS = 4_000_000
_CHUNK_FRAMES = 1024


def chunks(frames: int, atoms: int) -> Iterator[slice]:
    """Slices over ``frames`` small enough that a matrix of atoms by atoms of each frame is cheap to hold."""
    size = max(1, min(_CHUNK_FRAMES, _CHUNK_NUMBERS // (atoms * atoms)))
    return (slice(start, min(start + size, frames)) for start in range(0, frames, size))


def all_distances(xyz: Tensor) -> Tensor:
    """Distances of every two atoms in angstrom, shape (batch, atoms, atoms), for ``xyz`` of (batch, atoms, 3)."""
    # The faster way over scalar products loses half the digits.
    return torch.cdist(xyz, xyz, compute_mode="donot_use_mm_for_euclid_dist")


def wrapped(angle: Tensor) -> Tensor:
    """Angles in radians brought into -pi to pi."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


@dataclass(frozen=True)
class Internal:
    """Bond lengths, angles and torsions of frames.

    Attributes:
        bonds: in angstrom, shape (frames, bonds), in the order of :attr:`Topology.bond_index`.
        angles: in radians, 0 to pi, shape (frames, angles), in the order of :attr:`Topology.angle_index`.
        torsions: in radians, -pi to pi, shape (frames, torsions), in the order of :attr:`Topology.torsions`.
    """

    bonds: Tensor
    angles: Tensor
    torsions: Tensor


def internal(xyz: Tensor, topology: Topology) -> Internal:
    """Bond lengths, angles and torsions of frames of shape (frames, atoms, 3)."""
    bonds = torch.from_numpy(topology.bond_index)
    triples = torch.from_numpy(topology.angle_index)
    quadruples = torch.tensor(list(topology.torsions.values()), dtype=torch.int64).reshape(-1, 4)
    found = [
        (distances(part, bonds), angles(part, triples), torsions(part, quadruples)) for part in xyz.split(_CHUNK_FRAMES)
    ]
    return Internal(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class Errors:
    """How far reconstructed frames are from the originals.

    Attributes:
        pairs: mean square difference of interatomic distances of each frame, in square angstrom, shape (frames,).
        aligned, reflected: mean square deviation over atoms after the best proper rotation, and after the best one
            of rotations and reflections, in square angstrom, shape (frames,).
        values: by name; see :func:`errors`.
    """

    pairs: Tensor
    aligned: Tensor
    reflected: Tensor
    values: dict[str, float]


def errors(
    original: Tensor, reconstructed: Tensor, topology: Topology, parts: tuple[Internal, Internal] | None = None
) -> Errors:
    """Compare reconstructed frames with the originals.

    ``values`` holds

    - ``pair_rmse``: root of the mean over frames and pairs of atoms of the squared difference of distances (angstrom);
    - ``rmsd``: root of the mean over frames and atoms of the squared deviation after superposition by proper rotations
      (angstrom), ``rmsd_reflected`` the same where mirror images are allowed: the gap is the error of handedness;
      ``rmsd_mean`` and ``rmsd_median`` over frames;
    - ``bond_rmse`` (angstrom), ``angle_rmse_deg``, ``torsion_mae_deg`` (mean absolute difference on the circle).

    Args:
        original, reconstructed: shape (frames, atoms, 3), in angstrom.
        topology: of the molecule.
        parts: bond lengths, angles and torsions of both, where they are known already.

    Raises:
        DataError: the shapes differ, or there is no frame.
    """
    if original.shape != reconstructed.shape or not len(original):
        raise DataError(
            f"reconstructions have shape {tuple(reconstructed.shape)}, the originals {tuple(original.shape)}; "
            "expected the same (frames, atoms, 3) with one frame or more."
        )
    atoms = len(topology)
    scale = atoms / (atoms - 1)  # the matrix of distances has as many zeros on its diagonal as atoms
    pairs, aligned, reflected = [], [], []
    for rows in chunks(len(original), atoms):
        truth, guess = original[rows], reconstructed[rows]
        pairs.append((all_distances(truth) - all_distances(guess)).square().mean((1, 2)) * scale)
        aligned.append(aligned_square_deviation(guess, truth))
        reflected.append(aligned_square_deviation(guess, truth, reflect=True))
    first, second = parts or (internal(original, topology), internal(reconstructed, topology))
    found = Errors(torch.cat(pairs), torch.cat(aligned), torch.cat(reflected), {})
    rmsd = found.aligned.sqrt()
    found.values.update(
        pair_rmse=_root_mean(found.pairs),
        rmsd=_root_mean(found.aligned),
        rmsd_reflected=_root_mean(found.reflected),
        rmsd_mean=float(rmsd.mean()),
        rmsd_median=float(rmsd.median()),
        bond_rmse=_root_mean((first.bonds - second.bonds).square()),
    )
    if first.angles.shape[1]:
        found.values["angle_rmse_deg"] = math.degrees(_root_mean((first.angles - second.angles).square()))
    if first.torsions.shape[1]:
        error = wrapped(first.torsions - second.torsions).abs()
        found.values["torsion_mae_deg"] = math.degrees(float(error.double().mean()))
    return found


def radius_of_gyration(xyz: Tensor) -> Tensor:
    """Root mean square distance of the atoms from their centroid in angstrom, each atom alike, shape (frames,)."""
    return (xyz - xyz.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()


def _root_mean(squares: Tensor) -> float:
    return math.sqrt(float(squares.double().mean()))
