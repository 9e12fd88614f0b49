"""Crystals that the tests of reading make and write as text."""

import os

import numpy as np

from noumena.crystals.elements import SYMBOLS
from noumena.crystals.formats.raw import Raw, Structure
from noumena.crystals.formats.texts import Texts

GREEK = ("alpha", "beta", "gamma")


def random_structure(seed: int, atoms: int = 6, kinds: int = 3, name: str = "") -> Structure:
    """Atoms at least 1.2 angstrom apart in a triclinic cell without symmetry, atomic numbers all over the table."""
    generator = np.random.default_rng(seed)
    while True:
        lattice = generator.normal(size=(3, 3)) + 4.5 * np.eye(3)
        frac = generator.random((atoms, 3))
        steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
        gap = frac[:, None] - frac[None]
        length = np.linalg.norm((gap[:, :, None] + steps) @ lattice, axis=-1)
        length[np.arange(atoms), np.arange(atoms), len(steps) // 2] = np.inf
        if length.min() > 1.2 and np.linalg.det(lattice) > 0:
            break
    elements = generator.choice(np.arange(1, 90), kinds, replace=False)
    types = np.concatenate([elements, generator.choice(elements, atoms - kinds)])[:atoms]
    return Structure(lattice, frac, types.astype(np.int64), f"test {seed}", name or f"s{seed}")


class Dying(Texts):
    """A piece that ends the process that reads it."""

    weight = 10

    def parse(self) -> Raw:
        os._exit(3)


def cif_of(structure: Structure, *, occupancy: str = "1", digits: int = 10) -> str:
    """A CIF in P1, as pymatgen lays it out."""
    lattice = structure.lattice
    lengths = np.linalg.norm(lattice, axis=1)
    cosines = (lattice @ lattice.T) / np.outer(lengths, lengths)
    angles = np.rad2deg(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
    lines = [f"data_{structure.name}", "_symmetry_space_group_name_H-M   'P 1'"]
    lines += [f"_cell_length_{axis}   {value:.10f}" for axis, value in zip("abc", lengths, strict=True)]
    lines += [f"_cell_angle_{axis}   {value:.10f}" for axis, value in zip(GREEK, angles, strict=True)]
    lines += ["loop_", " _symmetry_equiv_pos_site_id", " _symmetry_equiv_pos_as_xyz", "  1  'x, y, z'", "loop_"]
    tags = ("type_symbol", "label", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += [f" _atom_site_{tag}" for tag in tags]
    for row, (number, (x, y, z)) in enumerate(zip(structure.atom_types, structure.frac_coords, strict=True)):
        symbol = SYMBOLS[number]
        lines.append(f"  {symbol}  {symbol}{row}  {x:.{digits}f}  {y:.{digits}f}  {z:.{digits}f}  {occupancy}")
    return "\n".join(lines) + "\n"


def distances(lattice: np.ndarray, frac: np.ndarray, types: np.ndarray, cutoff: float = 6.0) -> np.ndarray:
    """Distances to all neighbours within a cutoff with the elements of both, sorted, per atom of the cell.

    The same for every cell, order of atoms, origin and orientation, but for how often each atom comes.
    """
    steps = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    gap = frac[:, None] - frac[None]
    length = np.linalg.norm((gap[:, :, None] + steps) @ lattice, axis=-1)
    rows = []
    for atom in range(len(frac)):
        other, image = np.nonzero((length[atom] < cutoff) & (length[atom] > 1e-6))
        near = np.stack([types[other] + 1000 * types[atom], length[atom, other, image]], 1)
        rows.append(near[np.lexsort(near.T)])
    size = max(len(row) for row in rows)
    table = np.zeros((len(rows), size, 2))
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
    flat = table.reshape(len(rows), -1)
    return flat[np.lexsort(np.round(flat, 4).T)]
