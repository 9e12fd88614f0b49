"""What a picture of a unit cell shows: atoms with their copies on the faces, bonds, edges and colours of elements."""

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import COVALENT_RADII, SYMBOLS
from noumena.crystals.geometry import standard, wrapped

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

# Jmol's default colours of the elements 1 to 109 (https://jmol.sourceforge.net/jscolors).
_JMOL_TEXT = (
    "ffffff d9ffff cc80ff c2ff00 ffb5b5 909090 3050f8 ff0d0d 90e050 b3e3f5 ab5cf2 8aff00 bfa6a6 f0c8a0 ff8000 ffff30 "
    "1ff01f 80d1e3 8f40d4 3dff00 e6e6e6 bfc2c7 a6a6ab 8a99c7 9c7ac7 e06633 f090a0 50d050 c88033 7d80b0 c28f8f 668f8f "
    "bd80e3 ffa100 a62929 5cb8d1 702eb0 00ff00 94ffff 94e0e0 73c2c9 54b5b5 3b9e9e 248f8f 0a7d8c 006985 c0c0c0 ffd98f "
    "a67573 668080 9e63b5 d47a00 940094 429eb0 57178f 00c900 70d4ff ffffc7 d9ffc7 c7ffc7 a3ffc7 8fffc7 61ffc7 45ffc7 "
    "30ffc7 1fffc7 00ff9c 00e675 00d452 00bf38 00ab24 4dc2ff 4da6ff 2194d6 267dab 266696 175487 d0d0e0 ffd123 b8b8d0 "
    "a6544d 575961 9e4fb5 ab5c00 754f45 428296 420066 007d00 70abfa 00baff 00a1ff 008fff 0080ff 006bff 545cf2 785ce3 "
    "8a4fe3 a136d4 b31fd4 b31fba b30da6 bd0d87 c70066 cc0059 d1004f d90045 e00038 e6002e eb0026"
)
_JMOL = tuple(_JMOL_TEXT.split())

# Least contrast of a disc with a white page (ratio of luminances as in WCAG 2.2); discs have a dark rim besides.
_CONTRAST = 1.6
# Least distance in red, green and blue, each 0 to 1, of two elements of one crystal.
_APART = 0.22
_DARKER = 0.72
# Atoms as near as that to a face of the cell, in angstrom, are shown on the opposite face too.
_FACE = 0.35
_BOND = 1.15  # times the sum of the covalent radii
_UNKNOWN_RADIUS = 1.6  # angstrom, of the elements without a covalent radius
_NONMETALS = frozenset((1, 6, 7, 8, 9, 15, 16, 17, 33, 34, 35, 52, 53))
_AZIMUTH, _ELEVATION = np.deg2rad(24.0), np.deg2rad(14.0)
# Cells that are seen more than so much higher than wide are laid on their side.
_TALL = 1.35


@dataclass(frozen=True)
class Scene:
    """A cell as it is drawn, x to the right, y upwards and z towards the viewer, in angstrom, about its centre.

    Attributes:
        types: atomic numbers of the shown atoms, shape (shown,).
        xyz: their places, shape (shown, 3).
        bonds: pairs of shown atoms, shape (bonds, 2).
        corners: of the box, shape (8, 3), in the order of the binary numbers abc.
    """

    types: Whole
    xyz: Floats
    bonds: Whole
    corners: Floats

    @property
    def axes(self) -> Floats:
        """Ends of the vectors a, b and c from the first corner, shape (3, 3)."""
        return self.corners[[4, 2, 1]]


EDGES: Whole = np.array([(i, i | bit) for bit in (4, 2, 1) for i in range(8) if not i & bit])
"""Pairs of corners of a box, shape (12, 2)."""


def element_colours(numbers: Iterable[int]) -> dict[int, str]:
    """A colour ``#rrggbb`` for each element of a crystal.

    Jmol's colours, darkened where they would vanish on white, and further where two elements of the crystal would
    look alike.

    Args:
        numbers: atomic numbers.
    """
    found: dict[int, str] = {}
    taken: list[Floats] = []
    for number in sorted(set(numbers)):
        colour = _rgb(_JMOL[min(number, len(_JMOL)) - 1])
        while contrast(colour) < _CONTRAST:
            colour = colour * 0.97
        # Ever darker shades come to an end: a third one is not told apart by them.
        for _ in range(4):
            if all(float(np.linalg.norm(colour - other)) >= _APART for other in taken):
                break
            colour = colour * _DARKER
        taken.append(colour)
        found[number] = "#" + "".join(f"{round(255 * float(part)):02x}" for part in colour)
    return found


