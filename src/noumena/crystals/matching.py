"""Which crystals are the same: pymatgen's ``StructureMatcher`` under named criteria, fast, with a time limit each.

Three criteria, never to be mixed up in a table:

- ``original``: ltol 0.2, stol 0.3, angle 5 degrees, *every* site within stol (``StructureMatcher().fit``);
- ``field``: ltol 0.3, stol 0.5, angle 10 degrees, *root mean square* over sites within stol (``get_rms_dist`` is not
  ``None``): the criterion of CDVAE, DiffCSP and later work. Its r.m.s. is normalised by (V / N)^(1/3);
- ``strict``: ltol 0.05, stol 0.05, angle 1 degree, every site within stol (``fit``).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.libraries import pymatgen
from noumena.crystals.measures.cells import Cell
from noumena.crystals.measures.pairs import Answer, Task, answers
from noumena.crystals.measures.pool import run_tasks
from noumena.crystals.measures.search import Criterion

CRITERIA: Mapping[str, Criterion] = {
    "field": Criterion(0.3, 0.5, 10.0, "rms"),
    "original": Criterion(0.2, 0.3, 5.0, "max"),
    "strict": Criterion(0.05, 0.05, 1.0, "max"),
}
"""By name."""

WORDS: Mapping[str, str] = {
    "field": "field's criterion (ltol 0.3, stol 0.5, angle 10°, r.m.s.)",
    "original": "original's criterion (ltol 0.2, stol 0.3, angle 5°, maximum distance)",
    "strict": "strict criterion (ltol 0.05, stol 0.05, angle 1°, maximum distance)",
}
"""The criteria for captions."""

TIME_LIMIT = 10.0
"""Seconds for one pair; a pair takes about 10 milliseconds."""

# Below so many pairs they are compared in this process: starting a worker takes as long as comparing some hundred.
_INLINE = 64
_CHUNK = 16


@dataclass(frozen=True, eq=False)
class Matches:
    """What came of pairs of crystals.

    Attributes:
        matched: by criterion, bool, shape (pairs,). A pair that could not be compared is not matched.
        rms: of the criterion ``field``, in units of (V / N)^(1/3), float64, shape (pairs,); NaN where it did not match
            or was not asked for.
        failed: why a pair could not be compared: ``timeout``, ``invalid cell`` or ``error``; empty when it could.
        details: the same in words.
    """

    matched: Mapping[str, Tensor]
    rms: Tensor
    failed: tuple[str, ...]
    details: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.failed)

    def part(self, start: int, stop: int) -> "Matches":
        """The pairs from ``start`` to before ``stop``."""
        matched = {name: values[start:stop] for name, values in self.matched.items()}
        return Matches(matched, self.rms[start:stop], self.failed[start:stop], self.details[start:stop])

    @property
    def failures(self) -> dict[str, int]:
        """Number of pairs that could not be compared, by reason."""
        return {reason: self.failed.count(reason) for reason in sorted({*self.failed} - {""})}


def match(
    truth: CrystalBatch,
    found: CrystalBatch,
    *,
    criteria: Sequence[str] = ("field", "original", "strict"),
    workers: int | None = None,
    time_limit: float | None = TIME_LIMIT,
) -> Matches:
    """Whether each crystal of one batch is the same as the one at its place in another.

    Args:
        truth, found: as many crystals each.
        criteria: names of :data:`CRITERIA`.
        workers: processes; 0 compares in this one. ``None``: in this one for fewer than 64 pairs, else one for each
            core, but none for fewer than 64 pairs.
        time_limit: seconds for each pair, ``None`` for no limit. A worker that exceeds it is killed and replaced,
            whatever it is at. In this process the limit is looked at between the steps of the search, and one step (a
            reduction to the primitive cell of some hundred like atoms takes minutes) is not cut short.

    Raises:
        DataError: not as many crystals in one batch as in the other.
        ConfigError: an unknown criterion, or a number out of range.
        NotSupportedError: pymatgen is not installed.
    """
    if len(truth) != len(found):
        raise DataError(
            f"matching: {len(truth)} crystals and {len(found)}; expected one prediction for each. Leave out the "
            "crystals that have none, or use match_pairs."
        )
    numbers = torch.arange(len(truth))
    return match_pairs(
        truth, found, torch.stack([numbers, numbers], 1), criteria=criteria, workers=workers, time_limit=time_limit
    )


def match_pairs(
    first: CrystalBatch,
    second: CrystalBatch,
    pairs: Tensor,
    *,
    criteria: Sequence[str] = ("field", "original", "strict"),
    workers: int | None = None,
    time_limit: float | None = TIME_LIMIT,
) -> Matches:
    """Whether crystals of two batches are the same; as :func:`match`, for any pairs.

    Args:
        first, second: crystals.
        pairs: numbers of a crystal of ``first`` and one of ``second``, int64, shape (pairs, 2).
        criteria, workers, time_limit: see :func:`match`.

    Raises:
        ConfigError: an unknown criterion, or a number out of range.
        NotSupportedError: pymatgen is not installed.
    """
    _check(criteria, workers, time_limit)
    pymatgen("core")  # named early, and not from a worker
    chosen = {name: CRITERIA[name] for name in criteria}
    ones, others = cells_of(first), cells_of(second)
    wanted = [(int(a), int(b)) for a, b in pairs.tolist()]
    count = _processes(workers, len(wanted))
    size = _CHUNK if count else max(1, len(wanted))
    tasks = [
        _task(ones, others, wanted[start : start + size], chosen, time_limit) for start in range(0, len(wanted), size)
    ]
    replies = run_tasks(tasks, count) if count else [list(answers(task)) for task in tasks]
    return _matches([answer for reply in replies for answer in reply], chosen)


def cells_of(crystals: CrystalBatch) -> list[Cell]:
    """The crystals of a batch as arrays."""
    ends = crystals.offsets.tolist()
    lattice = crystals.lattice.detach().cpu().double().numpy()
    frac = crystals.frac_coords.detach().cpu().double().numpy()
    numbers = crystals.atom_types.detach().cpu().numpy().astype(np.int64)
    return [Cell(lattice[i], frac[start:end], numbers[start:end]) for i, (start, end) in enumerate(pairwise(ends))]


def _task(
    ones: Sequence[Cell],
    others: Sequence[Cell],
    pairs: Sequence[tuple[int, int]],
    criteria: Mapping[str, Criterion],
    limit: float | None,
) -> Task:
    """The pairs with the cells they need, each once."""
    left = {a: place for place, a in enumerate(dict.fromkeys(a for a, _ in pairs))}
    right = {b: len(left) + place for place, b in enumerate(dict.fromkeys(b for _, b in pairs))}
    cells = [*(ones[a] for a in left), *(others[b] for b in right)]
    return Task(cells, [(left[a], right[b]) for a, b in pairs], criteria, limit)


def _processes(workers: int | None, pairs: int) -> int:
    if workers is None:
        return min(os.cpu_count() or 1, pairs // _INLINE)
    return min(workers, -(-pairs // _CHUNK))


def _matches(found: Sequence[Answer], criteria: Mapping[str, Criterion]) -> Matches:
    def column(name: str) -> list[float | None]:
        return [answer.best.get(name) for answer in found]

    rms = [float("nan") if value is None else value for value in column("field")]
    return Matches(
        {name: torch.tensor([value is not None for value in column(name)], dtype=torch.bool) for name in criteria},
        torch.tensor(rms, dtype=torch.float64),
        tuple(answer.failed for answer in found),
        tuple(answer.detail for answer in found),
    )


def _check(criteria: Sequence[str], workers: int | None, time_limit: float | None) -> None:
    for name in criteria:
        if name not in CRITERIA:
            raise ConfigError(f"criteria: '{name}' is none. {did_you_mean(name, CRITERIA)}")
    if not criteria:
        raise ConfigError(f"criteria: expected one or more of {', '.join(CRITERIA)}, got none.")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: expected 0 or more, got {workers}.")
    if time_limit is not None and not time_limit > 0:
        raise ConfigError(f"time_limit: expected seconds above 0, or None, got {time_limit}.")
