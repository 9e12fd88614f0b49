"""Nearest crystals by their vectors, and whether near ones are of one structure type."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import gcd
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.core.preprocessing import Standardizer
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.libraries import moyopy

Metric = Literal["euclidean", "standardised", "cosine"]

SYMPREC = 0.1
"""Tolerance in angstrom that structure types are told at: relaxed structures are rarely exact."""

# The search may take hours at looser ones.
_LOOSEST = 0.5  # angstrom
_BLOCK = 1 << 24  # distances in memory at a time


@dataclass(frozen=True)
class Nearest:
    """The nearest of a set of crystals to each of some.

    Attributes:
        index: their numbers, nearest first, int64, shape (queries, k).
        distance: shape (queries, k), in the unit of the metric.
    """

    index: Tensor
    distance: Tensor


class NearestCrystals:
    """Crystals to look for neighbours among, by any vector of fixed size."""

    def __init__(self, vectors: Tensor, metric: Metric = "euclidean") -> None:
        """
        Args:
            vectors: of the crystals, shape (crystals, size).
            metric: ``euclidean``; the same with each number in units of its standard deviation (``standardised``); or 1
                less the cosine of the angle between vectors from their mean (``cosine``).

        Raises:
            ConfigError: an unknown metric.
            DataError: no vectors, or a number that is not finite.
        """
        if metric not in get_args(Metric):
            raise ConfigError(f"metric '{metric}' is unknown. {did_you_mean(metric, get_args(Metric))}")
        if vectors.ndim != 2 or len(vectors) == 0:
            raise DataError(
                f"neighbours: expected vectors of shape (crystals, size) of one crystal at least, got shape "
                f"{tuple(vectors.shape)}."
            )
        if bool((bad := ~torch.isfinite(vectors).all(1)).any()):
            raise DataError(
                f"neighbours: the vector of crystal {int(bad.nonzero()[0])} is not finite. Leave the crystal out."
            )
        self.metric: Metric = metric
        self._scale = Standardizer(vectors.shape[1]).to(vectors.device, vectors.dtype)
        self._scale.fit(vectors)
        self._vectors = self._placed(vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def _placed(self, vectors: Tensor) -> Tensor:
        """Where the metric is Euclid's, up to a factor."""
        if self.metric == "standardised":
            return self._scale(vectors)
        if self.metric == "cosine":
            return torch.nn.functional.normalize(vectors - self._scale.mean, dim=1)
        return vectors

    @torch.no_grad()
    def query(self, vectors: Tensor, k: int = 10, *, without: Tensor | None = None) -> Nearest:
        """The ``k`` nearest of the crystals to each of ``vectors``, equally near ones by number.

        Args:
            vectors: shape (queries, size).
            k: neighbours of each; fewer where the set is smaller.
            without: number of a crystal of the set that is no neighbour of each query, such as itself, or -1; int64,
                shape (queries,).

        Raises:
            ConfigError: ``k`` is below 1.
            DataError: another size than that of the set, or nothing left to find.
        """
        if k < 1:
            raise ConfigError(f"neighbours: expected k of at least 1, got {k}.")
        left = len(self) - (without is not None)
        if vectors.ndim != 2 or vectors.shape[1] != self._vectors.shape[1] or left < 1:
            raise DataError(
                f"neighbours: {len(self)} crystals with vectors of {self._vectors.shape[1]} numbers cannot be asked "
                f"with shape {tuple(vectors.shape)}; give (queries, {self._vectors.shape[1]}), and more crystals."
            )
        k = min(k, left)
        placed = self._placed(vectors)
        step = max(1, _BLOCK // len(self))
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(placed), step):
            distance = torch.cdist(
                placed[start : start + step], self._vectors, compute_mode="donot_use_mm_for_euclid_dist"
            )
            if without is not None:
                own = without[start : start + step]
                rows = (own >= 0).nonzero()[:, 0]
                distance[rows, own[rows]] = torch.inf
            nearest, index = torch.sort(distance, dim=1, stable=True)
            found.append((nearest[:, :k], index[:, :k]))
        distances = torch.cat([one for one, _ in found]) if found else vectors.new_zeros(0, k)
        index = torch.cat([one for _, one in found]) if found else torch.zeros(0, k, dtype=torch.int64)
        return Nearest(index, 0.5 * distances.square() if self.metric == "cosine" else distances)


