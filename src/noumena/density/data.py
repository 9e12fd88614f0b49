"""Opening data for the density family: tables, state-action episodes, synthetic sets and out-of-distribution levels.

The keyword arguments of each ``open_*`` function are the ``data`` section of a recipe of that kind.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import check_fractions, split_groups, split_rows
from noumena.density.episodes import Row, is_sample, open_episode_file, sample_path
from noumena.density.splits import assemble
from noumena.density.synthetic import AnomalyType, create_synthetic_data, shifted
from noumena.density.table import Table
from noumena.readers.arrays import check_two_dimensional, list_arrays, whole_array
from noumena.readers.checks import check_rows, column_names
from noumena.readers.common import Block, TableFile, check_choice, suffix_of
from noumena.readers.tables import check_side, choose_columns, open_table_file

__all__ = ["create_synthetic_data", "open_episodes", "open_ood", "open_synthetic", "open_table", "shifted"]

Missing = Literal["refuse", "drop"]
_LABELS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
# How a missing label or group reads as text.
_MISSING_TEXT = ("", "nan")


def open_table(
    path: str,
    *,
    columns: list[str] | None = None,
    exclude: list[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    key: str | None = None,
    missing: Missing = "refuse",
    split: Literal["random", "time", "group"] = "random",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """A table of numbers, divided into train, val and test.

    Args:
        path: a .csv, .parquet, .pq, .npy, .npz, .h5 or .hdf5 file. Nothing is ever unpickled.
        columns: features to use, in this order. Default: all but ``exclude``, the label and the group. Columns of
            arrays are called ``x_0``, ``x_1``, ...
        exclude: columns to leave out.
        label: column (or 1-D array of the same .npz or HDF5 file) of 0/1 or bool, 1 = anomaly. It is used in
            evaluation only: neither the split nor the training looks at it.
        group: column (or 1-D array) that says which rows belong together, for ``split="group"``; numbers or text.
        key: the 2-D array of an .npz or HDF5 file. Default: ``X``, or the only one.
        missing: refuse a file with missing values (null, empty or NaN), or drop the rows that have one.
        split: deal rows at random, in time order (first rows train, last rows test), or whole groups at random.
        val_fraction, test_fraction: shares of the rows; 0 leaves the part out.
        seed: of the random split.

    Raises:
        ConfigError: an option is out of range or names something the file does not have.
        DataError: the file is missing, damaged, pickled, or holds text, infinities or (unless dropped) missing values.
    """
    check_choice("missing", missing, ("refuse", "drop"))
    check_choice("split", split, ("random", "time", "group"))
    check_fractions(val_fraction, test_fraction)
    if split == "group" and group is None:
        raise ConfigError("split='group' needs to know the groups: pass group='name of the column'.")
    file = open_table_file(path, key)
    check_side(file, "label", label)
    check_side(file, "group", group)
    names = choose_columns(file, columns, exclude, [name for name in (label, group) if name is not None])
    table, dropped = _read_table(file, names, label, group, missing)
    shares: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed, "where": path}
    if split == "group":
        assert table.groups is not None
        remedy = "Use split='random' or 'time', or set a fraction to 0."
        parts = split_groups(table.groups, what="groups", remedy=remedy, **shares)
    else:
        parts = split_rows(len(table), shuffle=split == "random", **shares)
    about = {
        "source": str(path),
        "split": _rule(split, seed),
        "left_out": _left_out(dropped, "rows with missing values"),
    }
    return assemble(table, parts, about)


def open_episodes(
    path: str,
    *,
    row: Row = "next_observation+action",
    split: Literal["trajectory", "time", "random"] = "trajectory",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    max_rows: int | None = None,
    seed: int = 0,
) -> Splits:
    """State-action data as rows, divided into train, val and test.

    Args:
        path: a D4RL-layout .hdf5, .h5 or .npz file (``observations``, ``actions``, ``terminals``; ``timeouts`` and
            ``next_observations`` if there), a Minari folder, or ``sample:hopper``.
        row: what a row is made of; "transition" is observation, action and next observation. Without stored
            ``next_observations`` they are the following observations, and the last step of each episode is left out.
        split: whole trajectories at random (no trajectory is in two parts), rows in time order (first rows train),
            or rows at random.
        val_fraction, test_fraction: shares of the rows; 0 leaves the part out. Whole trajectories come as near to
            them as they can.
        max_rows: use at most this many rows: whole trajectories, chosen at random.
        seed: of every random choice.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is missing, damaged, lacks an array, holds NaN or infinity, or has too few trajectories.
    """
    check_choice("split", split, ("trajectory", "time", "random"))
    check_fractions(val_fraction, test_fraction)
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"max_rows={max_rows}: expected at least one row, or none for all of them.")
    file = open_episode_file(path, row)
    blocks = list(file.blocks(trajectories=True, overflow="refuse"))
    if not blocks:
        raise DataError(f"{path}: no transition is left, since every episode is a single step. Add next_observations.")
    groups = torch.cat([block.trajectories for block in blocks])
    layout = {"kind": "episodes", "row": row}
    table = Table(torch.cat([block.rows for block in blocks]), file.columns, groups=groups, layout=layout)
    last_steps = 0 if file.complete else (file.transitions or len(table)) - len(table)
    read = len(table)
    if max_rows is not None and max_rows < read:
        table = table.subset(_whole_trajectories(groups, max_rows, seed, str(path)))
    shares: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed, "where": path}
    if split == "trajectory":
        assert table.groups is not None
        remedy = "Use split='time' or 'random', or set a fraction to 0."
        parts = split_groups(table.groups, what="trajectories", remedy=remedy, **shares)
    else:
        parts = split_rows(len(table), shuffle=split == "random", **shares)
    left_out = {
        **_left_out(last_steps, "last steps of episodes, whose next observation is not stored"),
        **_left_out(read - len(table), "rows beyond max_rows"),
    }
    return assemble(table, parts, {"source": str(path), "split": _rule(split, seed), "row": row, "left_out": left_out})


def open_synthetic(
    *,
    n: int = 1000,
    dim: int = 2,
    anomaly_type: AnomalyType = "outlier",
    magnitude: float = 3.0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Normal rows of :func:`create_synthetic_data` divided at random; the anomalies are ``extra["anomalies"]``.

    Args:
        n, dim, anomaly_type, magnitude: see :func:`create_synthetic_data`.
        val_fraction, test_fraction: shares of the normal rows; 0 leaves the part out.
        seed: of the data and of the split.

    Raises:
        ConfigError: an argument is out of range.
    """
    check_fractions(val_fraction, test_fraction)
    normal, anomalous = create_synthetic_data(n, dim, anomaly_type, magnitude, seed=seed)
    names = column_names("x", dim)
    table = Table(normal, names, torch.zeros(len(normal), dtype=torch.bool))
    anomalies = Table(anomalous, names, torch.ones(len(anomalous), dtype=torch.bool))
    parts = split_rows(
        n, shuffle=True, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed, where="synthetic data"
    )
    source = f"synthetic: {n} normal rows, {len(anomalous)} anomalies ({anomaly_type}, magnitude {magnitude:g})"
    about = {"source": source, "split": _rule("random", seed), "left_out": {}}
    return assemble(table, parts, about, {"anomalies": anomalies})


