"""The training curves of several runs in the same panels, one colour per run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noumena.core.evaluation import Picture
from noumena.evaluation.curves import _LOG_RATIO, _NOT_SHOWN, _leave_out_start
from noumena.style import CYCLE, new_figure, short, style
from noumena.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PANELS = 9
_DASHES = ("-", "--", "-.", ":")
_LEGEND_WIDTH = 110  # characters of all its names that fit one line

Lines = dict[int, list[float]]


def overlaid_curves(runs: Sequence[tuple[str, History]]) -> Picture | None:
    """Each quantity that was recorded against the number of epochs trained, one line per run.

    Of a quantity the validation is shown where a run has it, and the training beside it for the loss, or where no run
    has a validation. Terms that a single run recorded are left out, as is what does not fit nine panels.

    Args:
        runs: names as the legend shows them, and histories.

    Returns:
        ``None`` when no run recorded an epoch.
    """
    panels = _panels([history for _, history in runs])
    if not panels:
        return None
    shown = dict(list(panels.items())[:_MOST_PANELS])
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    named = {i: short(name, 40) for i, (name, _) in enumerate(runs) if any(i in lines for lines in shown.values())}
    per_line = max(1, min(len(named), _LEGEND_WIDTH // (max(map(len, named.values())) + 6)))
    cut = False
    with style():
        figure = new_figure(2.75 * max(columns, 2), 2.2 * rows + 0.4 + 0.2 * -(-len(named) // per_line))
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axis, (title, lines) in zip(axes, shown.items(), strict=False):
            cut |= _panel(axis, title, lines)
        for unused in axes[len(shown) :]:
            unused.remove()
        handles = {i: line for axis in axes[: len(shown)] for i, line in zip(*_handles(axis), strict=True)}
        order = sorted(handles)
        figure.legend([handles[i] for i in order], [named[i] for i in order], loc="outside upper left", ncols=per_line)
        figure.supxlabel("epochs trained", fontsize=9)
    return Picture("compared_curves", "Training curves", figure, _caption(len(panels) - len(shown), cut))


def _panels(histories: Sequence[History]) -> dict[str, Lines]:
    """Title of a panel to the lines in it, by the position of their runs; the loss first."""
    names = dict.fromkeys(name for history in histories for name in history)
    panels: dict[str, Lines] = {}
    for name in sorted(names, key=lambda name: not name.endswith("_loss")):
        split, _, term = name.partition("_")
        lines = {i: history[name] for i, history in enumerate(histories) if history.columns.get(name)}
        if name in (*_NOT_SHOWN, "lr") or split == "test" or not lines:
            continue
        if split == "train" and term != "loss" and f"val_{term}" in names:
            continue
        if term == "loss" or len(lines) > 1:
            label = {"train": f"{term} (training)", "val": f"{term} (validation)"}.get(split, name)
            panels[label.replace("_", " ")] = lines
    return panels


def _panel(axis: "Axes", title: str, lines: Lines) -> bool:
    """Draw one quantity; returns whether the axis leaves out early epochs."""
    for i, line in lines.items():
        axis.plot(
            range(1, len(line) + 1),
            line,
            color=CYCLE[i % len(CYCLE)],
            linestyle=_DASHES[i // len(CYCLE) % len(_DASHES)],
            marker="o" if len(line) == 1 else None,
            label=str(i),
        )
    axis.set_title(title)
    axis.locator_params(axis="x", integer=True, nbins=6)
    values = np.concatenate([np.asarray(line, dtype=float) for line in lines.values()])
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > _LOG_RATIO * finite.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        return False
    # By the longest run, or a short one beside it would be left out whole.
    return min(map(len, lines.values())) > 3 and _leave_out_start(axis, sorted(lines.values(), key=len))


def _handles(axis: "Axes") -> tuple[list[int], list[Any]]:
    handles, labels = axis.get_legend_handles_labels()
    return [int(label) for label in labels], list(handles)


def _caption(left_out: int, cut: bool) -> str:
    words = ["Means per epoch; terms of the loss as each model defines them."]
    if left_out:
        words.append(f"{left_out} further quantities are in the runs' own reports.")
    if cut:
        words.append("Axes that the first epochs would flatten leave these out.")
    return " ".join(words)
