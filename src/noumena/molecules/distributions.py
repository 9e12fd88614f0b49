"""How alike two sets of conformations are: distributions of bonds, angles and torsions, and free-energy surfaces."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noumena.molecules.topology import Topology

_BINS = 100
_TORSION_BINS = 36
_FINE_BINS = 360
SURFACE_BINS = 30
"""Bins of a free-energy surface along each torsion: 12 degrees each."""
POPULATED = 10
"""Frames of the data in a bin of a free-energy surface from which on it counts: its own noise is then 0.3 kT."""

BASINS = ("alphaR", "beta", "alphaL", "gamma")
"""Regions of the Ramachandran map that together cover it, each two being mirror images of the other two.

With angles in degrees: ``alphaR`` phi < 0 and -100 <= psi < 50 (right-handed helix); ``beta`` phi < 0 else (C7eq, C5,
polyproline II); ``alphaL`` phi >= 0 and -50 < psi <= 100 (left-handed helix); ``gamma`` phi >= 0 else (C7ax).
"""

Floats = NDArray[np.float64]


def total_variation(data: np.ndarray, other: np.ndarray, low: float, high: float) -> float:
    """Half the L1 distance of histograms of 100 bins from ``low`` to ``high``, 0 to 1.

    What is below or above has a bin of its own: it is not the data's either.
    """
    edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
    edges[-1] = np.nextafter(edges[-1], np.inf)  # the last bin has its upper end, as in numpy's histograms
    first, second = (_shares(np.searchsorted(edges, part.ravel(), side="right"), _BINS + 2) for part in (data, other))
    return 0.5 * float(np.abs(first - second).sum())


def _shares(number: np.ndarray, bins: int) -> Floats:
    return np.bincount(number, minlength=bins) / max(1, len(number))


def circular_histograms(torsions: np.ndarray, bins: int) -> Floats:
    """Share of the frames in each bin from -pi to pi, shape (torsions, bins), for angles (frames, torsions)."""
    frames, count = torsions.shape
    number = np.floor((torsions + math.pi) * (bins / (2 * math.pi))).astype(np.int64) % bins
    flat = (number + bins * np.arange(count)).ravel()
    return np.bincount(flat, minlength=count * bins).reshape(count, bins) / max(1, frames)


def jensen_shannon(data: np.ndarray, other: np.ndarray) -> Floats:
    """Jensen-Shannon divergence of each torsion in nats, 0 to ln 2 (Lin 1991), on 36 bins, shape (torsions,).

    Args:
        data, other: angles in radians, shape (frames, torsions) each, any number of frames.
    """
    p, q = (circular_histograms(part, _TORSION_BINS) for part in (data, other))
    middle = 0.5 * (p + q)
    return 0.5 * (_relative_entropy(p, middle) + _relative_entropy(q, middle))


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    return (p * np.log(np.divide(p, q, out=np.ones_like(p), where=p > 0))).sum(-1)


def circular_wasserstein(data: np.ndarray, other: np.ndarray) -> Floats:
    """Wasserstein-1 distance on the circle of each torsion in radians, 0 to pi, shape (torsions,).

    The integral over the circle of the distribution functions' difference less its median (Rabin, Delon & Gousseau
    2011, eq. 11), on bins of one degree.

    Args:
        data, other: angles in radians, shape (frames, torsions) each.
    """
    p, q = (circular_histograms(part, _FINE_BINS) for part in (data, other))
    difference = np.cumsum(p - q, axis=1)
    difference -= np.median(difference, axis=1, keepdims=True)
    return np.abs(difference).mean(1) * 2 * math.pi


def backbone_pairs(topology: Topology) -> dict[str, tuple[int, int]]:
    """Columns of phi and psi of each residue that has both, by the residue's number."""
    names = list(topology.torsions)
    found = [name.partition(":")[2] for name in names if name.startswith("phi:")]
    return {r: (names.index(f"phi:{r}"), names.index(f"psi:{r}")) for r in found if f"psi:{r}" in names}


@dataclass(frozen=True)
class Surface:
    """A free-energy surface over two torsions.

    Attributes:
        counts: frames in each bin, shape (bins of the first, bins of the second), both from -pi to pi.
    """

    counts: NDArray[np.int64]

    @property
    def energy(self) -> Floats:
        """F = -ln p in kT with its minimum at 0; infinite where no frame is."""
        with np.errstate(divide="ignore"):
            found = -np.log(self.counts / max(1, self.counts.sum()))
        return found - found.min()


