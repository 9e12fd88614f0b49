"""The search for the best match of two crystals, with the results of pymatgen's ``StructureMatcher``.

The matcher (Ong et al. 2013, Comput. Mater. Sci. 68, 314) compares primitive Niggli cells scaled to one volume: each
lattice of the first within ``ltol`` and ``angle_tol`` of the second, each translation that lays a site of the rarest
element on one of its kind, then an assignment of sites that minimises the sum of squared distances. This is the same
search stated on arrays: cells are reduced once for all criteria, all lattices are handled at a time, and what fails
under the widest tolerance is not tried under a narrower one (tolerances only ever admit more). The distances come from
pymatgen's own compiled functions.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from noumena.crystals.libraries import pymatgen
from noumena.crystals.measures.cells import Cell, Floats, InvalidCell, Whole, box

_CANDIDATES = 20_000_000  # pairs of lattice points that are looked at
_SAME = 1e-5  # a normalised r.m.s. that needs no further search (as in pymatgen)


class TimeLimit(Exception):
    """The search did not end in time."""


@dataclass(frozen=True)
class Criterion:
    """When two crystals are the same.

    Attributes:
        ltol: fraction by which lengths of cell vectors may differ.
        stol: distance of sites, as a fraction of (V / N)^(1/3).
        angle_tol: degrees by which angles of the cell may differ.
        statistic: what ``stol`` bounds: ``"max"`` the distance of every site (``StructureMatcher.fit``), ``"rms"`` the
            root mean square over sites (``StructureMatcher.get_rms_dist``).
    """

    ltol: float
    stol: float
    angle_tol: float
    statistic: Literal["max", "rms"]


@dataclass(frozen=True)
class Candidates:
    """Lattices of the first crystal that are near to the second one's cell.

    Attributes:
        frac: fractional coordinates of the first crystal in each of them, in [0, 1), shape (candidates, atoms, 3).
        average: the cell between each of them and the second one's, shape (candidates, 3, 3).
        length: 1 + the largest relative difference of a length, shape (candidates,).
        angle: largest difference of an angle in degrees, shape (candidates,).
    """

    frac: Floats
    average: Floats
    length: Floats
    angle: Floats


def search(
    first: Cell, second: Cell, criteria: Mapping[str, Criterion], limit: float | None = None
) -> dict[str, float | None]:
    """The statistic of the best match under each criterion, ``None`` where there is none.

    Args:
        first, second: crystals of one composition, reduced (:func:`noumena.crystals.measures.cells.reduced`).
        criteria: by name.
        limit: seconds. Looked at between the steps of the search.

    Returns:
        By name, in units of (V / N)^(1/3). For ``"rms"`` the smallest r.m.s. of all matches, as ``get_rms_dist`` gives
        it; for ``"max"`` the largest distance of the first match found, as ``fit`` stops there.

    Raises:
        InvalidCell: so skewed a cell that the search would not end.
        TimeLimit: the search did not end in time.
    """
    best: dict[str, float | None] = dict.fromkeys(criteria)
    mask = first.numbers[None, :] != second.numbers[:, None]  # (second's atoms, first's atoms)
    if mask.shape[0] != mask.shape[1] or not np.array_equal(np.sort(first.numbers), np.sort(second.numbers)):
        return best
    deadline = None if limit is None else time.monotonic() + limit
    ratio = (second.volume / first.volume) ** (1.0 / 6.0)
    one = Cell(first.lattice * ratio, first.frac, first.numbers)
    two = Cell(second.lattice / ratio, second.frac, second.numbers)
    widest = Criterion(
        max(each.ltol for each in criteria.values()),
        max(each.stol for each in criteria.values()),
        max(each.angle_tol for each in criteria.values()),
        "rms",
    )
    return _Search(two, mask, candidates(one, two, widest), criteria, widest, deadline).run(best)


class _Search:
    """The loop over lattices and translations, and what it needs."""

    def __init__(
        self,
        two: Cell,
        mask: NDArray[np.bool_],
        found: Candidates,
        criteria: Mapping[str, Criterion],
        widest: Criterion,
        deadline: float | None,
    ) -> None:
        self.criteria, self.widest, self.deadline, self.found = criteria, widest, deadline, found
        self.two, self.atoms = two, len(two.numbers)
        self.mask = np.ascontiguousarray(mask, np.int64)
        # The site of the second crystal with the fewest counterparts, and those.
        self.site = int(np.argmax(mask.sum(1)))
        self.counterparts = np.flatnonzero(~mask[self.site])
        self.reduced = _is_lll_reduced(found.average)
        self.coord: Any = pymatgen("util.coord_cython")
        self.size: Floats = (self.atoms / np.abs(np.linalg.det(found.average))) ** (1.0 / 3.0)  # 1 / (V / N)^(1/3)
        self.reciprocal = _reciprocal(found.average)

    def run(self, best: dict[str, float | None]) -> dict[str, float | None]:
        """Fill in ``best``."""
        for number in range(len(self.size)):
            frac = np.ascontiguousarray(self.found.frac[number])
            average: _Average | None = None
            for shift in frac[self.counterparts] - self.two.frac[self.site]:
                moved = self.two.frac + shift
                if not self._within(moved, frac, number, self.widest):
                    continue
                if average is None:
                    matrix, reciprocal = self.found.average[number], self.reciprocal[number]
                    average = _Average(matrix, reciprocal, bool(self.reduced[number]))
                self._try(best, moved, frac, number, average)
                if self._done(best):
                    return best
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise TimeLimit
        return best

    def _try(
        self, best: dict[str, float | None], moved: Floats, frac: Floats, number: int, average: "_Average"
    ) -> None:
        for name, each in self.criteria.items():
            value = best[name]
            if each.statistic == "max" and value is not None:
                continue
            if self.found.length[number] >= 1.0 + each.ltol or self.found.angle[number] > each.angle_tol:
                continue
            if each.stol < self.widest.stol and not self._within(moved, frac, number, each):
                continue
            found = self._distance(moved, frac, number, each, average)
            if found < each.stol and (value is None or found < value):
                best[name] = found

    def _done(self, best: Mapping[str, float | None]) -> bool:
        return all(
            value is not None and (self.criteria[name].statistic == "max" or value < _SAME)
            for name, value in best.items()
        )

    def _within(self, moved: Floats, frac: Floats, number: int, each: Criterion) -> bool:
        """Whether every site has one of its kind within twice ``stol`` along each axis."""
        tolerance = 2.0 * each.stol * self.reciprocal[number] / self.size[number]
        return bool(self.coord.is_coord_subset_pbc(moved, frac, tolerance, self.mask))

    def _distance(self, moved: Floats, frac: Floats, number: int, each: Criterion, average: "_Average") -> float:
        size = self.size[number]
        vectors, squares = self.coord.pbc_shortest_vectors(
            average.cell, moved, frac, self.mask, True, 2.0 * each.stol * average.reciprocal / size
        )
        rows, columns = linear_sum_assignment(squares)
        chosen = vectors[rows, columns]
        chosen = chosen - chosen.sum(0) / self.atoms
        off = (chosen * chosen).sum(1)  # squared distances
        return size * float(off.sum() / self.atoms if each.statistic == "rms" else off.max()) ** 0.5


@cache
def _lattice_class() -> Any:
    """A lattice of pymatgen that is told its LLL-reduced cell instead of finding it at each use."""

    def told(name: str) -> property:
        def value(self: Any) -> Floats:
            return self.lll[name]

        return property(value)

    names = ("lll_matrix", "lll_mapping", "lll_inverse")
    return type("Average", (pymatgen("core").Lattice,), {name: told(name) for name in names})


class _Average:
    """An average cell as pymatgen's object, and the lengths of its LLL-reduced reciprocal vectors without 2 pi."""

    def __init__(self, matrix: Floats, reciprocal: Floats, is_reduced: bool) -> None:
        self.cell = _lattice_class()(matrix)
        if is_reduced:
            one = np.eye(3)
            self.cell.lll = {"lll_matrix": matrix, "lll_mapping": one, "lll_inverse": one}
            self.reciprocal = reciprocal
            return
        plain = pymatgen("core").Lattice(matrix)
        mapping, lll = np.asarray(plain.lll_mapping), np.asarray(plain.lll_matrix)
        self.cell.lll = {"lll_matrix": lll, "lll_mapping": mapping, "lll_inverse": np.linalg.inv(mapping)}
        self.reciprocal = _reciprocal(lll[None])[0]


