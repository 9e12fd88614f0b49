"""Dividing crystals into train, val and test: at random, by composition, or by files; no crystal is in two parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import check_fractions, split_groups

Rule = Literal["random", "composition", "files"]

PARTS = ("train", "val", "test")
TRAIN, VAL, TEST, NOWHERE = 0, 1, 2, -1

# Names are taken for ids where at least this share of a file's names differ: blocks of a CIF file may all be "C".
_DISTINCT = 0.9


@dataclass(frozen=True)
class Division:
    """How much is held out, and how it is chosen; see :func:`noumena.crystals.data.open_crystals`.

    Raises:
        ConfigError: an option is out of range.
    """

    rule: Rule = "random"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    val_rows: int | None = None
    test_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fractions(self.val_fraction, self.test_fraction)
        for name, rows in (("val_rows", self.val_rows), ("test_rows", self.test_rows)):
            if rows is not None and rows < 1:
                raise ConfigError(f"{name}={rows}: expected at least 1; {name[:-5]}_fraction=0 leaves the part out.")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: expected a whole number of at least 0.")

    def counts(self, n: int) -> dict[str, int]:
        """Rows of val and of test among ``n``; 0 of a part that is left out, and else at least one."""
        asked = {"val": (self.val_fraction, self.val_rows), "test": (self.test_fraction, self.test_rows)}
        return {
            name: 0 if share == 0 else max(1, round(n * share)) if rows is None else rows
            for name, (share, rows) in asked.items()
        }


def drawn(keys: Tensor, division: Division, wanted: Mapping[str, bool], where: str) -> tuple[Tensor, str]:
    """The part of each row, some of them held out by a rule.

    At random, the rows of ``numpy.random.default_rng(seed).permutation(rows)`` are taken in turn, first the test and
    then val, so that the same parts are made anywhere. By composition, crystals of the same reduced composition are in
    the same part, and the counts asked for are met about.

    Args:
        keys: int64, shape (rows,), one number for each reduced composition.
        division: how.
        wanted: whether "val" and "test" are to be drawn.
        where: the source, for messages.

    Returns:
        int64, shape (rows,), numbers of ``PARTS``; and the rule in words.

    Raises:
        DataError: too few rows, or compositions, for the parts.
    """
    n = len(keys)
    counts = {name: count if wanted[name] else 0 for name, count in division.counts(n).items()}
    part = torch.full((n,), TRAIN, dtype=torch.int64)
    if sum(counts.values()) >= n:
        raise DataError(
            f"{where}: {n} crystals cannot give {counts['val']} of val and {counts['test']} of test and some to train "
            "on. Ask for less (val_rows, test_rows, val_fraction, test_fraction) or add crystals."
        )
    if not any(counts.values()):
        return part, ""
    if division.rule == "composition":
        remedy = "Use split='random', or set a fraction to 0."
        shares = {f"{name}_fraction": count / n for name, count in counts.items()}
        found = split_groups(
            keys, **shares, seed=division.seed, where=where, what="reduced compositions", remedy=remedy
        )
        for name, rows in found.items():
            part[rows] = PARTS.index(name)
        return part, f"whole reduced compositions at random (seed {division.seed})"
    order = torch.from_numpy(np.random.default_rng(division.seed).permutation(n))
    test, val = counts["test"], counts["val"]
    part[order[:test]] = TEST
    part[order[test : test + val]] = VAL
    pieces = [f"{count:,} rows of {name}" for name, count in (("test", test), ("val", val)) if count]
    return part, f"at random, {' then '.join(pieces)} of {n:,} in the order of seed {division.seed}"


def identities(names: tuple[str, ...], keys: Tensor, source: Tensor) -> Tensor:
    """A number for each crystal, the same for those with the same name and reduced composition.

    Names are taken for ids in files in which nearly all of them differ; in others each crystal is one of its own.

    Args:
        names: of the crystals, or none.
        keys: int64, shape (crystals,), of the compositions.
        source: int64, shape (crystals,), which file each is of.
    """
    if not names:
        return torch.arange(len(keys))
    _, name = np.unique(np.asarray(names), return_inverse=True)
    pairs = torch.stack([torch.from_numpy(name.reshape(-1).astype(np.int64)), keys], 1)
    _, found = pairs.unique(dim=0, return_inverse=True)
    own = torch.arange(len(keys)) + int(found.max()) + 1
    for file in source.unique():
        rows = source == file
        if len(pairs[rows, 0].unique()) < _DISTINCT * int(rows.sum()):
            found = torch.where(rows, own, found)
    return found


def without_duplicates(part: Tensor, identity: Tensor, source: Tensor) -> tuple[Tensor, dict[str, int]]:
    """Each crystal in one part and from one file: test before val before train, an earlier file before a later one.

    Args:
        part: of each row, int64, shape (rows,); ``NOWHERE`` where it is left out.
        identity: of each row, see :func:`identities`.
        source: file of each row.

    Returns:
        The parts, and how many rows were left out for either reason.
    """
    n = int(identity.max()) + 1
    last = torch.full((n,), NOWHERE, dtype=torch.int64).scatter_reduce(0, identity, part, "amax")
    elsewhere = (part != NOWHERE) & (part < last[identity])
    kept = torch.where(elsewhere, NOWHERE, part)
    far = int(source.max()) + 1
    first = torch.full((n,), far, dtype=torch.int64)
    first = first.scatter_reduce(0, identity, torch.where(kept == NOWHERE, far, source), "amin")
    again = (kept != NOWHERE) & (source > first[identity])
    counts = {
        "in another part by the same id": int(elsewhere.sum()),
        "in an earlier file by the same id": int(again.sum()),
    }
    return torch.where(again, NOWHERE, kept), {words: count for words, count in counts.items() if count}


def overlap(part: Tensor, keys: Tensor) -> dict[str, str]:
    """In words, how many held-out crystals have the reduced composition of a training crystal."""
    known = keys[part == TRAIN]
    found: dict[str, str] = {}
    for number in (VAL, TEST):
        rows = keys[part == number]
        if len(rows):
            count = int(torch.isin(rows, known).sum())
            found[PARTS[number]] = f"{count:,} of {len(rows):,} ({100 * count / len(rows):.1f} %)"
    return found
