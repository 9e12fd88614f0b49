"""Monotonic rational-quadratic splines on a box, the identity outside (Durkan, Bekasov, Murray & Papamakarios 2019).

The parameters of a spline lie along the first axis and the splines along the others, so that every step runs over
contiguous memory, and a bin is chosen by sums over masks, whose gradients need no scattered additions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Half the width of the box.
_BOX = 5.0
# The least width and height of a bin, as a share of the box.
_LEAST_SHARE = 1e-3
# The slope at a knot lies within exp(+-7).
_LOG_SLOPE = 7.0


class _Bin(NamedTuple):
    """The bin of each spline in which its point lies; lengths in units of the box, all of shape (...)."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left_slope: Tensor
    right_slope: Tensor


def numbers_of(bins: int) -> int:
    """Parameters of a spline: widths and heights of the bins and slopes at the knots between them."""
    return 3 * bins - 1


def bend(x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The splines at ``x``, and the logarithms of their slopes there.

    Args:
        x: shape (...).
        parameters: of any size, shape (parameters of a spline, ...); zeros are the identity.

    Returns:
        Two tensors of shape (...).
    """
    inside = (x > -_BOX) & (x < _BOX)
    place = ((x + _BOX) / (2.0 * _BOX)).clamp(0.0, 1.0)
    at = _find(place, parameters, by=0)
    steep = at.height / at.width
    xi = ((place - at.x) / at.width).clamp(0.0, 1.0)
    rest = 1.0 - xi
    both = xi * rest
    below = steep + (at.left_slope + at.right_slope - 2.0 * steep) * both
    # Eqs. 4 and 5.
    y = at.y + at.height * (steep * xi.square() + at.left_slope * both) / below
    slope = at.right_slope * xi.square() + 2.0 * steep * both + at.left_slope * rest.square()
    log_slope = 2.0 * torch.log(steep / below) + torch.log(slope)
    return torch.where(inside, (2.0 * y - 1.0) * _BOX, x), torch.where(inside, log_slope, 0.0)


def unbend(y: Tensor, parameters: Tensor) -> Tensor:
    """The inverse of :func:`bend`, shape (...)."""
    inside = (y > -_BOX) & (y < _BOX)
    place = ((y + _BOX) / (2.0 * _BOX)).clamp(0.0, 1.0)
    at = _find(place, parameters, by=1)
    steep = at.height / at.width
    # Eqs. 6 to 8.
    risen = place - at.y
    curve = risen * (at.left_slope + at.right_slope - 2.0 * steep)
    a = at.height * (steep - at.left_slope) + curve
    b = at.height * at.left_slope - curve
    c = -steep * risen
    root = (b.square() - 4.0 * a * c).clamp(min=0.0).sqrt()
    xi = (2.0 * c / (-b - root)).clamp(0.0, 1.0)
    return torch.where(inside, (2.0 * (at.x + xi * at.width) - 1.0) * _BOX, y)


def _find(place: Tensor, parameters: Tensor, *, by: int) -> _Bin:
    """The bins in which ``place``, in [0, 1], lies, by their widths (0) or heights (1)."""
    bins = (len(parameters) + 1) // 3
    # (widths and heights, bins, ...)
    shares = torch.softmax(parameters[: 2 * bins].unflatten(0, (2, bins)), 1)
    shares = shares * (1.0 - bins * _LEAST_SHARE) + _LEAST_SHARE
    with torch.no_grad():
        ends = shares[by].cumsum(0)[:-1]
        number = (place >= ends).sum(0)
        counted = torch.arange(bins, device=place.device).view(-1, *[1] * place.ndim)
        here, before = (counted == number).to(place), (counted < number).to(place)
    (x, y), (width, height) = (shares * before).sum(1), (shares * here).sum(1)
    # Slopes at the knots between bins; those at the ends of the box are 1, as outside.
    slopes = parameters[2 * bins :]
    left, right = (slopes * here[1:]).sum(0), (slopes * here[:-1]).sum(0)
    return _Bin(x, y, width, height, _slope(left), _slope(right))


def _slope(unbounded: Tensor) -> Tensor:
    return torch.exp(unbounded / (1.0 + unbounded.abs() / _LOG_SLOPE))
