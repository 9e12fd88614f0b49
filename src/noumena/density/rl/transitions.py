"""Whole transitions of any file of episodes under the keys of D4RL, and writing them, whole or not at all."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from noumena.core.errors import ArtifactError, ConfigError, DataError, did_you_mean
from noumena.density.episodes import (
    EPISODE_SUFFIXES,
    _dataset,
    _episode_names,
    _flags,
    _minari_files,
    is_sample,
    sample_path,
)
from noumena.readers.arrays import array_blocks, list_arrays
from noumena.readers.checks import check_rows, column_names
from noumena.readers.common import reading, suffix_of

_NEEDED = ("observations", "actions", "rewards", "terminals")
_MINARI = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
# How often the writer compresses: rows of a chunk.
_CHUNK_ROWS = 4096


class Transitions(Protocol):
    """Arrays with an entry for each transition."""

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays that are there, by their keys of D4RL."""
        ...

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Arrays side by side from first to last, a bounded number of transitions at a time."""
        ...


def open_transitions(path: str | Path) -> Transitions:
    """Read the header of a D4RL-layout .hdf5, .h5 or .npz file, of a Minari folder, or of ``sample:hopper``.

    Raises:
        DataError: the file is missing, damaged, or lacks observations, actions, rewards or terminals.
    """
    place = sample_path(str(path), "sample.hdf5") if is_sample(path) else Path(path)
    if place.is_dir():
        return _MinariTransitions(place)
    suffix_of(place, EPISODE_SUFFIXES)
    return _D4rlTransitions(place)


class _D4rlTransitions:
    """Every array of numbers that has an entry per transition, ``infos/...`` included."""

    def __init__(self, path: Path) -> None:
        self._path = path
        arrays = list_arrays(path)
        if missing := [name for name in _NEEDED if name not in arrays]:
            raise DataError(f"{path}: expected an array '{missing[0]}'. {did_you_mean(missing[0], arrays)}")
        length = arrays["actions"].shape[0]
        if wrong := [name for name in _NEEDED if arrays[name].shape[:1] != (length,)]:
            raise DataError(
                f"{path}: '{wrong[0]}' has shape {arrays[wrong[0]].shape} and 'actions' {length} rows; every array "
                "needs one entry per transition. Make them equally long."
            )
        self.names = tuple(
            name
            for name, info in arrays.items()
            if info.shape[:1] == (length,) and info.dtype.kind in "fiub" and not name.startswith("metadata/")
        )

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        yield from array_blocks(self._path, names)


class _MinariTransitions:
    """Episodes one after the other; the last step of each that did not terminate is a timeout."""

    names = _MINARI

    def __init__(self, folder: Path) -> None:
        self._path, _ = _minari_files(folder)

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        import h5py

        with reading(self._path), h5py.File(self._path, "r") as file:
            for episode in _episode_names(file, self._path):
                arrays = self._episode(file, episode)
                yield {name: arrays[name] for name in names}

    def _episode(self, file: Any, episode: str) -> dict[str, np.ndarray]:
        seen, actions = (_dataset(file, episode, name, self._path)[:] for name in ("observations", "actions"))
        rewards, ended = (self._column(file, episode, name, len(actions)) for name in ("rewards", "terminations"))
        if len(seen) != len(actions) + 1:
            raise DataError(
                f"{self._path}: {episode} has {len(seen)} observations and {len(actions)} actions; an episode has one "
                "observation more than actions. Record it again."
            )
        last = np.arange(len(actions)) == len(actions) - 1
        terminals = ended.astype(bool)
        return {
            "observations": seen[:-1],
            "next_observations": seen[1:],
            "actions": actions,
            "rewards": rewards,
            "terminals": terminals,
            "timeouts": last & ~terminals,
        }

    def _column(self, file: Any, episode: str, name: str, length: int) -> np.ndarray:
        item = file[episode].get(name)
        if item is None or item.shape != (length,):
            found = "none" if item is None else f"shape {getattr(item, 'shape', None)}"
            raise DataError(f"{self._path}: {episode}/{name}: expected {length} numbers, found {found}.")
        return item[:]


def step_facts(source: Transitions, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What trajectories are told apart and chosen by.

    Returns:
        The Euclidean length of each action and each reward, float64 (transitions,), and the number of the trajectory
        of each transition, int64 (transitions,), from 0.

    Raises:
        DataError: NaN or infinity in them, or marks that are not 0 or 1.
    """
    marks = [name for name in ("terminals", "timeouts") if name in source.names]
    norms: list[np.ndarray] = []
    rewards: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    first = 0
    for block in source.blocks(("actions", "rewards", *marks)):
        actions = block["actions"].reshape(len(block["actions"]), -1)
        checked = check_rows(actions, column_names("action", actions.shape[1]), where, first)
        reward = check_rows(block["rewards"].reshape(len(actions), -1), ("reward",), where, first)
        norms.append(checked.double().norm(dim=1).numpy())
        rewards.append(reward[:, 0].double().numpy())
        ends.append(np.any([_flags(block[name], f"{where}: '{name}'", first).numpy() for name in marks], axis=0))
        first += len(actions)
    if not first:
        raise DataError(f"{where}: expected at least one transition, found none.")
    ended = np.concatenate(ends)
    # A last transition still belongs to the trajectory that it ends.
    return np.concatenate(norms), np.concatenate(rewards), np.cumsum(ended) - ended


def write_d4rl(out: Path, source: Transitions, keep: np.ndarray, facts: Mapping[str, Any]) -> None:
    """The transitions where ``keep`` (bool, shape (transitions,)), under their keys, at constant memory.

    Raises:
        ArtifactError: the file cannot be written; what was there before is untouched.
    """
    import h5py

    with replacing(out) as beside, h5py.File(beside, "w") as file:
        file.attrs.update(facts)
        first = 0
        for block in source.blocks(source.names):
            length = len(block["actions"])
            kept = keep[first : first + length]
            for name, values in block.items():
                _append(file, name, values[kept])
            first += length


def _append(file: Any, name: str, values: np.ndarray) -> None:
    if name not in file:
        shape = values.shape[1:]
        file.create_dataset(
            name, data=values, maxshape=(None, *shape), chunks=(_CHUNK_ROWS, *shape), compression="gzip"
        )
        return
    dataset = file[name]
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values


def check_out(out: str | Path, source: str | Path, suffixes: tuple[str, ...]) -> Path:
    """The file to write.

    Raises:
        ConfigError: another extension, or it is what is read.
    """
    path = Path(out).expanduser()
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: expected a file {' or '.join(suffixes)}, found '{path.suffix}'. Rename it.")
    if not is_sample(source) and path.resolve() == Path(source).resolve():
        raise ConfigError(f"{path}: is the file that is read. Choose another name for the result.")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed over it on success.

    Raises:
        ArtifactError: it cannot be written; what was at ``path`` is untouched.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose a folder you may write to; what was "
            "there before is untouched."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
