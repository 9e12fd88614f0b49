"""How good sampled crystals are: valid, unique, novel, and spread as the data are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import composition_keys, counts_of
from noumena.crystals.elements import MASSES
from noumena.crystals.fingerprints import composition_features, feature_distances, structure_features
from noumena.crystals.matching import TIME_LIMIT, match_pairs
from noumena.crystals.measures.distances import nearest_distance, valid_cells
from noumena.crystals.validity import compositional_validity, structural_validity, validity

COVERAGE_LIMITS = (0.25, 0.25)
"""Differences of structure and of composition features below which one crystal covers another. Two crystals of MP-20 at
random are 0.53 and 0.79 apart (medians); 85 % of its crystals are covered by 4,000 others."""

SAME = "original"
"""Criterion of :mod:`noumena.crystals.matching` by which samples are unique and novel (pymatgen's defaults)."""

MOST_COMPARED = 50
"""Crystals of one composition that a crystal is compared with; of more, those with the nearest structure features."""

_GRAMS = 1.66053906660  # u per cubic angstrom in g/cm^3


@dataclass(frozen=True, eq=False)
class Generation:
    """What was measured of samples.

    Attributes:
        values: plain numbers, see :func:`generation`.
        valid: both structure and composition, bool, shape (samples,).
        unique: a cell that equals no earlier sample, bool, shape (samples,).
        novel: a cell that equals no training crystal, bool, shape (samples,).
    """

    values: Mapping[str, float]
    valid: Tensor
    unique: Tensor
    novel: Tensor


def generation(
    samples: CrystalBatch,
    train: CrystalBatch,
    reference: CrystalBatch,
    *,
    workers: int | None = None,
    time_limit: float | None = TIME_LIMIT,
) -> Generation:
    """Measure samples against training crystals (novelty) and held-out ones (coverage, distributions).

    Args:
        samples, train, reference: crystals.
        workers, time_limit: of the comparisons, see :func:`noumena.crystals.matching.match`.

    Returns:
        Values: those of :func:`~noumena.crystals.validity.validity`, :func:`coverage` and
        :func:`distribution_distances`; ``elements`` and ``atoms`` per crystal (means) and ``elements_reference``;
        ``cells``, the share that are cells at all; ``unique``, ``novel``, ``unique_novel`` and ``valid_unique_novel``,
        shares of all samples, so that what is no cell is none of them; ``novel_composition``, the share whose reduced
        formula is no training crystal's; ``comparison_failures``, pairs that could not be compared and count as
        different.

    Raises:
        DataError: no samples.
        NotSupportedError: pymatgen or smact is not installed.
    """
    if not len(samples):
        raise DataError("generation: no samples to measure; expected one or more.")
    samples, train, reference = (replace(part, names=()).to("cpu") for part in (samples, train, reference))
    unique, novel, failures = unique_and_novel(samples, train, workers=workers, time_limit=time_limit)
    valid = structural_validity(samples) & compositional_validity(samples)
    new = ~torch.isin(composition_keys(samples), composition_keys(train))
    shares = {
        "cells": valid_cells(samples),
        "unique": unique,
        "novel": novel,
        "unique_novel": unique & novel,
        "valid_unique_novel": valid & unique & novel,
        "novel_composition": new,
    }
    values = validity(samples) | {name: float(share.double().mean()) for name, share in shares.items()}
    values |= {
        "elements": float(elements_of(samples).double().mean()),
        "elements_reference": float(elements_of(reference).double().mean()),
        "atoms": float(samples.num_atoms.double().mean()),
        "comparison_failures": float(failures),
    }
    values |= coverage(samples, reference) | distribution_distances(samples, reference)
    return Generation(values, valid, unique, novel)


def unique_and_novel(
    samples: CrystalBatch,
    train: CrystalBatch,
    *,
    workers: int | None = None,
    time_limit: float | None = TIME_LIMIT,
) -> tuple[Tensor, Tensor, int]:
    """Which samples equal no earlier sample, and which no training crystal; and the pairs that were not comparable.

    Only crystals of one reduced composition are compared, by the criterion :data:`SAME`; sameness is not transitive, so
    a sample is held against all earlier ones that are unique themselves (as ``group_structures`` of pymatgen does).

    Returns:
        unique, novel: bool, shape (samples,); false for what is no cell.
        failures: number of pairs.
    """
    samples, train = (replace(part, names=()).to("cpu", torch.float64) for part in (samples, train))
    both = CrystalBatch.cat([samples, train])
    n, cells = len(samples), valid_cells(samples)
    pairs = _alike(both, n, cells)
    found = match_pairs(both, both, pairs, criteria=(SAME,), workers=workers, time_limit=time_limit)
    same = pairs[found.matched[SAME]]
    known = same[same[:, 1] >= n, 0]
    novel = cells.clone()
    novel[known] = False
    unique = cells.clone()
    earlier: dict[int, list[int]] = {}
    for later, first in same[same[:, 1] < n].tolist():
        earlier.setdefault(later, []).append(first)
    for later in sorted(earlier):
        unique[later] &= not any(bool(unique[first]) for first in earlier[later])
    return unique, novel, sum(found.failures.values())


def _alike(both: CrystalBatch, n: int, cells: Tensor) -> Tensor:
    """Pairs (sample, earlier sample or training crystal) of one composition, int64, shape (pairs, 2)."""
    keys = composition_keys(both)
    usable = torch.cat([cells, torch.ones(len(both) - n, dtype=torch.bool)])
    usable &= torch.isin(keys, keys[:n][cells])
    members: dict[int, list[int]] = {}
    for number, key in zip(usable.nonzero()[:, 0].tolist(), keys[usable].tolist(), strict=True):
        members.setdefault(key, []).append(number)
    pairs: list[tuple[int, int]] = []
    for group in members.values():
        pairs += _pairs_of(both, group, n)
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def _pairs_of(both: CrystalBatch, group: list[int], n: int) -> list[tuple[int, int]]:
    drawn, known = [i for i in group if i < n], [i for i in group if i >= n]
    found: list[tuple[int, int]] = []
    for others, earlier in ((drawn, True), (known, False)):
        if len(others) <= MOST_COMPARED:
            found += [(i, j) for i in drawn for j in others if not earlier or j < i]
            continue
        apart = feature_distances(*(structure_features(both.select(torch.tensor(part))) for part in (drawn, others)))
        if earlier:
            apart = apart.masked_fill(torch.tensor(others)[None] >= torch.tensor(drawn)[:, None], torch.inf)
        nearest = apart.topk(MOST_COMPARED, dim=1, largest=False)
        for i, places, far in zip(drawn, nearest.indices.tolist(), nearest.values.isinf().tolist(), strict=True):
            found += [(i, others[place]) for place, no in zip(places, far, strict=True) if not no]
    return found


def coverage(samples: CrystalBatch, reference: CrystalBatch) -> dict[str, float]:
    """How much of the data samples cover, and how much of the samples lies where data are.

    The idea of COV-R and COV-P of CDVAE (Xie et al. 2022) with this module's own features and limits
    (:mod:`noumena.crystals.fingerprints`, :data:`COVERAGE_LIMITS`): not CDVAE's numbers, and to be compared only with
    values of this function.

    Returns:
        ``coverage_recall``: share of the reference crystals that have a sample within both limits;
        ``coverage_precision``: share of the samples that have a reference crystal.
    """
    structure = feature_distances(structure_features(reference), structure_features(samples))
    composition = feature_distances(composition_features(reference), composition_features(samples))
    near = (structure < COVERAGE_LIMITS[0]) & (composition < COVERAGE_LIMITS[1])
    return {
        "coverage_recall": float(near.any(1).double().mean()),
        "coverage_precision": float(near.any(0).double().mean()),
    }


def elements_of(crystals: CrystalBatch) -> Tensor:
    """Number of different elements of each crystal, int64, shape (crystals,)."""
    return (counts_of(crystals) > 0).sum(1)


def density_of(crystals: CrystalBatch) -> Tensor:
    """In g/cm^3, float64, shape (crystals,)."""
    masses = torch.tensor(MASSES, dtype=torch.float64)
    return _GRAMS * (counts_of(crystals).cpu().double() @ masses) / crystals.volume.cpu().double()


def distributions(crystals: CrystalBatch) -> dict[str, Tensor]:
    """What samples and data are compared in, of the crystals that are cells; float64, shape (cells,) each: ``density``
    in g/cm^3, ``volume`` per atom in cubic angstrom, ``elements`` and ``atoms`` per crystal, ``nearest`` distance in
    angstrom.
    """
    kept = replace(crystals, names=()).to("cpu").select(valid_cells(crystals).cpu())
    return {
        "density": density_of(kept),
        "volume": kept.volume.double() / kept.num_atoms,
        "elements": elements_of(kept).double(),
        "atoms": kept.num_atoms.double(),
        "nearest": nearest_distance(kept),
    }


def distribution_distances(samples: CrystalBatch, reference: CrystalBatch) -> dict[str, float]:
    """Wasserstein-1 distances ``w1_density`` (g/cm^3), ``w1_volume`` (cubic angstrom per atom), ``w1_elements``,
    ``w1_atoms``, ``w1_nearest`` (angstrom) of samples to the reference, of what are cells; empty without any.
    """
    one, other = distributions(samples), distributions(reference)
    pairs = {name: (values, other[name]) for name, values in one.items()}
    return {f"w1_{name}": wasserstein(a, b) for name, (a, b) in pairs.items() if len(a) and len(b)}


def wasserstein(first: Tensor, second: Tensor) -> float:
    r"""Wasserstein-1 distance of two sets of numbers, :math:`\int |F_1 - F_2|`; NaN are left out.

    Args:
        first, second: shapes (n,) and (m,).

    Returns:
        In the unit of the numbers; NaN when a set is empty.
    """
    one, two = (np.sort(part[~part.isnan()].double().numpy()) for part in (first, second))
    if not len(one) or not len(two):
        return math.nan
    grid = np.sort(np.concatenate([one, two]))
    below = [np.searchsorted(part, grid[:-1], side="right") / len(part) for part in (one, two)]
    return float((np.abs(below[0] - below[1]) * np.diff(grid)).sum())
