"""Encoders and decoders of the multimodal family, and how posteriors of several modalities become one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from noumena.core.networks import Activation, mlp
from noumena.core.posterior import DiagonalGaussian

# Posteriors may become narrow, but not so narrow that one modality's word outweighs all others by rounding errors.
_LEAST_LOG_VAR = -18.0
_GREATEST_LOG_VAR = 2.0
_INITIAL_LOG_VAR = -3.0


class SkipMLP(nn.Module):
    """A multilayer perceptron, with an optional linear map beside it that carries the linear part of the relation."""

    def __init__(self, sizes: Sequence[int], activation: Activation, *, skip: bool, activate_last: bool = True) -> None:
        """
        Args:
            sizes: widths from input to output.
            activation: nonlinearity between layers.
            skip: add a linear map from input to output.
            activate_last: without it no nonlinearity stands between the last two layers.
        """
        super().__init__()
        layers = list(mlp(sizes, activation))
        if not activate_last and len(layers) > 1:
            del layers[-2]
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Linear(sizes[0], sizes[-1], bias=False) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., sizes[0]) to (..., sizes[-1])."""
        return self.layers(x) if self.skip is None else self.layers(x) + self.skip(x)


class Encoder(nn.Module):
    """Features of one modality to a posterior over latents."""

    def __init__(
        self,
        features: int,
        hidden_dims: Sequence[int],
        latent_dim: int,
        activation: Activation,
        *,
        skip: bool,
        activate_last: bool,
        bounded: bool,
    ) -> None:
        """
        Args:
            features: input width.
            hidden_dims: widths of the hidden layers.
            latent_dim: size of the latent.
            activation, skip, activate_last: see :class:`SkipMLP`.
            bounded: keep the log-variance between two bounds and start it low; otherwise it is the network's output.
        """
        super().__init__()
        self.latent_dim = latent_dim
        self.bounded = bounded
        sizes = [features, *hidden_dims, 2 * latent_dim]
        self.network = SkipMLP(sizes, activation, skip=skip, activate_last=activate_last)
        if bounded:
            self._start_narrow()

    @torch.no_grad()
    def _start_narrow(self) -> None:
        head = self.network.layers[-1]
        assert isinstance(head, nn.Linear)
        head.weight[self.latent_dim :] *= 0.1
        head.bias[self.latent_dim :] = _INITIAL_LOG_VAR
        if self.network.skip is not None:
            self.network.skip.weight[self.latent_dim :] *= 0.1

    def forward(self, x: Tensor) -> DiagonalGaussian:
        """Posterior over (batch, latent) of features (batch, features)."""
        mean, log_var = self.network(x).split(self.latent_dim, dim=-1)
        if self.bounded:
            # Both bounds are soft, so that a posterior beyond one still feels where to go (Chua et al. 2018, A.1).
            log_var = _GREATEST_LOG_VAR - softplus(_GREATEST_LOG_VAR - log_var)
            log_var = _LEAST_LOG_VAR + softplus(log_var - _LEAST_LOG_VAR)
        return DiagonalGaussian(mean, log_var)


class Expert(NamedTuple):
    """The posterior that one modality alone gives to the rows that have it.

    Attributes:
        rows: numbers of these rows, int64, shape (n,).
        posterior: over (n, latent).
    """

    rows: Tensor
    posterior: DiagonalGaussian


def product_of_experts(experts: Sequence[Expert], batch: int) -> DiagonalGaussian:
    """The normalised product of each row's experts (Hinton 2002; Wu & Goodman 2018).

    Without the prior as a further expert, so that a single modality keeps its own posterior.

    Args:
        experts: at least one for every row.
        batch: number of rows.
    """
    total = experts[0].posterior.mean.new_zeros(batch, experts[0].posterior.mean.shape[1])
    weighted = total
    for rows, posterior in experts:
        precision = torch.exp(-posterior.log_var)
        total = total.index_add(0, rows, precision)
        weighted = weighted.index_add(0, rows, precision * posterior.mean)
    return DiagonalGaussian(weighted / total, -total.log())


def mixture_of_experts(experts: Sequence[Expert], batch: int) -> DiagonalGaussian:
    """The Gaussian of the same mean and variances as the equal mixture of each row's experts.

    Args:
        experts, batch: see :func:`product_of_experts`.
    """
    centre = experts[0].posterior.mean.new_zeros(batch, experts[0].posterior.mean.shape[1])
    square = centre
    count = centre.new_zeros(batch, 1)
    for rows, posterior in experts:
        centre = centre.index_add(0, rows, posterior.mean)
        square = square.index_add(0, rows, posterior.log_var.exp() + posterior.mean.square())
        count = count.index_add(0, rows, count.new_ones(len(rows), 1))
    centre = centre / count
    return DiagonalGaussian(centre, (square / count - centre.square()).clamp(min=1e-12).log())


def kl_between(q: DiagonalGaussian, mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(q || N(mean, exp(log_var))) in nats, summed over the last axis."""
    ratio = torch.exp(q.log_var - log_var)
    return 0.5 * (ratio + (q.mean - mean).square() * torch.exp(-log_var) - 1.0 + log_var - q.log_var).sum(-1)


def squared_wasserstein(q: DiagonalGaussian, mean: Tensor, log_var: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of two diagonal Gaussians, summed over the last axis (Dowson & Landau 1982)."""
    width = torch.exp(0.5 * q.log_var) - torch.exp(0.5 * log_var)
    return ((q.mean - mean).square() + width.square()).sum(-1)
