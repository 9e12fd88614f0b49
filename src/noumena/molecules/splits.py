"""Dividing frames into train, val and test in blocks of time, so that what is tested was not nearly trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import check_fractions, split_groups, split_rows
from noumena.molecules.conformations import Conformations
from noumena.readers.common import check_choice

Rule = Literal["blocks", "time", "trajectory", "random"]

LEAST_FRAMES = 2
"""Frames to train on, at least: of a single one nothing varies."""


def check_division(split: Rule, blocks: int, val_fraction: float, test_fraction: float) -> None:
    """Refuse options that cannot be, before a file is opened.

    Raises:
        ConfigError: one is out of range.
    """
    check_choice("split", split, ("blocks", "time", "trajectory", "random"))
    check_fractions(val_fraction, test_fraction)
    parts = 1 + (val_fraction > 0) + (test_fraction > 0)
    if split == "blocks" and blocks < parts:
        raise ConfigError(f"blocks={blocks}: expected at least {parts}, one for each part.")


def divide(
    data: Conformations,
    *,
    split: Rule,
    blocks: int,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    where: str,
    about: Mapping[str, Any],
) -> Splits:
    """The parts of ``data``; see :func:`noumena.molecules.data.open_trajectory` for the options.

    Args:
        data: all frames, each trajectory in the order of time.
        where: the source, for messages.
        about: further facts.

    Raises:
        ConfigError: an option is out of range.
        DataError: fewer frames, blocks or trajectories than parts.
    """
    check_division(split, blocks, val_fraction, test_fraction)
    held = [name for name, share in (("val", val_fraction), ("test", test_fraction)) if share > 0]
    if held:  # else they are not divided, and may be there to be looked at
        _check_enough(len(data), held, where)
    if bool((data.trajectory.diff() < 0).any()):
        data = data.subset(data.trajectory.argsort(stable=True))
    shares: dict[str, Any] = {
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "where": where,
    }
    if split == "random":
        index = split_rows(len(data), shuffle=True, **shares)
        words = f"frames at random (seed {seed}); neighbours in time are nearly copies, so the test flatters"
    elif split == "trajectory":
        remedy = "Use split='blocks', or set a fraction to 0."
        index = split_groups(data.trajectory, what="trajectories", remedy=remedy, **shares)
        words = f"whole trajectories at random (seed {seed})"
    elif split == "time":
        index = _in_time(data.trajectory, shares)
        words = "each trajectory in time order: first train, then val, then test"
    else:
        number = time_blocks(data.trajectory, blocks)
        index = interleaved(number, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed, where=where)
        words = f"{int(number.max()) + 1} blocks of time, dealt in turns (seed {seed})"
    parts = {name: data.subset(rows) for name, rows in index.items()}
    if held and len(parts["train"]) < LEAST_FRAMES:
        raise DataError(
            f"{where}: dividing {len(data)} frames leaves {len(parts['train'])} to train on; {LEAST_FRAMES} are needed "
            "at least. Add frames, raise data.blocks, or hold out fewer (data.val_fraction, data.test_fraction)."
        )
    facts = {"source": where, "split": words, "frames": {name: len(part) for name, part in parts.items()}, **about}
    return Splits(parts["train"], parts.get("val"), parts.get("test"), {}, facts)


def _check_enough(frames: int, held: Sequence[str], where: str) -> None:
    least = LEAST_FRAMES + len(held)
    if frames >= least:
        return
    parts = "".join(f", one for {name}" for name in held)
    without = " ".join(f"data.{name}_fraction=0" for name in held)
    raise DataError(
        f"{where}: {frames} {'frame' if frames == 1 else 'frames'}; at least {least} are needed, {LEAST_FRAMES} to "
        f"train on{parts}. Add frames, or hold none out ({without}). For a distribution it takes hundreds."
    )


def time_blocks(trajectory: Tensor, blocks: int) -> Tensor:
    """The time block of each frame.

    Every trajectory is cut into consecutive blocks of about the same length, in proportion to its frames, and into
    one at least; no block goes over the end of a trajectory.

    Args:
        trajectory: int64, shape (frames,), of each frame; those of a trajectory stand together.
        blocks: how many to make of all trajectories together; more where there are more trajectories than that.

    Returns:
        int64, shape (frames,): numbers from 0 in the order of the frames.
    """
    _, lengths = trajectory.unique_consecutive(return_counts=True)
    share = (lengths.double() * blocks / len(trajectory)).round().long()
    each = torch.minimum(share.clamp_min(1), lengths)
    first_block = each.cumsum(0) - each
    start = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    within = torch.arange(len(trajectory)) - start
    block = torch.div(
        within * each.repeat_interleave(lengths), lengths.repeat_interleave(lengths), rounding_mode="floor"
    )
    return first_block.repeat_interleave(lengths) + block


def interleaved(
    block: Tensor, *, val_fraction: float, test_fraction: float, seed: int, where: str
) -> dict[str, Tensor]:
    """Whole blocks dealt so that those of every part are evenly spread over all of them.

    Args:
        block: int64, shape (frames,), numbers from 0.
        val_fraction, test_fraction: shares of the blocks.
        seed: of where in the sequence the first block of a part lies.
        where: the source, for messages.

    Returns:
        Frame numbers of each part, ascending; a part of share 0 is left out.

    Raises:
        ConfigError: as :func:`noumena.core.splits.check_fractions`.
        DataError: fewer blocks than parts.
    """
    check_fractions(val_fraction, test_fraction)
    count = int(block.max()) + 1
    wanted = {name: share for name, share in (("test", test_fraction), ("val", val_fraction)) if share > 0}
    if count <= len(wanted):
        raise DataError(
            f"{where}: {count} blocks of time cannot be dealt to train, {', '.join(wanted)}. Add frames, or set a "
            "fraction to 0."
        )
    sizes = {name: max(1, round(share * count)) for name, share in wanted.items()}
    while sum(sizes.values()) >= count:
        sizes[max(sizes, key=lambda name: sizes[name])] -= 1
    generator = torch.Generator().manual_seed(seed)
    left = torch.arange(count)
    part_of_block: dict[str, Tensor] = {}
    for name, size in sizes.items():
        phase = float(torch.rand((), generator=generator))
        taken = ((torch.arange(size) + phase) * len(left) / size).long()
        part_of_block[name] = left[taken]
        left = left[~torch.isin(torch.arange(len(left)), taken)]
    dealt = {"train": left, **{name: part_of_block[name] for name in ("val", "test") if name in part_of_block}}
    return {name: torch.isin(block, numbers).nonzero().flatten() for name, numbers in dealt.items()}


def _in_time(trajectory: Tensor, shares: Mapping[str, Any]) -> dict[str, Tensor]:
    """The first, middle and last frames of each trajectory."""
    _, lengths = trajectory.unique_consecutive(return_counts=True)
    starts = lengths.cumsum(0) - lengths
    parts: dict[str, list[Tensor]] = {}
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        for name, rows in split_rows(length, shuffle=False, **shares).items():
            parts.setdefault(name, []).append(rows + start)
    return {name: torch.cat(rows) for name, rows in parts.items()}
