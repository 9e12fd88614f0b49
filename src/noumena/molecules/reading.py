"""Frames of one file after another: in angstrom, checked, whole, with their numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from noumena.core.errors import ConfigError, DataError
from noumena.molecules import checks
from noumena.molecules.formats.frames import ANGSTROM, TrajectoryFile, Unit
from noumena.molecules.periodic import make_whole, usable
from noumena.molecules.topology import Topology

Broken = Literal["refuse", "drop"]
# Frames that typical bond lengths are taken from, evenly spread over a trajectory.
TYPICAL_FRAMES = 500


@dataclass(frozen=True)
class Frames:
    """Frames of one file.

    Attributes:
        path: the file.
        xyz: float32, shape (frames, atoms, 3), in angstrom.
        numbers: of the frames within the file, from 0, shape (frames,).
        trajectory: of each frame, numbered within the file, shape (frames,).
        frame: number within the trajectory, shape (frames,).
        cell: box vectors in angstrom, shape (frames, 3, 3), if there is a box.
        side: further numbers, each of shape (frames,).
    """

    path: Path
    xyz: np.ndarray
    numbers: np.ndarray
    trajectory: np.ndarray
    frame: np.ndarray
    cell: np.ndarray | None = None
    side: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def __len__(self) -> int:
        return len(self.xyz)

    def take(self, rows: np.ndarray) -> "Frames":
        """Some frames; bool or int64."""
        return Frames(
            self.path,
            self.xyz[rows],
            self.numbers[rows],
            self.trajectory[rows],
            self.frame[rows],
            None if self.cell is None else self.cell[rows],
            {name: values[rows] for name, values in self.side.items()},
        )

    def spread(self, count: int) -> "Frames":
        """At most ``count`` frames, evenly spread."""
        return self if len(self) <= count else self.take(np.arange(count) * len(self) // count)


@dataclass(frozen=True)
class Wanted:
    """Which frames of a file to keep: every ``stride``-th, or of these the ones of ``numbers``."""

    stride: int = 1
    numbers: np.ndarray | None = None

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Which of these frame numbers, bool."""
        return numbers % self.stride == 0 if self.numbers is None else np.isin(numbers, self.numbers)


