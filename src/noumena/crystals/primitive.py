"""Primitive cells of many crystals at once.

A pure translation of a crystal takes every atom to one of the same element. As it is of a finite order that divides
the number of atoms of each element, it is a vector of whole multiples of 1/g of the cell's, g the greatest common
divisor of these numbers; and it is the difference of the positions of two atoms of the rarest element. Few vectors are
both, most crystals have none (g = 1), and what is found is a fraction free of error.
"""

from dataclasses import dataclass, replace

import numpy as np

from noumena.crystals.formats.raw import Raw
from noumena.crystals.pairs import by_size, row_blocks, wrapped_squares

_HALVINGS = 6
_MAX_ROUNDS = 4


@dataclass(frozen=True)
class _Found:
    """Crystals of one size that have translations.

    Attributes:
        crystals: their numbers, int64, shape (n,).
        order: number g, int64, shape (n,).
        shifts: their translations times g, int64 in [0, g), shape (n, most, 3); zeros behind the last one.
        partner: the atom that each translation takes each atom to, int64, shape (n, most, size).
        count: how many, the zero translation included, int64, shape (n,).
    """

    crystals: np.ndarray
    order: np.ndarray
    shifts: np.ndarray
    partner: np.ndarray
    count: np.ndarray


def primitive(raw: Raw, tolerance: float) -> tuple[Raw, np.ndarray]:
    """Crystals in primitive cells; those that have one already stay the same to the bit.

    Of the atoms that are translations of each other one remains, at the mean of their places.

    Args:
        raw: crystals of sound cells.
        tolerance: how far an atom may be from where a translation takes another, in angstrom.

    Returns:
        The crystals, and which of them had a larger cell, bool, shape (crystals,).
    """
    changed = np.zeros(len(raw), bool)
    chosen = np.arange(len(raw))
    for _ in range(_MAX_ROUNDS):
        raw, smaller = _round(raw, chosen, tolerance)
        if not len(smaller):
            break
        changed[smaller] = True
        # Means of places can bring further translations within the tolerance: once more, so that a second call finds
        # nothing to do.
        chosen = smaller
    return raw, changed


def common_divisor(raw: Raw) -> np.ndarray:
    """Greatest common divisor of the numbers of atoms of each element, int64, shape (crystals,)."""
    divisor = np.zeros(len(raw), np.int64)
    counts = np.zeros((len(raw), 120), np.int64)
    np.add.at(counts, (raw.crystal, raw.atom_types), 1)
    np.gcd.reduce(counts, axis=1, out=divisor)
    return divisor


def _round(raw: Raw, chosen: np.ndarray, tolerance: float) -> tuple[Raw, np.ndarray]:
    """Smaller cells for the ``chosen`` crystals that have one, and the numbers of these."""
    order = common_divisor(raw)
    frac, lattice = raw.frac_coords.copy(), raw.lattice.copy()
    kept = np.ones(len(frac), bool)
    smaller: list[np.ndarray] = []
    for crystals, atoms in by_size(raw.num_atoms, chosen[order[chosen] > 1]):
        limit = tolerance
        for _ in range(_HALVINGS):
            found = _translations(raw, crystals, atoms, order[crystals], limit)
            if not len(found.crystals):
                break
            good = _apply(found, atoms[np.searchsorted(crystals, found.crystals)], frac, lattice, kept)
            smaller.append(found.crystals[good])
            # Translations that make no group are near misses: a tighter tolerance tells which are none.
            rest = np.searchsorted(crystals, found.crystals[~good])
            if not len(rest):
                break
            crystals, atoms, limit = crystals[rest], atoms[rest], limit / 2
    numbers = np.concatenate([np.zeros(0, np.int64), *smaller])
    if not len(numbers):
        return raw, numbers
    counts = np.bincount(raw.crystal[kept], minlength=len(raw))
    return (
        replace(raw, frac_coords=frac[kept], lattice=lattice, atom_types=raw.atom_types[kept], num_atoms=counts),
        np.sort(numbers),
    )


def _translations(raw: Raw, crystals: np.ndarray, atoms: np.ndarray, order: np.ndarray, tolerance: float) -> _Found:
    """The translations of crystals of one size.

    Args:
        raw: all crystals.
        crystals: numbers of those to look at, shape (n,).
        atoms: numbers of their atoms, shape (n, size).
        order: number g of each, shape (n,).
        tolerance: in angstrom.
    """
    frac, types, lattice = raw.frac_coords[atoms], raw.atom_types[atoms], raw.lattice[crystals]
    crystal, shift = _candidates(frac, types, lattice, order, tolerance)
    partner = np.full((len(crystal), atoms.shape[1]), -1)
    fraction = shift / order[crystal, None]
    for block in row_blocks(len(crystal), atoms.shape[1] ** 2):
        partner[block] = _partners(frac, types, lattice, crystal[block], fraction[block], tolerance)
    whole = (partner >= 0).all(1)
    crystal, shift, partner = crystal[whole], shift[whole], partner[whole]
    having, place, count = np.unique(crystal, return_inverse=True, return_counts=True)
    most = int(count.max()) if len(count) else 0
    number = np.arange(len(crystal)) - np.repeat(np.cumsum(count) - count, count)
    shifts = np.zeros((len(having), most, 3), np.int64)
    partners = np.tile(np.arange(atoms.shape[1]), (len(having), most, 1))
    shifts[place, number], partners[place, number] = shift, partner
    return _Found(crystals[having], order[having], shifts, partners, count + 1)