def structure_types(batch: CrystalBatch, symprec: float = SYMPREC) -> tuple[str, ...]:
    """Structure type of each crystal, such as ``AB 225 4m-3m|4m-3m`` of rock salt; empty where no symmetry is found.

    The formula without the names of the elements, the space group, and for each element its orbits: sites in the
    conventional cell and their symmetry. Site symmetries instead of Wyckoff letters, because the letters of some groups
    depend on the origin (AFLOW's labels, Mehl et al. 2017, choose one). Blind to which element is where, and to how
    large a distortion is that keeps the symmetry.

    Args:
        batch: crystals in any cell, supercells too.
        symprec: how far an atom may be from where a symmetry takes another, in angstrom.

    Raises:
        ConfigError: ``symprec`` is not above 0 and at most 0.5.
        NotSupportedError: moyopy is not installed.
    """
    if not 0.0 < symprec <= _LOOSEST:
        raise ConfigError(f"symprec: expected angstroms above 0 and at most {_LOOSEST}, got {symprec}.")
    library = moyopy()
    types, frac = batch.atom_types.tolist(), batch.frac_coords.double().tolist()
    cells = zip(batch.lattice.double().tolist(), pairwise(batch.offsets.tolist()), strict=True)
    return tuple(_structure_type(library, cell, frac[i:j], types[i:j], symprec) for cell, (i, j) in cells)


def _structure_type(library: Any, lattice: Any, frac: Any, types: list[int], symprec: float) -> str:
    try:
        found = library.MoyoDataset(library.Cell(lattice, frac, types), symprec=symprec)
    except ValueError:  # no symmetry search succeeds: overlapping atoms, no volume
        return ""
    factor = len(found.std_cell.numbers) / len(types)
    sizes = Counter(found.orbits)
    orbits: dict[int, list[str]] = {}
    for orbit, size in sizes.items():
        name = f"{round(size * factor)}{found.site_symmetry_symbols[orbit].replace('.', '')}"
        orbits.setdefault(types[orbit], []).append(name)
    return f"{anonymous_formula(types)} {found.number} {'|'.join(sorted('+'.join(sorted(o)) for o in orbits.values()))}"


def anonymous_formula(types: Sequence[int]) -> str:
    """Counts of the elements in the smallest whole numbers, the smallest first, under the names A, B, ...: ``AB2``."""
    counts = sorted(Counter(types).values())
    unit = reduce(gcd, counts)
    return "".join(f"{_letter(place)}{count // unit if count > unit else ''}" for place, count in enumerate(counts))


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"{_letter(place // 26 - 1)}{_letter(place % 26)}"


def shared_types(index: Tensor, types: Sequence[str], of_queries: Sequence[str]) -> Tensor:
    """Share of each query's neighbours that are of its structure type, float64; NaN for queries without a type.

    Args:
        index: numbers of the neighbours, int64, shape (queries, k).
        types: of the crystals they are numbers of.
        of_queries: of the queries.

    Raises:
        DataError: another number of queries than of their types.
    """
    if len(of_queries) != len(index):
        raise DataError(f"shared types: {len(index)} queries with {len(of_queries)} types; give one each.")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name in types if name), start=1)}
    known = torch.tensor([numbers.get(name, 0) for name in types])
    # A type that no crystal of the set has is shared with none.
    asked = torch.tensor([numbers.get(name, -1) for name in of_queries])
    share = (known[index.cpu()] == asked[:, None]).double().mean(1)
    return share.masked_fill(torch.tensor([not name for name in of_queries]), torch.nan)
