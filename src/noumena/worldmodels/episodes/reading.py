"""From recorded episodes to tensors: which frames go where, and one pass over the file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.core.splits import check_fractions, split_groups, split_rows
from noumena.worldmodels.episodes.pictures import Pictures
from noumena.worldmodels.episodes.source import Source

TRAIN = "train"


@dataclass(frozen=True)
class Segment:
    """Consecutive kept frames of one episode, from ``start`` to before ``stop``, that go to ``part``."""

    episode: int
    start: int
    stop: int
    part: str


@dataclass(frozen=True)
class Division:
    """Which episodes go to which part.

    Attributes:
        segments: in the order of the file.
        rule: in words.
        too_short: episodes left out because they have fewer frames than a window.
    """

    segments: list[Segment]
    rule: str
    too_short: int


def divide(
    source: Source, *, steps: int, stride: int, frame_skip: int, val_fraction: float, test_fraction: float, seed: int
) -> Division:
    """Deal whole episodes to train, val and test; a single one is cut into blocks of time instead.

    Args:
        source: the recording.
        steps: frames of a window.
        stride: frames from the start of a window to that of the next.
        frame_skip: only each of so many frames is kept.
        val_fraction, test_fraction: shares of the windows.
        seed: of the dealing.

    Raises:
        ConfigError: fractions that leave nothing to train on.
        DataError: all episodes are too short, or there are fewer of them than parts.
    """
    check_fractions(val_fraction, test_fraction)
    lengths = [-(-length // frame_skip) for length in source.lengths]
    usable = [episode for episode, length in enumerate(lengths) if length >= steps]
    too_short = len(lengths) - len(usable)
    if not usable:
        kept = f", of which each {frame_skip}th is kept" if frame_skip > 1 else ""
        raise DataError(
            f"{source.path}: the longest of {len(lengths)} episodes has {max(source.lengths, default=0)} frames{kept}; "
            f"a window needs {steps}. Lower data.steps, or record longer episodes."
        )
    if len(usable) == 1 and val_fraction + test_fraction > 0:
        segments = _blocks_of_time(source, usable[0], lengths[usable[0]], steps, val_fraction, test_fraction)
        return Division(segments, "blocks of time of the only episode: first train, last test", too_short)
    windows = [1 + (lengths[episode] - steps) // stride for episode in usable]
    parts = split_groups(
        torch.repeat_interleave(torch.tensor(usable), torch.tensor(windows)),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        where=str(source.path),
        what="episodes",
        remedy="Record more episodes, or leave a part out with val_fraction=0 or test_fraction=0.",
    )
    first_window = np.cumsum([0, *windows[:-1]]).tolist()
    part_of = {int(row): name for name, rows in parts.items() for row in rows}
    segments = [
        Segment(episode, 0, lengths[episode], part_of[first])
        for episode, first in zip(usable, first_window, strict=True)
    ]
    return Division(segments, "whole episodes at random", too_short)


def _blocks_of_time(
    source: Source, episode: int, length: int, steps: int, val_fraction: float, test_fraction: float
) -> list[Segment]:
    rows = split_rows(
        length,
        shuffle=False,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=0,
        where=str(source.path),
    )
    for name, part in rows.items():
        if len(part) < steps:
            raise DataError(
                f"{source.path}: the only episode of {length} frames gives {len(part)} to {name}; a window needs "
                f"{steps}. Record more, lower data.steps, or leave a part out with val_fraction=0 or test_fraction=0."
            )
    return [Segment(episode, int(part[0]), int(part[-1]) + 1, name) for name, part in rows.items()]


def read_frames(
    source: Source, pictures: Pictures, segments: Sequence[Segment], *, frame_skip: int
) -> dict[str, Tensor]:
    """The frames of each part, in the order of its segments: shape (frames, channels, height, width).

    The file is read once, a block at a time; what is kept is written to its place at once.

    Raises:
        DataError: a frame is not finite.
    """
    offsets = np.cumsum([0, *source.lengths])
    total = int(offsets[-1])
    names = list(dict.fromkeys(segment.part for segment in segments))
    part, place = np.full(total, -1, np.int8), np.zeros(total, np.int64)
    sizes = dict.fromkeys(names, 0)
    for segment in segments:
        rows = offsets[segment.episode] + frame_skip * np.arange(segment.start, segment.stop)
        part[rows] = names.index(segment.part)
        place[rows] = sizes[segment.part] + np.arange(len(rows))
        sizes[segment.part] += len(rows)
    dtype = torch.uint8 if source.dtype == np.uint8 else torch.float32
    found = {name: torch.empty(sizes[name], *pictures.frame, dtype=dtype) for name in names}
    for first, block in checked_blocks(source):
        owners = part[first : first + len(block)]
        for number, name in enumerate(names):
            mine = np.flatnonzero(owners == number)
            if len(mine):
                found[name][torch.from_numpy(place[first + mine])] = pictures(block[mine])
    return found


def checked_blocks(source: Source) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of frames as stored, each with the number of its first frame, counted over all episodes.

    Raises:
        DataError: a frame holds NaN or infinity; it names the episode and the frame.
    """
    first, total = 0, sum(source.lengths)
    for whole in source.blocks():
        block = whole[: total - first]
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            bad = ~np.isfinite(block.reshape(len(block), -1)).all(axis=1)
            row = first + int(bad.argmax())
            ends = np.cumsum(source.lengths)
            episode = int(np.searchsorted(ends, row, side="right"))
            frame = row - int(ends[episode] - source.lengths[episode])
            raise DataError(
                f"{source.where(episode, str(source.names.frames))} has NaN or infinity in frame {frame} (counted from "
                "0). Leave such episodes out, or repair the recording."
            )
        yield first, block
        first += len(block)
        if first >= total:
            return


def gather_rows(rows: Sequence[Tensor], segments: Sequence[Segment], part: str, *, actions: bool) -> Tensor:
    """Rows of the segments of a part, one after the other, one for each kept frame.

    Args:
        rows: of each episode: shape (kept frames, ...), or one fewer for actions.
        segments: of all parts.
        part: the one asked for.
        actions: whether the rows lead from one frame to the next: the last frame of a segment then gets zeros.
    """
    found: list[Tensor] = []
    for segment in segments:
        if segment.part != part:
            continue
        own = rows[segment.episode]
        if actions:
            found += [own[segment.start : segment.stop - 1], own.new_zeros(1, *own.shape[1:])]
        else:
            found.append(own[segment.start : segment.stop])
    return torch.cat(found)


def window_starts(segments: Sequence[Segment], part: str, *, steps: int, stride: int) -> Tensor:
    """First frame, within the part, of each window: int64, shape (windows,)."""
    starts: list[Tensor] = []
    offset = 0
    for segment in segments:
        if segment.part == part:
            length = segment.stop - segment.start
            starts.append(offset + torch.arange(0, length - steps + 1, stride))
            offset += length
    return torch.cat(starts)
