"""State-action data as rows: D4RL-layout HDF5 or .npz files and Minari folders, read at constant memory."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.readers.arrays import ArrayInfo, array_blocks, check_two_dimensional, list_arrays
from noumena.readers.checks import Overflow, check_rows, column_names
from noumena.readers.common import block_rows, check_choice, minari_metadata, reading, suffix_of

Row = Literal["observation+action", "next_observation+action", "observation", "transition"]

SAMPLE = "sample:"
EPISODE_SUFFIXES = (".h5", ".hdf5", ".npz")
_PARTS: dict[str, tuple[str, ...]] = {
    "observation+action": ("observations", "actions"),
    "next_observation+action": ("next_observations", "actions"),
    "observation": ("observations",),
    "transition": ("observations", "actions", "next_observations"),
}
_PREFIX = {"observations": "obs", "actions": "action", "next_observations": "next_obs"}


class EpisodeBlock(NamedTuple):
    """Consecutive transitions: float32 rows, shape (rows, columns), and int64 trajectory of each, shape (rows,)."""

    rows: Tensor
    trajectories: Tensor


class EpisodeFile(Protocol):
    """Episodes laid out as rows; the header has been read and checked."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of a row: ``obs_0`` ..., ``action_0`` ..., ``next_obs_0`` ..."""
        ...

    @property
    def transitions(self) -> int | None:
        """Transitions in the file, where its header tells."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every transition becomes a row; otherwise the last one of each episode is left out."""
        ...

    def blocks(self, *, trajectories: bool, overflow: Overflow) -> Iterator[EpisodeBlock]:
        """The rows from first to last, a bounded number at a time; trajectories are numbered if asked for."""
        ...


def open_episode_file(path: str | Path, row: str) -> EpisodeFile:
    """Read the header of a file or folder of episodes.

    Args:
        path: a D4RL-layout .hdf5, .h5 or .npz file, a Minari folder, or ``sample:hopper``.
        row: what one row is made of, one of :data:`Row`.

    Raises:
        DataError: the file is missing, damaged or lacks an array.
        ConfigError: unknown ``row`` or sample.
    """
    check_choice("row", row, get_args(Row))
    place = sample_path(str(path), "sample.hdf5") if is_sample(path) else Path(path)
    if place.is_dir():
        return MinariFolder(place, _PARTS[row])
    suffix_of(place, EPISODE_SUFFIXES)
    return D4rlFile(place, _PARTS[row])


def is_sample(path: str | Path) -> bool:
    """Whether ``path`` is the name of data shipped with the package, such as ``sample:hopper``."""
    return str(path).startswith(SAMPLE)


def sample_path(name: str, what: str) -> Path:
    """The shipped file ``<name>_<what>`` for a name such as ``sample:hopper``.

    Raises:
        ConfigError: there is no such sample.
    """
    folder = Path(str(resources.files("noumena.density") / "samples"))
    known = [SAMPLE + file.name.removesuffix(f"_{what}") for file in sorted(folder.glob(f"*_{what}"))]
    if name not in known:
        raise ConfigError(f"no data '{name}' in the package. {did_you_mean(name, known)}")
    return folder / f"{name.removeprefix(SAMPLE)}_{what}"