def _is_lll_reduced(lattice: Floats) -> NDArray[np.bool_]:
    """Whether the LLL algorithm (delta 0.75) would leave cells of shape (..., 3, 3) as they are; no in doubt."""
    factor = np.linalg.cholesky(lattice @ np.swapaxes(lattice, -1, -2))
    diagonal = np.diagonal(factor, axis1=-2, axis2=-1)
    mu = factor / diagonal[..., None, :]  # Gram-Schmidt coefficients below the diagonal
    m21, m31, m32 = mu[..., 1, 0], mu[..., 2, 0], mu[..., 2, 1]
    a, b, c = np.moveaxis(diagonal**2, -1, 0)
    small = np.maximum(np.maximum(np.abs(m21), np.abs(m31)), np.abs(m32)) < 0.5 - 1e-9
    return small & (b > (0.75 - m21**2) * a * (1.0 + 1e-9)) & (c > (0.75 - m32**2) * b * (1.0 + 1e-9))


def candidates(one: Cell, two: Cell, widest: Criterion) -> Candidates:
    """All lattices of ``one`` whose cell is near to the cell of ``two``.

    Raises:
        InvalidCell: there are too many lattice points to look at.
    """
    lengths, angles = _lengths(two.lattice), _angles(two.lattice)
    whole, cart, norms = _lattice_points(one.lattice, float(lengths.max()) * (1.0 + widest.ltol))
    relative = norms[:, None] / lengths  # (points, 3)
    near = (relative < 1.0 + widest.ltol) & (relative > 1.0 / (1.0 + widest.ltol))
    a, b, c = (np.flatnonzero(near[:, axis]) for axis in range(3))
    if max(len(a) * len(b), len(b) * len(c)) > _CANDIDATES:
        raise InvalidCell(f"{len(a)} x {len(b)} vectors are as long as those of the other cell")
    unit = cart / norms[:, None]
    gamma = np.abs(_degrees(unit[a] @ unit[b].T) - angles[2]) <= widest.angle_tol
    beta = np.abs(_degrees(unit[a] @ unit[c].T) - angles[1]) <= widest.angle_tol
    alpha = np.abs(_degrees(unit[b] @ unit[c].T) - angles[0]) <= widest.angle_tol
    i, j = np.nonzero(gamma)
    if len(i) * len(c) > _CANDIDATES:
        raise InvalidCell(f"{len(i)} x {len(c)} pairs of vectors are near to those of the other cell")
    pair, k = np.nonzero(beta[i] & alpha[j])
    chosen = np.stack([a[i[pair]], b[j[pair]], c[k]], 1)  # (candidates, 3) numbers of points
    volume = np.abs(np.linalg.det(whole[chosen].astype(np.float64)))
    chosen = chosen[np.abs(volume - 1.0) <= 0.5]
    aligned = cart[chosen]  # (candidates, 3, 3)
    frac = (one.frac @ one.lattice) @ np.linalg.inv(aligned)
    own = _angles(aligned)
    average = _cell((_lengths(aligned) + lengths) / 2.0, (own + angles) / 2.0)
    ratio = _lengths(aligned) / lengths
    return Candidates(
        frac - np.floor(frac), average, np.maximum(ratio, 1.0 / ratio).max(1), np.abs(own - angles).max(1)
    )


