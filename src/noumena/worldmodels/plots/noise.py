"""The figure of the study: error against the level of the noise, one panel per kind of noise."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from noumena.core.errors import DataError, did_you_mean
from noumena.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "changing_uniform": "changing, uniform",
    "fixed_uniform": "fixed, uniform",
    "changing_structured": "changing, structured",
    "fixed_structured": "fixed, structured",
}
"""Headings of the four panels."""

NO_NOISE = "none"
"""Kind of records without noise, which belong to every panel at level 0."""

_COLUMNS = ("method", "kind", "level", "seed", "rmse")
# Known methods keep their colour whatever else is shown; bounds and baselines are dashed.
_LOOKS: dict[str, dict[str, Any]] = {
    "vicreg": {"color": BLUE, "marker": "o"},
    "simclr": {"color": GREEN, "marker": "s"},
    "idm": {"color": PURPLE, "marker": "^"},
    "rssm": {"color": ORANGE, "marker": "D"},
    "jepa-robust": {"color": VERMILLION, "marker": "o", "linewidth": 2.2},
    "within": {"color": SKY, "marker": "v"},
    "supervised": {"color": INK, "linestyle": "--", "marker": "."},
    "random": {"color": GREY, "linestyle": "--", "marker": "."},
    "untrained": {"color": GREY, "linestyle": "--", "marker": "."},
    "constant": {"color": GREY, "linestyle": ":"},
}
_OTHERS = (SKY, "#8c6d31", "#6b4c9a", "#a6761d", "#1b7837")


def noise_curves(rows: Iterable[Mapping[str, Any]], *, unit: str = "px") -> "Figure":
    """RMSE against the level of noise: lines through the means over seeds, bands from the least to the greatest seed.

    Args:
        rows: records with keys ``method`` (any name), ``kind`` (one of :data:`KINDS`, in any spelling of its two words,
            or "none" for runs without noise), ``level`` (amplitude of the noise in units of the dot's peak), ``seed``
            and ``rmse``.
        unit: of ``rmse``.

    Returns:
        A figure of four panels with one legend.

    Raises:
        DataError: no record, a key that is missing, or a kind that is unknown.
    """
    records = [_checked(row) for row in rows]
    if not records:
        raise DataError("there is no record to draw. Give rows with keys " + ", ".join(_COLUMNS) + ".")
    methods = list(dict.fromkeys(record["method"] for record in records))
    looks = _looks(methods)
    top = 1.08 * max(record["rmse"] for record in records)
    with style():
        figure = new_figure(8.0, 5.2)
        panels = np.array(figure.subplots(2, 2, sharex=True, sharey=True))
        for axis, (kind, heading) in zip(panels.flat, KINDS.items(), strict=True):
            axis.set_title(heading)
            for method in methods:
                _curve(axis, [r for r in records if r["method"] == method and r["kind"] in (kind, NO_NOISE)], looks)
            axis.set_ylim(0.0, top)
        for axis in panels[1]:
            axis.set_xlabel("level of the noise (peaks of the dot)")
        for axis in panels[:, 0]:
            axis.set_ylabel(f"RMSE ({unit})" if unit else "RMSE")
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], label=method, **looks[method]) for method in methods]
        figure.legend(handles=handles, loc="outside right upper")
    return figure


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in _COLUMNS if name not in row]
    if missing:
        raise DataError(f"a record lacks {', '.join(missing)}; expected the keys {', '.join(_COLUMNS)}.")
    words = str(row["kind"]).lower().replace("-", " ").replace("_", " ").replace(",", " ").split()
    kind = "_".join(sorted(words))  # "changing" and "fixed" come before "structured" and "uniform"
    if kind not in (*KINDS, NO_NOISE):
        raise DataError(f"unknown kind of noise '{row['kind']}'. {did_you_mean(kind, (*KINDS, NO_NOISE))}")
    return {**row, "kind": kind, "level": float(row["level"]), "rmse": float(row["rmse"])}


def _looks(methods: list[str]) -> dict[str, dict[str, Any]]:
    """How each method is drawn; names the library does not know get the colours that are left."""
    others = [method for method in methods if method.lower() not in _LOOKS]
    spare = {method: {"color": _OTHERS[i % len(_OTHERS)], "marker": "*"} for i, method in enumerate(others)}
    own = {method: _LOOKS.get(method.lower()) or spare[method] for method in methods}
    return {method: {"linewidth": 1.5, "markersize": 4, **look} for method, look in own.items()}


def _curve(axis: "Axes", records: list[dict[str, Any]], looks: Mapping[str, dict[str, Any]]) -> None:
    """Line, band and single seeds of one method in one panel."""
    if not records:
        return
    levels = sorted({record["level"] for record in records})
    values = [np.array([r["rmse"] for r in records if r["level"] == level]) for level in levels]
    look = looks[records[0]["method"]]
    axis.fill_between(
        levels, [v.min() for v in values], [v.max() for v in values], color=look["color"], alpha=0.18, linewidth=0
    )
    axis.plot(levels, [v.mean() for v in values], **look)
    each = [(level, value) for level, some in zip(levels, values, strict=True) for value in some if len(some) > 1]
    if each:
        axis.scatter(*zip(*each, strict=True), s=5, color=look["color"], alpha=0.5, linewidths=0)
