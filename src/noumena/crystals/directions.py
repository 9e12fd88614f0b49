"""Directions in which the latents of shown crystals differ most: what the explorer's sliders move along."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from noumena.core.exploring import Slider
from noumena.crystals.posterior import CrystalPosterior

_MOST = 16
# Share of the largest spread below which a direction is none.
_LEAST = 1e-3
# Share of the range by which a slider goes on beyond the shown crystals at each end.
_BEYOND = 0.1

MEANING = (
    "Sliders 'atoms' shift the latents of all atoms alike, 'cell' that of the cell, along principal directions of the "
    "shown crystals"
)
"""In words; the directions of atoms are those of their mean latents."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Principal directions of the mean latents of the atoms of crystals, and of the latents of their cells.

    Attributes:
        axes: orthonormal within each kind, shape (sliders, latent), from the widest to the narrowest.
        of_cell: whether a direction is one of cells, bool, shape (sliders,).
        values: where each shown crystal stands, counted from the mean of all, shape (crystals, sliders).
    """

    axes: Tensor
    of_cell: Tensor
    values: Tensor

    @classmethod
    def of(cls, posterior: CrystalPosterior) -> Self:
        """Take the directions of the posterior means of the shown crystals."""
        count = posterior.num_atoms
        number = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        total = posterior.mean.new_zeros(len(count), posterior.mean.shape[1]).index_add(0, number, posterior.atoms)
        kinds = [total / count[:, None], *([posterior.cells] if len(posterior.cells) else [])]
        found = [_principal(rows) for rows in kinds]
        axes, values = (torch.cat([part[i] for part in found]) for i in range(2))
        cell = torch.cat([torch.full((len(part[0]),), kind == 1) for kind, part in enumerate(found)]).to(axes.device)
        spread = values.std(1, correction=0)
        order = torch.argsort(spread, descending=True, stable=True)[:_MOST]
        order = order[spread[order] > _LEAST * spread.max().clamp_min(1e-6)] if len(order) else order
        return cls(axes[order], cell[order], values[order].T)

    @property
    def sliders(self) -> list[Slider]:
        """A slider for each direction, named by its kind and numbered within it, the widest first."""
        low, high = self.values.amin(0), self.values.amax(0)
        room = _BEYOND * (high - low)
        names: list[str] = []
        seen = {"atoms": 0, "cell": 0}
        for cell in self.of_cell.tolist():
            kind = "cell" if cell else "atoms"
            seen[kind] += 1
            names.append(f"{kind} {seen[kind]}")
        ends = zip(names, (low - room).tolist(), (high + room).tolist(), strict=True)
        return [Slider(name, start, end) for name, start, end in ends]

    def shifted(self, posterior: CrystalPosterior, number: int, positions: Tensor) -> Tensor:
        """Latents of a shown crystal with the sliders elsewhere, shape (tokens, latent).

        Args:
            posterior: of the crystal.
            number: of the crystal among the shown ones.
            positions: of the sliders, shape (sliders,).
        """
        steps = (positions.to(self.values) - self.values[number])[:, None] * self.axes
        atoms, cells = steps[~self.of_cell].sum(0), steps[self.of_cell].sum(0)
        return torch.cat([posterior.atoms + atoms, posterior.cells + cells])


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (latent, latent), the widest first, and where rows (rows, latent) stand on them (latent, rows)."""
    centred = (rows - rows.mean(0)).double()
    # Of the covariance, whose size does not grow with the rows; its directions are complete however few rows there are.
    _, axes = torch.linalg.eigh(centred.mT @ centred)
    axes = axes.mT.flip(0)
    # The largest number of a direction is positive: signs are the same on every machine.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return axes.to(rows.dtype), (axes @ centred.mT).to(rows.dtype)