def open_ood(path: str, model_columns: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Graded out-of-distribution test sets.

    Args:
        path: an .npz file whose 2-D arrays, except ``train`` and ``val``, are one level each: the first half of the
            rows in-distribution, the second half out-of-distribution. Or ``sample:hopper``.
        model_columns: the columns the model was trained on; a level must have as many, in the same order.

    Returns:
        Level to (in-distribution rows, out-of-distribution rows), float32, each of shape (rows / 2, columns), in the
        order of the file. Numbers beyond float32 are clipped, as in scoring.

    Raises:
        DataError: the file is no such file, or a level has another width or an odd number of rows.
    """
    place = sample_path(path, "ood.npz") if is_sample(path) else Path(path)
    suffix_of(place, (".npz",))
    arrays = list_arrays(place)
    names = [name for name, info in arrays.items() if len(info.shape) == 2 and name not in ("train", "val")]
    if not names:
        raise DataError(f"{place}: expected a 2-D array per level, found none among {list(arrays)}. Check the file.")
    levels = {}
    for name in names:
        check_two_dimensional(place, name, arrays[name])
        if odd := arrays[name].shape[0] % 2:
            raise DataError(
                f"{place}: '{name}' has an odd number of rows ({arrays[name].shape[0]}); half are in-distribution and "
                f"half are not. Leave out {odd}."
            )
        rows = check_rows(whole_array(place, name), model_columns, f"{place}: '{name}'", overflow="clip")
        levels[name] = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
    return levels


def _read_table(
    file: TableFile, names: tuple[str, ...], label: str | None, group: str | None, missing: Missing
) -> tuple[Table, int]:
    """All rows of the file, and how many were dropped for a missing value."""
    side = tuple(dict.fromkeys(name for name in (label, group) if name is not None))
    read = [_read_block(block, names, str(file.path), label, missing) for block in file.blocks(names, side)]
    if not read:
        raise DataError(f"{file.path}: expected at least one row, found none. Check how the file was made.")
    kept = np.concatenate([keep for _, _, keep in read])
    if not kept.any():
        raise DataError(f"{file.path}: every row has a missing value. Leave out the empty columns with exclude=[...].")
    texts = {name: np.concatenate([texts[name] for _, texts, _ in read]) for name in side}
    labels = None if label is None else _labels(texts[label])
    groups = None if group is None else torch.from_numpy(np.unique(texts[group], return_inverse=True)[1])
    table = Table(torch.cat([rows for rows, _, _ in read]), names, labels, groups, layout=file.layout)
    return table, int((~kept).sum())


def _read_block(
    block: Block, names: tuple[str, ...], where: str, label: str | None, missing: Missing
) -> tuple[Tensor, Mapping[str, np.ndarray], np.ndarray]:
    """Checked rows and texts without the dropped rows, and which rows of the block were kept."""
    absent = {name: np.isin(np.char.lower(text), _MISSING_TEXT) for name, text in block.side.items()}
    if missing == "refuse":
        _refuse_absent(absent, where, block.first_row)
        kept = np.ones(len(block.rows), dtype=bool)
        rows = check_rows(block.rows, names, where, block.first_row)
    else:
        empty = np.isnan(block.rows) if block.rows.dtype.kind == "f" else np.zeros(block.rows.shape, dtype=bool)
        kept = ~np.any([empty.any(axis=1), *absent.values()], axis=0)
        # Missing cells are filled for the check alone, so that an infinity is refused even in a row that goes.
        rows = check_rows(np.where(empty, 0, block.rows), names, where, block.first_row)[torch.from_numpy(kept)]
    if label is not None:
        _check_labels(block.side[label], kept, label, where, block.first_row)
    return rows, {name: text[kept] for name, text in block.side.items()}, kept


def _refuse_absent(absent: Mapping[str, np.ndarray], where: str, first_row: int) -> None:
    for name, mask in absent.items():
        if mask.any():
            raise DataError(
                f"{where}: row {first_row + mask.argmax()} (counted from 0), column '{name}' is missing, as in "
                f"{mask.sum():,} of the rows {first_row} to {first_row + len(mask) - 1}. "
                "Fill it in, or leave such rows out with missing='drop'."
            )


def _check_labels(texts: np.ndarray, kept: np.ndarray, label: str, where: str, first_row: int) -> None:
    bad = kept & ~np.isin(np.char.lower(texts), list(_LABELS))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{where}: row {first_row + row} (counted from 0), label '{label}' is '{texts[row]}'; expected 0 (normal) "
            "or 1 (anomaly). Recode the column."
        )


def _labels(texts: np.ndarray) -> Tensor:
    return torch.from_numpy(np.isin(np.char.lower(texts), [text for text, anomaly in _LABELS.items() if anomaly]))


def _whole_trajectories(groups: Tensor, max_rows: int, seed: int, where: str) -> Tensor:
    """Row numbers of trajectories taken in random order while they fit into ``max_rows``."""
    _, member, lengths = groups.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    chosen = order[lengths[order].cumsum(0) <= max_rows]
    if not len(chosen):
        raise DataError(
            f"{where}: the first trajectory drawn has {int(lengths[order[0]])} rows, more than max_rows={max_rows}. "
            "Raise max_rows."
        )
    return torch.isin(member, chosen).nonzero().flatten()


def _rule(split: str, seed: int) -> str:
    return {
        "random": f"rows at random (seed {seed})",
        "time": "rows in time order: first train, then val, then test",
        "group": f"whole groups at random (seed {seed})",
        "trajectory": f"whole trajectories at random (seed {seed})",
    }[split]


def _left_out(count: int, why: str) -> dict[str, int]:
    return {why: count} if count else {}
