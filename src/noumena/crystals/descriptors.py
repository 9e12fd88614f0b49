"""What a crystal is made of and how its atoms sit, in numbers that do not depend on how it is written down.

All of them are means over atoms of smooth functions of distances, angles and elements: the same after a rotation, for
another origin, for another order of the atoms, for atoms moved by lattice vectors and for a supercell. No property of
the crystal enters. They are what the pooled vector of a crystal is learned from, without labels.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn

from noumena.core.errors import DataError
from noumena.core.preprocessing import Standardizer
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.element_data import (
    ELECTRON_AFFINITIES,
    HIGHEST_STATES,
    IONIC_RADII,
    IONISATION_ENERGIES,
    LOWEST_STATES,
    MELTING_POINTS,
    MENDELEEV_NUMBERS,
)
from noumena.crystals.elements import COVALENT_RADII, ELECTRONEGATIVITIES, GROUPS, PERIODS
from noumena.crystals.environments import Environments, environments

SPECIES = 119
"""Shares of elements, by atomic number; number 0 is never there."""

PROPERTIES = (
    *("electronegativity", "period", "group", "covalent radius", "s", "p", "d", "f", "ionisation energy"),
    *("electron affinity", "melting point", "ionic radius", "Mendeleev number", "highest state", "lowest state"),
)
"""Of the elements: s, p, d and f are electrons of the open shells, states those of oxidation."""

_ELECTRONEGATIVITY, _RADIUS = 0, 3
_STABLE = 95  # elements below it are those that the others are measured by
_CUTOFF = 5.0  # angstrom
# Shells of neighbours by distance over the sum of covalent radii.
_SHELLS = (0.7, 0.85, 1.0, 1.15, 1.3, 1.45, 1.6, 1.75, 1.9)
_SHELL_WIDTH = 0.15
_BOND, _SOFTNESS = 1.28, 0.05  # where a bond ends, and how gradually
_FAR = _BOND + 10.0 * _SOFTNESS  # no bond is left there, in single precision
_CROWD = 1e-3  # keeps the mean over no neighbours finite
_LEAST_SPREAD = 1e-3  # all are numbers around one: a smaller spread is rounding
_LIMIT = 8.0  # standard deviations that an unusual crystal may be off


@cache
def _shells(number: int) -> tuple[int, int, int, int]:
    """Electrons in the outer s and p and in open d and f shells of the free atom, filled in Madelung's order."""
    if number == 0:
        return 0, 0, 0, 0
    core = max(gas for gas in (0, 2, 10, 18, 36, 54, 86) if gas < number)
    left = number - core
    period = PERIODS[number]
    f_shell = 14 if period >= 6 else 0
    d_shell = 10 if period >= 4 else 0
    s = min(2, left)
    f = min(f_shell, left - s)
    d = min(d_shell, left - s - f)
    p = left - s - f - d
    # Full inner shells take no part.
    return s, p, 0 if p and d == d_shell else d, 0 if f == f_shell else f


def element_properties() -> Tensor:
    """:data:`PROPERTIES` of each atomic number, float64, shape (119, properties); the mean where one has no value."""
    shells = tuple(zip(*(_shells(number) for number in range(SPECIES)), strict=True))
    columns = (ELECTRONEGATIVITIES, PERIODS, GROUPS, COVALENT_RADII, *shells, IONISATION_ENERGIES, ELECTRON_AFFINITIES)
    columns += (MELTING_POINTS, IONIC_RADII, MENDELEEV_NUMBERS, HIGHEST_STATES, LOWEST_STATES)
    table = torch.tensor([[float(value) for value in column] for column in columns], dtype=torch.float64).T
    return torch.where(table.isnan(), table[1:].nanmean(0), table)