class D4rlFile:
    """Transitions one after the other, with ``terminals`` (and ``timeouts``) marking the last of each episode."""

    def __init__(self, path: Path, parts: Sequence[str]) -> None:
        self.path = path
        self._parts = parts
        arrays = list_arrays(path)
        self.complete = "next_observations" not in parts or "next_observations" in arrays
        self._stored = tuple(part for part in parts if self.complete or part != "next_observations")
        if not self.complete and "observations" not in self._stored:
            self._stored = ("observations", *self._stored)
        _check_present(path, arrays, self._stored)
        self._ends = tuple(name for name in ("terminals", "timeouts") if name in arrays)
        used = (*self._stored, *self._ends)
        for name in self._stored:
            check_two_dimensional(path, name, arrays[name])
        _check_lengths(path, {name: arrays[name].shape for name in used})
        self._widths = {name: arrays[name].shape[1] for name in self._stored}
        self._widths.setdefault("next_observations", self._widths.get("observations", 0))
        self.columns = _columns(parts, self._widths)
        self.transitions: int = arrays[self._stored[0]].shape[0]

    def blocks(self, *, trajectories: bool, overflow: Overflow) -> Iterator[EpisodeBlock]:
        """See :class:`EpisodeFile`; trajectories are numbered from 0 in file order."""
        transitions = self._transitions(trajectories or not self.complete, overflow)
        if not self.complete:
            transitions = _with_next(transitions)
        for arrays in transitions:
            if len(arrays["trajectories"]):
                yield EpisodeBlock(torch.cat([arrays[part] for part in self._parts], dim=1), arrays["trajectories"])

    def _transitions(self, numbered: bool, overflow: Overflow) -> Iterator[dict[str, Tensor]]:
        """Stored arrays, and per transition its trajectory and whether it is the last one of it."""
        if numbered and "terminals" not in self._ends:
            raise DataError(
                f"{self.path}: expected 'terminals' (1 where an episode ends), found only {', '.join(self._stored)}. "
                "Add it, and 'timeouts' where episodes are cut by a time limit."
            )
        first_row, trajectory = 0, 0
        for block in array_blocks(self.path, (*self._stored, *(self._ends if numbered else ()))):
            arrays = {
                name: check_rows(block[name], _columns([name], self._widths), f"{self.path}", first_row, overflow)
                for name in self._stored
            }
            ends = torch.zeros(len(arrays[self._stored[0]]), dtype=torch.bool)
            for name in self._ends if numbered else ():
                ends |= _flags(block[name], f"{self.path}: '{name}'", first_row)
            started = ends.cumsum(0)
            # A last transition still belongs to the trajectory that it ends.
            yield {**arrays, "ends": ends, "trajectories": trajectory + started - ends.to(torch.int64)}
            trajectory += int(started[-1])
            first_row += len(ends)


class MinariFolder:
    """A Minari data set of hdf5 format: one group per episode, observations one longer than actions."""

    complete = True

    def __init__(self, folder: Path, parts: Sequence[str]) -> None:
        self.path, self.transitions = _minari_files(folder)
        self._parts = parts
        with reading(self.path), self._open() as file:
            self._episodes = _episode_names(file, self.path)
            sources = ("observations", "actions")
            shapes = {name: _dataset(file, self._episodes[0], name, self.path).shape for name in sources}
        self._widths = {name: shape[1] for name, shape in shapes.items()}
        self._widths["next_observations"] = self._widths["observations"]
        self.columns = _columns(parts, self._widths)

    def blocks(self, *, trajectories: bool, overflow: Overflow) -> Iterator[EpisodeBlock]:
        """See :class:`EpisodeFile`; a trajectory's number is that of its episode."""
        with reading(self.path), self._open() as file:
            for episode in self._episodes:
                for rows in self._episode_rows(file, episode, overflow):
                    yield EpisodeBlock(rows, torch.full((len(rows),), _episode_number(episode)))

    def _episode_rows(self, file: Any, episode: str, overflow: Overflow) -> Iterator[Tensor]:
        observations, actions = (_dataset(file, episode, name, self.path) for name in ("observations", "actions"))
        length = actions.shape[0]
        if observations.shape[0] != length + 1:
            raise DataError(
                f"{self.path}: {episode} has {observations.shape[0]} observations and {length} actions; an episode "
                "has one observation more than actions. Record it again."
            )
        step = block_rows(observations.shape[1] + actions.shape[1])
        for start in range(0, length, step):
            stop = min(start + step, length)
            where = f"{self.path}: {episode}"
            seen = check_rows(observations[start : stop + 1], self._names("observations"), where, start, overflow)
            arrays = {"observations": seen[:-1], "next_observations": seen[1:]}
            if "actions" in self._parts:
                arrays["actions"] = check_rows(actions[start:stop], self._names("actions"), where, start, overflow)
            yield torch.cat([arrays[part] for part in self._parts], dim=1)

    def _names(self, name: str) -> tuple[str, ...]:
        return _columns([name], self._widths)

    def _open(self) -> Any:
        import h5py

        return h5py.File(self.path, "r")


