"""The ridge probe: state from latents by one closed-form linear regression shared over all steps."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.worldmodels.probing.readout import Readout, check_pairs

RIDGE = 1e-3
"""Default strength of the penalty."""

# Rows that are widened to float64 at a time.
_ROWS = 8192


@dataclass(frozen=True)
class _Moments:
    """First and second moments of features and targets, in float64, about provisional means."""

    rows: int
    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    xy: Tensor


class RidgeProbe(Readout):
    """Linear probe with bias, fitted by ridge regression on standardised features.

    With x the features standardised over all sequences and steps (population deviation; a feature that never varies
    has weight 0), n the number of rows (sequences times steps) and W the weights, it minimises::

        (1/n) sum_i |y_i - W x_i - b|^2 + ridge |W|^2,

    so ``ridge`` multiplies the squared weights of standardised features beside the *mean* squared error, the bias is
    free, and n times ``ridge`` is what scikit-learn's ``Ridge`` calls alpha. Rescaling or shifting a feature changes
    nothing. The normal equations are accumulated in float64: one pass, no order of batches, no learning rate.
    """

    @classmethod
    def fit(cls, features: Tensor, targets: Tensor, *, ridge: float = RIDGE) -> Self:
        """Fit to sequences.

        Args:
            features: latents, shape (batch, time, latent).
            targets: state, shape (batch, time, things, dims).
            ridge: strength of the penalty, see the class.

        Returns:
            The probe, in the dtype of ``features``.

        Raises:
            ConfigError: ``ridge`` is not positive, or too small to solve the equations.
            DataError: shapes that do not fit each other, or values that are not finite.
        """
        if not ridge > 0:
            raise ConfigError(f"ridge: expected a number above 0, got {ridge}.")
        check_pairs(features, targets)
        x, y = features.flatten(0, 1), targets.flatten(0, 1).flatten(1)  # (rows, latent), (rows, things * dims)
        moments = _moments(x, y)
        variance = moments.xx.diagonal()
        # Rounding leaves a constant feature of size 1e3 with a variance of about 1e-20, not 0.
        floor = (torch.finfo(x.dtype).eps * moments.mean_x).square()
        scale = torch.where(variance > floor, variance.clamp_min(0).sqrt(), torch.inf)
        correlation = moments.xx / scale[:, None] / scale
        correlation.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(correlation)
        if failed:
            raise ConfigError(f"ridge: {ridge} is too small for features that depend on each other; try {RIDGE}.")
        weight = torch.cholesky_solve(moments.xy / scale[:, None], factor)
        scale = torch.where(scale.isinf(), 1.0, scale)
        dtype = features.dtype if features.dtype.is_floating_point else torch.float32
        shift, scale, weight, bias = (value.to(dtype) for value in (moments.mean_x, scale, weight, moments.mean_y))
        return cls(shift, scale, weight, bias, targets.shape[2], targets.shape[3])


def _moments(x: Tensor, y: Tensor) -> _Moments:
    """Moments of rows, read in chunks; the rows' provisional mean keeps the digits of features far from 0."""
    shift_x, shift_y = x[:_ROWS].double().mean(0), y[:_ROWS].double().mean(0)
    sum_x, sum_y = torch.zeros_like(shift_x), torch.zeros_like(shift_y)
    xx = shift_x.new_zeros(len(shift_x), len(shift_x))
    xy = shift_x.new_zeros(len(shift_x), len(shift_y))
    for part_x, part_y in zip(x.split(_ROWS), y.split(_ROWS), strict=True):
        wide_x, wide_y = part_x.double() - shift_x, part_y.double() - shift_y
        sum_x += wide_x.sum(0)
        sum_y += wide_y.sum(0)
        xx.addmm_(wide_x.T, wide_x)
        xy.addmm_(wide_x.T, wide_y)
    rows = len(x)
    mean_x, mean_y = sum_x / rows, sum_y / rows
    xx = xx / rows - torch.outer(mean_x, mean_x)
    xy = xy / rows - torch.outer(mean_x, mean_y)
    return _Moments(rows, mean_x + shift_x, mean_y + shift_y, xx, xy)
