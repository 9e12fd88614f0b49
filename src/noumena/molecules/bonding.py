"""Bonds from distances, and the unit of length that distances tell."""

from dataclasses import replace

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms, in_several_parts, parts_of, with_bonds
from noumena.molecules.elements import covalent_radii
from noumena.molecules.formats.frames import ANGSTROM, Unit
from noumena.molecules.periodic import nearest_image

# A bond is at most this many times the sum of the covalent radii: beyond thermal stretching (1.1) and short of the
# distance over an angle (1.4 and more).
_BOND_RATIO = 1.3
_CANDIDATE_RATIO = 2.0
# Alkali metals are ions next to atoms, not bonded to them.
_IONS = (3, 11, 19, 37, 55, 87)
# The nearest neighbour of most atoms is one they are bonded to, at 0.85 to 1.05 radii sums in all organic molecules.
_BELIEVABLE = (0.7, 1.35)
_CONVINCING = (0.8, 1.15)
_BLOCK = 512


def perceived_bonds(elements: np.ndarray, xyz: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
    """Bonds of atoms whose median distance is at most 1.3 times the sum of their covalent radii.

    Args:
        elements: atomic numbers, shape (atoms,).
        xyz: frames to take the median of, shape (frames, atoms, 3), in angstrom.
        cell: box vectors, shape (frames, 3, 3), if there is a box.

    Returns:
        int64, shape (bonds, 2), ascending.
    """
    radii = covalent_radii(elements)
    bonding = ~np.isin(elements, _IONS)
    found: set[tuple[int, int]] = set()
    for frame in {0, len(xyz) // 2, len(xyz) - 1}:
        found |= _near(xyz[frame], None if cell is None else cell[frame], radii, bonding)
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    if not len(pairs):
        return pairs
    vectors = nearest_image(xyz[:, pairs[:, 0]] - xyz[:, pairs[:, 1]], cell)
    median = np.median(np.linalg.norm(vectors, axis=2), axis=0)
    return pairs[median <= _BOND_RATIO * radii[pairs].sum(1)]


def _near(xyz: np.ndarray, cell: np.ndarray | None, radii: np.ndarray, bonding: np.ndarray) -> set[tuple[int, int]]:
    """Pairs that may be bonds, by one frame."""
    found: set[tuple[int, int]] = set()
    for first in range(0, len(xyz), _BLOCK):
        distance = _distances(xyz, first, cell)
        limit = _CANDIDATE_RATIO * (radii[first : first + _BLOCK, None] + radii[None])
        near = (distance <= limit) & bonding[None] & bonding[first : first + _BLOCK, None]
        i, j = np.nonzero(near)
        i = i + first
        found |= set(zip(i[i < j].tolist(), j[i < j].tolist(), strict=True))
    return found


def _distances(xyz: np.ndarray, first: int, cell: np.ndarray | None) -> np.ndarray:
    """Distances of a block of atoms to all, shape (block, atoms)."""
    vectors = xyz[first : first + _BLOCK, None] - xyz[None]
    return np.linalg.norm(nearest_image(vectors[None], None if cell is None else cell[None])[0], axis=2)


def bonded(atoms: Atoms, xyz: np.ndarray, cell: np.ndarray | None, where: str, origin: str) -> tuple[Atoms, str]:
    """The atoms with bonds that connect them all, and where the bonds are from, in words.

    Bonds that the file names are kept; between the parts that they leave apart, those that distances tell are added.

    Args:
        atoms: of one molecule.
        xyz, cell: as for :func:`perceived_bonds`.
        where: the source of the atoms, for messages.
        origin: what to call it in facts.

    Raises:
        DataError: the atoms stay apart.
    """
    n = len(atoms)
    part = parts_of(n, atoms.bonds)
    if part.max(initial=0) == 0:
        return atoms, f"of {origin}"
    pairs = perceived_bonds(atoms.elements, xyz, cell)
    added = pairs[part[pairs[:, 0]] != part[pairs[:, 1]]]
    orders = None if len(atoms.bonds) else atoms.orders
    complete = with_bonds(replace(atoms, orders=orders), np.concatenate([atoms.bonds, added]))
    if parts_of(n, complete.bonds).max() > 0:
        raise in_several_parts(complete, where)
    if not len(atoms.bonds):
        return complete, f"perceived from distances, as {origin} names none"
    return complete, f"of {origin}, which names {len(atoms.bonds)}, and {len(added)} perceived from distances"


def check_unit(elements: np.ndarray, xyz: np.ndarray, cell: np.ndarray | None, unit: Unit, where: str) -> None:
    """Refuse coordinates whose nearest neighbours are at distances that another unit would explain.

    Args:
        elements: atomic numbers, shape (atoms,).
        xyz, cell: some frames in angstrom, if ``unit`` were right.
        unit: that was taken for the file's.
        where: the file, for the message.

    Raises:
        DataError: it names the unit to set.
    """
    radii = covalent_radii(elements)
    ratios = [
        _nearest_ratio(xyz[frame], None if cell is None else cell[frame], radii)
        for frame in sorted({0, len(xyz) // 2, len(xyz) - 1})
    ]
    ratio = float(np.median(ratios))
    if _BELIEVABLE[0] <= ratio <= _BELIEVABLE[1]:
        return
    for other, angstrom in ANGSTROM.items():
        if _CONVINCING[0] <= ratio * angstrom / ANGSTROM[unit] <= _CONVINCING[1]:
            raise DataError(
                f"{where}: read in {unit}, neighbouring atoms are at {ratio:.2g} times the length of a bond; the "
                f"coordinates are in {other}. Set unit='{other}'."
            )
    raise DataError(
        f"{where}: read in {unit}, neighbouring atoms are at {ratio:.2g} times the length of a bond, which no unit of "
        f"{', '.join(ANGSTROM)} explains. The topology is of other atoms, atoms between them are left out, or the "
        "coordinates are scaled."
    )


def _nearest_ratio(xyz: np.ndarray, cell: np.ndarray | None, radii: np.ndarray) -> float:
    """Median over atoms of the distance to the nearest other atom, over the sum of the radii."""
    nearest: list[np.ndarray] = []
    for first in range(0, len(xyz), _BLOCK):
        ratio = _distances(xyz, first, cell) / (radii[first : first + _BLOCK, None] + radii[None])
        rows = np.arange(len(ratio))
        ratio[rows, rows + first] = np.inf
        nearest.append(ratio.min(1))
    return float(np.median(np.concatenate(nearest)))
