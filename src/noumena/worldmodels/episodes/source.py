"""Recordings of episodes before their frames are read: what a file or folder holds, and how to get at it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError

FRAMES = "frames"
ACTIONS = "actions"
STATE = "state"
# A picture without an axis of channels has at least so many pixels in height and width; a smaller matrix is none.
_LEAST_PIXELS = 8


@dataclass(frozen=True)
class Names:
    """What arrays are called.

    Attributes:
        frames: ``None``: ``frames``, or the only array of pictures.
        actions: one row for each step.
        state: ``None``: ``state``, where there is one.
    """

    frames: str | None = None
    actions: str = ACTIONS
    state: str | None = None


@dataclass(frozen=True)
class Source:
    """Recorded episodes; their frames are still in the file.

    Attributes:
        path: the file or folder.
        layout: how it is laid out, in words.
        names: of the arrays in it.
        episodes: name of each episode.
        lengths: frames of each episode.
        picture: shape of a frame as stored.
        dtype: of the frames as stored.
        blocks: gives all frames in the order of the episodes, in blocks of shape (frames, *picture) of bounded size.
        actions: gives the rows of each episode's actions, as stored; ``None`` where there are none.
        state: the same for the state.
        is_images: whether frames are image files, whose channels are last.
    """

    path: Path
    layout: str
    names: Names
    episodes: Sequence[str]
    lengths: Sequence[int]
    picture: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]
    actions: Callable[[], list[np.ndarray]] | None
    state: Callable[[], list[np.ndarray]] | None = None
    is_images: bool = False

    def where(self, episode: int, name: str) -> str:
        """An array of an episode, for messages."""
        return f"{self.path}: {self.episodes[episode]}: '{name}'"

    def first(self, count: int) -> "Source":
        """Only the first episodes."""
        return replace(self, episodes=self.episodes[:count], lengths=self.lengths[:count])


def natural_order(name: str) -> list[str | int]:
    """Key that sorts numbers within names by value: frame 9 before frame 10."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]


def is_pictures(shape: tuple[int, ...]) -> bool:
    """Whether arrays of this shape, the first axis being time, may be frames."""
    picture = shape[1:]
    if len(picture) == 2:
        return min(picture) >= _LEAST_PIXELS
    return len(picture) in (3, 4) and sorted(picture)[-2] >= _LEAST_PIXELS


def frames_name(path: Path, wanted: str | None, shapes: dict[str, tuple[int, ...]]) -> str:
    """Which array holds the frames.

    Args:
        path: for messages.
        wanted: the name asked for, if any.
        shapes: of all arrays by name; the first axis is time.

    Raises:
        DataError: it is not there, or it cannot be told.
    """
    pictures = [name for name, shape in shapes.items() if is_pictures(shape)]
    if wanted is not None:
        if wanted not in shapes:
            raise DataError(f"{path}: no array '{wanted}'. {_there_are(shapes)}")
        return wanted
    if FRAMES in shapes:
        return FRAMES
    if len(pictures) != 1:
        found = f"several: {', '.join(pictures)}" if pictures else f"none. {_there_are(shapes)}"
        raise DataError(f"{path}: expected one array of pictures, found {found}. Name the frames with frames=...")
    return pictures[0]


def _there_are(shapes: dict[str, tuple[int, ...]]) -> str:
    return "There are " + (", ".join(f"'{name}' {shape}" for name, shape in list(shapes.items())[:12]) or "no arrays.")


def check_length(source: Source, episode: int, name: str, rows: int, frames: int) -> None:
    """Refuse an episode whose number of actions does not fit its number of frames.

    Raises:
        DataError: it says what would fit.
    """
    if rows not in (frames - 1, frames):
        raise DataError(
            f"{source.where(episode, name)} has {rows} rows but there are {frames} frames; an episode needs one action "
            "fewer than frames (or as many, where the last one leads to no recorded frame). Drop or add what is off."
        )
