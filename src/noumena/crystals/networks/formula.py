"""Which elements a crystal of a given size has: an autoregressive model of multisets."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.networks import mlp
from noumena.crystals.networks.packing import Packing
from noumena.crystals.networks.transformer import PackedTransformer


class Formula(nn.Module):
    r"""Elements one after the other, in a fixed order of elements, so that each multiset is one sequence.

    .. math:: p(Z_1 \ldots Z_n \mid n) = \prod_i p(Z_i \mid Z_1 \ldots Z_{i-1}, n), \qquad r(Z_1) \le \ldots \le r(Z_n)

    for a rank ``r`` of the elements, such as that by electronegativity: metals come first, and what must balance
    their charges last.
    """

    def __init__(
        self, species: int, width: int, layers: int, heads: int, rank: Tensor, *, dropout: float = 0.0
    ) -> None:
        """
        Args:
            species: one more than the largest atomic number.
            width, layers, heads: of the transformer.
            rank: of each atomic number, int64, shape (species,), all different.
            dropout: share of the inputs of the transformer and of the output that are dropped in training.
        """
        super().__init__()
        self.types = nn.Embedding(species, width)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.count = mlp([4, width, width], "silu")
        self.transformer = PackedTransformer(width, layers, heads, 4 * width, causal=True)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, species)
        self.register_buffer("rank", rank)

    def ordered(self, types: Tensor, crystal: Tensor) -> Tensor:
        """The atoms of each crystal by rank: numbers of atoms, shape (atoms,)."""
        rank = cast("Tensor", self.rank)
        return torch.argsort(crystal * len(rank) + rank[types], stable=True)

    def log_prob(self, types: Tensor, num_atoms: Tensor) -> Tensor:
        """Log-probability of each crystal's elements given their number, in nats, shape (crystals,).

        Args:
            types: atomic numbers by rank within each crystal, shape (atoms,).
            num_atoms: shape (crystals,).
        """
        packing = Packing(num_atoms, cells=False)
        first = packing.within == 0
        before = torch.where(first, 0, types.roll(1))
        logits = self._logits(before, first, packing, num_atoms[packing.crystal])
        found = functional.log_softmax(logits, -1).gather(1, types[:, None])[:, 0]
        return found.new_zeros(len(num_atoms)).index_add(0, packing.crystal, found)

    def _logits(self, before: Tensor, first: Tensor, packing: Packing, size: Tensor) -> Tensor:
        """Logits of each next element; ``before`` is the one before it, ``size`` its crystal's number of atoms."""
        n, done = size.to(self.start), packing.within.to(self.start)
        count = torch.stack([n.log() - 2.0, n / 20.0, done / 20.0, (n - done) / 20.0], -1)
        known = torch.where(first[:, None], self.start, self.types(before)) + self.count(count)
        logits = self.out(self.dropout(self.transformer(self.dropout(known), packing)))
        rank = cast("Tensor", self.rank)
        # No element before the last one in the order; number 0 is none.
        allowed = (rank[None, :] >= torch.where(first, -1, rank[before])[:, None]).index_fill(
            1, torch.zeros(1, dtype=torch.long, device=rank.device), False
        )
        return logits.masked_fill(~allowed, -torch.inf)

    @torch.no_grad()
    def sample(self, num_atoms: Tensor, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Elements of crystals of given sizes, by rank within each, shape (atoms,)."""
        most = int(num_atoms.max())
        found = num_atoms.new_zeros(len(num_atoms), most)
        for step in range(most):
            open_ = (num_atoms > step).nonzero()[:, 0]
            length = torch.full_like(open_, step + 1)
            packing = Packing(length, cells=False)
            before = torch.cat([torch.zeros_like(found[open_, :1]), found[open_, :step]], 1).flatten()
            logits = self._logits(before, packing.within == 0, packing, num_atoms[open_][packing.crystal])
            last = logits.view(len(open_), step + 1, -1)[:, -1] / temperature
            found[open_, step] = torch.multinomial(last.softmax(-1), 1, generator=generator)[:, 0]
        return found[found > 0]
