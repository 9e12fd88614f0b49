"""Pictures of latents: their two widest directions, and how many directions they fill."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from noumena.core.evaluation import Picture
from noumena.style import BLUE, INK, SEQUENTIAL, VERMILLION, new_figure, short, style
from noumena.worldmodels.diagnostics import dimension_std, singular_values

_WIDTH = 8.0  # inches
_DOTS = 4000
_TRAJECTORIES = (VERMILLION, BLUE, INK)
_SHOWN_COLOURS = 3


def latent_map(encoded: Tensor, colours: Mapping[str, Tensor]) -> Picture:
    """The two widest principal components of latents, coloured by the state, with a few trajectories.

    Args:
        encoded: latents of true frames, shape (batch, time, latent).
        colours: what to colour by, shape (batch, time), by name; the first three are shown.
    """
    flat = encoded.flatten(0, 1).double()
    mean = flat.mean(0)
    # eigh gives eigenvalues in increasing order.
    variance, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    kept = axes[:, -2:].flip(1)
    spot = ((flat - mean) @ kept).reshape(*encoded.shape[:2], -1)
    share = variance.flip(0)[:2] / variance.sum().clamp_min(1e-300)
    every = max(1, flat.shape[0] // _DOTS)
    dots = spot.flatten(0, 1)[::every].numpy()
    shown = dict(list(colours.items())[:_SHOWN_COLOURS])
    with style():
        figure = new_figure(_WIDTH, 3.6 if len(shown) < 3 else 3.0)
        panels = np.array(figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True))[0]
        for axis, (name, value) in zip(panels, shown.items(), strict=True):
            tint = value.flatten()[::every].numpy()
            drawn = axis.scatter(*_two(dots), c=tint, cmap=SEQUENTIAL, s=4, linewidths=0, alpha=0.7, rasterized=True)
            for path, colour in zip(spot[:: max(1, len(spot) // 3)], _TRAJECTORIES, strict=False):
                line = _two(path.numpy())
                axis.plot(*line, color="white", linewidth=2.6, alpha=0.9)
                axis.plot(*line, color=colour, linewidth=1.2)
                axis.plot(line[0][0], line[1][0], "o", color=colour, markersize=5, markeredgecolor="white")
            bar = figure.colorbar(drawn, ax=axis, label=short(name), pad=0.01)
            bar.outline.set_visible(False)
            axis.set_xlabel(f"component 1 ({float(share[0]):.0%})")
        second = f" ({float(share[1]):.0%})" if len(share) > 1 else ""
        panels[0].set_ylabel(f"component 2{second}")
    caption = (
        "Latents of single frames on their two widest principal components, with their shares of the variance. Lines: "
        "three sequences, beginning at the dot."
    )
    return Picture("latent_map", "Latents and the state", figure, caption)


def _two(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second coordinate of points (rows, 1 or 2); a latent of one dimension lies on a line."""
    return points[:, 0], points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))


def latent_spectrum(encoded: Tensor) -> Picture:
    """Singular values of centred latents, and the deviation of each dimension.

    Args:
        encoded: shape (batch, time, latent).
    """
    flat = encoded.flatten(0, 1).double()
    sigma = singular_values(flat - flat.mean(0))
    sigma = (sigma / sigma[0].clamp_min(1e-300)).clamp_min(1e-8)
    std = dimension_std(flat).sort(descending=True).values
    with style():
        figure = new_figure(_WIDTH, 2.8)
        left, right = figure.subplots(1, 2)
        left.plot(range(1, len(sigma) + 1), sigma.tolist(), color=BLUE)
        left.set(yscale="log", xlabel="singular value, in decreasing order", ylabel="relative to the largest")
        edges = [i + 0.5 for i in range(len(std) + 1)]
        right.stairs(std.tolist(), edges, fill=True, color=BLUE)
        right.set(xlabel="dimension, in decreasing order", ylabel="standard deviation", ylim=(0.0, None))
    caption = "Of latents of single held-out frames. A spectrum that drops early: few directions are used."
    return Picture("latent_spectrum", "Dimensions of the latent", figure, caption)
