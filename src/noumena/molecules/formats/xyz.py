"""XYZ files: a count, a comment, and a line with an element and three coordinates for each atom, again and again."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms, make_atoms
from noumena.molecules.elements import SYMBOLS
from noumena.molecules.formats.frames import Chunk, Unit, check_count, chosen, frames_at_once
from noumena.readers.common import reading

_NUMBER_OF = {symbol.upper(): number for number, symbol in enumerate(SYMBOLS) if number}


class XyzFile:
    """An XYZ file, in angstrom. Its first column may be symbols or atomic numbers; other names say nothing."""

    unit: Unit = "angstrom"
    time_step = None

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path), path.open(encoding="utf-8") as lines:
            self.atoms = _count(next(lines, ""), path, 0)
            first = [line.split() for line in islice(lines, 1, 1 + self.atoms)]
        if len(first) < self.atoms or any(len(fields) < 4 for fields in first):
            raise DataError(
                f"{path}: the first frame has fewer than {self.atoms} lines 'element x y z'. Copy it again."
            )
        self.labels = [fields[0] for fields in first]
        self.molecule = _molecule(self.labels, str(path))

    def count(self) -> int:
        """Number of frames; reads the file once."""
        with reading(self.path), self.path.open("rb") as file:
            lines = sum(1 for _ in file)
        # Blank lines at the end are no frame.
        return lines // (self.atoms + 2)

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """See :class:`~noumena.molecules.formats.frames.TrajectoryFile`."""
        step, frame = frames_at_once(self.atoms), 0
        with reading(self.path), self.path.open(encoding="utf-8") as lines:
            while True:
                blocks = [block for block in (self._frame(lines, frame + k) for k in range(step)) if block is not None]
                if blocks:
                    yield Chunk(chosen(np.stack(blocks), index))
                frame += len(blocks)
                if len(blocks) < step:
                    return

    def _frame(self, lines: Iterator[str], frame: int) -> np.ndarray | None:
        head = next((line for line in lines if line.strip()), None)
        if head is None:
            return None
        check_count(self.path, frame, _count(head, self.path, frame), self.atoms)
        fields = [line.split(maxsplit=4) for line in islice(lines, 1, 1 + self.atoms)]
        check_count(self.path, frame, sum(len(entry) >= 4 for entry in fields), self.atoms)
        if [entry[0] for entry in fields] != self.labels:
            wrong = next(a for a, entry in enumerate(fields) if entry[0] != self.labels[a])
            raise DataError(
                f"{self.path}: frame {frame} (counted from 0): atom {wrong + 1} is '{fields[wrong][0]}', in the first "
                f"frame it is '{self.labels[wrong]}'. A trajectory is of one molecule, its atoms in one order."
            )
        return np.array([entry[1:4] for entry in fields]).astype(np.float64)


def _count(line: str, path: Path, frame: int) -> int:
    text = line.strip()
    if not text.isdigit() or int(text) < 1:
        raise DataError(
            f"{path}: frame {frame} (counted from 0) starts with {text[:40]!r}; expected its number of atoms. The file "
            "is damaged or of another format."
        )
    return int(text)


def _molecule(labels: list[str], where: str) -> Atoms | None:
    """The elements, unless some label is neither a symbol nor a number."""
    found = [int(label) if label.isdigit() else _NUMBER_OF.get(label.upper(), 0) for label in labels]
    return make_atoms(found, where=where) if all(0 < z < len(SYMBOLS) for z in found) else None
