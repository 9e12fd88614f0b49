"""Sparse data sets: a share of the trajectories that go through a region of actions and rewards is dropped."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from noumena.core.errors import ConfigError, DataError
from noumena.core.seeding import fold
from noumena.density.rl.transitions import check_out, open_transitions, step_facts, write_d4rl

_CELLS = 32
_CENTRAL = (1.0, 99.0)  # percentiles between which a mode is looked for
_HALF_WIDTH = 1.0 / 3.0  # of an inter-quartile range


class Box(NamedTuple):
    """A region of steps: the Euclidean length of the action and the reward, ends included."""

    least_action: float
    greatest_action: float
    least_reward: float
    greatest_reward: float


def sparse_dataset(
    path: str | Path,
    out: str | Path,
    *,
    box: Box | tuple[float, float, float, float] | None = None,
    fraction: float = 0.5,
    least_inside: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Drop a share of the trajectories that go through a box in (action length, reward); write the others.

    What is left has a hole that a policy may fall into, as the sparse sets of GORMPO have (Tumay et al., arXiv
    2605.24405: half of the trajectories through a region around one mode; 72 to 78 % of the steps stay).

    Args:
        path: a D4RL-layout .hdf5, .h5 or .npz file, a Minari folder, or ``sample:hopper``, with rewards.
        out: the .hdf5 or .h5 file in the D4RL layout; an existing one is replaced. Every array with an entry per
            transition is kept under its key (``infos/...`` too); of Minari sets the six that D4RL names.
        box: where the trajectories have to pass. By default around the densest mode, see :func:`densest_box`.
        fraction: share, of the trajectories through the box, that is dropped, at random.
        least_inside: share of a trajectory's steps that must lie in the box for it to go through. By default one step
            is enough with a box of your own; with the automatic one, through which most trajectories pass somewhere,
            it is the median over trajectories, so that half of them count.
        seed: of the choice.

    Returns:
        ``trajectories``, ``through`` and ``dropped`` of them, ``transitions``, ``kept`` of them, ``kept_share``,
        ``box``, ``least_inside`` and ``output``. The file has the choices as attributes.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is unfit, no trajectory goes through the box, or none would be left.
        ArtifactError: the file cannot be written.
    """
    _check_shares(fraction, least_inside)
    place = check_out(out, path, (".hdf5", ".h5"))
    source = open_transitions(path)
    actions, rewards, trajectories = step_facts(source, str(path))
    region = densest_box(actions, rewards) if box is None else _checked(box)
    inside = (actions >= region.least_action) & (actions <= region.greatest_action)
    inside &= (rewards >= region.least_reward) & (rewards <= region.greatest_reward)
    shares = np.bincount(trajectories, inside) / np.bincount(trajectories)
    if least_inside is None:
        least_inside = float(np.median(shares)) if box is None else 0.0
    through = np.flatnonzero((shares >= least_inside) & (shares > 0.0))
    dropped = _dropped(through, len(shares), fraction, seed, str(path), region)
    keep = ~np.isin(trajectories, dropped)
    choices = {"fraction": fraction, "seed": seed, "least_inside": least_inside}
    write_d4rl(place, source, keep, {"source": Path(path).name, "box": json.dumps(region._asdict()), **choices})
    return {
        "trajectories": len(shares),
        "through": len(through),
        "dropped": len(dropped),
        "transitions": len(keep),
        "kept": int(keep.sum()),
        "kept_share": float(keep.mean()),
        "box": region._asdict(),
        "least_inside": least_inside,
        "output": str(place),
    }


def densest_box(actions: np.ndarray, rewards: np.ndarray) -> Box:
    """A box around the densest mode of (action length, reward).

    Its centre is that of the fullest of 32 x 32 equal cells between the 1st and the 99th percentile of each; it reaches
    a third of the inter-quartile range to both sides, and at least to the edges of the cell.

    Args:
        actions: Euclidean lengths, shape (transitions,).
        rewards: shape (transitions,).
    """
    ranges = [tuple(np.percentile(values, _CENTRAL)) for values in (actions, rewards)]
    # Numpy widens a range without extent by a half to both sides.
    counts, *edges = np.histogram2d(actions, rewards, bins=_CELLS, range=ranges)
    fullest = np.unravel_index(int(counts.argmax()), counts.shape)
    ends: list[float] = []
    for values, edge, cell in zip((actions, rewards), edges, fullest, strict=True):
        low, high = np.percentile(values, [25, 75])
        half = _HALF_WIDTH * (high - low)
        centre = (edge[cell] + edge[cell + 1]) / 2
        # At least the cell itself, to the last bit: values may lie on its edge alone.
        ends += [float(min(centre - half, edge[cell])), float(max(centre + half, edge[cell + 1]))]
    return Box(*ends)


def _dropped(through: np.ndarray, trajectories: int, fraction: float, seed: int, where: str, box: Box) -> np.ndarray:
    """Numbers of the trajectories to drop, chosen among those ``through`` the box."""
    if not len(through):
        raise DataError(f"{where}: none of the {trajectories} trajectories goes through {box}. Widen the box.")
    count = round(fraction * len(through))
    if not 0 < count < trajectories:
        raise DataError(
            f"{where}: a share of {fraction:g} of the {len(through)} trajectories through the box is {count}, of "
            f"{trajectories} in all; expected to drop some and to keep some. Change fraction or box."
        )
    return np.random.default_rng(fold(seed)).choice(through, count, replace=False)


def _checked(box: Box | tuple[float, float, float, float]) -> Box:
    if len(box) != 4 or not np.isfinite(box).all() or box[0] > box[1] or box[2] > box[3]:
        raise ConfigError(
            f"box={tuple(box)}: expected the least and greatest action length, then the least and greatest reward."
        )
    return Box(*map(float, box))


def _check_shares(fraction: float, least_inside: float | None) -> None:
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"fraction={fraction}: expected a share in (0, 1].")
    if least_inside is not None and not 0.0 <= least_inside <= 1.0:
        raise ConfigError(f"least_inside={least_inside}: expected a share from 0 to 1.")
