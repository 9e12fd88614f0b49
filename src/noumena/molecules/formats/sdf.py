"""SD files: one record for each conformation, through RDKit."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms, make_atoms
from noumena.molecules.formats.frames import Chunk, Unit, check_count, chosen, frames_at_once
from noumena.molecules.libraries import rdkit_chem
from noumena.readers.common import reading


class SdfFile:
    """An SD file, in angstrom. Every record must be of the same molecule, its atoms in the same order."""

    unit: Unit = "angstrom"
    time_step = None

    def __init__(self, path: Path) -> None:
        self.path = path
        first = next(self._records(), None)
        if first is None:
            raise DataError(f"{path}: expected at least one record, found none. Check how it was made.")
        self.atoms = int(first.GetNumAtoms())
        self.molecule = _molecule(first, str(path))

    def count(self) -> int:
        """Number of records; reads the file once."""
        with reading(self.path), self.path.open("rb") as file:
            ends, open_record = 0, False
            for line in file:
                if line.startswith(b"$$$$"):
                    ends, open_record = ends + 1, False
                elif line.strip():
                    open_record = True
        return ends + open_record

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """See :class:`~noumena.molecules.formats.frames.TrajectoryFile`."""
        step, records, number = frames_at_once(self.atoms), self._records(), 0
        while held := list(islice(records, step)):
            frames = [self._coordinates(record, number + k) for k, record in enumerate(held)]
            number += len(held)
            yield Chunk(chosen(np.stack(frames), index))

    def _records(self) -> Iterator[Any]:
        chem = rdkit_chem()
        with reading(self.path), self.path.open("rb") as file:
            supplier = chem.ForwardSDMolSupplier(file, sanitize=False, removeHs=False)
            for number, record in enumerate(supplier):
                if record is None:
                    raise DataError(f"{self.path}: record {number} (counted from 0) is damaged. Leave it out.")
                yield record

    def _coordinates(self, record: Any, frame: int) -> np.ndarray:
        check_count(self.path, frame, int(record.GetNumAtoms()), self.atoms)
        elements, bonds = _graph(record)
        if not np.array_equal(elements, self.molecule.elements) or not np.array_equal(bonds, self.molecule.bonds):
            raise DataError(
                f"{self.path}: record {frame} (counted from 0) is another molecule than the first one, or has its "
                "atoms in another order. Put conformations of one molecule in a file."
            )
        conformer = record.GetConformer() if record.GetNumConformers() else None
        if conformer is None or not conformer.Is3D():
            raise DataError(
                f"{self.path}: record {frame} (counted from 0) is a drawing without three-dimensional coordinates. "
                "Make conformers of it first."
            )
        return np.asarray(conformer.GetPositions(), dtype=np.float64)


def _graph(record: Any) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers, and bonds in ascending order."""
    elements = np.array([atom.GetAtomicNum() for atom in record.GetAtoms()], dtype=np.int64)
    pairs = [sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in record.GetBonds()]
    return elements, np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _molecule(record: Any, where: str) -> Atoms:
    chem = rdkit_chem()
    known = chem.Mol(record)
    # Aromatic bonds are told apart where the structure can be understood; otherwise orders stay as drawn.
    chem.SanitizeMol(known, catchErrors=True)
    bonds = list(known.GetBonds())
    return make_atoms(
        [atom.GetAtomicNum() for atom in known.GetAtoms()],
        [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds],
        orders=[bond.GetBondTypeAsDouble() for bond in bonds],
        where=where,
    )
