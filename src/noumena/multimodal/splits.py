"""Dividing observations into train, val and test, hiding some of them in training, and the facts about it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import check_fractions, split_groups, split_rows
from noumena.multimodal.modality import Modality
from noumena.multimodal.observations import Observations
from noumena.readers.common import check_choice

Rule = Literal["group", "random", "time"]


@dataclass(frozen=True)
class Division:
    """How to divide; the options that the ``open_*`` functions have in common, see there.

    Raises:
        ConfigError: one of them is out of range, or groups are asked for and none are named.
    """

    split: Rule | None
    val_fraction: float
    test_fraction: float
    max_rows: int | None
    missing_fraction: float
    seed: int

    def __post_init__(self) -> None:
        if self.split is not None:
            check_choice("split", self.split, ("group", "random", "time"))
        check_fractions(self.val_fraction, self.test_fraction)
        if self.max_rows is not None and self.max_rows < 1:
            raise ConfigError(f"max_rows={self.max_rows}: expected at least one row, or none for all of them.")
        if not 0 <= self.missing_fraction < 1:
            raise ConfigError(
                f"missing_fraction={self.missing_fraction}: expected a share of the entries from 0 to below 1."
            )


def divide(data: Observations, division: Division, where: str, test: Observations | None = None) -> Splits:
    """The parts of ``data``, and facts about them.

    Args:
        data: all rows.
        division: how.
        where: the source, for messages.
        test: rows of a test set made by others; then ``data`` are divided into train and val only.

    Raises:
        ConfigError: more is to be hidden than rows can spare, or groups are asked for and none are known.
        DataError: fewer rows or groups than parts.
    """
    rule = division.split or ("random" if data.groups is None else "group")
    if rule == "group" and data.groups is None:
        raise ConfigError("split='group' needs to know the groups: pass group='name of the array'.")
    used = _at_most(data, rule, division, where)
    shares: dict[str, Any] = {
        "val_fraction": division.val_fraction,
        "test_fraction": division.test_fraction if test is None else 0.0,
        "seed": division.seed,
        "where": where,
    }
    if rule == "group" and used.groups is not None:
        remedy = "Use split='random' or 'time', or set a fraction to 0."
        index = split_groups(used.groups, what="groups", remedy=remedy, **shares)
    else:
        index = split_rows(len(used), shuffle=rule == "random", **shares)
    parts = {name: used.subset(rows) for name, rows in index.items()}
    if test is not None:
        parts["test"] = test
    if division.missing_fraction:
        parts["train"] = hide(parts["train"], division.missing_fraction, division.seed)
    left_out = {"rows beyond max_rows": len(data) - len(used)} if len(used) < len(data) else {}
    about = {"source": where, "split": _in_words(rule, division.seed), **_counts(parts), "left_out": left_out}
    if division.missing_fraction:
        about["hidden_in_training"] = f"{division.missing_fraction:.0%} of the entries, at random"
    return Splits(parts["train"], parts.get("val"), parts.get("test"), {}, about)


def hide(data: Observations, fraction: float, seed: int) -> Observations:
    """The same rows with a share of their modalities hidden at random; every row keeps at least one.

    Args:
        data: rows.
        fraction: share of the entries (row, modality) that are there.
        seed: of the choice.

    Raises:
        ConfigError: the rows cannot spare as many.
    """
    shape = (len(data), len(data.modalities))
    present = torch.ones(shape, dtype=torch.bool) if data.present is None else data.present.clone()
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(shape, generator=generator).masked_fill(~present, -1.0)
    spare = present.clone()
    spare[torch.arange(len(data)), order.argmax(1)] = False  # what every row keeps
    entries, available = int(present.sum()), int(spare.sum())
    count = round(fraction * entries)
    if count > available:
        raise ConfigError(
            f"missing_fraction={fraction:g}: every row keeps one modality, so at most {available / entries:.3g} of the "
            "entries can be hidden. Lower it."
        )
    candidates = spare.flatten().nonzero().flatten()
    chosen = candidates[torch.randperm(available, generator=generator)[:count]]
    present.view(-1)[chosen] = False
    columns = present.repeat_interleave(torch.tensor([modality.size for modality in data.modalities]), 1)
    return replace(data, values=data.values.masked_fill(~columns, 0.0), present=present)


def in_words(modality: Modality) -> str:
    """Size, kind and units."""
    units = [unit for unit in dict.fromkeys(modality.units) if unit]
    kind = "" if modality.kind == "vector" else f", {modality.kind}"
    return f"{modality.size} numbers{kind}{' in ' + ' and '.join(units) if units else ''}"


def _at_most(data: Observations, rule: Rule, division: Division, where: str) -> Observations:
    """``max_rows`` of the rows: whole groups or single rows at random, or the first ones in time."""
    limit = division.max_rows
    if limit is None or limit >= len(data):
        return data
    generator = torch.Generator().manual_seed(division.seed)
    if rule == "time":
        return data.subset(torch.arange(limit))
    if rule == "random" or data.groups is None:
        return data.subset(torch.randperm(len(data), generator=generator)[:limit].sort().values)
    _, member, lengths = data.groups.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(lengths), generator=generator)
    chosen = order[lengths[order].cumsum(0) <= limit]
    if not len(chosen):
        raise DataError(
            f"{where}: the first group drawn has {int(lengths[order[0]])} rows, more than max_rows={limit}. Raise "
            "max_rows."
        )
    return data.subset(torch.isin(member, chosen).nonzero().flatten())


def _counts(parts: Mapping[str, Observations]) -> dict[str, Any]:
    facts: dict[str, Any] = {"rows": {name: len(part) for name, part in parts.items()}}
    groups = {name: len(part.groups.unique()) for name, part in parts.items() if part.groups is not None}
    if groups:
        facts["groups"] = groups
    modalities = parts["train"].modalities
    for number, modality in enumerate(modalities):
        missing = {name: _without(part.present, number) for name, part in parts.items()}
        if any(missing.values()):
            facts[f"rows_without_{modality.name}"] = missing
    facts["modalities"] = {modality.name: in_words(modality) for modality in modalities}
    return facts


def _without(present: Tensor | None, number: int) -> int:
    return 0 if present is None else int((~present[:, number]).sum())


def _in_words(rule: Rule, seed: int) -> str:
    return {
        "random": f"rows at random (seed {seed})",
        "time": "rows in time order: first train, then val, then test",
        "group": f"whole groups at random (seed {seed})",
    }[rule]
