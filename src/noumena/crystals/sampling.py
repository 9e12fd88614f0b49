"""How many atoms of which elements a new crystal has, and how decoded atoms are given them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.crystals.composition import composition_of, formula_of

Composition = str | Mapping[int, int]
"""A formula such as ``"Li2 O"``, or the number of atoms of each atomic number."""
Sizes = int | Sequence[int] | Tensor
"""Atoms of all new crystals, or of each."""


def as_composition(composition: Composition) -> dict[int, int]:
    """Atoms of each element.

    Raises:
        ConfigError: the formula cannot be read.
    """
    return composition_of(composition) if isinstance(composition, str) else dict(composition)


def sizes_of(
    n: int,
    histogram: Tensor,
    generator: torch.Generator | None,
    *,
    n_atoms: Sizes | None = None,
    composition: Composition | None = None,
) -> Tensor:
    """Atoms of each of ``n`` new crystals, int64, shape (n,).

    Args:
        n: how many crystals.
        histogram: training crystals of each number of atoms, from 0, shape (most atoms + 1,).
        generator: source of the draws.
        n_atoms: given numbers; otherwise they are drawn from the histogram.
        composition: restricts them to multiples of the atoms it names.

    Raises:
        ConfigError: a number below 1 or beyond the training data, none that the composition allows, or no numbers
            given to a model that has seen no training data.
    """
    if n < 1:
        raise ConfigError(f"sample: expected n of at least 1, got {n}.")
    most = len(histogram) - 1
    unit = 1 if composition is None else sum(as_composition(composition).values())
    if n_atoms is not None:
        given = torch.as_tensor(n_atoms, dtype=torch.long, device=histogram.device)
        given = given.expand(n) if given.ndim == 0 else given
        if given.shape != (n,):
            raise ConfigError(f"sample: n_atoms has {len(given)} numbers for n={n}. Give one, or one for each crystal.")
        if bool((given < 1).any() | (given > most).any()):
            raise ConfigError(
                f"sample: n_atoms must be from 1 to {most}, the largest cell of the training data; got "
                f"{int(given.min())} to {int(given.max())}."
            )
        if bool((given % unit != 0).any()):
            bad = int(given[given % unit != 0][0])
            raise ConfigError(f"sample: n_atoms={bad} is no multiple of the {unit} atoms of {composition}.")
        return given.clone()
    if composition is None and not bool(histogram.any()):
        raise ConfigError(
            "sample: the model has seen no training data that tell how many atoms cells have. Give n_atoms, or call "
            "after_fit(train, None)."
        )
    weight = histogram.double().clone()
    number = torch.arange(most + 1, device=histogram.device)
    weight[number % unit != 0] = 0.0
    weight[0] = 0.0
    if not bool(weight.sum() > 0):
        if unit > most:
            raise ConfigError(
                f"sample: {composition} has {unit} atoms; the largest cell of the training data has {most}. Train on "
                "larger cells."
            )
        # No training cell is of such a size: one formula unit is the least surprising.
        weight[unit] = 1.0
    return torch.multinomial(weight, n, replacement=True, generator=generator)


def types_of(composition: Composition, num_atoms: Tensor) -> Tensor:
    """Atomic numbers of crystals of a composition, shape (atoms,): each element as often as the size allows.

    Raises:
        ConfigError: a number of atoms is no multiple of the composition's.
    """
    counts = as_composition(composition)
    unit = sum(counts.values())
    if bool((num_atoms % unit != 0).any()):
        raise ConfigError(
            f"decode: a crystal of {int(num_atoms[num_atoms % unit != 0][0])} atoms cannot be of "
            f"{formula_of(counts, reduced=False)}, which has {unit}."
        )
    one = torch.tensor([z for z, count in counts.items() for _ in range(count)], device=num_atoms.device)
    return one.repeat(int(num_atoms.sum()) // unit)


def assigned(logits: Tensor, types: Tensor, num_atoms: Tensor) -> Tensor:
    """The given elements dealt to the atoms of each crystal so that their probability is highest, shape (atoms,).

    Args:
        logits: of the elements at each atom, shape (atoms, species).
        types: elements to deal, those of each crystal together, shape (atoms,).
        num_atoms: shape (crystals,).

    Raises:
        ConfigError: an element beyond those of the logits.
    """
    from scipy.optimize import linear_sum_assignment

    if int(types.max()) >= logits.shape[1]:
        raise ConfigError(
            f"decode: the composition has atomic number {int(types.max())}; the model knows elements up to "
            f"{logits.shape[1] - 1}."
        )
    sizes = num_atoms.tolist()
    cost = -logits.log_softmax(-1).detach().cpu().double()
    dealt: list[Tensor] = []
    for rows, elements in zip(cost.split(sizes), types.cpu().split(sizes), strict=True):
        _, chosen = linear_sum_assignment(rows[:, elements].numpy())
        dealt.append(elements[torch.as_tensor(chosen)])
    return torch.cat(dealt).to(types.device)
