"""Variance and covariance terms that keep latents from collapsing (Bardes et al. 2022, equations 1 to 4)."""

import torch
from torch import Tensor

_EPSILON = 1e-4  # under the square root, as in Bardes et al. 2022


def variance_loss(latents: Tensor) -> Tensor:
    """How far deviations fall short of 1: mean over dimensions of ``relu(1 - sqrt(Var + 1e-4))``.

    Args:
        latents: shape (..., batch, latent); variances are unbiased and taken over the batch.

    Returns:
        Scalar: mean over the leading axes, in a sequence over time steps.
    """
    deviation = (latents.var(-2) + _EPSILON).sqrt()
    return torch.relu(1.0 - deviation).mean()


def covariance_loss(latents: Tensor) -> Tensor:
    """Squared covariances between different dimensions, summed and divided by the number of dimensions.

    Args:
        latents: shape (..., batch, latent); covariances are unbiased and taken over the batch.

    Returns:
        Scalar: mean over the leading axes.
    """
    batch, size = latents.shape[-2:]
    centred = latents - latents.mean(-2, keepdim=True)
    # The squared norm of a covariance matrix is that of the Gram matrix, which is smaller for a small batch.
    product = centred @ centred.mT if batch < size else centred.mT @ centred
    squared = product.square().sum((-2, -1))
    diagonal = centred.square().sum(-2).square().sum(-1)
    return ((squared - diagonal) / ((batch - 1) ** 2 * size)).mean()


def without_sequence_mean(latents: Tensor) -> Tensor:
    """Latents less their mean over each sequence, scaled to keep a white sequence's variance.

    What is constant in a sequence has no variance left, so that it cannot satisfy :func:`variance_loss` on these.

    Args:
        latents: shape (time, batch, latent).
    """
    steps = latents.shape[0]
    return (latents - latents.mean(0, keepdim=True)) * (steps / max(1, steps - 1)) ** 0.5
