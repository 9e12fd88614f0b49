"""Episodes in .npz and HDF5 files: a group for each, an axis of episodes, or one after the other."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from noumena.core.errors import DataError
from noumena.readers.arrays import ArrayInfo, array_blocks, list_arrays
from noumena.readers.checks import check_dtype
from noumena.readers.common import BLOCK_BYTES, reading, suffix_of
from noumena.worldmodels.episodes.source import FRAMES, STATE, Names, Source, check_length, frames_name, natural_order

SUFFIXES = (".npz", ".h5", ".hdf5")
# What says, in a file of episodes one after the other, where they end.
_MARKS = ("terminals", "timeouts", "dones")
_ENDS = "episode_ends"
_EPISODE = "episode"
_GROUP = re.compile(r"^([^/]*\d)/(.+)$")

Infos = Mapping[str, ArrayInfo]


def open_array_file(path: Path, names: Names, *, episode_axis: bool | None) -> Source:
    """Episodes of a .npz or HDF5 file.

    Args:
        path: the file.
        names: of its arrays.
        episode_axis: whether the frames have a leading axis of episodes; ``None`` where their shape tells.

    Raises:
        DataError: the file is missing or damaged, lacks an array, or it cannot be told how it is laid out.
    """
    suffix_of(path, SUFFIXES)
    infos = list_arrays(path)
    groups = _groups(infos)
    if groups and (names.frames or FRAMES) not in infos:
        return _from_groups(path, infos, groups, names)
    name = frames_name(path, names.frames, {key: info.shape for key, info in infos.items()})
    names = _with_state(Names(name, names.actions, names.state), infos, path)
    check_dtype(infos[name].dtype, f"{path}: '{name}'")
    if _has_episode_axis(path, infos, names, episode_axis):
        return _from_axis(path, infos, names)
    return _one_after_the_other(path, infos, names)


def _groups(infos: Infos) -> dict[str, list[str]]:
    """Numbered groups in the order of their numbers, and the names of the arrays in each."""
    found: dict[str, list[str]] = {}
    for name in infos:
        if match := _GROUP.match(name):
            found.setdefault(match[1], []).append(match[2])
    return {group: found[group] for group in sorted(found, key=natural_order)}


def _from_groups(path: Path, infos: Infos, groups: Mapping[str, list[str]], names: Names) -> Source:
    first = next(iter(groups))
    name = frames_name(path, names.frames, {key: infos[f"{first}/{key}"].shape for key in groups[first]})
    names = _with_state(Names(name, names.actions, names.state), dict.fromkeys(groups[first]), path)
    frames = [f"{group}/{name}" for group in groups]
    model = infos[frames[0]]
    for key in frames:
        if key not in infos:
            raise DataError(f"{path}: no array '{key}', which the episodes before have. Record it again or drop it.")
        check_dtype(infos[key].dtype, f"{path}: '{key}'")
        if infos[key].shape[1:] != model.shape[1:] or infos[key].dtype != model.dtype:
            raise DataError(
                f"{path}: '{key}' has frames of shape {infos[key].shape[1:]}, {infos[key].dtype}; those of "
                f"'{frames[0]}' are {model.shape[1:]}, {model.dtype}. Bring all episodes to one size and type."
            )

    def rows(key: str) -> list[np.ndarray]:
        return _whole(path, [f"{group}/{key}" for group in groups], infos)

    has_actions = f"{first}/{names.actions}" in infos
    return Source(
        path,
        "a group for each episode",
        names,
        list(groups),
        [infos[key].shape[0] for key in frames],
        model.shape[1:],
        model.dtype,
        partial(_blocks, path, frames, infos),
        partial(rows, names.actions) if has_actions else None,
        partial(rows, names.state) if names.state else None,
    )


def _with_state(names: Names, known: Mapping[str, Any], path: Path) -> Names:
    if names.state is not None and names.state not in known:
        raise DataError(f"{path}: no array '{names.state}' for the state. There are {', '.join(list(known)[:12])}.")
    return Names(names.frames, names.actions, STATE if names.state is None and STATE in known else names.state)


def _has_episode_axis(path: Path, infos: Infos, names: Names, said: bool | None) -> bool:
    assert names.frames is not None
    shape: tuple[int, ...] = infos[names.frames].shape
    if said is not None:
        if said and len(shape) < 4:
            raise DataError(f"{path}: '{names.frames}' of shape {shape} has no axis of episodes. Drop episode_axis.")
        return said
    if len(shape) != 4 or any(mark in infos for mark in (*_MARKS, _ENDS, _EPISODE)):
        return len(shape) == 5
    actions = infos.get(names.actions)
    if actions is None:
        return False
    if len(actions.shape) > 2:
        return True
    by_episode = len(actions.shape) == 2 and actions.shape[0] == shape[0] and shape[1] - actions.shape[1] in (0, 1)
    one_by_one = shape[0] - (actions.shape or (0,))[0] in (0, 1)
    if by_episode and one_by_one:
        raise DataError(
            f"{path}: '{names.frames}' of shape {shape} may be grey frames of {shape[0]} episodes, or {shape[0]} "
            "frames with channels. Say which with episode_axis=true or false."
        )
    return by_episode


def _from_axis(path: Path, infos: Infos, names: Names) -> Source:
    """Arrays whose first axis is the episodes."""
    assert names.frames is not None
    info = infos[names.frames]
    count, length = info.shape[:2]

    def blocks() -> Iterator[np.ndarray]:
        for block in _blocks(path, [str(names.frames)], infos):
            yield block.reshape(-1, *info.shape[2:])

    def rows(key: str) -> list[np.ndarray]:
        (array,) = _whole(path, [key], infos)
        if len(array) != count:
            raise DataError(f"{path}: '{key}' is of {len(array)} episodes, '{names.frames}' of {count}. Make them one.")
        return list(array)

    return Source(
        path,
        "an axis of episodes",
        names,
        [f"episode {number}" for number in range(count)],
        [length] * count,
        info.shape[2:],
        info.dtype,
        blocks,
        partial(rows, names.actions) if names.actions in infos else None,
        partial(rows, names.state) if names.state else None,
    )


def _one_after_the_other(path: Path, infos: Infos, names: Names) -> Source:
    assert names.frames is not None
    info = infos[names.frames]
    if not info.shape or not info.shape[0]:
        raise DataError(f"{path}: '{names.frames}' of shape {info.shape} holds no frames. Check how it was made.")
    ends, layout = _ends(path, infos, info.shape[0])
    lengths = np.diff(ends, prepend=0)
    episodes = [f"episode {number}" for number in range(len(ends))]

    def rows(key: str) -> list[np.ndarray]:
        (array,) = _whole(path, [key], infos)
        if len(array) == info.shape[0]:
            return np.split(array, ends[:-1])
        # One fewer for each episode.
        if len(array) == info.shape[0] - len(ends):
            return np.split(array, (ends - np.arange(1, len(ends) + 1))[:-1])
        if len(ends) == 1:
            check_length(source, 0, key, len(array), info.shape[0])
        raise DataError(
            f"{path}: '{key}' has {len(array)} rows but '{names.frames}' has {info.shape[0]}, in {len(ends)} episodes; "
            f"expected as many ({info.shape[0]}), or one fewer for each episode ({info.shape[0] - len(ends)}). "
            "Drop or add what is off."
        )

    source = Source(
        path,
        layout,
        names,
        episodes,
        lengths.tolist(),
        info.shape[1:],
        info.dtype,
        partial(_blocks, path, [names.frames], infos),
        partial(rows, names.actions) if names.actions in infos else None,
        partial(rows, names.state) if names.state else None,
    )
    return source


def _ends(path: Path, infos: Infos, frames: int) -> tuple[np.ndarray, str]:
    """The number of frames up to the end of each episode, int64, and which arrays said so."""
    if _ENDS in infos:
        (ends,) = _whole(path, [_ENDS], infos)
        ends = ends.reshape(-1).astype(np.int64)
        if not len(ends) or (np.diff(ends, prepend=0) <= 0).any() or ends[-1] != frames:
            raise DataError(
                f"{path}: '{_ENDS}' must rise and end with the number of frames, {frames}; found {ends[:5].tolist()}"
                f"{'...' if len(ends) > 5 else ''} up to {ends[-1] if len(ends) else 'nothing'}. Count frames up to "
                "the end of each episode."
            )
        return ends, f"one after the other, by '{_ENDS}'"
    if _EPISODE in infos:
        (number,) = _whole(path, [_EPISODE], infos)
        _check_marks(path, _EPISODE, number, frames)
        changes = np.flatnonzero(number.reshape(-1)[1:] != number.reshape(-1)[:-1]) + 1
        return np.append(changes, frames), f"one after the other, by '{_EPISODE}'"
    found = [mark for mark in _MARKS if mark in infos]
    if not found:
        return np.array([frames]), "a single episode"
    last = np.zeros(frames, bool)
    for mark in found:
        (flags,) = _whole(path, [mark], infos)
        _check_marks(path, mark, flags, frames)
        last |= flags.reshape(-1) != 0
    last[-1] = True
    return np.flatnonzero(last) + 1, f"one after the other, by '{' and '.join(found)}'"


def _check_marks(path: Path, name: str, values: np.ndarray, frames: int) -> None:
    if values.size != frames:
        raise DataError(f"{path}: '{name}' has {values.size} values for {frames} frames. One for each is needed.")


def _blocks(path: Path, names: Sequence[str], infos: Infos) -> Iterator[np.ndarray]:
    """Arrays one after the other, in blocks of bounded size along their first axis."""
    if path.suffix.lower() == ".npz" and len(names) == 1:
        yield from (block[names[0]] for block in array_blocks(path, names))
        return
    with reading(path):
        for name, array in _opened(path, names):
            step = max(1, BLOCK_BYTES // max(1, math.prod(infos[name].shape[1:]) * infos[name].dtype.itemsize))
            for start in range(0, infos[name].shape[0], step):
                yield array[start : start + step]


def _whole(path: Path, names: Sequence[str], infos: Infos) -> list[np.ndarray]:
    for name in names:
        if name not in infos:
            raise DataError(f"{path}: no array '{name}'. There are {', '.join(list(infos)[:12])}.")
        check_dtype(infos[name].dtype, f"{path}: '{name}'")
    with reading(path):
        return [np.asarray(array[()]) for _, array in _opened(path, names)]


def _opened(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Arrays by name: HDF5 data sets, which read what is taken of them, or members of an .npz."""
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            yield from ((name, archive[name]) for name in names)
        return
    import h5py

    with h5py.File(path, "r") as file:
        yield from ((name, file[name]) for name in names)
