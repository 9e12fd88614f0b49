"""The reward penalties of GORMPO (Tumay et al., arXiv 2605.24405), formula by formula, for results that must match.

Each has a fault that :class:`~noumena.density.penalty.DensityPenalty` mends; they are listed there.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_GAIN = 0.1
_EPSILON = 1e-6


def linear(score: Tensor, threshold: float) -> Tensor:
    """``clip(threshold - score, 0, q3 + 1.5 IQR)``, the quartiles being those of ``threshold - score`` in the batch.

    As numpy clips: where the upper end is below 0 every row gets that negative number.
    """
    depth = threshold - score
    if not len(depth):
        return depth
    q1, q3 = torch.quantile(depth.detach(), torch.tensor([0.25, 0.75], dtype=depth.dtype, device=depth.device))
    return torch.minimum(depth.clamp(min=0.0), q3 + 1.5 * (q3 - q1))


def inverse(score: Tensor, threshold: float) -> Tensor:
    """``exp(threshold) / (exp(score) + 1e-6)`` below the threshold, else 0."""
    level = torch.exp(torch.as_tensor(threshold, dtype=score.dtype, device=score.device))
    # A score above the threshold is not looked at: its exponential may overflow.
    return torch.where(score < threshold, level / (torch.exp(score.clamp(max=threshold)) + _EPSILON), 0.0)


def tanh(score: Tensor, threshold: float) -> Tensor:
    """The positive part of :func:`tanh_reg`."""
    return tanh_reg(score, threshold).clamp(min=0.0)


def tanh_reg(score: Tensor, threshold: float) -> Tensor:
    """Hyperbolic tangent of a tenth of ``threshold - score``."""
    return torch.tanh(_GAIN * (threshold - score))


def softplus(score: Tensor, threshold: float) -> Tensor:
    """``log(1 + exp(-score))``, whatever the threshold; computed without overflow."""
    return torch.logaddexp(-score, torch.zeros_like(score))


FORMULAS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "linear": linear,
    "inverse": inverse,
    "tanh": tanh,
    "tanh_reg": tanh_reg,
    "softplus": softplus,
}