def _with_next(transitions: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Add ``next_observations`` = the following observation; the last transition of each episode has none and goes.

    A block's last transition waits for the first of the next block.
    """
    waiting: dict[str, Tensor] = {}
    for block in transitions:
        joined = {name: torch.cat([waiting[name], part]) if waiting else part for name, part in block.items()}
        waiting = {name: part[-1:] for name, part in joined.items()}
        kept = ~joined["ends"][:-1]
        yield {
            **{name: part[:-1][kept] for name, part in joined.items()},
            "next_observations": joined["observations"][1:][kept],
        }


def _columns(parts: Sequence[str], widths: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in column_names(_PREFIX[part], widths[part]))


def _check_present(path: Path, arrays: Mapping[str, ArrayInfo], needed: Sequence[str]) -> None:
    if not (missing := [name for name in needed if name not in arrays]):
        return
    if any(name.startswith("episode_") for name in arrays):
        raise DataError(f"{path}: is the inside of a Minari data set. Name its folder instead: {path.parent}.")
    raise DataError(
        f"{path}: expected the arrays {', '.join(needed)} of the D4RL layout, found no '{missing[0]}'. "
        f"{did_you_mean(missing[0], [name for name in arrays if '/' not in name])} Rename or add it."
    )


def _check_lengths(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    lengths = {name: shape[0] if shape else 0 for name, shape in shapes.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"'{name}' has {length}" for name, length in lengths.items())
        raise DataError(
            f"{path}: {found} rows; every array needs one entry per transition. "
            "Make them equally long (an episode's final observation belongs in next_observations)."
        )


def _flags(values: np.ndarray, where: str, first_row: int) -> Tensor:
    """End-of-episode marks as bool, shape (rows,)."""
    flat = values.reshape(len(values), -1)
    bad = (flat != 0) & (flat != 1)
    if flat.shape[1] != 1 or bad.any():
        found = f"shape {values.shape}" if flat.shape[1] != 1 else f"{flat[bad][0]} in row {first_row + bad.argmax()}"
        raise DataError(f"{where}: expected 0 or 1 per transition, found {found}. Mark the last step of episodes by 1.")
    return torch.from_numpy(flat[:, 0] != 0)


def _minari_files(folder: Path) -> tuple[Path, int | None]:
    """The HDF5 file of a Minari folder, and its number of transitions if the metadata tell."""
    data = folder if (folder / "metadata.json").exists() or (folder / "main_data.hdf5").exists() else folder / "data"
    if not (data / "metadata.json").exists() and not (data / "main_data.hdf5").exists():
        inside = sorted(str(place.parent.parent.relative_to(folder)) for place in folder.glob("*/**/main_data.hdf5"))
        hint = f"Name one of the data sets in it: {', '.join(inside[:10])}." if inside else "Check the path."
        raise DataError(f"{folder}: expected a Minari data set (data/main_data.hdf5 and data/metadata.json). {hint}")
    metadata = minari_metadata(data / "metadata.json")
    if (found := metadata.get("data_format", "hdf5")) != "hdf5":
        raise DataError(
            f"{folder}: Minari data of format '{found}' are not read. Make the data set again with data_format='hdf5'."
        )
    if not (data / "main_data.hdf5").exists():
        raise DataError(f"{data / 'main_data.hdf5'}: no such file. Download the data set again.")
    steps = metadata.get("total_steps")
    return data / "main_data.hdf5", int(steps) if isinstance(steps, int | float) else None


def _episode_names(file: Any, path: Path) -> list[str]:
    """``episode_0``, ``episode_1``, ... in the order of their numbers, not of the alphabet."""
    names = [name for name in file if name.startswith("episode_") and name[8:].isdigit()]
    if not names:
        raise DataError(
            f"{path}: expected groups episode_0, episode_1, ..., found {list(file)[:5]}. Download it again."
        )
    return sorted(names, key=_episode_number)


def _episode_number(name: str) -> int:
    return int(name.removeprefix("episode_"))


def _dataset(file: Any, episode: str, name: str, path: Path) -> Any:
    """One array of an episode, checked to be 2-D numbers."""
    where = f"{path}: {episode}/{name}"
    item = file[episode].get(name)
    if item is None:
        raise DataError(f"{where}: no such array. {did_you_mean(name, file[episode])}")
    if not hasattr(item, "dtype"):
        raise DataError(
            f"{where}: a Dict or Tuple space ({', '.join(item)}) is not read. Flatten it into one vector per step, "
            "e.g. with gymnasium's FlattenObservation, and record the data set again."
        )
    check_two_dimensional(path, f"{episode}/{name}", ArrayInfo(item.shape or (), item.dtype))
    return item
