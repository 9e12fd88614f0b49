"""Scores of a detector as a differentiable function of the rows alone, independent of the batch."""

from typing import Any, cast

import torch
from torch import Tensor

from noumena.core.errors import NotSupportedError
from noumena.density.detector import Detector
from noumena.density.differentiable import has_gradient


def density_scores(model: Detector, rows: Tensor) -> Tensor:
    """:meth:`~noumena.density.detector.Detector.score_samples` of rows, differentiable once with respect to them.

    The values are those of ``score_samples`` to the last bit. The gradient flows to the rows and never to the weights
    of the model, and what is not finite in it (of rows that are too far away for the arithmetic) is 0.

    Args:
        model: a trained detector.
        rows: shape (rows, columns), any floating type and device; may be empty.

    Returns:
        float64, shape (rows,), on the device of ``rows``.

    Raises:
        DataError: NaN or infinity in the rows, or another number of columns than in training.
    """
    if not len(rows):
        return rows.sum(-1).double()
    return cast(Tensor, _Score.apply(rows, model))


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, model: Detector) -> Tensor:
        ctx.model = model
        ctx.save_for_backward(rows)
        return torch.from_numpy(model.score_samples(rows.detach())).to(rows.device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _pulled_back(ctx, *grad_outputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (rows,) = ctx.saved_tensors
    slopes = _slopes(ctx.model, rows).to(rows.device, torch.float64)
    return (grad[:, None] * slopes).to(rows.dtype), None


# A second derivative is refused, not taken for 0.
_pulled_back: Any = torch.autograd.function.once_differentiable(_gradient)


def _slopes(model: Detector, rows: Tensor) -> Tensor:
    """Gradient of each row's score with respect to that row, shape (rows, columns); 0 where it is not finite."""
    if not has_gradient(model):
        raise NotSupportedError(
            "scoring='original' draws noise by the bits of a row, so its score has no gradient. Score by another rule, "
            "or call the penalty under torch.no_grad()."
        )
    checked = model._tensor(rows.detach())
    parts: list[Tensor] = []
    with torch.enable_grad():
        for block in checked.split(model._rows_of_a_block):
            leaf = block.detach().clone().requires_grad_()
            # Rows do not touch each other, so the gradient of the sum holds that of each.
            parts += torch.autograd.grad(model.log_density(leaf).sum(), leaf)
    return torch.cat(parts).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
