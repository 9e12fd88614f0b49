"""One conformation as the explorer's page shows it: a molecule to be turned, and its PDB file."""

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noumena import scene3d
from noumena.core.exploring import Drawing
from noumena.molecules.elements import SYMBOLS, covalent_radii
from noumena.molecules.structures import atom_colours, viewing_axes
from noumena.molecules.topology import Topology
from noumena.molecules.writers import write_pdb
from noumena.style import GREEN, GREY, PALE

# Beyond so many atoms hydrogens are left out, and beyond so many others their markers: a drawing stays small.
_WITH_HYDROGENS = 150
_WITH_BALLS = 500
_SMALLER = 0.34  # radius of a ball over the covalent radius
_SPARE = 1.08
_THICK, _THIN, _BELOW = 7.0, 4.0, 5.0  # pixels


@dataclass(frozen=True)
class Stage:
    """Where the molecules of a page stand, so that all are seen from the same side and at one scale.

    Attributes:
        topology: of the molecule.
        centre: what is in the middle, in angstrom, shape (3,).
        turn: proper rotation (3, 3) to the side it is widest from, applied as ``(xyz - centre) @ turn``.
        half: angstrom from the middle to the sides.
    """

    topology: Topology
    centre: scene3d.Floats
    turn: scene3d.Floats
    half: float

    @classmethod
    def of(cls, xyz: Tensor, topology: Topology) -> Self:
        """The stage of a conformation, shape (atoms, 3)."""
        places = xyz.double().numpy()
        centre = places.mean(0)
        turn = viewing_axes(places)
        # A little larger, so that most reconstructions are drawn at the scale of their original.
        return cls(topology, centre, turn, _SPARE * scene3d.half_of((places - centre) @ turn))

    def widened(self, xyz: Tensor) -> "Stage":
        """The same, with room for further conformations, shape (frames, atoms, 3)."""
        half = scene3d.half_of(self.placed(xyz).reshape(-1, 3))
        return Stage(self.topology, self.centre, self.turn, max(self.half, half))

    def placed(self, xyz: Tensor) -> scene3d.Floats:
        """Conformations as they stand there, shape (..., 3)."""
        return (xyz.double().numpy() - self.centre) @ self.turn

    @cached_property
    def drawn(self) -> NDArray[np.bool_]:
        """Which atoms are drawn, shape (atoms,)."""
        whole = len(self.topology) <= _WITH_HYDROGENS or not self.topology.heavy.any()
        return np.ones(len(self.topology), dtype=bool) if whole else self.topology.heavy

    @property
    def left_out(self) -> str:
        """What is not drawn, in words; empty where everything is."""
        words = "" if self.drawn.all() else "hydrogens are not drawn"
        return words if self.has_balls else f"{words}{words and ', and'} atoms are drawn as the ends of their bonds"

    @property
    def has_balls(self) -> bool:
        """Whether atoms have markers."""
        return int(self.drawn.sum()) <= _WITH_BALLS

    def drawing(self, xyz: Tensor, note: str, below: Tensor | None = None) -> Drawing:
        """A conformation as a figure and a PDB file.

        Args:
            xyz: in angstrom, shape (atoms, 3).
            note: what is said below it.
            below: another conformation that is laid under it in grey, shape (atoms, 3).
        """
        stage = self.widened(xyz[None])
        traces = [] if below is None else [stage._bonds_below(below)]
        traces += [*stage._sticks(xyz), *(stage._balls(xyz) if stage.has_balls else [])]
        left_out = f"; {self.left_out}" if self.left_out else ""
        return Drawing(
            scene3d.figure(traces, stage.half), None, note + left_out, ".pdb", lambda: pdb_of(xyz, self.topology)
        )

    @cached_property
    def _pairs(self) -> NDArray[np.int64]:
        pairs = self.topology.bond_index
        return pairs[self.drawn[pairs].all(1)]

    def _bonds_below(self, xyz: Tensor) -> scene3d.Trace:
        return scene3d.sticks(self.placed(xyz)[self._pairs], GREY, _BELOW, "original")

    def _sticks(self, xyz: Tensor) -> list[scene3d.Trace]:
        """Bonds in two halves, each of the colour of its atom: one trace for each colour."""
        places = self.placed(xyz)
        first, second = places[self._pairs[:, 0]], places[self._pairs[:, 1]]
        middle = (first + second) / 2
        ends = np.concatenate([np.stack([first, middle], 1), np.stack([second, middle], 1)])
        atoms = self._pairs.T.reshape(-1)
        colours = np.array(atom_colours(self.topology, GREEN))[atoms]
        return [
            scene3d.sticks(ends[colours == colour], colour, _THIN if colour == PALE else _THICK)
            for colour in sorted(set(colours.tolist()))
        ]

    def _balls(self, xyz: Tensor) -> list[scene3d.Trace]:
        places, topology = self.placed(xyz), self.topology
        elements = np.asarray(topology.elements)
        colours = atom_colours(topology, GREEN)
        found: list[scene3d.Trace] = []
        for number in sorted({*elements[self.drawn].tolist()}):
            chosen = np.flatnonzero(self.drawn & (elements == number))
            radius = _SMALLER * float(covalent_radii([number])[0])
            texts = [_label(topology, atom) for atom in chosen.tolist()]
            colour = colours[int(chosen[0])]
            found.append(scene3d.balls(places[chosen], radius, self.half, colour, SYMBOLS[number], texts))
        return found


def _label(topology: Topology, atom: int) -> str:
    residue = f"{topology.residue_names[atom]} {topology.residue_ids[atom]}"
    # Names come from files, and plotly reads some marks of HTML.
    return html.escape(f"{topology.names[atom]}, {residue} ({topology.symbols[atom]})")


def pdb_of(xyz: Tensor, topology: Topology) -> bytes:
    """A PDB file of one conformation, shape (atoms, 3), in angstrom."""
    return scene3d.content_of(".pdb", lambda path: _write(path, xyz, topology))


def _write(path: Path, xyz: Tensor, topology: Topology) -> None:
    write_pdb(path, [xyz[None].to("cpu", torch.float32)], topology)
