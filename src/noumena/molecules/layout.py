"""What a model remembers of its trajectories, so that further files are read the same way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms, parts_of, select
from noumena.molecules.formats.frames import ANGSTROM, TrajectoryFile, Unit
from noumena.molecules.symmetry import centres
from noumena.molecules.topology import Topology

_WHERE = "the model's schema"


@dataclass(frozen=True)
class Layout:
    """How files of one molecule are laid out.

    Attributes:
        selection: of mdtraj's language; ``None`` for all atoms.
        unit: of length that the user gave for files of these ``formats``; ``None`` for each format's own.
        formats: endings of the files that were read.
        file_atoms: atoms of the files before the selection.
        selected: numbers of the atoms chosen of these; ``None`` for all.
        bond_lengths: usual length of each bond in angstrom, in the order of the topology's bonds; ``None`` where the
            model was not made from a trajectory.
        hands: which way round the neighbours of each of :func:`noumena.molecules.symmetry.centres` are, 1 or -1, and 0
            where that changes; ``None`` as above.
    """

    selection: str | None = None
    unit: Unit | None = None
    formats: tuple[str, ...] = ()
    file_atoms: int | None = None
    selected: tuple[int, ...] | None = None
    bond_lengths: tuple[float, ...] | None = None
    hands: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """As the part of a schema beside the topology."""
        return {
            "kind": "trajectory",
            "selection": self.selection,
            "unit": self.unit,
            "formats": list(self.formats),
            "file_atoms": self.file_atoms,
            "selected": None if self.selected is None else list(self.selected),
            "bond_lengths": None if self.bond_lengths is None else list(self.bond_lengths),
            "hands": None if self.hands is None else list(self.hands),
        }

    @classmethod
    def from_json(cls, schema: Mapping[str, Any], topology: Topology) -> "Layout":
        """What :meth:`to_json` made; a schema may lack any of it.

        Raises:
            DataError: an entry is of another type, or does not fit the topology.
        """
        unit, selection = schema.get("unit"), schema.get("selection")
        if unit is not None and unit not in ANGSTROM:
            raise DataError(f"{_WHERE}: unit={unit!r} is not one of {', '.join(ANGSTROM)}.")
        if selection is not None and not isinstance(selection, str):
            raise DataError(f"{_WHERE}: 'selection' must be text.")
        selected = _numbers(schema, "selected", len(topology))
        lengths = _numbers(schema, "bond_lengths", len(topology.bonds))
        hands = _numbers(schema, "hands", len(centres(topology)))
        total = schema.get("file_atoms")
        atoms = total if isinstance(total, int) else 0
        inside = all(0 <= int(atom) < atoms for atom in selected or ())
        if (total is not None and atoms < len(topology)) or not inside:
            raise DataError(f"{_WHERE}: 'file_atoms' and 'selected' do not fit {len(topology)} atoms.")
        return cls(
            selection,
            cast(Unit | None, unit),
            tuple(str(entry) for entry in schema.get("formats") or ()),
            total,
            None if selected is None else tuple(int(atom) for atom in selected),
            None if lengths is None else tuple(float(length) for length in lengths),
            None if hands is None else tuple(int(hand) for hand in hands),
        )

    def unit_of(self, file: TrajectoryFile) -> Unit:
        """The unit to read a further file in."""
        return self.unit if self.unit is not None and file.path.suffix.lower() in self.formats else file.unit

    def index(self, file: TrajectoryFile, molecule: Atoms | None, topology: Topology) -> np.ndarray | None:
        """Which atoms of a further file are the model's; ``None`` for all of them.

        Args:
            file: to read.
            molecule: what is known of its atoms, if anything.
            topology: of the model.

        Raises:
            DataError: the file holds another molecule.
        """
        index = self._index(file, molecule, len(topology))
        if molecule is not None:
            _check_same(molecule if index is None else molecule.take(index), topology, str(file.path))
        elif index is None and file.atoms != len(topology):
            known = f"{len(topology)} atoms ({topology.formula})"
            if self.file_atoms not in (None, len(topology)):
                known += f", or all {self.file_atoms:,} of which they were selected ({self.selection!r})"
            raise DataError(
                f"{file.path}: has {file.atoms:,} atoms; the model is of {known}. Write a file of these atoms, or name "
                "one with its topology, such as a PDB."
            )
        return index

    def _index(self, file: TrajectoryFile, molecule: Atoms | None, n: int) -> np.ndarray | None:
        if file.atoms == n:
            return None
        if self.selection is not None and molecule is not None:
            return select(molecule, self.selection, str(file.path))
        if self.selected is not None and file.atoms == self.file_atoms:
            return np.asarray(self.selected, dtype=np.int64)
        return None


def _numbers(schema: Mapping[str, Any], name: str, count: int) -> list[float] | None:
    entries = schema.get(name)
    if entries is None:
        return None
    numbers = cast(list[Any], entries) if isinstance(entries, list | tuple) else []
    if len(numbers) != count or not all(isinstance(entry, int | float) for entry in numbers):
        raise DataError(f"{_WHERE}: '{name}' must be {count} numbers.")
    return numbers


def _check_same(molecule: Atoms, topology: Topology, where: str) -> None:
    """Compare elements; and bonds too where the file names enough of them to connect its atoms."""
    bonds = molecule.bonds
    if len(molecule) != len(topology) or parts_of(len(molecule), bonds).max() > 0:
        bonds = topology.bond_index if len(molecule) == len(topology) else np.zeros((0, 2), np.int64)
    # A plain instance: the file's atoms may be apart, which a checked topology may not.
    found = Topology(
        tuple(molecule.elements.tolist()),
        tuple((int(i), int(j)) for i, j in bonds),
        tuple(molecule.names.tolist()),
        tuple(molecule.residue_names.tolist()),
        tuple(molecule.residue_ids.tolist()),
    )
    if words := found.difference(topology):
        raise DataError(f"{where}: is not the model's molecule: {words}. Give a file of {topology.formula}.")
