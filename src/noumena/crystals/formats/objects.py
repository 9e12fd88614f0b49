"""Crystals of pymatgen's and ASE's objects."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from noumena.crystals.formats.raw import Raw, Skipped, Structure


def pymatgen_structures(structures: Iterable[Any], names: Sequence[str] | None = None) -> Raw:
    """Arrays of pymatgen ``Structure`` objects; disordered ones are left out."""
    found: list[Structure] = []
    skipped: list[Skipped] = []
    for number, structure in enumerate(structures):
        where, name = f"structure {number}", names[number] if names else str(number)
        if not structure.is_ordered:
            skipped.append(Skipped(where, name, "it has sites of more than one element or an occupancy below 1"))
            continue
        numbers = np.array([_atomic_number(site.specie) for site in structure], np.int64)
        lattice = np.array(structure.lattice.matrix, np.float64)
        frac = np.array(structure.frac_coords, np.float64).reshape(-1, 3)
        found.append(Structure(lattice, frac, numbers, where, name))
    return Raw.of(found, skipped)


def ase_atoms(atoms: Iterable[Any], names: Sequence[str] | None = None) -> Raw:
    """Arrays of ASE ``Atoms`` objects; those that are not periodic in all directions are left out."""
    found: list[Structure] = []
    skipped: list[Skipped] = []
    for number, one in enumerate(atoms):
        where, name = f"structure {number}", names[number] if names else str(number)
        lattice = np.array(one.cell[:], np.float64)
        if not all(one.pbc):
            skipped.append(Skipped(where, name, f"it is not periodic in all directions: pbc is {list(one.pbc)}"))
        elif not abs(np.linalg.det(lattice)) > 0:
            skipped.append(Skipped(where, name, "its cell has no volume"))
        else:
            frac = np.linalg.solve(lattice.T, np.array(one.positions, np.float64).T).T
            found.append(Structure(lattice, frac, np.array(one.numbers, np.int64), where, name))
    return Raw.of(found, skipped)


def _atomic_number(specie: Any) -> int:
    """Of an element or ion; 0 for a made-up species."""
    return int(getattr(specie, "Z", 0))
