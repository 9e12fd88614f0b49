"""Opening recorded episodes: the keyword arguments of :func:`open_episodes` are the ``data`` section of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError, DataError
from noumena.worldmodels.episodes.arrayfiles import open_array_file
from noumena.worldmodels.episodes.dataset import Episodes, given
from noumena.worldmodels.episodes.folders import has_images, open_folder
from noumena.worldmodels.episodes.minari import is_minari, open_minari
from noumena.worldmodels.episodes.numbers import Actions, read_actions, read_state
from noumena.worldmodels.episodes.pictures import Channels, Pictures, pictures_of
from noumena.worldmodels.episodes.reading import (
    TRAIN,
    Division,
    divide,
    gather_rows,
    read_frames,
    window_starts,
)
from noumena.worldmodels.episodes.source import Names, Source
from noumena.worldmodels.sequences import Sequences

_GIB = 1 << 30
_MEMORY_GIB = 16.0


@dataclass(frozen=True)
class Reading:
    """How files of one kind are read; part of the schema, so that a model reads further ones the same way.

    The attributes are options of :func:`open_episodes`, and ``choices``, the kinds of a discrete action.
    """

    frames: str | None = None
    actions: str = "actions"
    state: str | None = None
    channels: Channels | None = None
    episode_axis: bool | None = None
    size: int | list[int] | None = None
    gray: bool = False
    frame_skip: int = 1
    choices: int | None = None

    def names(self) -> Names:
        """What arrays are called."""
        return Names(self.frames, self.actions, self.state)

    def pictures(self, source: Source) -> Pictures:
        """How the frames of a source become those of the data set."""
        where = f"{source.path}: '{source.names.frames}'"
        channels = None if source.is_images else self.channels
        return pictures_of(
            source.picture,
            source.dtype,
            where,
            channels=channels,
            size=self.size,
            gray=self.gray,
        )

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any] | None) -> "Reading":
        """How the data of a schema were read; as by default where they came from no file."""
        return cls(**(schema or {}).get("reading", {}))


def open_episodes(
    path: str,
    *,
    frames: str | None = None,
    actions: str = "actions",
    state: str | None = None,
    steps: int = 17,
    stride: int = 1,
    frame_skip: int = 1,
    size: int | list[int] | None = None,
    gray: bool = False,
    channels: Channels | None = None,
    episode_axis: bool | None = None,
    max_episodes: int | None = None,
    max_memory_gib: float = _MEMORY_GIB,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Recorded episodes as windows of frames with the actions between them, divided by episode.

    An action leads from a frame to the next, so an episode has one action fewer than frames; where it has as many, the
    last action leads to no recorded frame and is left out. Frames are kept in memory as they are stored (uint8 stays
    uint8), after ``size`` and ``gray``; those of a window are gathered when it is asked for.

    Args:
        path: one of

            * an HDF5 or .npz file with a group for each episode (``episode_0/frames``, ``episode_0/actions``, ...),
              with a leading axis of episodes, or with episodes one after the other, told apart by ``episode_ends``
              (frames up to each end), ``episode`` (a number for each frame), or ``terminals`` and ``timeouts`` (D4RL);
            * the folder of a Minari data set of HDF5 format;
            * a folder of folders of image files, in the order of the numbers in their names, with ``actions.npy``,
              ``.npz`` or ``.csv`` in each; or one such folder, a single episode.
        frames: name of the array of frames, shape (time, height, width), (time, height, width, channels) or (time,
            channels, height, width), uint8 or float. Default: ``frames``, or the only array of pictures.
        actions: name of the actions, shape (time, numbers), or (time,) whole numbers that name one of several actions.
        state: name of what a probe is to read, shape (time, numbers) or (time, things, dims). Default: ``state``, where
            there is one.
        steps: frames of a window.
        stride: frames from the start of a window to that of the next.
        frame_skip: keep each of so many frames; the actions in between stand side by side.
        size: bring frames to a square of this side, or to [height, width], in pixels.
        gray: make colours grey (luma of ITU-R BT.601).
        channels: ``first``, ``last`` or ``none``, where the shape of frames does not tell.
        episode_axis: whether frames have a leading axis of episodes, where their shape does not tell.
        max_episodes: read only the first ones.
        max_memory_gib: refuse data whose frames take more memory.
        val_fraction, test_fraction: shares of the windows, in whole episodes; 0 leaves the part out. A single episode
            is cut into blocks of time instead.
        seed: of the dealing of episodes.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is missing, damaged or pickled, it cannot be told what is what, frames and actions do not
            fit together, values are not finite, actions never change, or all episodes are shorter than a window.
        NotSupportedError: image files are to be read and Pillow is not installed.
    """
    _check_least(steps=(steps, 2), stride=(stride, 1), frame_skip=(frame_skip, 1), max_episodes=(max_episodes, 1))
    reading = Reading(frames, actions, state, channels, episode_axis, size, gray, frame_skip)
    return _open(
        path,
        reading,
        steps=steps,
        stride=stride,
        max_episodes=max_episodes,
        max_memory_gib=max_memory_gib,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )


