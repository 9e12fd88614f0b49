"""Pictures of the state read from imagined futures: error of each step, and frames with true and read positions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.evaluation import Picture
from noumena.style import BLUE, CYCLE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, new_figure, short, style
from noumena.worldmodels.sequences import Sequences

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 8.0  # inches
_SHOWN_FRAMES = 9
_SHOWN_TRACES = 4
# Colour, line and mark by key of the method; the model's own stand out, what it is held against is thin.
_LOOKS: dict[str, dict[str, Any]] = {
    "": {"color": BLUE, "linewidth": 2.2, "marker": "o", "markersize": 3.5},
    "sgd": {"color": SKY, "linewidth": 1.4},
    "encoding": {"color": GREEN, "linewidth": 1.4, "marker": "s", "markersize": 3},
    "untrained": {"color": VERMILLION, "linewidth": 1.4},
    "baseline_constant": {"color": GREY, "linestyle": ":", "linewidth": 1.2},
    "baseline_repeat": {"color": PURPLE, "linestyle": "--", "linewidth": 1.2},
    "baseline_linear": {"color": GREY, "linestyle": (0, (3, 1, 1, 1)), "linewidth": 1.2},
    "baseline_actions": {"color": ORANGE, "linestyle": "--", "linewidth": 1.2},
    "baseline_actions_clamped": {"color": ORANGE, "linestyle": "-.", "linewidth": 1.2},
    "baseline_regression": {"color": INK, "linestyle": "-.", "linewidth": 1.2},
}
_THINGS = (VERMILLION, SKY, ORANGE, GREEN, PURPLE)


def step_errors(methods: Mapping[str, tuple[str, Tensor]], unit: str) -> Picture:
    """Error of the state at each step.

    Args:
        methods: label and error of each step, shape (time,), by key.
        unit: of the state, such as "px"; empty when it has none.
    """
    from matplotlib.ticker import MaxNLocator

    with style():
        figure = new_figure(_WIDTH, 3.9)
        axis = figure.subplots()
        for key, (label, error) in methods.items():
            axis.plot(range(len(error)), error.tolist(), label=label, **_LOOKS.get(key, {"color": GREY}))
        steps = max(len(error) for _, error in methods.values())
        axis.set(xlabel="step (actions since the frame that was seen)", ylabel=f"RMSE{f' ({unit})' if unit else ''}")
        axis.set(xlim=(-0.3, steps - 0.7), ylim=(0.0, None))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=3)
    caption = (
        "Root mean square distance between true state and the state read from latents, by step of the open-loop "
        "roll-out. Baselines other than the mean state are told the true state of step 0."
    )
    return Picture("step_errors", "Error by step", figure, caption)


def strips(shown: Sequences, read: Tensor, things: Sequence[str]) -> Picture:
    """Frames with true and read positions, one row per sequence.

    Args:
        shown: sequences with states of pixel positions.
        read: positions read from imagined futures, shape (batch, time, things, 2).
        things: their names.
    """
    assert shown.state is not None
    rows, steps = len(shown), shown.steps
    columns = np.unique(np.linspace(0, steps - 1, min(steps, _SHOWN_FRAMES)).round().astype(int)).tolist()
    images = pictures(shown.frames)
    height, width = shown.frames.shape[-2:]
    side = _WIDTH / len(columns)
    with style():
        figure = new_figure(_WIDTH, rows * side * height / width + 0.45)
        axes = np.array(figure.subplots(rows, len(columns), squeeze=False))
        for row in range(rows):
            for axis, step in zip(axes[row], columns, strict=True):
                axis.imshow(images[row, step].numpy(), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
                _marks(axis, shown.state[row, step], read[row, step], things)
                axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
                axis.grid(visible=False)
                for side_line in axis.spines.values():
                    side_line.set_visible(False)
                if row == 0:
                    axis.set_title(f"t = {step}", loc="center", fontsize=8, pad=3)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    caption = (
        "Rings: true positions. Crosses: positions read from latents that were imagined from the first frame and the "
        "actions alone; no later frame was looked at. A cross outside its frame is not shown."
    )
    return Picture("strips", "Imagined positions", figure, caption)


def _marks(axis: "Axes", true: Tensor, read: Tensor, things: Sequence[str]) -> None:
    """Ring and cross of each thing; true and read have shape (things, 2)."""
    for number, name in enumerate(things):
        colour = _THINGS[number % len(_THINGS)]
        one, other = true[number].tolist(), read[number].tolist()
        label = short(name)
        axis.plot(*one, "o", markersize=9, markerfacecolor="none", color=colour, label=f"{label}: true")
        axis.plot(*other, "x", markersize=5.5, markeredgewidth=1.6, color=colour, label=f"{label}: read")


def pictures(frames: Tensor) -> Tensor:
    """Frames as images of intensities 0 to 1, each sequence scaled by its own darkest and brightest value.

    Args:
        frames: shape (batch, time, channels, height, width).

    Returns:
        Shape (batch, time, height, width, 3) for three channels, else (batch, time, height, width): of several
        channels the brightest.
    """
    wide = frames.float()
    image = wide.movedim(2, -1) if frames.shape[2] == 3 else wide.amax(2)
    flat = image.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    size = (len(image), *[1] * (image.ndim - 1))
    return (image - low.view(size)) / (high - low).clamp_min(1e-12).view(size)


def traces(state: Tensor, read: Tensor, things: Sequence[str]) -> Picture:
    """True and read numbers of a state over the steps, one row per thing and one column per sequence.

    Args:
        state, read: shape (batch, time, things, dims); the first component of each thing is shown.
        things: their names.
    """
    # The things that vary most over these sequences, in units of their own size.
    spread = state[..., 0].std((0, 1)) / state[..., 0].square().mean((0, 1)).sqrt().clamp_min(1e-12)
    chosen: list[int] = sorted(torch.argsort(spread, descending=True)[:_SHOWN_TRACES].tolist())
    with style():
        figure = new_figure(_WIDTH, 1.3 * len(chosen) + 0.6)
        axes = np.array(figure.subplots(len(chosen), len(state), squeeze=False, sharex=True, sharey="row"))
        for row, thing in enumerate(chosen):
            for column, axis in enumerate(axes[row]):
                axis.plot(state[column, :, thing, 0].tolist(), color=INK, linewidth=1.2, label="true")
                axis.plot(read[column, :, thing, 0].tolist(), color=CYCLE[0], linestyle="--", label="read")
                if row == len(chosen) - 1:
                    axis.set_xlabel("step")
            axes[row, 0].set_ylabel(short(things[thing], 14))
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    caption = (
        "One column per held-out sequence. Read: from latents that were imagined from the first frame and the actions "
        f"alone.{'' if len(chosen) == len(things) else f' The {len(chosen)} numbers that vary most.'}"
    )
    return Picture("traces", "Imagined states", figure, caption)
