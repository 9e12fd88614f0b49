"""Errors of a state read from latents."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.errors import DataError


@dataclass(frozen=True)
class Errors:
    """How far a predicted state is from the true one.

    Attributes:
        rmse: root of the mean, over sequences, steps and things, of the squared Euclidean distance between predicted
            and true state; for positions in pixels, pixels (not per axis).
        per_step: the same of each step, shape (time,); ``rmse`` is the root of their mean square.
        per_thing: the same of each thing, shape (things,).
        per_step_and_thing: shape (time, things).
        r2: share of the variance explained, mean over the components of the state that vary; NaN when none does.
        r2_per_thing: the same of each thing, shape (things,).
    """

    rmse: float
    per_step: Tensor
    per_thing: Tensor
    per_step_and_thing: Tensor
    r2: float
    r2_per_thing: Tensor


def errors(predicted: Tensor, target: Tensor) -> Errors:
    """Errors of a predicted state.

    Args:
        predicted, target: shape (batch, time, things, dims).

    Raises:
        DataError: the shapes differ, or there is nothing to compare.
    """
    if predicted.shape != target.shape or target.ndim != 4 or not target.numel():
        raise DataError(
            "expected predicted and true state of one shape (batch, time, things, dims), got "
            f"{tuple(predicted.shape)} and {tuple(target.shape)}."
        )
    wide, truth = predicted.double(), target.double()
    square = (wide - truth).square()
    each = square.sum(-1).mean(0)  # (time, things)
    explained = r2(wide.flatten(0, 1), truth.flatten(0, 1))  # (things, dims)
    return Errors(
        math.sqrt(float(each.mean())),
        each.mean(1).sqrt(),
        each.mean(0).sqrt(),
        each.sqrt(),
        float(explained.nanmean()),
        explained.nanmean(1),
    )


def r2(predicted: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination of each column: 1 - squared error / squared deviation from the column's mean.

    Args:
        predicted, target: shape (rows, ...).

    Returns:
        Shape (...): 1 perfect, 0 no better than the mean of ``target``, NaN where the column never varies.
    """
    truth = target.double()
    total = (truth - truth.mean(0)).square().sum(0)
    left = (predicted.double() - truth).square().sum(0)
    return torch.where(total > 0, 1 - left / total, torch.nan)
