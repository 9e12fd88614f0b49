"""XTC and TRR files of GROMACS, through mdtraj."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.formats.frames import Chunk, Unit, frames_at_once
from noumena.molecules.libraries import mdtraj
from noumena.readers.common import reading


class GromacsFile:
    """An .xtc or .trr file, in nanometres. It names no atoms."""

    unit: Unit = "nm"
    molecule = None

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path), self._open() as file:
            xyz, time = file.read(n_frames=2)[:2]
        if not len(xyz):
            raise DataError(f"{path}: expected at least one frame, found none. Check how it was made.")
        self.atoms = int(xyz.shape[1])
        step = float(time[1] - time[0]) if len(time) > 1 else 0.0
        self.time_step = round(step, 6) if step > 0 else None

    def count(self) -> int:
        """Number of frames; looks at each frame's header."""
        with reading(self.path), self._open() as file:
            return len(file)

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """See :class:`~noumena.molecules.formats.frames.TrajectoryFile`."""
        step = frames_at_once(self.atoms)
        with reading(self.path), self._open() as file:
            while True:
                xyz, time, _, cell, *_ = file.read(n_frames=step, atom_indices=index)
                if not len(xyz):
                    return
                yield Chunk(xyz, None if cell is None else np.asarray(cell, np.float64), time)

    def _open(self) -> Any:
        formats = mdtraj().formats
        reader = formats.XTCTrajectoryFile if self.path.suffix.lower() == ".xtc" else formats.TRRTrajectoryFile
        return reader(str(self.path))
