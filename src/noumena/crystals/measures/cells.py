"""Cells as arrays, and their reduction as pymatgen's matcher does it.

Nothing here needs torch: worker processes import it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noumena.crystals.libraries import pymatgen

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

SMALLEST_VOLUME = 0.1
"""Cubic angstrom: the least volume of a cell that is one (CDVAE's rule, Xie et al. 2022)."""

_PRIMITIVE_TOLERANCE = 0.25  # angstrom, the default of pymatgen's get_primitive_structure
_BLOCK = 1_000_000  # comparisons of translations at a time

MOST_POINTS = 200_000
"""Lattice points that may have to be looked at; a cell so flat or so skewed that it needs more is none."""


class InvalidCell(ValueError):
    """The cell is none: a number that is not finite, no volume, or vectors so skewed that no search ends."""


@dataclass(frozen=True)
class Cell:
    """One crystal.

    Attributes:
        lattice: rows are cell vectors in angstrom, shape (3, 3).
        frac: fractional coordinates, shape (atoms, 3).
        numbers: atomic numbers, shape (atoms,).
    """

    lattice: Floats
    frac: Floats
    numbers: Whole

    @property
    def volume(self) -> float:
        """In cubic angstrom."""
        return abs(float(np.linalg.det(self.lattice)))

    @property
    def formula(self) -> tuple[tuple[int, int], ...]:
        """Atomic numbers and their reduced counts: equal for equal compositions."""
        numbers, counts = np.unique(self.numbers, return_counts=True)
        divisor = math.gcd(*counts.tolist())
        return tuple(zip(numbers.tolist(), (counts // divisor).tolist(), strict=True))


def problem(cell: Cell) -> str:
    """Why a cell is none; an empty string when it is one."""
    if not (np.isfinite(cell.lattice).all() and np.isfinite(cell.frac).all()):
        return "a number is NaN or infinite"
    if not cell.volume > SMALLEST_VOLUME:
        return f"its volume is {cell.volume:.3g} cubic angstrom; expected more than {SMALLEST_VOLUME}"
    return ""


def box(lattice: Floats, radius: float) -> Floats:
    """Cells on each side that hold all lattice points within ``radius`` angstrom, shape (3,).

    Raises:
        InvalidCell: they are too many points to look at.
    """
    reach = np.floor(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0) + 1e-8)
    points = float(np.prod(2.0 * reach + 1.0))
    if not points <= MOST_POINTS:
        raise InvalidCell(f"it is so flat or skewed that {points:.3g} lattice points would have to be looked at")
    return reach


def reduced(cell: Cell) -> Cell:
    """The primitive Niggli cell that ``StructureMatcher`` compares, sites in the order that it gives them.

    The same steps as pymatgen's (Niggli reduction, then ``get_primitive_structure``), but without an object for each
    site, and without the search for a smaller cell where :func:`_is_primitive` proves that there is none.

    Raises:
        InvalidCell: the cell is none, or it cannot be reduced.
    """
    if reason := problem(cell):
        raise InvalidCell(reason)
    make = pymatgen("core").Lattice
    old = make(cell.lattice)
    # The reduction looks for its cell among all lattice points as near as its longest vector.
    box(cell.lattice, float(np.linalg.norm(old.lll_matrix, axis=1).max()))
    try:
        new = old.get_niggli_reduced_lattice()
    except (ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise InvalidCell(f"its Niggli reduction failed: {error}") from error
    if new is None:
        raise InvalidCell("its Niggli reduction found no cell")
    if new != old:
        frac = new.get_fractional_coords(old.get_cartesian_coords(cell.frac)) % 1.0
        cell = Cell(np.asarray(new.matrix), frac, cell.numbers)
    return cell if _is_primitive(cell) else _primitive(cell)


def _is_primitive(cell: Cell) -> bool:
    """Whether no smaller cell can be found: then pymatgen's search, that costs most of a match, is left out.

    A smaller cell needs translations that bring every site on one of its element. The candidates are those from one
    site of the rarest element to the others. With none left but zero, a cell of 1/k of the volume would need vectors
    of which a component is a multiple of 1/k but no integer, within the tolerance of zero.
    """
    _, inverse, counts = np.unique(cell.numbers, return_inverse=True, return_counts=True)
    units = math.gcd(*counts.tolist())
    if units == 1:
        return True
    tolerance = _PRIMITIVE_TOLERANCE / np.linalg.norm(cell.lattice, axis=1)
    if tolerance.max() * units >= 1.0:
        return False
    groups = sorted((cell.frac[inverse == number] for number in range(len(counts))), key=len)
    shifts = groups[0] - groups[0][0]
    for group in groups:
        between = group[None] - group[:, None]  # (from, to, 3)
        block = max(1, _BLOCK // (len(shifts) * len(group)))
        for start in range(0, len(group), block):
            off = shifts[:, None, None] - between[None, start : start + block]
            off -= np.round(off)
            near = (np.abs(off) < 2.0 * tolerance).all(-1)  # (shift, from, to)
            shifts = shifts[near.any(2).all(1)]
            if len(shifts) < 2:
                return True
    return False


def _primitive(cell: Cell) -> Cell:
    core = pymatgen("core")
    found: Any = core.Structure(cell.lattice, cell.numbers, cell.frac).get_primitive_structure()
    numbers = np.array([site.specie.Z for site in found], np.int64)
    return Cell(np.asarray(found.lattice.matrix), np.asarray(found.frac_coords), numbers)
