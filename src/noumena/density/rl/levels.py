"""Graded out-of-distribution test sets made from a data set: how far is far enough to be seen?"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.core.seeding import fold
from noumena.density.data import open_episodes, shifted
from noumena.density.episodes import Row, open_episode_file
from noumena.density.rl.transitions import check_out, replacing
from noumena.density.table import Table, as_table

SHIFTS = (0.1, 0.5, 1.0, 2.0, 4.0)

# Streams of the seed.
_ROWS, _DIRECTION, _UNIFORM, _SHUFFLE, _POLICY = range(1, 6)


def ood_levels(
    path: str | Path,
    out: str | Path,
    *,
    shifts: Sequence[float] = SHIFTS,
    policies: Mapping[str, str | Path] | None = None,
    rows: int = 2500,
    row: Row = "next_observation+action",
    split: Literal["trajectory", "time", "random"] = "trajectory",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Write test sets that :func:`~noumena.density.data.open_ood` reads: first half in-distribution, second half not.

    The in-distribution rows, the same ones in every level, are drawn from the test part of :func:`open_episodes` with
    the same options, so that a model trained with these has seen none of them. The other half is, by level:

    - ``shift_d``: other test rows whose (next) observation is moved by ``d`` standard deviations of the training rows,
      each row in a random direction of its own, the same one at every distance; actions stay;
    - ``action_uniform``: the same rows with actions uniform within the range of the training actions;
    - ``action_shuffled``: the same rows, each with the action of another one, so that only the dependence is broken;
    - ``policy_NAME``: rows of a further file.

    Rows without actions have no levels of actions.

    Args:
        path: a D4RL-layout .hdf5, .h5 or .npz file, a Minari folder, or ``sample:hopper``.
        out: the .npz file; an existing one is replaced.
        shifts: distances ``d``, in standard deviations.
        policies: name to file, of the same environment.
        rows: of each half at most; the test part and the further files may have fewer.
        row, split, val_fraction, test_fraction: see :func:`~noumena.density.data.open_episodes`; as in training.
        split_seed: the ``seed`` of that split, as in training.
        seed: of every other random choice.

    Returns:
        ``levels`` (name to number of rows), ``columns``, ``split`` (in words) and ``output``.

    Raises:
        ConfigError: an option is out of range.
        DataError: a file is unfit, has other columns, or the test part has fewer than two rows.
        ArtifactError: the file cannot be written.
    """
    _check_options(shifts, policies or {}, rows)
    place = check_out(out, path, (".npz",))
    shares: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    splits = open_episodes(str(path), row=row, split=split, seed=split_seed, **shares)
    train = as_table(splits.train)
    if splits.test is None:
        raise ConfigError("test_fraction=0: the in-distribution rows come from the test part. Give it a share.")
    test = as_table(splits.test)
    inside, others = _two_halves(test.rows, rows, seed, str(path))
    levels = {f"shift_{d:g}": (inside, moved) for d, moved in _moved(others, train, shifts, seed).items()}
    levels |= {name: (inside, changed) for name, changed in _other_actions(others, train, seed).items()}
    for number, (name, file) in enumerate((policies or {}).items()):
        outside = _rows_of(file, row, train.columns, len(inside), fold(seed, _POLICY, number))
        levels[f"policy_{name}"] = (inside[: len(outside)], outside)
    arrays = {name: torch.cat(halves).numpy() for name, halves in levels.items()}
    with replacing(place) as beside, beside.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    return {
        "levels": {name: len(array) for name, array in arrays.items()},
        "columns": len(train.columns),
        "split": splits.about["split"],
        "output": str(place),
    }


def _two_halves(rows: Tensor, most: int, seed: int, where: str) -> tuple[Tensor, Tensor]:
    """Rows for the in-distribution half, and as many others to be changed."""
    count = min(most, len(rows) // 2)
    if not count:
        raise DataError(f"{where}: the test part has {len(rows)} rows; expected at least two. Raise test_fraction.")
    order = torch.randperm(len(rows), generator=_generator(seed, _ROWS))
    return rows[order[:count]], rows[order[count : 2 * count]]


def _moved(rows: Tensor, train: Table, shifts: Sequence[float], seed: int) -> dict[float, Tensor]:
    columns = _observation_columns(train.columns)
    std = train.rows.double().std(0, correction=0).to(rows)
    found: dict[float, Tensor] = {}
    for distance in shifts:
        # The same generator anew: the levels differ in their distance alone.
        generator = _generator(seed, _DIRECTION)
        found[distance] = rows.clone()
        found[distance][:, columns] = shifted(rows[:, columns], distance, std[columns], generator)
    return found


def _other_actions(rows: Tensor, train: Table, seed: int) -> dict[str, Tensor]:
    columns = torch.tensor([name.startswith("action_") for name in train.columns])
    if not bool(columns.any()):
        return {}
    low, high = train.rows[:, columns].aminmax(dim=0)
    uniform, shuffled = rows.clone(), rows.clone()
    share = torch.rand(len(rows), int(columns.sum()), generator=_generator(seed, _UNIFORM))
    uniform[:, columns] = low + share * (high - low)
    # Each row of a random order takes the action of the one before it: none keeps its own.
    order = torch.randperm(len(rows), generator=_generator(seed, _SHUFFLE))
    shuffled[order] = torch.where(columns, rows[order.roll(1)], rows[order])
    return {"action_uniform": uniform, "action_shuffled": shuffled}


def _observation_columns(columns: Sequence[str]) -> Tensor:
    """Numbers of the columns that a shift moves: of the next observation if it is in a row, else of the observation."""
    prefix = "next_obs_" if any(name.startswith("next_obs_") for name in columns) else "obs_"
    return torch.tensor([number for number, name in enumerate(columns) if name.startswith(prefix)])


def _rows_of(path: str | Path, row: Row, columns: Sequence[str], most: int, seed: int) -> Tensor:
    """At most so many rows of another file, drawn at random."""
    file = open_episode_file(path, row)
    if file.columns != tuple(columns):
        raise DataError(
            f"{path}: has rows of {len(file.columns)} columns ({file.columns[0]} to {file.columns[-1]}), expected the "
            f"{len(columns)} of the other file. Is it of the same environment?"
        )
    parts = [block.rows for block in file.blocks(trajectories=False, overflow="refuse")]
    if not parts:
        raise DataError(f"{path}: no transition is left, since every episode is a single step. Add next_observations.")
    rows = torch.cat(parts)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold(seed, stream))


def _check_options(shifts: Sequence[float], policies: Mapping[str, str | Path], rows: int) -> None:
    for distance in shifts:
        if not 0.0 < distance < math.inf:
            raise ConfigError(f"shifts: expected positive finite distances, got {distance}.")
    if rows < 1:
        raise ConfigError(f"rows={rows}: expected at least one.")
    for name in policies:
        if not name or "/" in name:
            raise ConfigError(f"policies: '{name}' cannot name a level; expected a word without '/'.")