class Descriptors(nn.Module):
    """Invariant numbers of crystals, standardised: targets and inputs of :class:`CrystalVector`.

    Buffers hold the statistics of the training data, so that they are saved and moved with a model.
    """

    elements: Tensor
    standard_elements: Tensor
    shells: Tensor

    def __init__(self) -> None:
        super().__init__()
        # These are not saved: real numbers even where a model is built as shapes only, to be filled from a file.
        with torch.device("cpu"):
            table = element_properties()
            standard = (table - table[1:_STABLE].mean(0)) / table[1:_STABLE].std(0)
            self.register_buffer("elements", table.float(), persistent=False)
            self.register_buffer("standard_elements", standard.float(), persistent=False)
            self.register_buffer("shells", torch.tensor(_SHELLS), persistent=False)
        self.standardizer = Standardizer(self.size)

    @property
    def size(self) -> int:
        """How many numbers there are beside the shares of elements."""
        return self.composition_size + 2 * self._per_atom + 2 + len(PROPERTIES)

    @property
    def composition_size(self) -> int:
        """How many of them, the first ones, say what a crystal is made of."""
        return 4 * len(PROPERTIES)

    @property
    def _per_atom(self) -> int:
        return 3 * len(_SHELLS) + 3 + 2 * len(PROPERTIES) + 4 + 8

    def calibrate(self, numbers: Tensor) -> None:
        """Take mean and spread of :meth:`numbers` of the training data, shape (crystals, size)."""
        self.standardizer.fit(numbers)
        self.standardizer.scale.clamp_(min=_LEAST_SPREAD)

    def forward(self, batch: CrystalBatch) -> Tensor:
        """Standardised :meth:`numbers`, shape (crystals, size), float32, each within 8 standard deviations."""
        return self.standardised(self.numbers(batch))

    def standardised(self, numbers: Tensor) -> Tensor:
        """:meth:`numbers` in standard deviations from the mean of the training data, each within 8."""
        return self.standardizer(numbers).clamp(-_LIMIT, _LIMIT)

    def shares(self, batch: CrystalBatch) -> Tensor:
        """Share of each element among the atoms, shape (crystals, 119)."""
        place = batch.crystal * SPECIES + batch.atom_types
        counts = torch.bincount(place, minlength=len(batch) * SPECIES).view(len(batch), SPECIES)
        return counts.to(self.elements.dtype) / batch.num_atoms[:, None]

    @torch.no_grad()
    def numbers(self, batch: CrystalBatch) -> Tensor:
        """Statistics of elements, environments and volume, shape (crystals, size), float32.

        Raises:
            DataError: a crystal's numbers are not finite: its cell has no volume, or atoms sit on each other.
        """
        batch = batch.to(dtype=self.elements.dtype)
        atoms = self._atoms(batch)
        own = self.standard_elements[batch.atom_types]
        mean, spread = _statistics(atoms, batch)
        own_mean, own_spread = _statistics(own, batch)
        coordination = atoms[:, 3 * len(_SHELLS)]
        found = [own_mean, own_spread, *_extremes(own, batch), mean, spread]
        found += [_statistics(own * coordination[:, None], batch)[0], self._filling(batch)]
        numbers = torch.cat(found, 1)
        if not bool(torch.isfinite(numbers).all()):
            row = int((~torch.isfinite(numbers).all(1)).nonzero()[0])
            raise DataError(
                f"crystal {batch.names[row] if batch.names else row} of a batch has no finite descriptors: its cell "
                "has no volume, or a coordinate is not a number. Leave it out."
            )
        return numbers

    def _filling(self, batch: CrystalBatch) -> Tensor:
        """Logarithm of the volume per atom in cubic angstrom, and of the share that covalent spheres fill."""
        per_atom = batch.volume / batch.num_atoms
        spheres = 4.0 / 3.0 * math.pi * self.elements[batch.atom_types, _RADIUS] ** 3
        return torch.stack([per_atom.log(), (_mean(spheres[:, None], batch)[:, 0] / per_atom).log()], 1)

    def _atoms(self, batch: CrystalBatch) -> Tensor:
        """What surrounds each atom, shape (atoms, numbers)."""
        types = batch.atom_types
        around = environments(batch, _CUTOFF)
        radius = self.elements[types, _RADIUS]
        ratio = around.distance / (radius[around.centre] + radius[around.neighbour])
        close = ratio < _FAR
        bonded = around.select(close)
        weight = torch.sigmoid((_BOND - ratio[close]) / _SOFTNESS)
        radial = self._radial(around, ratio, types)
        return torch.cat([radial, self._bonds(bonded, weight, ratio[close], types)], 1)

    def _radial(self, around: Environments, ratio: Tensor, types: Tensor) -> Tensor:
        """Smeared numbers of neighbours by shell; the same weighted with how far their electronegativities differ."""
        chi = self.elements[types, _ELECTRONEGATIVITY]
        contrast = (chi[around.neighbour] - chi[around.centre])[:, None]
        envelope = 0.5 * (torch.cos(math.pi * around.distance / _CUTOFF) + 1.0)
        shells = torch.exp(-((ratio[:, None] - self.shells) / _SHELL_WIDTH).square()) * envelope[:, None]
        return _gather(torch.cat([shells, shells * contrast.square(), shells * contrast.abs()], 1), around, len(types))

    def _bonds(self, bonded: Environments, weight: Tensor, ratio: Tensor, types: Tensor) -> Tensor:
        """Coordination, ionicity and angles from the bonded neighbours of each atom."""
        atoms = len(types)
        chi = self.elements[types, _ELECTRONEGATIVITY]
        contrast = chi[bonded.neighbour] - chi[bonded.centre]
        # Coordination, and electrons drawn to the atom's neighbours: a bond between unlike elements is polar.
        first = torch.stack([weight, weight * contrast / (1.0 + contrast.abs())], 1)
        coordination, charge = _gather(first, bonded, atoms).unbind(1)
        share = weight / (coordination[bonded.centre] + _CROWD)
        own = self.standard_elements[types]
        near, centre = own[bonded.neighbour], own[bonded.centre]
        attraction = charge[bonded.centre] * charge[bonded.neighbour] / bonded.distance * weight
        scalars = torch.stack([weight * contrast.square(), share * contrast.square(), attraction, share * ratio], 1)
        unlike = share[:, None] * torch.cat([(near - centre).abs(), near * centre], 1)
        pooled = _gather(torch.cat([unlike, scalars], 1), bonded, atoms)
        angles = _angles(bonded, share, atoms)
        # Not the charge itself: what one atom gains another one loses, and its mean is nothing but rounding.
        charges = torch.stack([coordination, charge.square(), charge.abs()], 1)
        return torch.cat([charges, pooled, angles, angles * chi[:, None]], 1)


