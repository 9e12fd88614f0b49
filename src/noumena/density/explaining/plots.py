"""The picture of an explanation: what each column contributes to the score of a row, as bars."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.evaluation import Picture, Table
from noumena.core.seeding import fold
from noumena.density.detector import Detector
from noumena.density.differentiable import column_scale, has_gradient
from noumena.density.explaining.explained import Explanation, explain
from noumena.density.explaining.nearest import NearestSearch
from noumena.style import BLUE, GREY, INK, VERMILLION, new_figure, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 8.0  # inches
_BAR, _FRAME = 0.21, 0.75  # height of a bar, and of a panel's title and axis
_MOST = 15
# For reports: rows explained, the held-out and training rows looked at for them, bars, and how exact the sums are.
_UNUSUAL, _LOOKED_AT, _BARS, _STEPS, _TOLERANCE = 3, 2000, 10, 256, 1e-3


def unusual_rows(model: Detector, rows: Tensor, train: Tensor, *, seed: int) -> list[tuple[Table, Picture]]:
    """The three rows that score lowest, explained for a report: a table and a picture, none for a score without slope.

    Args:
        model: a trained model.
        rows: those among which to look, shape (rows, columns); of more than 2,000 as many drawn at random.
        train: training rows, shape (training rows, columns), for the nearest normal ones; likewise.
        seed: of both draws.
    """
    if not has_gradient(model) or not len(rows):
        return []
    numbers, among = _drawn(len(rows), fold(seed, 0)), _drawn(len(train), fold(seed, 1))
    score = model.score_samples(rows[numbers.to(rows.device)])
    chosen = numbers[torch.from_numpy(np.argsort(score, kind="stable")[:_UNUSUAL])]
    unusual, reference = rows[chosen.to(rows.device)], train[among.to(train.device)]
    nearest = None
    if not bool(model.threshold.isnan()):
        search = NearestSearch(model, unusual.to(model.device), column_scale(model, reference))
        search.look_at(reference.to(model.device))
        found = search.found
        nearest = replace(found, index=np.where(found.index < 0, -1, among.numpy()[found.index]))
    explanation = explain(
        model,
        unusual,
        reference=reference,
        nearest=nearest,
        numbers=chosen.numpy(),
        max_steps=_STEPS,
        tolerance=_TOLERANCE,
    )
    kind = f"held-out rows, of {len(numbers):,} looked at"
    table = explanation.table(f"The {len(chosen)} most unusual {kind}")
    return [(table, contribution_bars(explanation, most=_BARS, name="unusual_rows"))]


def _drawn(count: int, seed: int) -> Tensor:
    """At most 2,000 of the numbers below ``count``, ascending."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_LOOKED_AT].sort().values


def contribution_bars(explanation: Explanation, *, most: int = _MOST, name: str = "explanations") -> Picture:
    """One panel per row: its largest contributions as bars, the rest in one.

    Beside each bar stand the column's value in the row and, at the right, its typical range.

    Args:
        explanation: of a few rows.
        most: bars per row, the one of the remaining columns included.
        name: of the picture's file.
    """
    chosen = [_chosen(values, most) for values in explanation.contributions.values]
    heights = [_BAR * (len(shown) + (left > 0)) + _FRAME for shown, left in chosen]
    with style():
        figure = new_figure(_WIDTH, sum(heights) + 0.3)
        axes = figure.subplots(len(explanation), 1, squeeze=False, height_ratios=heights)[:, 0]
        for i, (axis, (shown, _)) in enumerate(zip(axes, chosen, strict=True)):
            _panel(axis, explanation, i, shown)
        figure.supxlabel(f"contribution to the score ({explanation.unit})", fontsize=9)
    return Picture(name, "What each column contributes to the score", figure, _caption(explanation))


def _chosen(values: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """The columns with bars of their own, largest first, and how many share the last bar."""
    order = np.argsort(-np.abs(values), kind="stable")
    shown = order if len(order) <= most else order[: max(most - 1, 1)]
    return shown, len(order) - len(shown)


def _panel(axis: "Axes", explanation: Explanation, i: int, shown: np.ndarray) -> None:
    values = np.nan_to_num(explanation.contributions.values[i], posinf=0.0, neginf=0.0)
    lengths = [float(values[k]) for k in shown]
    labels = [f"{short(explanation.columns[k], 22)} = {_number(explanation.rows[i, k])}" for k in shown]
    ranges = [_range(explanation, k) for k in shown]
    if left := len(values) - len(shown):
        lengths.append(float(np.delete(values, shown).sum()))
        labels.append(f"{left} other column{'s' if left > 1 else ''}")
        ranges.append("")
    places = np.arange(len(lengths))
    colours = [VERMILLION if length < 0 else BLUE for length in lengths]
    if left:
        colours[-1] = GREY
    axis.barh(places, lengths, color=colours, height=0.72)
    axis.axvline(0.0, color=INK, linewidth=0.8)
    axis.set_yticks(places, labels)
    axis.set_ylim(len(places) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.locator_params(axis="x", nbins=7)
    _end_labels(axis, places, lengths)
    if any(ranges):
        beside = axis.secondary_yaxis("right")
        beside.set_yticks(places, ranges)
        beside.tick_params(axis="y", length=0, labelcolor=GREY, labelsize=7.5)
        beside.spines["right"].set_visible(False)
    axis.set_title(_title(explanation, i))
    if any(ranges):
        place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (4, 5), "textcoords": "offset points"}
        axis.annotate("typical range", (1.0, 1.0), fontsize=7.5, color=GREY, **place)


def _end_labels(axis: "Axes", places: np.ndarray, lengths: list[float]) -> None:
    """The number at the end of each bar, with room for it."""
    low, high = min(0.0, *lengths), max(0.0, *lengths)
    # Of a row that is its own reference every contribution is 0.
    room, empty = 0.13 * (high - low) or 1.0, low == high
    axis.set_xlim(low - (room if low < 0 or empty else 0.0), high + (room if high > 0 or empty else 0.0))
    for place, length in zip(places, lengths, strict=True):
        side: Any = ("right", -3) if length < 0 else ("left", 3)
        look: dict[str, Any] = {"xytext": (side[1], 0), "textcoords": "offset points", "ha": side[0], "va": "center"}
        axis.annotate(f"{length:+.3g}".replace("-", "−"), (length, float(place)), fontsize=7.5, color=INK, **look)


def _title(explanation: Explanation, i: int) -> str:
    words = [f"row {explanation.numbers[i]}: score {_number(explanation.score[i])}"]
    if explanation.p_value is not None:
        words.append(f"p = {explanation.p_value[i]:.2g}")
    base = "reference" if explanation.contributions.method == "gradients" else "base"
    words.append(f"{base} {_number(explanation.contributions.base[i])}")
    return ", ".join(words)


def _range(explanation: Explanation, column: int) -> str:
    if explanation.typical is None:
        return ""
    low, high = explanation.typical[:, column]
    return _number(low) if low == high else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _caption(explanation: Explanation) -> str:
    found = explanation.contributions
    start = {
        "terms": "from its base",
        "gradients": f"from that of the {'nearest normal row' if explanation.starts_near else 'mean row'}",
    }[found.method]
    missing = np.abs(found.residual) / np.maximum(np.abs(found.score - found.base), 1e-300)
    exact = f"They add up to {100 * np.nanmax(missing, initial=0.0):.2g} % of the difference or better."
    return (
        f"What takes the score {start} to that of the row, column by column: to the left what makes the row less "
        f"normal. {exact} Beside each name the value in the row; at the right its typical range, two standard "
        "deviations around the mean."
    )
