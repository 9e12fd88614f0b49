"""Several small networks side by side."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Committee(nn.Module):
    """Several networks of one shape side by side; their mean is the answer (Lakshminarayanan et al. 2017)."""

    def __init__(self, size: int, width: int, depth: int, members: int, dropout: float) -> None:
        super().__init__()
        sizes = [size, *([width] * depth), 1]
        pairs = list(pairwise(sizes))
        # As nn.Linear starts: uniform within 1 / sqrt(inputs).
        self.weights = nn.ParameterList(
            [nn.Parameter((2.0 * torch.rand(members, a, b) - 1.0) / a**0.5) for a, b in pairs]
        )
        self.biases = nn.ParameterList(
            [nn.Parameter((2.0 * torch.rand(members, 1, b) - 1.0) / a**0.5) for a, b in pairs]
        )
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """The answer of each member, shape (members, rows), to ``x`` (rows, size)."""
        hidden = x.expand(self.weights[0].shape[0], *x.shape)
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if depth < len(self.weights) - 1:
                hidden = functional.dropout(functional.silu(hidden), self.dropout, self.training)
        return hidden[..., 0]