def contrast(colour: Floats) -> float:
    """Contrast with white of red, green and blue from 0 to 1, shape (3,): 1 for white, 21 for black (WCAG 2.2)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ np.array([0.2126, 0.7152, 0.0722])) + 0.05)


def lighter(colour: str, share: float) -> str:
    """A colour ``#rrggbb`` mixed with ``share`` of white."""
    mixed = _rgb(colour.lstrip("#"))
    mixed = mixed + (1.0 - mixed) * share
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in mixed)


def rim(colour: str) -> str:
    """The darker colour of the rim of a disc."""
    hue, light, saturation = colorsys.rgb_to_hls(*_rgb(colour.lstrip("#")).tolist())
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, 0.5 * light, 0.7 * saturation))


def _rgb(text: str) -> Floats:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def radii(types: Whole) -> Floats:
    """Radius in angstrom that an atom is drawn with: smaller than an atom, and less different than atoms are."""
    return 0.22 + 0.22 * _covalent(types)


def _covalent(types: Whole) -> Floats:
    return np.nan_to_num(np.asarray(COVALENT_RADII, np.float64)[types], nan=_UNKNOWN_RADIUS)


def scenes(truth: CrystalBatch, found: CrystalBatch | None = None, *, repeat: int = 1) -> list[list[Scene]]:
    """The cells of each crystal and of its reconstruction, seen from the same side.

    Args:
        truth: crystals.
        found: their reconstructions, see :func:`aligned`; None for the crystals alone.
        repeat: cells along each vector.

    Returns:
        For each crystal, one scene or two.
    """
    batches = [truth] if found is None else [truth, found]
    turned = [standard(batch.lattice.detach().cpu().double()).numpy() for batch in batches]
    result: list[list[Scene]] = []
    for number in range(len(truth)):
        look = _look(turned[0][number])
        row: list[Scene] = []
        for batch, lattices in zip(batches, turned, strict=True):
            atoms = slice(int(batch.offsets[number]), int(batch.offsets[number + 1]))
            frac = batch.frac_coords[atoms].detach().cpu().double().numpy()
            row.append(_scene(lattices[number] @ look, frac, batch.atom_types[atoms].cpu().numpy(), repeat))
        result.append(row)
    return result


def _look(lattice: Floats) -> Floats:
    """The rotation (3, 3) of rows after which a points out of the page to the left, b to the right and c upwards."""
    cos_a, sin_a, cos_e, sin_e = np.cos(_AZIMUTH), np.sin(_AZIMUTH), np.cos(_ELEVATION), np.sin(_ELEVATION)
    toward = np.array([cos_e * cos_a, cos_e * sin_a, sin_e])
    right = np.array([-sin_a, cos_a, 0.0])
    look = np.stack([right, np.cross(toward, right), toward], axis=1)
    seen = np.abs(lattice @ look).sum(0)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return look @ quarter if seen[1] > _TALL * seen[0] else look


def _scene(lattice: Floats, frac: Floats, types: Whole, repeat: int) -> Scene:
    steps = np.stack(np.meshgrid(*[np.arange(repeat)] * 3, indexing="ij"), -1).reshape(-1, 3)
    inside = ((frac % 1.0 + steps[:, None]) / repeat).reshape(-1, 3)
    types = np.tile(types, len(steps))
    box = lattice * repeat
    inside, types = _with_faces(inside, types, _FACE * np.linalg.norm(np.linalg.inv(box), axis=0))
    corners = (np.arange(8)[:, None] >> np.array([2, 1, 0])) & 1
    xyz = (inside - 0.5) @ box
    return Scene(types, xyz, _bonds(types, xyz), (corners - 0.5) @ box)


