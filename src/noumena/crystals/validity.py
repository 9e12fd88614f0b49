"""Whether crystals could be: distances between atoms, and charges of compositions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import formulas_of
from noumena.crystals.libraries import smact
from noumena.crystals.measures.distances import nearest_distance

NEAREST = 0.5
"""Angstrom: atoms nearer than this make a structure invalid (the field's rule, with a volume above 0.1 cubic angstrom;
Xie et al. 2022). It is weak: N(0, I) through a decoder passes it four times in five."""

DISTANCES: Sequence[float] = (1.0, 1.5)
"""Angstrom: harder limits; 96 % of the crystals of MP-20 keep the second one."""

MOST_ELEMENTS = 7
"""Compositions of more elements are not valid. The package smact tries all combinations of oxidation states, which
takes seconds for each of them; no crystal of MP-20 or MPTS-52 has more."""

SMACT_RULE = (
    "smact.screening.smact_validity of smact 4 with its defaults: charge neutral with oxidation states of the ICSD "
    "(2024, consensus 3), Pauling electronegativity test, elements and alloys valid"
)
"""The rule behind compositional validity, for captions. Earlier versions of smact and CDVAE's own copy of its rule give
other numbers (91 instead of 94 % of MP-20)."""


def structural_validity(crystals: CrystalBatch, nearest: Tensor | None = None) -> Tensor:
    """The field's rule: a cell, and no two atoms within 0.5 angstrom; bool, shape (crystals,)."""
    found = nearest_distance(crystals) if nearest is None else nearest
    return found > NEAREST  # NaN, for what is no cell, compares as false


def compositional_validity(crystals: CrystalBatch) -> Tensor:
    """Whether smact takes the composition for possible (:data:`SMACT_RULE`); bool, shape (crystals,).

    Raises:
        NotSupportedError: smact is not installed.
    """
    valid = smact().smact_validity
    formulas = formulas_of(crystals)
    known = {formula: _possible(valid, formula) for formula in dict.fromkeys(formulas)}
    return torch.tensor([known[formula] for formula in formulas], dtype=torch.bool)


def _possible(valid: Callable[[str], bool], formula: str) -> bool:
    if sum(letter.isupper() for letter in formula) > MOST_ELEMENTS:
        return False
    try:
        return bool(valid(formula))
    except KeyError:
        return False  # an element that smact has no data of, such as seaborgium: no state of it balances a charge


def validity(crystals: CrystalBatch) -> dict[str, float]:
    """Shares of crystals that pass each rule.

    Returns:
        ``valid_structure``, ``valid_composition`` and ``valid`` (both); ``nearest_above_1.0`` and
        ``nearest_above_1.5`` (no two atoms within so many angstrom); ``nearest_mean`` in angstrom.

    Raises:
        NotSupportedError: smact is not installed.
    """
    nearest = nearest_distance(crystals)
    structure, composition = structural_validity(crystals, nearest), compositional_validity(crystals)
    shares = {
        "valid_structure": structure,
        "valid_composition": composition,
        "valid": structure & composition,
        **{f"nearest_above_{limit}": nearest > limit for limit in DISTANCES},
    }
    found = {name: float(share.double().mean()) for name, share in shares.items()}
    return found | {"nearest_mean": float(nearest.nanmean())}