def _candidates(
    frac: np.ndarray, types: np.ndarray, lattice: np.ndarray, order: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Differences to one atom of the rarest element that are whole multiples of 1/g.

    Returns:
        For each: its crystal, shape (candidates,), ascending, and the multiples, int64 in [0, g), (candidates, 3).
    """
    same = types[:, :, None] == types[:, None, :]
    rarest = np.argmin(same.sum(2), 1)
    row = np.arange(len(frac))
    difference = frac - frac[row, rarest][:, None]
    whole = np.rint(difference * order[:, None, None]).astype(np.int64)
    near = wrapped_squares(difference - whole / order[:, None, None], lattice) <= tolerance**2
    multiples = whole % order[:, None, None]
    crystal, atom = np.nonzero(near & same[row, rarest] & multiples.any(2))
    return crystal, multiples[crystal, atom]


def _partners(
    frac: np.ndarray,
    types: np.ndarray,
    lattice: np.ndarray,
    crystal: np.ndarray,
    shift: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """The atom at the place that a translation takes each atom to, shape (candidates, size); -1 where there is none."""
    here, kind, cell = frac[crystal], types[crystal], lattice[crystal]
    # Atoms as near as that differ by no more than this along the first axis: what is left to measure is little.
    reach = tolerance * np.linalg.norm(np.linalg.inv(cell)[:, :, 0], axis=1)
    partner = np.full(kind.shape, -1)
    for rows in row_blocks(kind.shape[1], len(crystal) * kind.shape[1]):
        along = (here[:, rows, 0] + shift[:, :1])[:, :, None] - here[:, None, :, 0]
        along -= np.rint(along)
        may = (np.abs(along) <= reach[:, None, None]) & (kind[:, rows, None] == kind[:, None, :])
        which, atom, other = np.nonzero(may)
        atom += rows.start
        difference = here[which, atom] + shift[which] - here[which, other]
        near = wrapped_squares(difference[:, None], cell[which])[:, 0] <= tolerance**2
        partner[which[near], atom[near]] = other[near]
    return partner


def _apply(found: _Found, atoms: np.ndarray, frac: np.ndarray, lattice: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Put smaller cells and fewer atoms into ``frac``, ``lattice`` and ``kept``.

    Returns:
        Which crystals it was done for, bool, shape (n,): those whose translations are a group.
    """
    basis = _basis(found.shifts, found.order)
    first = np.minimum(found.partner.min(1, initial=atoms.shape[1]), np.arange(atoms.shape[1]))
    representative = first == np.arange(atoms.shape[1])
    size = np.einsum("nii->ni", basis).prod(1)
    good = (size * found.count == found.order**3) & (representative.sum(1) * found.count == atoms.shape[1])
    atoms, basis, partner = atoms[good], basis[good], found.partner[good]
    order, shifts = found.order[good], found.shifts[good]
    if not len(order):
        return good
    here = frac[atoms]
    there = np.take_along_axis(here[:, None], partner[..., None], 2)  # (n, most, size, 3)
    offset = there - here[:, None] - (shifts / order[:, None, None])[:, :, None]
    offset -= np.rint(offset)
    real = np.arange(shifts.shape[1]) < (found.count[good] - 1)[:, None]
    mean = here + np.where(real[..., None, None], offset, 0.0).sum(1) / found.count[good][:, None, None]
    frac[atoms] = mean @ np.linalg.inv(basis / order[:, None, None])
    lattice[found.crystals[good]] = (basis / order[:, None, None]) @ lattice[found.crystals[good]]
    kept[atoms] = representative[good]
    return good


def _basis(shifts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Basis of the lattice that whole multiples of g and the ``shifts`` make, lower triangular, shape (n, 3, 3).

    As all translations of the group are there, the shortest of those along x, in the plane of x and y, and in space,
    as measured along the last axis of each, are the Hermite normal form.
    """
    basis = np.zeros((len(order), 3, 3), np.int64)
    row = np.arange(len(order))
    for axis in range(3):
        # Only those without components along the axes behind this one.
        flat = ~shifts[:, :, axis + 1 :].any(2) & (shifts[:, :, axis] > 0)
        length = np.where(flat, shifts[:, :, axis], order[:, None])
        shortest = length.argmin(1)
        found = length[row, shortest] < order
        basis[:, axis, axis] = order
        basis[found, axis] = shifts[row[found], shortest[found]]
    return basis
