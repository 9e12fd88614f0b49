"""The background swap: fixed noise turned into changing noise, in training only.

Whatever is constant in a sequence predicts itself, and a joint-embedding model that has nothing better to do encodes
that. An estimate of each sequence's background (the median over its frames) is taken from every frame and the
background of another sequence of the batch, drawn anew for each frame, put in its place. The background then predicts
nothing, and the model has to encode what moves. This is an augmentation of the input, not an objective.

Without a fixed background the median holds traces of what moves, and the swap only costs. It is therefore switched on
by a statistic of the training data, :func:`background_share`.
"""

import torch
from torch import Tensor

# Pixels per frame by which a background may drift, along each axis, and still be found.
_DRIFTS = tuple(i / 8 for i in range(-16, 17))
THRESHOLD = 0.2


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


def swap_backgrounds(frames: Tensor, donors: Tensor, drift: Tensor) -> Tensor:
    """Each frame with the background of another sequence.

    Args:
        frames: shape (batch, time, channels, height, width).
        donors: the sequence whose background each frame gets, int64, shape (batch, time).
        drift: of all backgrounds, in pixels (x, y) per frame, shape (2,).
    """
    by = shifts(drift, frames.shape[1])
    still = rolled(frames, -by)
    background = still.median(dim=1).values
    return rolled(still - background[:, None] + background[donors], by)


def background_share(frames: Tensor, drift: Tensor) -> float:
    """The share of the pixels' variance over sequences that is a fixed background's, between about 0 and 1.

    Medians over the even and over the odd frames of each sequence are two estimates of its background. What they have
    in common beyond the mean over sequences is background; noise that changes, and what moves fast, is in one only.

    Args:
        frames: shape (batch, time, channels, height, width), at least 4 frames of 2 sequences.
        drift: pixels (x, y) per frame, undone before.
    """
    still = rolled(frames, -shifts(drift, frames.shape[1]))
    even, odd = (still[:, start::2].median(dim=1).values for start in (0, 1))
    even, odd = even - even.mean(0), odd - odd.mean(0)
    # Sums of products could be negative by chance: no background.
    common = (even * odd).mean()
    total = (frames - frames.mean((0, 1))).square().mean()
    return float((common / total.clamp(min=1e-12)).clamp(min=0.0))


def find_drift(frames: Tensor) -> Tensor:
    """The drift in pixels (x, y) per frame, to an eighth, at which frames of a sequence have most in common.

    One drift for all sequences. The axes are searched in turns; no drift wins ties.

    Args:
        frames: as for :func:`background_share`.
    """
    best, most = torch.zeros(2, device=frames.device), background_share(frames, torch.zeros(2, device=frames.device))
    for axis in (0, 1):
        for speed in _DRIFTS:
            trial = best.clone()
            trial[axis] = speed
            share = background_share(frames, trial)
            if share > 1.25 * most and share > THRESHOLD:
                best, most = trial, share
    return best
