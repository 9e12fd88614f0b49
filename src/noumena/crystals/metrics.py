"""How far reconstructions are from their crystals: types, sites, cells, and shares of matches."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import counts_of
from noumena.crystals.geometry import image_distances, wrapped
from noumena.crystals.matching import CRITERIA, Matches
from noumena.crystals.measures.distances import valid_cells
from noumena.crystals.pairs import by_size

SIZES: tuple[tuple[int, int], ...] = ((1, 4), (5, 8), (9, 12), (13, 20), (21, 10**9))
"""Bins of the number of atoms, both ends included."""

_Z95 = 1.959963984540054  # quantile of the normal distribution for two-sided 95 %


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of reconstructed crystals whose atoms are in the order of the originals; float64, NaN for what is no cell.

    Attributes:
        types: share of the atoms with the right element, shape (crystals,).
        composition: whether every element has the right number of atoms, bool, shape (crystals,).
        coords: mean distance in angstrom of an atom to its original (nearest image, in the original's cell) once the
            best common translation is removed, shape (crystals,).
        coords_raw: the same with no translation removed, shape (crystals,).
        lengths: mean absolute error of a, b, c in percent, shape (crystals,).
        angles: mean absolute error of alpha, beta, gamma in degrees, shape (crystals,).
        volume: absolute error in percent, shape (crystals,).
        valid: whether the reconstruction is a cell, bool, shape (crystals,).
        num_atoms: int64, shape (crystals,).
    """

    types: Tensor
    composition: Tensor
    coords: Tensor
    coords_raw: Tensor
    lengths: Tensor
    angles: Tensor
    volume: Tensor
    valid: Tensor
    num_atoms: Tensor

    def values(self) -> dict[str, float]:
        """The errors over all crystals: ``type_accuracy`` over all atoms, the others means over crystals."""
        found = {
            "type_accuracy": float((self.types * self.num_atoms).sum() / self.num_atoms.sum()),
            "composition_exact": float(self.composition.double().mean()),
            "coord_error": float(self.coords.nanmean()),
            "coord_error_p90": float(self.coords.nanquantile(0.9)),
            "coord_error_raw": float(self.coords_raw.nanmean()),
            "length_error": float(self.lengths.nanmean()),
            "angle_error": float(self.angles.nanmean()),
            "volume_error": float(self.volume.nanmean()),
        }
        # Without one valid cell there is no error to give.
        found = {name: value for name, value in found.items() if not math.isnan(value)}
        return found | {"invalid_cells": float((~self.valid).sum())}


def reconstruction_errors(truth: CrystalBatch, found: CrystalBatch) -> Errors:
    """Compare reconstructions with their originals, atom by atom in the order given.

    Raises:
        DataError: other numbers of crystals or atoms than the originals have.
    """
    if not torch.equal(truth.num_atoms.cpu(), found.num_atoms.cpu()):
        raise DataError(
            f"reconstructions: {len(found)} crystals with {len(found.atom_types)} atoms for {len(truth)} with "
            f"{len(truth.atom_types)}; expected the same number of atoms in each, in the same order."
        )
    truth, found = (part.to("cpu", torch.float64) for part in (truth, found))
    right = (truth.atom_types == found.atom_types).double()
    types = torch.zeros(len(truth), dtype=torch.float64).index_add_(0, truth.crystal, right) / truth.num_atoms
    coords, raw = _site_errors(truth, found)
    valid = valid_cells(found)

    def of_cells(values: Tensor) -> Tensor:
        return values.masked_fill(~valid, math.nan)

    return Errors(
        types,
        (counts_of(truth) == counts_of(found)).all(1),
        coords,
        raw,
        of_cells(100.0 * ((found.lengths - truth.lengths).abs() / truth.lengths).mean(1)),
        of_cells((found.angles - truth.angles).abs().mean(1)),
        of_cells(100.0 * (found.volume - truth.volume).abs() / truth.volume),
        valid,
        truth.num_atoms,
    )


