"""Training curves: one panel per recorded quantity, one line per split."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from noumena.core.evaluation import Picture
from noumena.style import BLUE, GREEN, GREY, VERMILLION, new_figure, style
from noumena.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPLITS = {"train": BLUE, "val": VERMILLION, "test": GREEN}
# Bookkeeping of the training that says nothing about the model.
_NOT_SHOWN = ("step", "seconds")
_LOG_RATIO = 20.0
# The first epochs may be cut off when they are this many times further out than the rest of the curve is tall.
_CUT_RATIO = 3.0


def training_curves(history: History) -> Picture | None:
    """Every recorded quantity against the number of epochs trained; ``None`` when no epoch ended.

    A positive quantity that falls or rises by more than a factor 20 is on a logarithmic axis; where that cannot be
    (negative log-likelihoods) the axis leaves out the first epochs if they would flatten the rest.
    """
    panels = _panels(history)
    if history.epochs == 0 or not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    cut = False
    with style():
        figure = new_figure(2.75 * columns, 2.2 * rows + 0.5)
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axis, (term, lines) in zip(axes, panels.items(), strict=False):
            cut |= _panel(axis, term, lines, history.best_epoch)
        for unused in axes[len(panels) :]:
            unused.remove()
        handles = {
            label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=len(handles))
        figure.supxlabel("epochs trained", fontsize=9)
    return Picture("training_curves", "Training curves", figure, _caption(history, cut))


def _panels(history: History) -> dict[str, dict[str, list[float]]]:
    """Quantity to split to values; a column that belongs to no split has the split ``""``."""
    panels: dict[str, dict[str, list[float]]] = {}
    for name, values in history.items():
        split, _, term = name.partition("_")
        if split in _SPLITS and term:
            panels.setdefault(term, {})[split] = values
    for name, values in history.items():
        if name not in _NOT_SHOWN and name.partition("_")[0] not in _SPLITS:
            panels[name] = {"": values}
    return panels


def _panel(axis: "Axes", term: str, lines: Mapping[str, Sequence[float]], best_epoch: int | None) -> bool:
    """Draw one quantity; returns whether the axis leaves out early epochs."""
    values = np.concatenate([np.asarray(line, dtype=float) for line in lines.values()])
    for split, line in lines.items():
        marker = "o" if len(line) == 1 else None
        axis.plot(
            range(1, len(line) + 1), line, color=_SPLITS.get(split, GREY), label=split or "whole run", marker=marker
        )
    if best_epoch is not None:
        axis.axvline(best_epoch + 1, color=GREY, linewidth=1.0, linestyle=":", label="weights kept")
    axis.set_title({"lr": "learning rate"}.get(term, term.replace("_", " ")))
    axis.locator_params(axis="x", integer=True, nbins=6)
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > _LOG_RATIO * finite.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        return False
    return _leave_out_start(axis, list(lines.values()))


def _leave_out_start(axis: "Axes", lines: Sequence[Sequence[float]]) -> bool:
    """Fit the axis to all but the first tenth of the epochs where these dwarf the rest."""
    start = max(1, len(lines[0]) // 10)
    late = np.concatenate([np.asarray(line, dtype=float)[start:] for line in lines])
    late = late[np.isfinite(late)]
    everything = np.concatenate([np.asarray(line, dtype=float) for line in lines])
    if len(late) < 3 or np.ptp(late) == 0 or np.ptp(everything[np.isfinite(everything)]) < _CUT_RATIO * np.ptp(late):
        return False
    margin = 0.06 * np.ptp(late)
    axis.set_ylim(late.min() - margin, late.max() + margin)
    return True


def _caption(history: History, cut: bool) -> str:
    words = [
        "Means per epoch; terms of the loss as the model defines them, summed over features and averaged over rows."
    ]
    if history.best_epoch is not None:
        words.append(
            f"Dotted: the weights after {history.best_epoch + 1} epochs had the lowest validation loss, and were kept."
        )
    if history.stopped_early:
        words.append(f"Training stopped early after {history.epochs} epochs.")
    if cut:
        words.append("Axes that the first epochs would flatten leave these out.")
    return " ".join(words)
