"""Atoms that came to lie on each other moved apart, which a sampled crystal needs before a calculation can use it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import COVALENT_RADII
from noumena.crystals.environments import Environments, environments
from noumena.crystals.measures.distances import valid_cells

LEAST = 0.75
"""Of the sum of two covalent radii (Cordero et al. 2008): the least distance that two atoms get. 99 % of the training
crystals of MP-20 have none below .756."""

_ROUNDS = 60
_LISTED_ROUNDS = 10
_REACH = 0.5  # angstrom beyond the least distance that pairs are listed for
_MOST_MOVED = 0.2  # angstrom in a round, so that no pair that is not listed comes too near
_SOFT = 1.02  # aimed at beyond the least distance, so that the last round leaves nothing to do
_EXACT = 1.0005  # so that crystals in single precision keep the distance too


@dataclass(frozen=True)
class Separated:
    """Crystals without atoms on each other, and what it took.

    Attributes:
        crystals: the same crystals in the same order; those without such atoms exactly as they were.
        moved: bool, shape (crystals,), which ones were changed.
        shift: root-mean-square displacement of the atoms of each crystal in angstrom, shape (crystals,).
        strain: by how much the cell vectors of each grew, shape (crystals,); 0 where moving the atoms was enough.
    """

    crystals: CrystalBatch
    moved: Tensor
    shift: Tensor
    strain: Tensor


def separated(crystals: CrystalBatch, least: float = LEAST) -> Separated:
    """Move atoms apart until none are nearer than ``least`` times the sum of their covalent radii.

    Each round moves both atoms of every pair that is too near along their line by half of what is missing
    (position-based dynamics, Müller et al. 2007). What cannot be had in the cell as it is, such as an atom too near to
    its own image, is had by making all cell vectors longer by one factor. Elements, shape of the cell and crystals
    whose atoms keep their distance are left as they are. It knows nothing of bonds: it is no relaxation of energies.

    Args:
        crystals: in any cell. What is no cell, such as NaN, is left as it is.
        least: share of the sum of covalent radii.

    Raises:
        ConfigError: ``least`` is not between 0 and 1.
    """
    if not 0.0 < least < 1.0:
        raise ConfigError(f"separated: expected a share of the radii between 0 and 1, got least={least}.")
    shift, strain = (torch.zeros(len(crystals), dtype=torch.float64, device=crystals.device) for _ in range(2))
    kept = valid_cells(crystals).nonzero()[:, 0]
    exact = replace(crystals, names=()).to(crystals.device, torch.float64).select(kept)
    pairs, needed = _pairs(exact, least)
    near = kept[torch.unique(exact.crystal[pairs.centre[pairs.distance < needed]])]
    if not len(near):
        return Separated(crystals, strain > 0.0, shift, strain)
    some = replace(crystals, names=()).to(crystals.device, torch.float64).select(near)
    apart, displacement = _moved_apart(some, least)
    strain[near] = _stretch(apart, least * _EXACT)
    apart = replace(apart, lattice=apart.lattice * (1.0 + strain[near])[:, None, None])
    square = displacement.square().sum(-1)
    shift[near] = (torch.zeros_like(strain[near]).index_add_(0, some.crystal, square) / some.num_atoms).sqrt()
    moved = torch.zeros(len(crystals), dtype=torch.bool, device=crystals.device)
    moved[near] = True
    return Separated(_put(crystals, near, apart), moved, shift, strain)


def _moved_apart(crystals: CrystalBatch, least: float) -> tuple[CrystalBatch, Tensor]:
    """Crystals after the rounds, and how far each atom moved, in angstrom, shape (atoms, 3)."""
    total = torch.zeros_like(crystals.frac_coords)
    inverse = torch.linalg.inv(crystals.lattice)[crystals.crystal]
    for _ in range(_ROUNDS // _LISTED_ROUNDS):
        pairs, needed = _pairs(crystals, least * _SOFT)
        # An atom and its own image move together: only the cell can part them.
        others = pairs.centre != pairs.neighbour
        pairs, needed = pairs.select(others), needed[others]
        # A crystal whose atoms keep their distance is done, whatever the others need.
        busy = torch.zeros(len(crystals), dtype=torch.bool, device=total.device)
        busy[crystals.crystal[pairs.centre[pairs.distance < needed / _SOFT]]] = True
        if not busy.any():
            break
        moving = busy[crystals.crystal[pairs.centre]]
        pairs, needed = pairs.select(moving), needed[moving]
        step = torch.zeros_like(total)
        for _ in range(_LISTED_ROUNDS):
            step += _round(pairs, needed, step)
        total += step
        frac = crystals.frac_coords + torch.einsum("ai,aij->aj", step, inverse)
        crystals = replace(crystals, frac_coords=frac)
    return crystals, total


def _round(pairs: Environments, needed: Tensor, step: Tensor) -> Tensor:
    """Displacement of each atom in one round, in angstrom, shape (atoms, 3)."""
    vector = pairs.vector + step[pairs.neighbour] - step[pairs.centre]
    distance = torch.linalg.vector_norm(vector, dim=-1)
    missing = (needed - distance).clamp_min(0.0)
    # Both directions of a pair are listed, so each moves its own centre: away from the neighbour.
    away = -0.5 * (missing / distance.clamp_min(1e-6))[:, None] * vector
    move = torch.zeros_like(step).index_add_(0, pairs.centre, away)
    length = torch.linalg.vector_norm(move, dim=-1, keepdim=True)
    return move * (_MOST_MOVED / length.clamp_min(_MOST_MOVED))


def _stretch(crystals: CrystalBatch, least: float) -> Tensor:
    """By how much cell vectors must grow so that no pair is too near any more, shape (crystals,)."""
    pairs, needed = _pairs(crystals, least)
    ratio = (needed / pairs.distance).clamp_min(1.0) - 1.0
    longest = torch.zeros(len(crystals), dtype=torch.float64, device=crystals.device)
    return longest.scatter_reduce(0, crystals.crystal[pairs.centre], ratio, "amax")


def _pairs(crystals: CrystalBatch, least: float) -> tuple[Environments, Tensor]:
    """Pairs that are or may come too near, and the distance each needs, in angstrom."""
    radii = torch.tensor(COVALENT_RADII, dtype=torch.float64, device=crystals.device)
    own = radii[crystals.atom_types].nan_to_num(0.0)
    if not len(own):
        return environments(crystals, 1.0), own
    pairs = environments(crystals, float(2.0 * own.max()) * least + _REACH)
    needed = least * (own[pairs.centre] + own[pairs.neighbour])
    listed = pairs.distance < needed + _REACH
    return pairs.select(listed), needed[listed]


def _put(crystals: CrystalBatch, near: Tensor, changed: CrystalBatch) -> CrystalBatch:
    """The crystals with those at ``near`` exchanged, in the precision they had."""
    frac, lattice = crystals.frac_coords.clone(), crystals.lattice.clone()
    wrapped = changed.frac_coords - changed.frac_coords.floor()
    frac[crystals.atoms_of(near)] = wrapped.to(frac)
    lattice[near] = changed.lattice.to(lattice)
    return replace(crystals, frac_coords=frac, lattice=lattice)
