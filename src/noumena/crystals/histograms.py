"""Distributions of crystals and of samples over each other."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.generation_metrics import density_of, elements_of
from noumena.style import BLUE, ORANGE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 30
_ELEMENTS = 28
_TAIL = 0.995  # share of both sets that a panel shows, for a few far ones would flatten the rest


def distributions(data: CrystalBatch, samples: CrystalBatch) -> "Figure":
    """Density, volume per atom, atoms and elements per crystal, and how common the elements are, of both sets.

    Args:
        data, samples: crystals with cells.

    Raises:
        DataError: one of them is empty.
    """
    if not len(data) or not len(samples):
        raise DataError(
            f"distributions: {len(data)} crystals and {len(samples)} samples; expected one of each at least."
        )
    both = {"data": data, "samples": samples}
    with style():
        figure = new_figure(8.0, 5.4)
        grid = figure.add_gridspec(3, 2)
        panels = [figure.add_subplot(grid[row, column]) for row in range(2) for column in range(2)]
        _histogram(panels[0], {name: density_of(one) for name, one in both.items()}, "density (g/cm³)")
        per_atom = {name: one.volume / one.num_atoms for name, one in both.items()}
        _histogram(panels[1], per_atom, "volume per atom (Å³)")
        _bars(panels[2], {name: one.num_atoms for name, one in both.items()}, "atoms per cell")
        _bars(panels[3], {name: elements_of(one) for name, one in both.items()}, "elements per crystal")
        panels[0].legend()
        _elements(figure.add_subplot(grid[2, :]), both)
    return figure


def _histogram(axis: Any, values: dict[str, Tensor], label: str) -> None:
    arrays = {name: one.detach().cpu().double().numpy() for name, one in values.items()}
    top = max(float(np.quantile(one, _TAIL)) for one in arrays.values())
    edges = np.linspace(0.0, top, _BINS + 1)
    for (name, one), colour in zip(arrays.items(), (BLUE, ORANGE), strict=True):
        weights = np.full(len(one), 100.0 / len(one))
        axis.hist(one, bins=edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.35)
        axis.hist(one, bins=edges, weights=weights, histtype="step", color=colour, label=name)
    axis.set_xlabel(label)
    axis.set_ylabel("crystals (%)")


def _bars(axis: Any, values: dict[str, Tensor], label: str) -> None:
    most = max(int(one.max()) for one in values.values())
    for shift, (one, colour) in zip((-0.2, 0.2), zip(values.values(), (BLUE, ORANGE), strict=True), strict=True):
        share = torch.bincount(one.long().cpu(), minlength=most + 1).double()
        axis.bar(np.arange(most + 1) + shift, (100.0 * share / share.sum()).numpy(), 0.4, color=colour)
    axis.set_xlim(0.4, most + 0.6)
    axis.set_xlabel(label)
    axis.set_ylabel("crystals (%)")


def _elements(axis: Any, both: dict[str, CrystalBatch]) -> None:
    shares = {
        name: torch.bincount(one.atom_types.cpu(), minlength=len(SYMBOLS)).double() / len(one.atom_types)
        for name, one in both.items()
    }
    shown = torch.argsort(shares["data"], descending=True, stable=True)[:_ELEMENTS]
    place = np.arange(len(shown))
    for shift, (share, colour) in zip((-0.2, 0.2), zip(shares.values(), (BLUE, ORANGE), strict=True), strict=True):
        axis.bar(place + shift, (100.0 * share[shown]).numpy(), 0.4, color=colour)
    axis.set_xticks(place, [SYMBOLS[number] for number in shown.tolist()])
    axis.set_xlim(-0.6, len(shown) - 0.4)
    axis.set_xlabel("the most common elements of the data")
    axis.set_ylabel("atoms (%)")