def _lattice_points(lattice: Floats, radius: float) -> tuple[Whole, Floats, Floats]:
    """Whole numbers (points, 3), vectors and lengths of the lattice points within ``radius``, without the origin."""
    reach = box(lattice, radius)
    steps = [np.arange(-r, r + 1, dtype=np.int64) for r in reach.astype(np.int64)]
    whole = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    cart = whole @ lattice
    norms = np.linalg.norm(cart, axis=1)
    kept = (norms <= radius) & (norms > 1e-8)
    return whole[kept], cart[kept], norms[kept]


def _lengths(lattice: Floats) -> Floats:
    return np.linalg.norm(lattice, axis=-1)


def _degrees(cosines: Floats) -> Floats:
    return np.rad2deg(np.arccos(np.clip(cosines, -1.0, 1.0)))


def _angles(lattice: Floats) -> Floats:
    """Alpha, beta, gamma in degrees, shape (..., 3)."""
    unit = lattice / _lengths(lattice)[..., None]
    pairs: Sequence[tuple[int, int]] = ((1, 2), (0, 2), (0, 1))
    return _degrees(np.stack([(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in pairs], -1))


def _reciprocal(lattice: Floats) -> Floats:
    """Lengths of the reciprocal vectors without 2 pi: one over the distance of lattice planes, shape (..., 3)."""
    return np.linalg.norm(np.linalg.inv(lattice), axis=-2)


def _cell(lengths: Floats, angles: Floats) -> Floats:
    """Lattices of lengths and angles in degrees, with c along z, shape (..., 3, 3); any orientation will do."""
    a, b, c = np.moveaxis(lengths, -1, 0)
    alpha, beta, gamma = np.moveaxis(np.deg2rad(angles), -1, 0)
    cosine = np.clip((np.cos(alpha) * np.cos(beta) - np.cos(gamma)) / (np.sin(alpha) * np.sin(beta)), -1.0, 1.0)
    turn = np.arccos(cosine)
    zero = np.zeros_like(a)
    rows = (
        np.stack([a * np.sin(beta), zero, a * np.cos(beta)], -1),
        np.stack([-b * np.sin(alpha) * np.cos(turn), b * np.sin(alpha) * np.sin(turn), b * np.cos(alpha)], -1),
        np.stack([zero, zero, c], -1),
    )
    return np.stack(rows, -2)
