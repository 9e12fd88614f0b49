"""What the readers of all formats give: consecutive frames, as the file has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms
from noumena.readers import common

Unit = Literal["angstrom", "nm", "bohr"]
ANGSTROM: Mapping[Unit, float] = {"angstrom": 1.0, "nm": 10.0, "bohr": 0.529177210544}
"""Angstrom in one of each unit of length (bohr: CODATA 2022)."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a file, in the file's own unit.

    Attributes:
        xyz: shape (frames, atoms, 3).
        cell: box vectors as rows, shape (frames, 3, 3), if there is a box.
        time: in picoseconds, shape (frames,), where the file tells.
        trajectory: which of the file's trajectories each frame is of, int64, shape (frames,), where it tells.
        side: further numbers of each frame, each of shape (frames,).
    """

    xyz: np.ndarray
    cell: np.ndarray | None = None
    time: np.ndarray | None = None
    trajectory: np.ndarray | None = None
    side: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


class TrajectoryFile(Protocol):
    """A trajectory whose header has been read."""

    path: Path

    @property
    def unit(self) -> Unit:
        """The format's unit of length."""
        ...

    @property
    def atoms(self) -> int:
        """Number of atoms of each frame."""
        ...

    @property
    def molecule(self) -> Atoms | None:
        """What the file says of its atoms; ``None`` if it holds coordinates only."""
        ...

    @property
    def time_step(self) -> float | None:
        """Picoseconds between frames, where the header tells."""
        ...

    def count(self) -> int:
        """Number of frames."""
        ...

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """The frames from first to last, a bounded number at a time, with all atoms or those of ``index``."""
        ...


def frames_at_once(atoms: int) -> int:
    """Frames of ``atoms`` atoms in one read."""
    return common.block_rows(3 * atoms, 8)


def check_count(path: Path, frame: int, found: int, expected: int) -> None:
    """Refuse a frame with another number of atoms than the first.

    Raises:
        DataError: it names both.
    """
    if found != expected:
        raise DataError(
            f"{path}: frame {frame} (counted from 0) has {found} atoms, the first one {expected}. The file is cut "
            "short, or of several molecules; copy it again, or split it."
        )


def chosen(xyz: np.ndarray, index: np.ndarray | None) -> np.ndarray:
    """All atoms, or some of them."""
    return xyz if index is None else xyz[:, index]
