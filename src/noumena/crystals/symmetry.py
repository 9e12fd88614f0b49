"""Space groups: which one a crystal has, whether a reconstruction keeps it, and a projection onto an approximate one.

A decoder's coordinates are off by some hundredths of an angstrom, so at a tight tolerance nearly every decoded crystal
has no symmetry left. :func:`symmetrised` finds the group that is there approximately and moves atoms and cell onto it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.core.evaluation import Table
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.libraries import moyopy

Floats = NDArray[np.float64]

SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
"""Crystal systems in the order of the numbers of their space groups."""
TOLERANCES = (0.2, 0.1, 0.05)
"""Tolerances in angstrom that :func:`symmetrised` tries, one after the other."""

_LAST = (2, 15, 74, 142, 167, 194, 230)  # number of the last space group of each system
# The search takes from minutes to hours for some cells at looser ones, and cannot be stopped.
_LOOSEST = 0.5  # angstrom
_MOST_PASSES = 5
_STILL = 1e-9  # angstrom, and strain: less than that is rounding


@dataclass(frozen=True)
class Kept:
    """Whether reconstructions have the space groups of their originals.

    Attributes:
        truth, found: numbers of the space groups, int64, shape (crystals,); 0 where none could be found.
        symprec, truth_symprec: tolerances they were found at, in angstrom.
    """

    truth: Tensor
    found: Tensor
    symprec: float
    truth_symprec: float

    @property
    def kept(self) -> Tensor:
        """Bool, shape (crystals,). A crystal whose group could not be found does not count as kept."""
        return (self.truth == self.found) & (self.truth > 0)

    @property
    def share(self) -> float:
        """Share of all crystals, failed ones included, that keep their group."""
        return float(self.kept.double().mean())

    @property
    def failed(self) -> int:
        """Reconstructions whose group could not be found."""
        return int((self.found == 0).sum())


def space_groups(batch: CrystalBatch, symprec: float = 0.01) -> Tensor:
    """Number of the space group of each crystal, 1 to 230, int64, shape (crystals,); 0 where the search fails.

    It fails for cells without volume, NaN, and atoms closer to each other than the tolerance.

    Args:
        batch: crystals, in any cell.
        symprec: how far an atom may be from where a symmetry takes another, in angstrom.

    Raises:
        ConfigError: ``symprec`` is not above 0 and at most 0.5.
        NotSupportedError: moyopy is not installed.
    """
    found = _datasets(batch, symprec)
    return torch.tensor([0 if one is None else one.number for one in found], dtype=torch.int64)


def wyckoff_labels(batch: CrystalBatch, symprec: float = 0.01) -> tuple[str, ...]:
    """Space group and Wyckoff letters of the orbits, such as ``225 a b``, of each crystal; empty where it fails.

    The letters belong to the origin that the search chose: of some groups two labels mean the same structure type.

    Args, Raises: as :func:`space_groups`.
    """
    labels: list[str] = []
    for one in _datasets(batch, symprec):
        orbits: dict[int, str] = {} if one is None else dict(zip(one.orbits, one.wyckoffs, strict=True))
        labels.append("" if one is None else " ".join([str(one.number), *sorted(orbits.values())]))
    return tuple(labels)


def kept(truth: CrystalBatch, found: CrystalBatch, *, symprec: float = 0.1, truth_symprec: float = 0.01) -> Kept:
    """Which reconstructions, at ``symprec``, have the space group that their originals have at ``truth_symprec``.

    Raises:
        DataError: the numbers of crystals differ.
        ConfigError: a tolerance is not above 0 and at most 0.5.
        NotSupportedError: moyopy is not installed.
    """
    if len(truth) != len(found):
        raise DataError(f"space groups kept: {len(truth)} originals for {len(found)} reconstructions; give one each.")
    return Kept(space_groups(truth, truth_symprec), space_groups(found, symprec), symprec, truth_symprec)


def symmetrised(
    batch: CrystalBatch,
    tolerances: Sequence[float] = TOLERANCES,
    *,
    max_move: float = 0.1,
    max_strain: float = 0.03,
) -> tuple[CrystalBatch, Tensor]:
    """Crystals moved onto the space groups that they have approximately, in their own cells and order of atoms.

    Of each crystal the group is found at the largest of ``tolerances`` whose projection moves no atom and strains no
    direction by more than the limits. The projection averages the metric of the cell over the rotations and the
    positions over all operations (the nearest crystal of that symmetry up to second order), without a turn of the cell
    and without a drift of the atoms. It is repeated until nothing moves, as the group may then turn out larger: a
    second call changes nothing. Every pass keeps to the limits.

    Args:
        batch: crystals, such as a decoder's.
        tolerances: in angstrom, each at most 0.5.
        max_move: largest displacement of an atom in angstrom, against the mean of all.
        max_strain: largest relative change of a length of the cell.

    Returns:
        The crystals, of the dtype and on the device of ``batch``, and their space groups, int64, shape (crystals,):
        0 where every tolerance failed. Those crystals, and those without symmetry (group 1), are left as they are.

    Raises:
        ConfigError: no tolerances, one that is not above 0 and at most 0.5, or a limit that is not above 0.
        NotSupportedError: moyopy is not installed.
    """
    if not tolerances:
        raise ConfigError("symmetrised: 'tolerances' is empty; expected angstroms such as (0.3, 0.2, 0.1).")
    for tolerance in tolerances:
        _check_symprec(tolerance)
    for name, value in {"max_move": max_move, "max_strain": max_strain}.items():
        if not value > 0:
            raise ConfigError(f"symmetrised: '{name}' is {value}; expected a number above 0.")
    ladder = sorted(tolerances, reverse=True)
    frac, lattice = batch.frac_coords.clone(), batch.lattice.clone()
    groups = torch.zeros(len(batch), dtype=torch.int64)
    for number, (cell, rows) in enumerate(zip(_cells(batch), pairwise(batch.offsets.tolist()), strict=True)):
        found, groups[number] = _settled(cell, ladder, max_move, max_strain)
        if found is not cell:
            frac[slice(*rows)] = torch.from_numpy(found.frac).to(frac)
            lattice[number] = torch.from_numpy(found.lattice).to(lattice)
    return replace(batch, frac_coords=frac, lattice=lattice), groups


def group_counts(groups: Tensor) -> Tensor:
    """How many crystals have each space group, int64, shape (231,); number 0 counts those without an answer."""
    return torch.bincount(groups, minlength=231)


def group_distance(first: Tensor, second: Tensor) -> float:
    """Total variation between the space groups of two sets: 0 for equal shares, 1 where none is in both."""
    one, two = (group_counts(groups).double() / max(len(groups), 1) for groups in (first, second))
    return 0.5 * float((one - two).abs().sum())


def systems(groups: Tensor) -> Tensor:
    """Place in :data:`SYSTEMS` of the crystal system of each space group, int64; -1 for group 0."""
    ends = torch.tensor(_LAST, device=groups.device)
    return torch.where(groups > 0, torch.bucketize(groups, ends), -1)


def system_table(sets: Mapping[str, Tensor], symprec: float, *, most: int = 8) -> Table:
    """Shares of crystal systems and of the most frequent space groups.

    Args:
        sets: numbers of space groups by the name of their set, such as data and samples; each int64, (crystals,).
        symprec: tolerance they were found at, in angstrom; for the caption.
        most: space groups shown: the most frequent ones of the first set.

    Raises:
        ConfigError: no sets.
        NotSupportedError: moyopy is not installed.
    """
    if not sets:
        raise ConfigError("table of space groups: no sets; give numbers of space groups by the name of their set.")
    found = list(sets.values())
    rows: list[list[Any]] = [
        [name, *(_percent(systems(groups) == number) for groups in found)] for number, name in enumerate(SYSTEMS)
    ]
    counts = group_counts(found[0])[1:]
    for place in torch.argsort(counts, descending=True, stable=True)[:most].tolist():
        if counts[place]:
            rows.append([_symbol(place + 1), *(_percent(groups == place + 1) for groups in found)])
    rows.append(["no answer", *(_percent(groups == 0) for groups in found)])
    caption = (
        f"Share of the crystals in %, space groups found at a tolerance of {symprec:g} Å: crystal systems, then the "
        f"space groups that are most frequent among {next(iter(sets))}."
    )
    return Table("Symmetry", ["", *sets], rows, caption)


def _percent(chosen: Tensor) -> str:
    return f"{100 * float(chosen.double().mean()):.1f}"


def _symbol(number: int) -> str:
    return f"{moyopy().SpaceGroupType(number).hm_short.replace(' ', '')} ({number})"


@dataclass(frozen=True)
class _Cell:
    """One crystal: lattice rows in angstrom (3, 3), coordinates (atoms, 3), atomic numbers (atoms,)."""

    lattice: Floats
    frac: Floats
    types: NDArray[np.int64]

    def dataset(self, symprec: float) -> Any | None:
        library = moyopy()
        cell = library.Cell(self.lattice.tolist(), self.frac.tolist(), self.types.tolist())
        try:
            return library.MoyoDataset(cell, symprec=symprec)
        except ValueError:  # what it raises where it finds no consistent group
            return None


def _cells(batch: CrystalBatch) -> Iterator[_Cell]:
    lattice = batch.lattice.detach().cpu().double().numpy()
    frac = batch.frac_coords.detach().cpu().double().numpy()
    types = batch.atom_types.cpu().numpy()
    for number, (first, last) in enumerate(pairwise(batch.offsets.tolist())):
        yield _Cell(lattice[number], frac[first:last], types[first:last])


def _datasets(batch: CrystalBatch, symprec: float) -> list[Any | None]:
    _check_symprec(symprec)
    return [cell.dataset(symprec) for cell in _cells(batch)]


def _check_symprec(symprec: float) -> None:
    if not 0.0 < symprec <= _LOOSEST:
        raise ConfigError(
            f"symmetry tolerance {symprec}: expected angstroms above 0 and at most {_LOOSEST}; at looser ones the "
            "search may not end."
        )


def _settled(cell: _Cell, ladder: Sequence[float], max_move: float, max_strain: float) -> tuple[_Cell, int]:
    """The cell after as many passes as change something, and its space group."""
    group = 0
    for _ in range(_MOST_PASSES):
        found = _one_pass(cell, ladder, max_move, max_strain)
        if found is None:
            break
        moved, group, change = found
        if change < _STILL:
            break
        cell = moved
    return cell, group


def _one_pass(
    cell: _Cell, ladder: Sequence[float], max_move: float, max_strain: float
) -> tuple[_Cell, int, float] | None:
    """The projection at the largest tolerance within the limits: cell, space group, greatest change."""
    for tolerance in ladder:
        data = cell.dataset(tolerance)
        found = None if data is None else _projected(cell, data.operations)
        if data is None or found is None:
            continue
        moved = float(np.linalg.norm((found.frac - cell.frac) @ found.lattice, axis=1).max())
        strain = float(np.abs(np.linalg.eigvalsh(_deformation(cell.lattice, found.lattice)) - 1.0).max())
        if moved <= max_move and strain <= max_strain:
            return found, int(data.number), max(moved, strain)
    return None


def _deformation(old: Floats, new: Floats) -> Floats:
    """The symmetric (3, 3) matrix that turns the cell vectors ``old`` into ``new``; they differ by no rotation."""
    deformation = np.linalg.solve(old, new)
    return (deformation + deformation.T) / 2


def _projected(cell: _Cell, operations: Any) -> _Cell | None:
    r"""The crystal averaged over approximate operations; None where they do not permute its atoms.

    .. math:: x_i' = \frac{1}{|G|} \sum_g \bigl(R_g x_{g^{-1}(i)} + t_g + n\bigr)

    with t_g the translation that fits best over all atoms and n whole numbers that bring each image next to atom i.
    Applying an operation h to these means gives the mean at h(i) but for a vector that is the same for all atoms, so
    they have the symmetry exactly, though the t_g are rough.
    """
    rotations = np.asarray(operations.rotations, np.float64)  # (operations, 3, 3), act on columns
    images = np.einsum("gij,aj->gai", rotations, cell.frac) + np.asarray(operations.translations)[:, None]
    lattice = _averaged(cell.lattice, rotations)
    apart = images[:, :, None] - cell.frac  # (operations, from, to, 3)
    apart -= np.rint(apart)
    metric = lattice @ lattice.T
    squares = np.einsum("gabi,ij,gabj->gab", apart, metric, apart)
    onto = np.where(cell.types[:, None] == cell.types, squares, np.inf).argmin(2)  # (operations, from)
    if bool((np.sort(onto, 1) != np.arange(len(cell.types))).any()):
        return None
    shift = np.take_along_axis(apart, onto[:, :, None, None], 2)[:, :, 0]
    shift -= shift.mean(1, keepdims=True)
    mean = np.zeros_like(cell.frac)
    np.add.at(mean, onto, shift)
    return _Cell(lattice, cell.frac + mean / len(rotations), cell.types)


def _averaged(lattice: Floats, rotations: Floats) -> Floats:
    """The cell whose metric is the mean over the rotations, strained but not turned, shape (3, 3)."""
    metric = np.einsum("gki,kl,glj->ij", rotations, lattice @ lattice.T, rotations) / len(rotations)
    # new = old @ strain with a symmetric strain: new @ new.T = old @ strain^2 @ old.T is the metric.
    inverse = np.linalg.inv(lattice)
    values, vectors = np.linalg.eigh(inverse @ metric @ inverse.T)
    return lattice @ ((vectors * np.sqrt(values)) @ vectors.T)
