"""Dividing rows into train, val and test: at random, in time order, or by whole groups. Labels play no part."""

from itertools import pairwise

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError

# Whole groups rarely add up to the fractions asked for; the nearest of this many seeded orders is taken.
_ATTEMPTS = 16


def split_rows(
    n: int, *, shuffle: bool, val_fraction: float, test_fraction: float, seed: int, where: str
) -> dict[str, Tensor]:
    """Row numbers of each part, ascending within a part.

    Args:
        n: number of rows.
        shuffle: deal the rows at random; otherwise the parts are the first, middle and last rows.
        val_fraction, test_fraction: share of the rows; a part of share 0 is left out.
        seed: of the shuffle.
        where: the source, for messages.

    Returns:
        int64 indices for "train" and, where asked for, "val" and "test"; each has at least one row.

    Raises:
        ConfigError: fractions outside [0, 1) or adding up to 1 or more.
        DataError: fewer rows than parts.
    """
    fractions = _fractions(val_fraction, test_fraction)
    if n < len(fractions):
        raise DataError(f"{where}: {n} rows cannot be divided into {', '.join(fractions)}. Add rows or drop a part.")
    counts = {name: max(1, round(n * share)) for name, share in fractions.items() if name != "train"}
    # Only a handful of rows can leave train empty through rounding: the larger part then gives one back.
    while (train := n - sum(counts.values())) < 1:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    order = torch.randperm(n, generator=_generator(seed)) if shuffle else torch.arange(n)
    parts = order.split([train, *counts.values()])
    return {name: part.sort().values for name, part in zip(fractions, parts, strict=True)}


def split_groups(
    groups: Tensor, *, val_fraction: float, test_fraction: float, seed: int, where: str, what: str, remedy: str
) -> dict[str, Tensor]:
    """Row numbers of each part such that no group is in two of them.

    Groups are shuffled by ``seed`` and dealt in that order; of several such orders the one whose row counts come
    nearest to the fractions is taken.

    Args:
        groups: int64, shape (rows,), the group of each row.
        val_fraction, test_fraction, seed, where: as in :func:`split_rows`.
        what: what a group is called, in the plural, for messages.
        remedy: what to do about too few of them, for messages.

    Returns:
        int64 indices as from :func:`split_rows`; each part has at least one group.

    Raises:
        ConfigError: as :func:`split_rows`.
        DataError: fewer groups than parts.
    """
    fractions = _fractions(val_fraction, test_fraction)
    _, member, lengths = groups.unique(return_inverse=True, return_counts=True)
    if len(lengths) < len(fractions):
        raise DataError(
            f"{where}: {len(lengths)} {what} cannot be dealt to {', '.join(fractions)} without cutting one. {remedy}"
        )
    targets = torch.tensor(list(fractions.values())).cumsum(0)[:-1] * len(groups)
    generator = _generator(seed)
    orders = [torch.randperm(len(lengths), generator=generator) for _ in range(_ATTEMPTS)]
    dealt = [(*_cut(lengths[order], targets), order) for order in orders]
    _, cuts, order = min(dealt, key=lambda deal: deal[0])
    part_of_group = torch.empty(len(lengths), dtype=torch.int64)
    bounds = [0, *cuts, len(lengths)]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        part_of_group[order[start:stop]] = number
    part_of_row = part_of_group[member]
    return {name: (part_of_row == number).nonzero().flatten() for number, name in enumerate(fractions)}


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse shares that leave nothing to train on; readers call it before they open a file.

    Raises:
        ConfigError: fractions outside [0, 1) or adding up to 1 or more.
    """
    for option, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= share < 1:
            raise ConfigError(f"{option}={share}: expected a share of the rows from 0 (no such part) to below 1.")
    if val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"val_fraction={val_fraction} and test_fraction={test_fraction} leave no rows to train on. Lower them."
        )


def _fractions(val_fraction: float, test_fraction: float) -> dict[str, float]:
    check_fractions(val_fraction, test_fraction)
    shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    return {name: share for name, share in shares.items() if share > 0}


def _cut(lengths: Tensor, targets: Tensor) -> tuple[float, list[int]]:
    """Where to cut a sequence of groups so that the rows before each cut come nearest to ``targets``.

    Returns:
        The sum of the distances, in rows, and the number of groups before each cut.
    """
    before = lengths.cumsum(0)
    error, cuts, low = 0.0, [], 1
    for number, target in enumerate(targets):
        high = len(lengths) - (len(targets) - number - 1) - 1  # one group for each later part
        distance = (before[low - 1 : high] - target).abs()
        nearest = int(distance.argmin())
        error += float(distance[nearest])
        cuts.append(low + nearest)
        low += nearest + 1
    return error, cuts


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