def _site_errors(truth: CrystalBatch, found: CrystalBatch) -> tuple[Tensor, Tensor]:
    """Mean site distances in angstrom, without and with the common translation, each of shape (crystals,)."""
    best, raw = (torch.full((len(truth),), math.nan, dtype=torch.float64) for _ in range(2))
    for crystals, atoms in _of_size(truth):
        off = wrapped(found.frac_coords[atoms] - truth.frac_coords[atoms])  # (n, atoms, 3)
        lattice = truth.lattice[crystals]
        raw[crystals] = _mean_distance(off, lattice)
        best[crystals] = _mean_distance(_centred(off, lattice), lattice)
    return best, raw


def _centred(off: Tensor, lattice: Tensor) -> Tensor:
    """Differences (n, atoms, 3) less the translation that leaves the least sum of squared distances.

    On a torus the mean is not unique: the difference of each atom is tried as a start, and improved by the mean of
    what is left.
    """
    left = wrapped(off[:, None] - off[:, :, None])  # (n, starts, atoms, 3)
    for _ in range(2):
        left = wrapped(left - left.mean(2, keepdim=True))
    squares = (left @ lattice[:, None]).square().sum((2, 3))  # (n, starts)
    # What is not finite must not win; then nothing does, and the result is not finite.
    start = squares.nan_to_num(math.inf).argmin(1)
    return left[torch.arange(len(left)), start]


def _mean_distance(off: Tensor, lattice: Tensor) -> Tensor:
    """Mean over atoms of the shortest periodic distance, shape (n,)."""
    return image_distances(off, lattice[:, None]).min(-1).values.mean(1)


def _of_size(crystals: CrystalBatch) -> Iterator[tuple[Tensor, Tensor]]:
    for numbers, atoms in by_size(crystals.num_atoms.numpy()):
        yield torch.from_numpy(np.ascontiguousarray(numbers)), torch.from_numpy(np.ascontiguousarray(atoms))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Bounds of the 95 % confidence interval of a share found in ``n`` trials (Wilson 1927)."""
    if n < 1:
        return 0.0, 1.0
    centre = share + _Z95**2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    whole = 1 + _Z95**2 / n
    return max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole)


def match_values(matches: Matches) -> dict[str, float]:
    """Match rates as plain numbers.

    Returns:
        For each criterion ``match_<name>``, ``match_<name>_low`` and ``match_<name>_high`` (95 %, Wilson); for the
        field's ``rms_field`` (mean over the matched, in units of (V / N)^(1/3); missing without any) and
        ``crms_field``, where a pair that does not match counts as stol 0.5; ``failures`` and
        ``failures_<reason>``, the pairs that could not be compared. They are not matched.
    """
    n = len(matches)
    found: dict[str, float] = {}
    for name, matched in matches.matched.items():
        share = float(matched.double().mean()) if n else 0.0
        low, high = wilson(share, n)
        found |= {f"match_{name}": share, f"match_{name}_low": low, f"match_{name}_high": high}
    if "field" in matches.matched and n:
        rms = matches.rms
        if bool(matches.matched["field"].any()):
            found["rms_field"] = float(rms.nanmean())
        found["crms_field"] = float(rms.nan_to_num(CRITERIA["field"].stol).mean())
    found["failures"] = float(sum(matches.failures.values()))
    return found | {f"failures_{reason.replace(' ', '_')}": float(n) for reason, n in matches.failures.items()}


def by_atoms(matches: Matches, errors: Errors) -> list[tuple[str, int, Mapping[str, float]]]:
    """Match rates and type accuracy by number of atoms: label of the bin, crystals in it, values."""
    rows: list[tuple[str, int, Mapping[str, float]]] = []
    for low, high in SIZES:
        inside = (errors.num_atoms >= low) & (errors.num_atoms <= high)
        n = int(inside.sum())
        if not n:
            continue
        values = {f"match_{name}": float(matched[inside].double().mean()) for name, matched in matches.matched.items()}
        values["type_accuracy"] = float(
            (errors.types * errors.num_atoms)[inside].sum() / errors.num_atoms[inside].sum()
        )
        coords = float(errors.coords[inside].nanmean())
        if not math.isnan(coords):
            values["coord_error"] = coords
        rows.append((f"{low} to {high}" if high < 10**9 else f"{low} and more", n, values))
    return rows
