"""What a row pays by how far its score lies below the threshold. Tensors in, tensors out."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Formula = Callable[[Tensor, float], Tensor]

_SHARPNESS = 4.0


def linear(depth: Tensor, limit: float) -> Tensor:
    """``max(0, u)``, at most ``limit``.

    Args:
        depth: ``u``, how far the score lies below the threshold in units of spread; negative for normal rows.
        limit: greatest value.
    """
    return depth.clamp(0.0, limit)


def inverse(depth: Tensor, limit: float) -> Tensor:
    """``exp(max(0, u)) - 1``, at most ``limit``: the density at the threshold over that of the row, less 1."""
    # Before the exponential, so that neither it nor its gradient overflows.
    return torch.expm1(depth.clamp(0.0, math.log1p(limit))).clamp(max=limit)


def tanh(depth: Tensor, limit: float) -> Tensor:
    """``tanh(max(0, u))``, at most ``limit``."""
    return torch.tanh(depth.clamp(min=0.0)).clamp(max=limit)


def softplus(depth: Tensor, limit: float) -> Tensor:
    """``log(1 + exp(4 u)) / 4``, at most ``limit``; smooth at the threshold, where it is ``log(2) / 4``."""
    steep = _SHARPNESS * depth.clamp(max=limit)
    return (torch.logaddexp(steep, torch.zeros_like(steep)) / _SHARPNESS).clamp(max=limit)


FORMULAS: Mapping[str, Formula] = {"linear": linear, "inverse": inverse, "tanh": tanh, "softplus": softplus}


class SmoothPValue:
    """The conformal p-value of a score as a continuous, increasing function of it.

    At a calibration score it is the p-value of the scores just below, ``(1 + #{calibration < score}) / (n + 1)``, and
    linear between two of them, so it is nowhere above the p-value. Below the lowest one, where the p-value is constant,
    it falls off as ``exp((score - lowest) / scale)``.
    """

    def __init__(self, calibration: np.ndarray, scale: float) -> None:
        """
        Args:
            calibration: ascending, shape (n,); some finite.
            scale: of the tail, in the unit of the scores.
        """
        knots, first = np.unique(calibration, return_index=True)
        finite = np.isfinite(knots)
        self._knots = torch.from_numpy(knots[finite])
        self._values = torch.from_numpy((1.0 + first[finite]) / (len(calibration) + 1.0))
        self._scale = scale

    def __call__(self, scores: Tensor) -> Tensor:
        """In [0, 1), float64, of the shape of ``scores``; 0 at minus infinity. Differentiable almost everywhere."""
        knots, values = self._knots.to(scores.device), self._values.to(scores.device)
        upper = torch.searchsorted(knots, scores.detach().contiguous(), right=True)
        lower = (upper - 1).clamp(min=0)
        upper = upper.clamp(max=len(knots) - 1)
        gap = knots[upper] - knots[lower]
        # In the tail and beyond the last knot both ends are one, and there is nothing to interpolate.
        share = torch.where(gap > 0, scores - knots[lower], 0.0).clamp(min=0.0) / torch.where(gap > 0, gap, 1.0)
        between = values[lower] + share * (values[upper] - values[lower])
        tail = torch.exp((scores - knots[0]).clamp(max=0.0) / self._scale)
        return between * tail


def conformal_p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """:func:`~noumena.density.calibration.p_values` on tensors: float64, shape (rows,), in (0, 1]; a step function."""
    known = torch.where(scores.isfinite(), scores.detach(), -math.inf)
    at_most = torch.searchsorted(calibration, known.contiguous(), right=True)
    return (1.0 + at_most.double()) / (len(calibration) + 1.0)
