"""Pictures of planned episodes: how many have arrived after how many steps, and which way they took."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.evaluation import Picture
from noumena.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, new_figure, style
from noumena.worldmodels.environments.worlds import World
from noumena.worldmodels.planning.control import Episodes

# Colours of the channels of a frame: a single one is ink, of several the first is what moves.
_CHANNELS = (BLUE, GREY, ORANGE, PURPLE, SKY)
_PANELS = 8
_LABELS = {"model": ("plans of the model", BLUE), "random": ("random policy", GREY), "oracle": ("oracle", GREEN)}


def painted(frames: Tensor, brightest: float) -> np.ndarray:
    """Frames as ink on white paper, each channel in a colour of its own.

    Args:
        frames: shape (..., channels, height, width).
        brightest: intensity that is full ink.

    Returns:
        uint8, shape (..., height, width, rgb).
    """
    ink = (frames.detach().float().cpu() / brightest).clamp(0, 1)
    colours = (INK,) if ink.shape[-3] == 1 else _CHANNELS
    paper = torch.ones(*ink.shape[:-3], *ink.shape[-2:], 3)
    for channel in range(ink.shape[-3]):
        share = ink[..., channel, :, :, None]
        paper = paper * (1 - share) + torch.tensor(rgb(colours[channel % len(colours)])) / 255 * share
    return (255 * paper).round().to(torch.uint8).numpy()


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``#rrggbb``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def success_curve(found: Mapping[str, Episodes]) -> Picture:
    """Share of the episodes that have reached their goal after a number of actions, by policy."""
    with style():
        figure = new_figure(5.2, 3.0)
        axis: Any = figure.subplots()
        for name, part in found.items():
            label, colour = _LABELS[name]
            last = part.actions.shape[1]
            counts = torch.bincount(part.steps[part.success].cpu(), minlength=last + 1)
            share = 100 * counts.cumsum(0).double() / len(part.success)
            axis.step(np.arange(last + 1), share.numpy(), where="post", color=colour, label=label)
        axis.set(xlabel="actions taken", ylabel="episodes at their goal (%)", ylim=(-3, 103))
        axis.set_xlim(left=0)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(found))
    caption = "The same starts and goals for all policies."
    return Picture("planning-success", "Planning: goals reached over time", figure, caption)


def trajectories(world: World, episodes: Episodes) -> Picture:
    """The ways of some episodes, failures first."""
    # One who reads this wants to see what goes wrong; of the others the longest.
    order = torch.argsort(episodes.steps + (~episodes.success) * 10**6, descending=True, stable=True)
    failed = int((~episodes.success).sum())
    worst = order[: min(failed, _PANELS // 2)]
    some = torch.cat([worst, order[failed:][: _PANELS - len(worst)]])
    with style():
        rows = -(-len(some) // 4)
        columns = min(4, len(some))
        figure = new_figure(1.9 * columns, 2.1 * rows + 0.35)
        axes: list[Any] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axis in axes[len(some) :]:
            axis.remove()
        for axis, episode in zip(axes, some.tolist(), strict=False):
            _way(axis, world, episodes, episode)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    caption = (
        "Frames at the start, in pixels; x to the right and y down. The circle is the goal, as wide as counts as "
        f"reached ({world.success_radius:g} px). Imagined: what the readout makes of the first plan. "
        f"Failures first: {failed} of {len(episodes.success)}."
    )
    return Picture("planning-trajectories", "Planning: ways to the goal", figure, caption)


def _way(axis: Any, world: World, episodes: Episodes, episode: int) -> None:
    from matplotlib.patches import Circle

    scenes = None if episodes.scenes is None else episodes.scenes[[episode]]
    frame = world.render(episodes.positions[[episode], 0], scenes)[0]
    image = axis.imshow(painted(frame, world.brightest), interpolation="nearest", alpha=0.5)
    left, right, low, high = image.get_extent()
    # An imagined way may leave the world; the panel does not follow it.
    axis.set(xlim=(left, right), ylim=(low, high))
    steps = int(episodes.steps[episode])
    if episodes.imagined is not None and steps:
        plan = torch.cat([episodes.positions[episode, :1], episodes.imagined[episode, 0]]).cpu().numpy()
        axis.plot(*plan.T, color=GREEN, linewidth=1.0, linestyle=":", marker=".", markersize=3, label="imagined")
    way = episodes.positions[episode, : steps + 1].cpu().numpy()
    axis.plot(*way.T, color=BLUE, linewidth=1.2, marker=".", markersize=3, label="way taken")
    x, y = episodes.goals[episode].tolist()
    axis.add_patch(Circle((x, y), world.success_radius, fill=False, color=VERMILLION, linewidth=1.5))
    axis.plot([], [], "o", color=VERMILLION, markerfacecolor="none", label="goal")
    success = bool(episodes.success[episode])
    axis.set_title(f"{steps} actions" if success else f"not reached, {float(episodes.nearest[episode]):.1f} px")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