def as_dataset(data: Any, schema: Mapping[str, Any] | None = None) -> Dataset:
    """Anything that holds sequences, as a data set.

    Args:
        data: a data set, :class:`Sequences`, or a path (see :func:`open_episodes`), read as ``schema`` says.
        schema: of the model that is to see the data, if it has been trained.

    Raises:
        DataError: it is none of these, or as :func:`open_episodes`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Sequences):
        return cast("Dataset", given(data, schema))
    if isinstance(data, str | Path):
        steps = int((schema or {}).get("steps", 17))
        return _open(str(data), Reading.of_schema(schema), steps=steps, val_fraction=0, test_fraction=0).train
    raise DataError(
        f"expected a data set of sequences, Sequences or a path, found {type(data).__name__}. Make Sequences(frames, "
        "actions) of frames (batch, time, channels, height, width) and actions (batch, time - 1, action)."
    )


def open_source(path: str, reading: Reading) -> Source:
    """What a file or folder holds, its frames not yet read.

    Raises:
        DataError: as :func:`open_episodes`.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        return open_array_file(place, reading.names(), episode_axis=reading.episode_axis)
    if is_minari(place):
        return open_minari(place, reading.names())
    if has_images(place):
        return open_folder(place, reading.names())
    raise DataError(
        f"{place}: expected a Minari data set (data/main_data.hdf5), or folders of image files; found neither. "
        "Name the file or folder of the episodes."
    )


def _open(
    path: str,
    reading: Reading,
    *,
    steps: int,
    val_fraction: float,
    test_fraction: float,
    stride: int = 1,
    max_episodes: int | None = None,
    max_memory_gib: float = _MEMORY_GIB,
    seed: int = 0,
) -> Splits:
    source = open_source(path, reading)
    if max_episodes is not None:
        source = source.first(max_episodes)
    pictures = reading.pictures(source)
    division = divide(
        source,
        steps=steps,
        stride=stride,
        frame_skip=reading.frame_skip,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    _check_memory(source, pictures, division, max_memory_gib)
    actions = read_actions(source, frame_skip=reading.frame_skip, choices=reading.choices)
    state, things = read_state(source, frame_skip=reading.frame_skip)
    schema = {
        "kind": "episodes",
        "frame": list(pictures.frame),
        "steps": steps,
        "actions": list(actions.names),
        "state": list(things),
        "state_dims": 1 if state is None else state[0].shape[2],
        "state_unit": "",
        "reading": _as_json(reading, source, pictures, actions),
    }
    frames = read_frames(source, pictures, division.segments, frame_skip=reading.frame_skip)
    parts = {
        name: Episodes(
            frames[name],
            gather_rows(actions.rows, division.segments, name, actions=True),
            None if state is None else gather_rows(state, division.segments, name, actions=False),
            window_starts(division.segments, name, steps=steps, stride=stride),
            schema,
        )
        for name in frames
    }
    about = _about(source, division, actions, parts)
    return Splits(parts[TRAIN], parts.get("val"), parts.get("test"), about=about)


def _as_json(reading: Reading, source: Source, pictures: Pictures, actions: Actions) -> dict[str, Any]:
    """What was found out about the file joins what was said, so that the next file is read alike."""
    return {
        "frames": reading.frames if source.is_images else source.names.frames,
        "actions": reading.actions,
        "state": reading.state,
        "channels": reading.channels if source.is_images else pictures.channels,
        "episode_axis": reading.episode_axis,
        "size": reading.size,
        "gray": reading.gray,
        "frame_skip": reading.frame_skip,
        "choices": actions.choices,
    }


def _check_memory(source: Source, pictures: Pictures, division: Division, most_gib: float) -> None:
    count = sum(segment.stop - segment.start for segment in division.segments)
    channels, height, width = pictures.frame
    gib = count * channels * height * width * (1 if source.dtype == "uint8" else 4) / _GIB
    if gib > most_gib:
        raise DataError(
            f"{source.path}: {count:,} frames of {channels} x {height} x {width} take {gib:.1f} GiB of memory, more "
            f"than max_memory_gib={most_gib:g}. Make them smaller with size=, gray=true or frame_skip=, read fewer "
            "with max_episodes=, or raise max_memory_gib."
        )


def _about(source: Source, division: Division, actions: Actions, parts: Mapping[str, Episodes]) -> dict[str, Any]:
    about: dict[str, Any] = {
        "source": str(source.path),
        "layout": source.layout,
        "episodes": len(source.lengths),
        **{name: f"{len(part):,} windows" for name, part in parts.items()},
        "split": division.rule,
    }
    if division.too_short:
        about["too_short"] = f"{division.too_short} episodes with fewer frames than a window were left out"
    if actions.last_unused:
        about["last_actions"] = (
            f"{actions.last_unused} episodes have as many actions as frames: the last one leads to no recorded frame "
            "and was left out"
        )
    if actions.choices is not None:
        about["actions"] = f"{actions.choices} kinds, as rows of 0 and 1"
    return about


def _check_least(**options: tuple[int | None, int]) -> None:
    for name, (value, least) in options.items():
        if value is not None and value < least:
            raise ConfigError(f"data.{name}: expected at least {least}, got {value}.")