def _angles(bonded: Environments, share: Tensor, atoms: int) -> Tensor:
    r"""Mean over pairs of neighbours of powers 1 to 4 of the cosine of their angle, shape (atoms, 4).

    :math:`\sum_{jk} w_j w_k (u_j \cdot u_k)^n` is the square of the n-th moment tensor of the directions, so that no
    list of angles is needed.
    """
    unit = bonded.vector / bonded.distance[:, None]
    moments = [unit]
    for _ in range(3):
        moments.append(torch.einsum("pi,pj->pij", moments[-1], unit).flatten(1))  # (pairs, 3^n)
    added = _gather(share[:, None] * torch.cat(moments, 1), bonded, atoms).square()
    return torch.stack([part.sum(1) for part in added.split([moment.shape[1] for moment in moments], 1)], 1)


def _gather(values: Tensor, around: Environments, atoms: int) -> Tensor:
    """Sums of ``values`` (pairs, columns) over the neighbours of each atom, shape (atoms, columns)."""
    return values.new_zeros(atoms, values.shape[1]).index_add_(0, around.centre, values)


def _mean(values: Tensor, batch: CrystalBatch) -> Tensor:
    """Means of ``values`` (atoms, columns) over the atoms of each crystal, shape (crystals, columns)."""
    added = values.new_zeros(len(batch), values.shape[1]).index_add_(0, batch.crystal, values)
    return added / batch.num_atoms[:, None]


def _statistics(values: Tensor, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the atoms of each crystal, each (crystals, columns)."""
    mean = _mean(values, batch)
    return mean, _mean((values - mean[batch.crystal]).square(), batch).sqrt()


def _extremes(values: Tensor, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
    """Greatest and least over the atoms of each crystal, each (crystals, columns)."""
    place = batch.crystal[:, None].expand_as(values)
    empty = values.new_zeros(len(batch), values.shape[1])
    greatest = empty.scatter_reduce(0, place, values, "amax", include_self=False)
    return greatest, empty.scatter_reduce(0, place, values, "amin", include_self=False)