def surface(first: np.ndarray, second: np.ndarray) -> Surface:
    """Free-energy surface of two torsions in radians, of any shape but the same."""
    number = [
        np.floor((part.ravel() + math.pi) * (SURFACE_BINS / (2 * math.pi))).astype(np.int64) % SURFACE_BINS
        for part in (first, second)
    ]
    counts = np.bincount(number[0] * SURFACE_BINS + number[1], minlength=SURFACE_BINS**2)
    return Surface(counts.reshape(SURFACE_BINS, SURFACE_BINS))


def surface_error(data: Surface, other: Surface) -> float:
    """Mean absolute difference of two free-energy surfaces in kT over the bins that the data populate; NaN if none.

    Populated: :data:`POPULATED` frames of the data or more. Bins without a frame of ``other`` count as if half a frame
    were in them, so that they cost much but not everything. Free energies are known up to a constant: the zeros are
    set so that the mean over the populated bins is the same.
    """
    used = data.counts >= POPULATED
    if not used.any() or not other.counts.sum():
        return float("nan")
    ours = -np.log(data.counts[used] / data.counts.sum())
    theirs = -np.log(np.maximum(other.counts[used], 0.5) / other.counts.sum())
    difference = theirs - ours
    return float(np.abs(difference - difference.mean()).mean())


def basin_populations(phi: np.ndarray, psi: np.ndarray) -> dict[str, float]:
    """Share of the pairs of angles (radians, any shape) in each of :data:`BASINS`."""
    right, left = phi < 0, phi >= 0
    helix = (psi >= math.radians(-100)) & (psi < math.radians(50))
    mirrored = (psi > math.radians(-50)) & (psi <= math.radians(100))
    parts = (right & helix, right & ~helix, left & mirrored, left & ~mirrored)
    return {name: float(np.mean(part)) for name, part in zip(BASINS, parts, strict=True)}


def spread(torsions: np.ndarray) -> Floats:
    """Circular variance 1 - |mean of exp(i angle)| of each torsion, 0 to 1, shape (torsions,)."""
    return 1.0 - np.abs(np.exp(1j * torsions.astype(np.float64)).mean(0))


def widest_torsions(topology: Topology, torsions: np.ndarray) -> list[int]:
    """Columns of the torsions from the one of greatest spread to the least, turning methyl groups last.

    Args:
        topology: of the molecule.
        torsions: angles in radians, shape (frames, torsions).
    """
    wide = spread(torsions)
    methyl = [any(_is_methyl(topology, a) for a in q[1:3]) for q in topology.torsions.values()]
    return sorted(range(len(wide)), key=lambda i: (methyl[i], -wide[i]))


def _is_methyl(topology: Topology, atom: int) -> bool:
    around = [topology.elements[other] for other in topology.neighbours[atom]]
    return around.count(1) >= 3 and len(around) == 4


def compare(
    data: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], topology: Topology
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Distances of the distributions of two sets of frames.

    Args:
        data, other: ``bonds`` in angstrom, ``angles`` and ``torsions`` in radians, shape (frames, ...) each.
        topology: of the molecule.

    Returns:
        ``bond_tv`` (histograms between the data's shortest and longest bond), ``angle_tv`` (0 to 180 degrees),
        ``torsion_js`` (nats) and ``torsion_w1`` (radians), means over torsions, ``fes_mae`` (kT, mean over residues)
        and ``basin_error`` (mean absolute difference of populations) where there are phi and psi; and the torsions'
        own ``js`` and ``w1``, shape (torsions,).
    """
    low, high = float(data["bonds"].min()), float(data["bonds"].max())
    found = {"bond_tv": total_variation(data["bonds"], other["bonds"], low, high)}
    if data["angles"].shape[1]:
        found["angle_tv"] = total_variation(data["angles"], other["angles"], 0.0, math.pi)
    each: dict[str, Floats] = {}
    ours, theirs = data["torsions"], other["torsions"]
    if ours.shape[1]:
        each = {"js": jensen_shannon(ours, theirs), "w1": circular_wasserstein(ours, theirs)}
        found |= {"torsion_js": float(each["js"].mean()), "torsion_w1": float(each["w1"].mean())}
    if pairs := list(backbone_pairs(topology).values()):
        maps = [[surface(part[:, i], part[:, j]) for part in (ours, theirs)] for i, j in pairs]
        found["fes_mae"] = _mean_of_known([surface_error(*two) for two in maps])
        phi, psi = (list(column) for column in zip(*pairs, strict=True))
        populations = [basin_populations(part[:, phi], part[:, psi]) for part in (ours, theirs)]
        found["basin_error"] = float(np.mean([abs(populations[0][b] - populations[1][b]) for b in BASINS]))
    return found, each


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
