"""One crystal as the explorer's page shows it: its cell to be turned, its lattice as a table, and its CIF file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from noumena import scene3d
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import counts_of, formulas_of
from noumena.crystals.drawing import EDGES, Scene, element_colours, radii, scenes
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.measures.distances import nearest_distance, valid_cells
from noumena.crystals.writers import write_cif
from noumena.style import GREY

_BOND = "#a3afbb"
_SMALLER = 0.8  # radii of balls, over those of the pictures: in front of each other they hide more when turned
_LABEL = 1.3  # angstrom from the end of a vector to its letter, where no atom is
_MOST_ATOMS = 600  # with bonds: some 150 kB
_TOO_FLAT = "no cell: a vector or a coordinate is not finite, or the cell has next to no volume"
_LATTICE = ("a (Å)", "b (Å)", "c (Å)", "α (°)", "β (°)", "γ (°)")


def cell_drawing(found: CrystalBatch, like: CrystalBatch, note: str) -> Drawing:
    """A crystal as a figure, a table and a CIF file.

    Args:
        found: one crystal, float64, on the CPU.
        like: the crystal whose side, scale and colours the scene has: the original, or ``found`` itself.
        note: what is said below it. That a cell is none is added.
    """
    if not bool(valid_cells(found).all()):
        return Drawing(note=f"{note}; {_TOO_FLAT}")
    pair = scenes(like) if found is like else scenes(like, found)
    first, shown = pair[0][0], pair[0][-1]
    half = scene3d.half_of(*(part for one in (first, shown) for part in (one.xyz, _letters(one))))
    colours = element_colours([*first.types.tolist(), *shown.types.tolist()]) | element_colours(first.types.tolist())
    bonds = len(shown.types) <= _MOST_ATOMS
    return Drawing(
        scene3d.figure(_traces(shown, colours, half, bonds), half),
        cell_table(found),
        note if bonds else f"{note}; bonds are left out of so large a cell",
        ".cif",
        lambda: cif_of(found),
    )


def _letters(scene: Scene) -> scene3d.Floats:
    """Places of the letters a, b and c, shape (3, 3), beyond all corners."""
    vectors = _vectors(scene)
    return scene.corners[0] + vectors * (1.0 + _LABEL / np.linalg.norm(vectors, axis=1))[:, None]


def _vectors(scene: Scene) -> scene3d.Floats:
    """The cell's vectors as rows, shape (3, 3), as they are turned in the scene."""
    return scene.axes - scene.corners[0]


def _traces(scene: Scene, colours: dict[int, str], half: float, bonds: bool) -> list[scene3d.Trace]:
    found = [scene3d.sticks(scene.corners[EDGES], GREY, 2.0)]
    if bonds and len(scene.bonds):
        found.append(scene3d.sticks(scene.xyz[scene.bonds], _BOND, 6.0))
    inside = (scene.xyz - scene.corners[0]) @ np.linalg.inv(_vectors(scene))
    for number in sorted({*scene.types.tolist()}):
        chosen = scene.types == number
        symbol = SYMBOLS[number]
        texts = [f"{symbol} {x:.3f} {y:.3f} {z:.3f}" for x, y, z in inside[chosen].tolist()]
        radius = _SMALLER * float(radii(scene.types[chosen][:1])[0])
        found.append(scene3d.balls(scene.xyz[chosen], radius, half, colours[number], symbol, texts))
    return [*found, scene3d.labels(_letters(scene), "abc")]


def cif_of(one: CrystalBatch) -> bytes:
    """A CIF file of one crystal."""
    return scene3d.content_of(".cif", lambda path: _write(path, one))


def _write(path: Path, one: CrystalBatch) -> None:
    write_cif(path, [one])


def lattice_numbers(one: CrystalBatch) -> list[float]:
    """Lengths in angstrom, angles in degrees, volume in cubic angstrom and the same per atom of one crystal."""
    volume = float(one.volume[0])
    return [*one.lengths[0].tolist(), *one.angles[0].tolist(), volume, volume / int(one.num_atoms[0])]


LATTICE_WORDS = (*_LATTICE, "volume (Å³)", "volume per atom (Å³)")
"""What :func:`lattice_numbers` are."""


def cell_table(one: CrystalBatch) -> Table:
    """Formula, atoms and lattice of one crystal."""
    rows: list[list[str | float]] = [["formula", formulas_of(one)[0]], ["atoms", int(one.num_atoms[0])]]
    rows += [[word, round(value, 4)] for word, value in zip(LATTICE_WORDS, lattice_numbers(one), strict=True)]
    return Table("Cell", ("", "value"), rows)


def composition_table(one: CrystalBatch) -> Table:
    """Atoms of each element of one crystal."""
    counts = counts_of(one)[0]
    total = int(one.num_atoms[0])
    rows = [[SYMBOLS[z], int(counts[z]), round(100.0 * int(counts[z]) / total, 2)] for z in counts.nonzero()[:, 0]]
    return Table("Composition", ("element", "atoms", "share (%)"), rows)


def in_words(one: CrystalBatch) -> str:
    """Formula, size, and the nearest distance of one crystal."""
    atoms = int(one.num_atoms[0])
    words = f"{formulas_of(one)[0]}, {atoms} atom{'s' if atoms > 1 else ''}"
    if not bool(valid_cells(one).all()):
        return words
    volume, nearest = float(one.volume[0]) / atoms, float(nearest_distance(one)[0])
    return f"{words}, {volume:.1f} Å³ each, nearest atoms {nearest:.2f} Å apart"


def plain(found: CrystalBatch, name: str) -> CrystalBatch:
    """What a model gave, in double precision on the CPU, named for files.

    Args:
        found: one crystal.
        name: of its block in a file.
    """
    return replace(found, names=(name,)).to("cpu", torch.float64)
