"""Encoder and decoder of the density VAE."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from noumena.core.networks import Activation, mlp
from noumena.core.posterior import DiagonalGaussian

DecoderScale = Literal["fixed", "learned"]

# exp(+-) of these stays finite in float32 with room for squares; no trained posterior comes near.
_LOG_VAR_RANGE = (-30.0, 20.0)
# A standard deviation below 0.0025 of a column's own is rounding or quantisation, and its density a spike.
_MIN_LOG_SCALE = -6.0
# Below the columns' own standard deviation, so that the latent pays from the first step; from 0 the posterior first
# collapses onto the prior and has to come back.
_INITIAL_LOG_SCALE = -1.0
_LOG_2PI = math.log(2.0 * math.pi)


class GaussianEncoder(nn.Module):
    """MLP trunk and one linear layer for mean and log-variance."""

    def __init__(self, input_dim: int, hidden_dims: Sequence[int], latent_dim: int, activation: Activation) -> None:
        super().__init__()
        sizes = [input_dim, *hidden_dims]
        self.trunk = mlp(sizes, activation, activate_last=True) if hidden_dims else nn.Identity()
        self.head = nn.Linear(sizes[-1], 2 * latent_dim)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        """Posterior over latents (batch, latent) of rows ``x`` (batch, columns)."""
        mean, log_var = self.head(self.trunk(x)).chunk(2, dim=-1)
        return DiagonalGaussian(mean, log_var.clamp(*_LOG_VAR_RANGE))


class GaussianDecoder(nn.Module):
    """MLP that gives the mean of each column, and a standard deviation per column.

    Args of ``__init__``:
        scale: ``fixed`` has the likelihood N(mean, 1/2), whose negative logarithm is the squared error up to a
            constant; ``learned`` has one standard deviation per column, learnt with the weights.
    """

    log_scale: Tensor

    def __init__(
        self, latent_dim: int, hidden_dims: Sequence[int], output_dim: int, activation: Activation, scale: DecoderScale
    ) -> None:
        super().__init__()
        self.net = mlp([latent_dim, *hidden_dims, output_dim], activation)
        self.scale = scale
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.full((output_dim,), _INITIAL_LOG_SCALE))

    def forward(self, z: Tensor) -> Tensor:
        """Mean of the rows (batch, columns) given latents ``z`` (batch, latent)."""
        return self.net(z)

    @property
    def std(self) -> Tensor:
        """Standard deviation of each column around its mean, shape (columns,) or () with the fixed scale."""
        if self.scale == "fixed":
            return torch.tensor(0.5**0.5)
        return self.log_scale.clamp(min=_MIN_LOG_SCALE).exp()

    def log_prob(self, x: Tensor, mean: Tensor, constant: Tensor | None) -> Tensor:
        """Log-likelihood of rows ``x`` around the decoded ``mean``, both (batch, columns), summed over columns.

        With the fixed scale it is ``-||x - mean||^2``, without the constant of the normal density, as published.
        A column that never varied in training (``constant``) has the mean 0 exactly and the least scale there is:
        it costs nothing while it stays constant and much as soon as it does not.
        """
        if constant is not None:
            mean = mean.masked_fill(constant, 0.0)
        if self.scale == "fixed":
            return -(x - mean).square().sum(-1)
        log_scale = self.log_scale.clamp(min=_MIN_LOG_SCALE)
        if constant is not None:
            log_scale = log_scale.masked_fill(constant, _MIN_LOG_SCALE)
        normaliser = log_scale.sum() + 0.5 * _LOG_2PI * x.shape[-1]
        return -0.5 * ((x - mean) * torch.exp(-log_scale)).square().sum(-1) - normaliser
