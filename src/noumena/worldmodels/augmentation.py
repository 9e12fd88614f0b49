"""The background swap: fixed noise turned into changing noise, in training only.

Whatever is constant in a sequence predicts itself, and a joint-embedding model that has nothing better to do encodes
that. An estimate of each sequence's background is taken from every frame, and the background of another sequence of
the batch, drawn anew for each frame, put in its place. The background then predicts nothing, and the model has to
encode what moves. This is an augmentation of the input, not an objective.

The background of a pixel is an order statistic of its values over the sequence: the median, or a low one where what
moves is brighter than what it moves over (a high one where it is darker), in which next to nothing of it is left. Which
one, and whether there is a fixed background at all, is told by the training data (:func:`find_background`): without
one the estimate holds traces of what moves, and the swap would only cost.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Pixels per frame by which a background may drift, along each axis, and still be found.
_DRIFTS = tuple(i / 8 for i in range(-16, 17))
# Place of a low value among the ordered ones of a pixel, from 0 for the least to 1 for the greatest.
_LOW = 0.08
THRESHOLD = 0.2
_LEAST_FRAMES = 8
_LEAST_SEQUENCES = 16
# Pixels that the drift is searched in, unless they are those of fewer sequences: 256 of 17 frames of 28 x 28.
_DRIFT_VALUES = 256 * 17 * 28 * 28


class Background(NamedTuple):
    """What training data say of their backgrounds.

    Attributes:
        share: of the pixels' variance, see :func:`background_share`.
        drift: pixels (x, y) per frame, shape (2,).
        quantile: the order statistic that estimates the background, from 0 to 1.
    """

    share: float
    drift: Tensor
    quantile: float


def ordered(frames: Tensor) -> list[Tensor]:
    """The values of each pixel over time, from the least to the greatest.

    A merge-exchange network (Batcher 1968; Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M) of elementwise
    minima and maxima, several times as fast as sorting pixel by pixel.

    Args:
        frames: shape (batch, time, ...).

    Returns:
        As many tensors (batch, ...) as there are time steps.
    """
    values = list(frames.unbind(1))
    rounds = math.ceil(math.log2(len(values))) if len(values) > 1 else 0
    p = 1 << rounds >> 1
    while p > 0:
        q, r, distance = 1 << rounds >> 1, 0, p
        while distance > 0:
            for i in range(len(values) - distance):
                if i & p == r:
                    low, high = values[i], values[i + distance]
                    values[i], values[i + distance] = torch.minimum(low, high), torch.maximum(low, high)
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    return values


def background(frames: Tensor, quantile: float) -> Tensor:
    """The order statistic of each pixel over time, shape (batch, channels, height, width).

    Args:
        frames: shape (batch, time, channels, height, width).
        quantile: from 0 for the least value to 1 for the greatest.
    """
    return ordered(frames)[round(quantile * (frames.shape[1] - 1))]


def shifts(drift: Tensor, steps: int) -> Tensor:
    """Whole pixels (x, y) by which a drifting background has moved at each of ``steps`` frames, shape (steps, 2)."""
    return (drift[None] * torch.arange(steps, device=drift.device)[:, None]).trunc().long()


def rolled(frames: Tensor, by: Tensor) -> Tensor:
    """Each frame rolled cyclically by its own whole pixels.

    Args:
        frames: shape (batch, time, channels, height, width).
        by: (x, y) of each time step, int64, shape (time, 2).
    """
    if not by.any():
        return frames
    height, width = frames.shape[-2:]
    x = (torch.arange(width, device=frames.device)[None] - by[:, :1]) % width  # (time, width)
    y = (torch.arange(height, device=frames.device)[None] - by[:, 1:]) % height
    time = torch.arange(frames.shape[1], device=frames.device)
    # Advanced axes around a slice come first: (time, height, width, batch, channels).
    return frames[:, time[:, None, None], :, y[:, :, None], x[:, None, :]].permute(3, 0, 4, 1, 2)


def swap_backgrounds(frames: Tensor, donors: Tensor, drift: Tensor, quantile: float = 0.5) -> Tensor:
    """Each frame with the background of another sequence.

    Args:
        frames: shape (batch, time, channels, height, width).
        donors: the sequence whose background each frame gets, int64, shape (batch, time).
        drift: of all backgrounds, in pixels (x, y) per frame, shape (2,).
        quantile: of :func:`background`.
    """
    by = shifts(drift, frames.shape[1])
    still = rolled(frames, -by)
    own = background(still, quantile)
    return rolled(still - own[:, None] + own[donors], by)


def background_share(frames: Tensor, drift: Tensor) -> float:
    """The share of the pixels' variance over sequences that is a fixed background's, between about 0 and 1.

    The even and the odd frames of each sequence give two estimates of its background. What they have in common beyond
    the mean over sequences is background; noise that changes, and what moves fast, is in one only.

    Args:
        frames: shape (batch, time, channels, height, width), at least 4 frames of 2 sequences.
        drift: pixels (x, y) per frame, undone before.
    """
    still = rolled(frames, -shifts(drift, frames.shape[1]))
    # The median: a low or high value would hold, of what moves, the same in both. Of an even number of frames both
    # values in the middle count: one of them holds bright things that linger, the other dark ones.
    halves = [ordered(still[:, start::2]) for start in (0, 1)]
    common = torch.stack([_common(*(half[(len(half) - side) // 2] for half in halves)) for side in (0, 1)]).min()
    total = (frames - frames.mean((0, 1))).square().mean()
    # A mean of products may be negative by chance: no background.
    return float((common / total.clamp(min=1e-12)).clamp(min=0.0))


def _common(even: Tensor, odd: Tensor) -> Tensor:
    """Mean product of what two estimates of each background have beyond their means over sequences."""
    return ((even - even.mean(0)) * (odd - odd.mean(0))).mean()


def find_background(frames: Tensor) -> Background:
    """Whether sequences have fixed backgrounds, how these drift, and how they are estimated best.

    Fewer than 8 frames cannot tell a background from what lingers: they are said to have none.

    Args:
        frames: as for :func:`background_share`.
    """
    if frames.shape[1] < _LEAST_FRAMES:
        return Background(0.0, torch.zeros(2, device=frames.device), 0.5)
    # Large frames tell the drift by fewer sequences; all drifts of all of them would take minutes.
    drift = _find_drift(frames[: max(_LEAST_SEQUENCES, _DRIFT_VALUES // frames[0].numel())])
    still = rolled(frames, -shifts(drift, frames.shape[1]))
    rest = still - background(still, 0.5)[:, None]
    # What moves leaves values far off its background on one side only; the values on the other side hold least of it.
    other = _LOW if float((rest**3).mean()) > 0.0 else 1.0 - _LOW
    quantile = min((0.5, other), key=lambda level: _disagreement(still, level))
    return Background(background_share(frames, drift), drift, quantile)


def _disagreement(still: Tensor, quantile: float) -> float:
    """Mean squared difference of the two estimates of each background."""
    even, odd = (background(still[:, start::2], quantile) for start in (0, 1))
    return float((even - odd).square().mean())


def _find_drift(frames: Tensor) -> Tensor:
    """The drift to an eighth of a pixel per frame, one for all sequences, that leaves least beside the background.

    The axes are searched in turns, and a drift has to leave a tenth less than none.
    """
    best = torch.zeros(2, device=frames.device)
    least = _left(frames, best)
    for axis in (0, 1):
        trials = [best.clone().index_fill_(0, torch.tensor([axis], device=frames.device), v) for v in _DRIFTS]
        left, winner = min(((_left(frames, trial), trial) for trial in trials), key=lambda found: found[0])
        if left < 0.9 * least:
            best, least = winner, left
    return best


def _left(frames: Tensor, drift: Tensor) -> float:
    """Mean absolute value of what frames hold beside their background, were it to drift so."""
    still = rolled(frames, -shifts(drift, frames.shape[1]))
    return float((still - background(still, 0.5)[:, None]).abs().mean())
