"""A place to count coordinates from that every description of a crystal agrees on."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from noumena.crystals.batch import CrystalBatch

# Waves whose sums over the atoms tell one atom's surroundings from another's.
_WAVES = (
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 0), (1, 0, -1), (0, 1, -1),
    (1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2),
)  # fmt: skip
_MOST_TYPES = 128


def anchors(batch: CrystalBatch, chance: Tensor | None = None) -> Tensor:
    r"""The atom of each crystal that becomes the origin, int64, shape (crystals,).

    It is an atom of the rarest element of the cell. Where there are several, it is the one with the largest value of

    .. math:: \sum_h a_h \, \mathrm{Re}\,(F_h e^{-2 \pi i h \cdot f})
        + b_h \, \mathrm{Im}\,(F_h e^{-2 \pi i h \cdot f}), \qquad F_h = \sum_j Z_j e^{2 \pi i h \cdot f_j}

    for fixed unequal weights, which depends neither on the origin nor on the order of the atoms nor on the image that
    each is given in. Atoms that are alike by a translation cannot both be in a primitive cell.

    Args:
        batch: crystals.
        chance: numbers in [0, 1), shape (atoms,): choose by them among the atoms of the rarest element instead.
    """
    key = batch.crystal * _MOST_TYPES + batch.atom_types
    _, inverse, counts = torch.unique(key, return_inverse=True, return_counts=True)
    count = counts[inverse].double()
    # Equal counts of two elements: the lighter one is the rarer.
    rarity = count + batch.atom_types.double() / (2 * _MOST_TYPES)
    score = chance.double() if chance is not None else _surroundings(batch)
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(rarity[order], stable=True)]
    order = order[torch.argsort(batch.crystal[order], stable=True)]
    return order[batch.offsets[:-1]]


def _surroundings(batch: CrystalBatch) -> Tensor:
    """A number of each atom that its surroundings decide, in [-1, 1], shape (atoms,)."""
    waves = torch.tensor(_WAVES, dtype=torch.float64, device=batch.device)
    phase = 2.0 * math.pi * (batch.frac_coords.double() @ waves.T)  # (atoms, waves)
    charge = batch.atom_types.double()[:, None]
    wave = torch.polar(torch.ones_like(phase), phase)
    total = wave.new_zeros(len(batch), len(waves)).index_add(0, batch.crystal, wave * charge)
    seen = total[batch.crystal] * wave.conj()
    number = torch.arange(1, len(waves) + 1, dtype=torch.float64, device=batch.device)
    # Irrational multiples: no two waves, and no wave and its mirror image, count alike.
    a, b = (number * math.sqrt(2.0)) % 1.0 - 0.5, (number * math.sqrt(3.0)) % 1.0 - 0.5
    value = (a * seen.real + b * seen.imag).sum(-1)
    size = charge.new_zeros(len(batch), 1).index_add(0, batch.crystal, charge)[batch.crystal, 0]
    return value / (size * float((a.abs() + b.abs()).sum()))


def moved(batch: CrystalBatch, shift: Tensor) -> CrystalBatch:
    """Crystals with ``shift``, shape (crystals, 3), added to their fractional coordinates, brought to [0, 1)."""
    frac = (batch.frac_coords + shift[batch.crystal]).remainder(1.0)
    # The remainder of a tiny negative number rounds to 1.
    return replace(batch, frac_coords=torch.where(frac >= 1.0, torch.zeros_like(frac), frac))