def wanted_of(files: Sequence[TrajectoryFile], stride: int, max_frames: int | None) -> list[Wanted]:
    """Which frames of each file to keep, so that ``max_frames`` are evenly spread over all files.

    Raises:
        ConfigError: an option is out of range.
    """
    if stride < 1:
        raise ConfigError(f"stride={stride}: expected 1 for every frame, or a larger whole number.")
    if max_frames is None:
        return [Wanted(stride)] * len(files)
    if max_frames < 1:
        raise ConfigError(f"max_frames={max_frames}: expected at least one frame, or none for all of them.")
    counts = [-(-file.count() // stride) for file in files]
    total = sum(counts)
    if total <= max_frames:
        return [Wanted(stride)] * len(files)
    places = np.arange(max_frames) * total // max_frames
    found: list[Wanted] = []
    for first, count in zip(np.cumsum([0, *counts[:-1]]), counts, strict=True):
        mine = places[(places >= first) & (places < first + count)] - first
        found.append(Wanted(stride, stride * mine))
    return found


def file_chunks(
    file: TrajectoryFile, index: np.ndarray | None, unit: Unit, wanted: Wanted | None = None
) -> Iterator[Frames]:
    """The frames of a file, a bounded number at a time, checked for NaN and for atoms at one place.

    Args:
        file: to read.
        index: which of its atoms, int64; ``None`` for all.
        unit: of its coordinates.
        wanted: which of its frames; all by default.

    Raises:
        DataError: the file is damaged, or a frame is refused.
    """
    where, start, scale = str(file.path), 0, ANGSTROM[unit]
    seen: dict[int, int] = {}
    last = None if wanted is None or wanted.numbers is None else int(wanted.numbers.max(initial=-1))
    for chunk in file.chunks(index):
        numbers = np.arange(start, start + len(chunk.xyz))
        trajectory = np.zeros(len(numbers), np.int64) if chunk.trajectory is None else chunk.trajectory
        frame = _counted(trajectory, seen)
        start += len(numbers)
        rows = np.ones(len(numbers), bool) if wanted is None else wanted.of(numbers)
        if rows.any():
            xyz = (chunk.xyz[rows] * scale).astype(np.float32)
            checks.check_finite(xyz, numbers[rows], where)
            checks.check_apart(xyz, numbers[rows], where)
            cell = None if chunk.cell is None else usable(chunk.cell[rows] * scale)
            side = {name: values[rows] for name, values in chunk.side.items()}
            yield Frames(file.path, xyz, numbers[rows], trajectory[rows], frame[rows], cell, side)
        if last is not None and start > last:
            return


def _counted(trajectory: np.ndarray, seen: dict[int, int]) -> np.ndarray:
    """Number of each frame within its trajectory; ``seen`` counts those before and is brought up to date."""
    frame = np.empty(len(trajectory), np.int64)
    for number in np.unique(trajectory).tolist():
        rows = np.flatnonzero(trajectory == number)
        before = seen.get(number, 0)
        frame[rows] = before + np.arange(len(rows))
        seen[number] = before + len(rows)
    return frame


def joined(chunks: Sequence[Frames], path: Path) -> Frames:
    """Chunks of one file as one.

    Raises:
        DataError: there is none.
    """
    if not chunks:
        raise DataError(f"{path}: expected at least one frame, found none. Check how it was made.")
    # A box that is there in a part of the frames only is taken for none.
    cells = [chunk.cell for chunk in chunks if chunk.cell is not None]
    return Frames(
        path,
        np.concatenate([chunk.xyz for chunk in chunks]),
        np.concatenate([chunk.numbers for chunk in chunks]),
        np.concatenate([chunk.trajectory for chunk in chunks]),
        np.concatenate([chunk.frame for chunk in chunks]),
        np.concatenate(cells) if len(cells) == len(chunks) else None,
        {name: np.concatenate([chunk.side[name] for chunk in chunks]) for name in chunks[0].side},
    )


def whole(frames: Frames, topology: Topology) -> tuple[Frames, int]:
    """Frames with the molecule put together across the walls of its box, and how many were changed."""
    if frames.cell is None:
        return frames, 0
    xyz, changed = make_whole(frames.xyz, frames.cell, topology.bond_index)
    moved = Frames(frames.path, xyz, frames.numbers, frames.trajectory, frames.frame, frames.cell, frames.side)
    return moved, int(changed.sum())


def without_broken(frames: Frames, topology: Topology, reference: np.ndarray, rule: Broken) -> Frames:
    """The frames without those that have a broken bond.

    Args:
        frames: with whole molecules.
        topology: of the molecule.
        reference: usual length of each bond in angstrom, shape (bonds,).
        rule: refuse them, or drop them.

    Raises:
        DataError: a bond is broken and the rule is to refuse; or in every frame.
    """
    kept: list[np.ndarray] = []
    step = max(1, (1 << 22) // max(1, len(reference)))
    for start in range(0, len(frames), step):
        rows = slice(start, start + step)
        lengths = checks.bond_lengths(frames.xyz[rows], topology)
        off = checks.broken(lengths, reference)
        if rule == "refuse":
            checks.refuse_broken(off, lengths, reference, frames.numbers[rows], topology, str(frames.path))
        kept.append(~np.any(off, axis=-1, keepdims=False).reshape(-1))
    rows_kept = np.concatenate(kept)
    if not rows_kept.any():
        raise DataError(f"{frames.path}: every frame has a broken bond. Use the right topology, or mend the file.")
    return frames if rows_kept.all() else frames.take(rows_kept)
