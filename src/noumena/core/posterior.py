"""Distributions over latents that encoders return."""

import math
from typing import Self

import torch
from torch import Tensor

_LOG_2PI = math.log(2.0 * math.pi)


class DiagonalGaussian:
    """Normal distribution with an own variance per latent dimension, ``N(mean, diag(exp(log_var)))``."""

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        """
        Args:
            mean: shape (batch, ..., latent).
            log_var: logarithm of the variance, a shape that broadcasts to that of ``mean``.
        """
        self.mean = mean
        self.log_var = log_var

    @property
    def std(self) -> Tensor:
        """Standard deviation, shape of ``mean``."""
        return torch.exp(0.5 * self.log_var).expand_as(self.mean)

    def sample(self, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
        """A reparameterised draw ``mean + std * noise`` (Kingma & Welling 2014, eq. 10).

        Args:
            generator: source of the noise; torch's global one when missing.
            noise: standard normal noise of the shape of ``mean``, instead of drawing it.
        """
        if noise is None:
            noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + noise * torch.exp(0.5 * self.log_var)

    def kl_per_dimension(self) -> Tensor:
        """KL divergence to the standard normal of each latent dimension, in nats, shape of ``mean``."""
        # Kingma & Welling 2014, appendix B.
        return 0.5 * (self.mean.square() + self.log_var.exp() - 1.0 - self.log_var)

    def kl(self) -> Tensor:
        """KL divergence to the standard normal in nats, summed over the last axis."""
        return self.kl_per_dimension().sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` in nats, summed over the last axis."""
        deviation = (z - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (deviation + self.log_var + _LOG_2PI).sum(-1)

    def detach(self) -> Self:
        """The same distribution outside the gradient graph."""
        return type(self)(self.mean.detach(), self.log_var.detach())


class IsotropicGaussian(DiagonalGaussian):
    """Normal distribution with one variance for all latent dimensions of a sample.

    ``log_var`` has shape (batch, ..., 1); everything else is that of :class:`DiagonalGaussian`.
    """

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        if log_var.shape[-1:] != (1,):
            raise ValueError(f"an isotropic log-variance has a last axis of 1, got shape {tuple(log_var.shape)}")
        super().__init__(mean, log_var)


class PointMass(DiagonalGaussian):
    """The posterior of an encoder that gives one vector: all mass at ``mean``, a normal distribution of variance 0.

    Its samples are its mean; its KL divergence to the standard normal is infinite.
    """

    def __init__(self, mean: Tensor, log_var: Tensor | None = None) -> None:
        super().__init__(mean, mean.new_full((1,), -torch.inf) if log_var is None else log_var)


def active_units(mean: Tensor, threshold: float = 0.01) -> int:
    """Number of latent dimensions whose posterior mean varies over the data (Burda et al. 2016, section 5).

    Args:
        mean: posterior means, shape (batch, latent).
        threshold: least variance over the batch of an active unit.
    """
    return int((mean.var(0, correction=0) > threshold).sum())
