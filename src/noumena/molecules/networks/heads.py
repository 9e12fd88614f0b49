"""What both encoders end in, and the residual network that encoders and decoders are made of."""

from typing import Literal

import torch
from torch import Tensor, nn

from noumena.core.posterior import DiagonalGaussian, IsotropicGaussian

PosteriorKind = Literal["diagonal", "isotropic"]

# The initialisation that the original's notes describe (and its code skips): a moderate width, nearly the same for all.
LOG_VAR_BIAS = -1.0
LOG_VAR_WEIGHT = 0.1
# exp(LOG_VAR) stays a normal number in half precision as well.
_LOG_VAR_RANGE = (-14.0, 6.0)


class PosteriorHead(nn.Module):
    """From features of a molecule to a Gaussian over its latents; one variance for all of them, or one each."""

    def __init__(self, features: int, z_dim: int, kind: PosteriorKind) -> None:
        super().__init__()
        self.kind: PosteriorKind = kind
        self.mean = nn.Linear(features, z_dim)
        self.log_var = nn.Linear(features, z_dim if kind == "diagonal" else 1)
        with torch.no_grad():
            self.log_var.weight.mul_(LOG_VAR_WEIGHT)
            self.log_var.bias.fill_(LOG_VAR_BIAS)

    def forward(self, features: Tensor) -> DiagonalGaussian:
        """The posterior of each row of ``features``, shape (batch, features)."""
        log_var = self.log_var(features).clamp(*_LOG_VAR_RANGE)
        return (DiagonalGaussian if self.kind == "diagonal" else IsotropicGaussian)(self.mean(features), log_var)


class ResidualMLP(nn.Module):
    """A linear map to ``width``, and residual blocks of two layers.

    Args:
        inputs: columns of the input.
        width: of everything else.
        blocks: how many.
        norm: layer norm before each block and at the end, as message passing needs it. Networks of standardised inputs
            learn in about half of the steps without.
    """

    def __init__(self, inputs: int, width: int, blocks: int, *, norm: bool = False) -> None:
        super().__init__()
        self.norm = norm
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width) if norm else nn.Identity(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )
        self.last = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, inputs) to (batch, width)."""
        h = self.first(x)
        if self.norm:
            for block in self.blocks:
                h = h + block(h)
        else:
            h = nn.functional.silu(h)
            for block in self.blocks:
                h = h + nn.functional.silu(block(h))
        return self.last(h)
