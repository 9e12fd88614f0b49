"""Which structures are no crystals that can be used, and why."""

import re
from collections.abc import Iterable

import numpy as np

from noumena.crystals.formats.raw import Raw
from noumena.crystals.niggli import niggli
from noumena.crystals.pairs import by_size, row_blocks, wrapped_squares
from noumena.crystals.primitive import common_divisor

MIN_VOLUME = 2.0
"""Least volume per atom, in cubic angstrom: half of what hydrogen takes in any crystal at pressures of experiments."""
MAX_VOLUME = 1000.0
"""Greatest volume per atom, in cubic angstrom: eight times that of caesium, the loosest element."""
MIN_DISTANCE = 0.5
"""Least distance of two atoms, in angstrom, as the field has it; the shortest bond is 0.74."""
_SHORT = 3.0 * MIN_DISTANCE
_IMAGES = np.stack(np.meshgrid(*[np.arange(-1.0, 2.0)] * 3, indexing="ij"), -1).reshape(-1, 3)


def unsound(raw: Raw) -> dict[int, str]:
    """Structures without atoms, or with numbers that are no cell, no place or no element: reason by number."""
    reasons: dict[int, str] = {}
    with np.errstate(invalid="ignore", over="ignore"):
        volume = np.abs(np.linalg.det(np.where(np.isfinite(raw.lattice), raw.lattice, 0.0)))
        per_atom = volume / np.maximum(raw.num_atoms, 1)
    bad = np.zeros(len(raw), bool)
    for wrong, reason in (
        (raw.num_atoms < 1, "it has no atoms"),
        (~np.isfinite(raw.lattice).all((1, 2)), "a cell vector is NaN or infinite"),
        (_any(raw, np.logical_not(np.isfinite(raw.frac_coords).all(1))), "a coordinate is NaN or infinite"),
        (_any(raw, (raw.atom_types < 1) | (raw.atom_types > 118)), "an atomic number is outside 1 to 118"),
    ):
        reasons.update(dict.fromkeys(np.flatnonzero(wrong & ~bad).tolist(), reason))
        bad |= wrong
    for number in np.flatnonzero(~bad & ((per_atom < MIN_VOLUME) | (per_atom > MAX_VOLUME))).tolist():
        reasons[number] = (
            f"its cell has {per_atom[number]:.4g} cubic angstrom per atom; expected {MIN_VOLUME:g} to {MAX_VOLUME:g}"
        )
    return reasons


def too_large(raw: Raw, max_atoms: int | None, *, reducible: bool) -> dict[int, str]:
    """Structures of more than ``max_atoms`` atoms: reason by number.

    Args:
        raw: crystals.
        max_atoms: at most, or None for any number.
        reducible: leave those whose primitive cell may be small enough.
    """
    if max_atoms is None:
        return {}
    least = raw.num_atoms // common_divisor(raw) if reducible else raw.num_atoms
    over = np.flatnonzero(least > max_atoms).tolist()
    return {number: f"its cell has {raw.num_atoms[number]} atoms; data.max_atoms is {max_atoms}" for number in over}


_TOO_LARGE = re.compile(r"its cell has (\d+) atoms; data\.max_atoms is \d+")


def keeping_all(reasons: Iterable[str]) -> str:
    """What to do to keep the structures that were :func:`too_large`, by their reasons; empty where none was."""
    sizes = [int(found[1]) for reason in reasons if (found := _TOO_LARGE.search(reason))]
    if not sizes:
        return ""
    return (
        f" {len(sizes)} were left out for their size: data.max_atoms={max(sizes)} keeps them; a model.max_atoms that "
        "is set must be as large."
    )


def too_close(raw: Raw) -> dict[int, str]:
    """Structures with two atoms closer than :data:`MIN_DISTANCE`, over all periodic images: reason by number.

    Args:
        raw: crystals of sound cells, reduced or not.
    """
    # In a reduced cell the nearest image is among the neighbours, and for such distances it is the wrapped one.
    change = niggli(raw.lattice)
    lattice = change @ raw.lattice
    frac = raw.frac_coords
    moved = (change != np.eye(3)).any((1, 2))
    if moved.any():
        inverse = np.linalg.inv(change.astype(np.float64))
        frac = np.einsum("ai,aij->aj", frac, inverse[raw.crystal])
    least = np.full(len(raw), np.inf)
    for crystals, atoms in by_size(raw.num_atoms):
        least[crystals] = _least(frac[atoms], lattice[crystals])
    shortest = np.linalg.norm(lattice, axis=2).min(1)
    least = np.minimum(least, shortest)
    narrow = np.flatnonzero((shortest < _SHORT) & (least >= MIN_DISTANCE))
    for crystals, atoms in by_size(raw.num_atoms, narrow):
        for image in _IMAGES:
            least[crystals] = np.minimum(least[crystals], _least(frac[atoms], lattice[crystals], image))
    return {
        number: f"two of its atoms are {least[number]:.3f} angstrom apart; expected at least {MIN_DISTANCE}"
        for number in np.flatnonzero(least < MIN_DISTANCE).tolist()
    }


def _least(frac: np.ndarray, lattice: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
    """Least distance of two atoms of each crystal in angstrom, shape (n,).

    Args:
        frac: shape (n, size, 3).
        lattice: shape (n, 3, 3).
        image: cells to go further than the wrapped difference, shape (3,).
    """
    size = frac.shape[1]
    first, second = np.triu_indices(size, 1)
    least = np.full(len(frac), np.inf)
    for block in row_blocks(len(first), len(frac)):
        difference = frac[:, first[block]] - frac[:, second[block]]
        if image is not None:
            difference -= np.rint(difference)
            difference = (difference + image) @ lattice
            squares = np.einsum("nij,nij->ni", difference, difference)
        else:
            squares = wrapped_squares(difference, lattice)
        least = np.minimum(least, squares.min(1))
    return np.sqrt(least)


def _any(raw: Raw, bad: np.ndarray) -> np.ndarray:
    """Which crystals have a bad atom, bool, shape (crystals,), from one flag per atom."""
    return np.bincount(raw.crystal, weights=bad, minlength=len(raw)) > 0
