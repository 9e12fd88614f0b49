"""Tokens of crystals of different sizes without padding."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens of each crystal lie, so that attention runs on blocks of equal size and never on padding.

    Outside the transformer, tokens come in the order of the batch: all atoms, then one cell token for each crystal if
    there are any. Inside, crystals are sorted by size and each one's tokens are neighbours.

    Attributes:
        num_atoms: int64, shape (crystals,).
        cells: whether each crystal has a cell token.
    """

    num_atoms: Tensor
    cells: bool

    @cached_property
    def crystal(self) -> Tensor:
        """Which crystal each token is of, int64, shape (tokens,)."""
        number = torch.arange(len(self.num_atoms), device=self.num_atoms.device)
        atoms = torch.repeat_interleave(number, self.num_atoms)
        return torch.cat([atoms, number]) if self.cells else atoms

    @cached_property
    def source(self) -> Tensor:
        """For each place inside the transformer, the token that goes there; int64, shape (tokens,)."""
        size = self.num_atoms[self.crystal]
        # Stable sorts: first by crystal, then by size, so that a crystal's tokens stay together and in order.
        by_crystal = torch.argsort(self.crystal, stable=True)
        return by_crystal[torch.argsort(size[by_crystal], stable=True)]

    @cached_property
    def place(self) -> Tensor:
        """For each token, its place inside the transformer: the inverse of :attr:`source`."""
        return torch.empty_like(self.source).scatter_(0, self.source, torch.arange(len(self.source)).to(self.source))

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """Crystals of equal size inside the transformer: how many, and the tokens of each."""
        sizes, counts = torch.unique(self.num_atoms, return_counts=True)
        return [(c, n + int(self.cells)) for c, n in zip(counts.tolist(), sizes.tolist(), strict=True)]

    @cached_property
    def within(self) -> Tensor:
        """Number of each token within its crystal, from 0; cell tokens come after the atoms."""
        ends = self.num_atoms.cumsum(0)
        first = torch.repeat_interleave(ends - self.num_atoms, self.num_atoms)
        atoms = torch.arange(len(first), device=first.device) - first
        return torch.cat([atoms, self.num_atoms]) if self.cells else atoms