def _with_faces(frac: Floats, types: Whole, near: Floats) -> tuple[Floats, Whole]:
    """Atoms and their copies on opposite faces; ``near`` is the distance from a face as a fraction, shape (3,)."""
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 1.0
        low, high = frac[:, axis] < near[axis], frac[:, axis] > 1.0 - near[axis]
        frac = np.concatenate([frac, frac[low] + step, frac[high] - step])
        types = np.concatenate([types, types[low], types[high]])
    return frac, types


def _bonds(types: Whole, xyz: Floats) -> Whole:
    """Pairs of near neighbours; in a crystal with non-metals, not between its metals. Shape (bonds, 2)."""
    reach = _covalent(types)
    near = np.linalg.norm(xyz[:, None] - xyz, axis=-1) < _BOND * (reach[:, None] + reach)
    nonmetal = np.isin(types, list(_NONMETALS))
    if nonmetal.any():
        near &= nonmetal[:, None] | nonmetal
    return np.argwhere(np.triu(near, 1))


def aligned(truth: CrystalBatch, found: CrystalBatch) -> CrystalBatch:
    """Reconstructions moved by the translation that brings them onto their originals best, all vectorised.

    Of the translations that bring one atom onto its original, the one with the least sum of squared periodic
    distances; then the mean of what is left.

    Args:
        truth, found: the same crystals with the same atoms in the same order.

    Raises:
        DataError: the numbers of crystals or atoms differ.
    """
    if truth.num_atoms.tolist() != found.num_atoms.tolist():
        raise DataError(
            f"pictures: originals have {truth.num_atoms.tolist()[:8]} atoms, reconstructions "
            f"{found.num_atoms.tolist()[:8]}; give the same crystals in the same order."
        )
    apart = truth.frac_coords - found.frac_coords.to(truth.frac_coords)
    times = truth.num_atoms[truth.crystal]
    first = torch.repeat_interleave(torch.arange(len(times), device=truth.device), times)
    ends = times.cumsum(0)
    second = torch.arange(len(first), device=truth.device) - (ends - times - truth.offsets[truth.crystal])[first]
    rest = wrapped(apart[second] - apart[first])
    squares = torch.einsum("pi,pij->pj", rest, truth.lattice[truth.crystal[first]]).square().sum(-1)
    cost = squares.new_zeros(len(times)).index_add(0, first, squares)
    order = torch.argsort(cost, stable=True)
    order = order[torch.argsort(truth.crystal[order], stable=True)]
    shift = apart[order[truth.offsets[:-1]]]
    rest = wrapped(apart - shift[truth.crystal])
    mean = rest.new_zeros(len(truth), 3).index_add(0, truth.crystal, rest) / truth.num_atoms[:, None]
    return replace(found, frac_coords=found.frac_coords + (shift + mean)[truth.crystal].to(found.frac_coords))


def mismatch(truth: CrystalBatch, found: CrystalBatch) -> list[str]:
    """How far each reconstruction is from its original, in words.

    Args:
        truth, found: the same crystals with the same atoms in the same order, ``found`` brought onto ``truth`` by
            :func:`aligned`.
    """
    frac = wrapped(truth.frac_coords - found.frac_coords.to(truth.frac_coords))
    squares = torch.einsum("ai,aij->aj", frac, truth.lattice[truth.crystal]).square().sum(-1)
    mean = squares.new_zeros(len(truth)).index_add(0, truth.crystal, squares) / truth.num_atoms
    length = 100.0 * (found.lengths.to(truth.lengths) / truth.lengths - 1.0).abs().amax(1)
    angle = (found.angles.to(truth.angles) - truth.angles).abs().amax(1)
    wrong = _per_crystal(truth, truth.atom_types != found.atom_types)
    return [
        f"atoms {distance:.3f} Å, lengths {long:.2f} %, angles {turn:.2f}°"
        + (f", {bad} wrong element{'s' if bad > 1 else ''}" if bad else "")
        for distance, long, turn, bad in zip(
            mean.sqrt().tolist(), length.tolist(), angle.tolist(), wrong.tolist(), strict=True
        )
    ]


def _per_crystal(batch: CrystalBatch, chosen: Tensor) -> Tensor:
    return batch.num_atoms.new_zeros(len(batch)).index_add(0, batch.crystal, chosen.to(batch.num_atoms))


def symbols(numbers: Iterable[int]) -> list[str]:
    """Symbols of atomic numbers."""
    return [SYMBOLS[number] for number in numbers]
