"""DCD files of CHARMM, NAMD, OpenMM and others: records of 32-bit numbers, mapped rather than read.

Read here and not by mdtraj, whose reader prints to the standard output that results of the command line go to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.formats.frames import Chunk, Unit, chosen, frames_at_once
from noumena.molecules.periodic import cell_vectors
from noumena.readers.common import reading

_HEADER_BYTES = 84
_MAX_TITLE_BYTES = 1 << 20


@dataclass(frozen=True)
class _Header:
    order: str
    frames: int
    atoms: int
    has_cell: bool
    end: int


class DcdFile:
    """A DCD file, in angstrom. It names no atoms, and its time step is in units that programs disagree on."""

    unit: Unit = "angstrom"
    molecule = None
    time_step = None

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            header = _read_header(path)
        self.atoms = header.atoms
        self._start = header.end
        self._frame = _frame_type(header)
        size, length = path.stat().st_size - header.end, self._frame.itemsize
        self._frames = size // length
        # A program still at work may not have written the number of frames yet.
        if size % length or (header.frames and header.frames > self._frames):
            raise DataError(
                f"{path}: ends after {size / length:.1f} frames of {header.atoms:,} atoms, its header announces "
                f"{header.frames or 'whole ones'}. The file is cut short; copy it again."
            )

    def count(self) -> int:
        """Number of frames."""
        return self._frames

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """See :class:`~noumena.molecules.formats.frames.TrajectoryFile`."""
        step = frames_at_once(self.atoms)
        for first in range(0, self._frames, step):
            rows = min(step, self._frames - first)
            offset = self._start + first * self._frame.itemsize
            with reading(self.path):
                block = np.memmap(self.path, self._frame, "r", offset, (rows,))
            self._check_marks(block, first)
            xyz = np.stack([block[axis] for axis in "xyz"], -1).astype(np.float32)
            cell = _cell(np.array(block["cell"])) if "cell" in (self._frame.names or ()) else None
            yield Chunk(chosen(xyz, index), cell)

    def _check_marks(self, block: np.ndarray, first: int) -> None:
        """Each record says its length before and after it."""
        bad = np.zeros(len(block), bool)
        for axis in "xyz":
            bad |= (block[f"before_{axis}"] != 4 * self.atoms) | (block[f"after_{axis}"] != 4 * self.atoms)
        if bad.any():
            raise DataError(
                f"{self.path}: frame {first + int(bad.argmax())} (counted from 0) is not a record of {self.atoms:,} "
                "atoms. The file is damaged; write it again."
            )


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES + 8)
        order = next((o for o in "<>" if head[:4] == np.array(_HEADER_BYTES, f"{o}i4").tobytes()), None)
        if order is None or head[4:8] != b"CORD" or len(head) < _HEADER_BYTES + 8:
            raise ValueError("it does not start as one")
        control = np.frombuffer(head, f"{order}i4", 20, 8)
        if control[8]:
            raise ValueError(f"{control[8]} fixed atoms are stored once only; write it without fixed atoms")
        if control[11]:
            raise ValueError("it has a fourth dimension")
        title = int(np.frombuffer(_exactly(file.read(4), 4), f"{order}i4")[0])
        if not 0 <= title <= _MAX_TITLE_BYTES:
            raise ValueError("its title is damaged")
        file.seek(title + 4, 1)
        mark, atoms, _ = np.frombuffer(_exactly(file.read(12), 12), f"{order}i4").tolist()
        if mark != 4 or atoms < 1:
            raise ValueError("its number of atoms is damaged")
        return _Header(order, int(control[0]), atoms, bool(control[10]) and bool(control[19]), file.tell())


def _exactly(content: bytes, size: int) -> bytes:
    if len(content) < size:
        raise EOFError("it ends within its header")
    return content


def _frame_type(header: _Header) -> np.dtype:
    integer, single, double = (f"{header.order}{kind}" for kind in ("i4", "f4", "f8"))
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = []
    if header.has_cell:
        fields += [("before_cell", integer), ("cell", double, (6,)), ("after_cell", integer)]
    for axis in "xyz":
        fields += [(f"before_{axis}", integer), (axis, single, (header.atoms,)), (f"after_{axis}", integer)]
    return np.dtype(fields)


def _cell(entries: np.ndarray) -> np.ndarray:
    """Box vectors from a, gamma, b, beta, alpha, c of shape (frames, 6); angles in degrees or as cosines."""
    lengths, angles = entries[:, [0, 2, 5]], entries[:, [4, 3, 1]]
    if bool((np.abs(angles) <= 1).all()):
        angles = np.rad2deg(np.arccos(angles))
    return cell_vectors(lengths, angles)
