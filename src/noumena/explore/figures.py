"""The map as a plotly figure of compact arrays, and the page's look for the families' figures."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from noumena.core.exploring import Points
from noumena.explore.maps import PlaneMap
from noumena.style import BLUE, CYCLE, GREY, INK, PALE, SEQUENTIAL, VERMILLION, short

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
HEIGHT = 320  # of a drawing, in CSS pixels, unless the family says another
_CLEAR = "rgba(0,0,0,0)"
# Those of every picture of the library, then darker ones; more categories than colours share the grey.
_CATEGORIES = (*CYCLE, "#332288", "#882255", "#117733", "#999933", "#661100", "#88CCEE")
_OTHERS, _NONE = "others", "no value"
# Of these a browser shows few at once: each takes one of its sixteen WebGL contexts.
_WEBGL = ("gl", "3d", "surface", "cone", "streamtube", "volume", "splom", "parcoords")

# Any: a dictionary that Dash types by its own class.
CONFIG: Any = {
    "displaylogo": False,
    "responsive": True,
    # Nothing of a figure leaves the machine: no maps to fetch, no button that uploads it.
    "plotlyServerURL": "",
    "topojsonURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud", "editInChartStudio", "select2d", "lasso2d"],
}


def typed(array: np.ndarray) -> dict[str, Any]:
    """An array as plotly.js reads it without parsing numbers: base64 of its bytes."""
    kind = {"float32": "f4", "float64": "f8", "int32": "i4", "uint8": "u1"}[array.dtype.name]
    return {"dtype": kind, "bdata": base64.b64encode(np.ascontiguousarray(array).data).decode()}


def map_figure(points: Points, plane: PlaneMap, colour: str, marks: Mapping[str, int]) -> dict[str, Any]:
    """The map, coloured by one of ``points.colours``.

    Args:
        points: their names are shown when the mouse is over them.
        plane: where they are.
        colour: name of a colour; empty for one colour of all.
        marks: word to the position of a point that is marked with it.

    Returns:
        A figure whose every trace has the positions of its points as ``customdata``.
    """
    hover = np.asarray([_plain(name) for name in points.names], dtype=object)
    values = points.colours.get(colour)
    if values is None:
        groups = [_trace(plane, hover, np.arange(len(hover)), "", {"color": BLUE})]
    elif values.dtype.kind in "fiu":
        groups = _by_number(plane, hover, colour, values)
    else:
        groups = _by_category(plane, hover, colour, np.asarray([str(value) for value in values], dtype=object))
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": plane.axes[0]}, "zeroline": False},
        "yaxis": {"title": {"text": plane.axes[1]}, "zeroline": False},
        "hovermode": "closest",
        "dragmode": "pan" if len(hover) > 1 else "zoom",
        "showlegend": len(groups) > 1,
        "legend": {
            "itemsizing": "constant",
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
        },
        "uirevision": plane.axes[0],
        **marked(plane, marks),
    }
    return themed(
        {"data": groups, "layout": layout}, revision=plane.axes[0], margin={"l": 56, "r": 12, "t": 12, "b": 48}
    )


def _by_number(plane: PlaneMap, hover: np.ndarray, colour: str, values: np.ndarray) -> list[dict[str, Any]]:
    numbers = values.astype(np.float32)
    there = np.isfinite(numbers)
    shown = hover + np.asarray([f"<br>{_plain(colour)}: {value:.5g}" for value in numbers], dtype=object)
    groups: list[dict[str, Any]] = []
    if not there.all():
        groups.append(_trace(plane, shown, np.flatnonzero(~there), _NONE, {"color": PALE}))
    if there.any():
        # A few far values would leave one colour for all the others.
        low, high = (float(value) for value in np.percentile(numbers[there], [1.0, 99.0]))
        marker = {
            "color": typed(numbers[there]),
            "colorscale": SEQUENTIAL.capitalize(),
            "cmin": low,
            "cmax": high if high > low else low + 1.0,
            "colorbar": {"title": {"text": _plain(short(colour)), "side": "right"}, "thickness": 12, "outlinewidth": 0},
        }
        groups.append(_trace(plane, shown, np.flatnonzero(there), short(colour), marker))
    return groups


def _by_category(plane: PlaneMap, hover: np.ndarray, colour: str, values: np.ndarray) -> list[dict[str, Any]]:
    shown = hover + np.asarray([f"<br>{_plain(colour)}: {_plain(value)}" for value in values], dtype=object)
    names, inverse, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    most = np.argsort(-counts, kind="stable")[: len(_CATEGORIES)]
    chosen = sorted(most.tolist())  # in the order of the names, not of how many they have
    groups = []
    rest = np.flatnonzero(~np.isin(inverse, chosen))
    if len(rest):
        groups.append(_trace(plane, shown, rest, _OTHERS, {"color": PALE}))
    for category, hue in zip(chosen, _CATEGORIES, strict=False):
        found = np.flatnonzero(inverse == category)
        groups.append(_trace(plane, shown, found, _plain(short(str(names[category]))) or "–", {"color": hue}))
    return groups


def _trace(
    plane: PlaneMap, hover: np.ndarray, index: np.ndarray, name: str, marker: Mapping[str, Any]
) -> dict[str, Any]:
    size, opacity = (4, 0.7) if len(hover) > 2000 else (7, 0.85)
    return {
        "type": "scattergl",
        "mode": "markers",
        "name": name,
        "x": typed(plane.coordinates[index, 0]),
        "y": typed(plane.coordinates[index, 1]),
        "customdata": index.tolist(),  # as a list: Dash looks a click up in it
        "hovertext": hover[index].tolist(),
        "hoverinfo": "text",
        "marker": {"size": size, "opacity": opacity, **marker},
    }


def marked(plane: PlaneMap, marks: Mapping[str, int]) -> dict[str, Any]:
    """A ring around each marked point, and what it is; parts of a layout, so that no trace is drawn anew."""
    words: dict[int, list[str]] = {}
    for word, index in marks.items():
        words.setdefault(index, []).append(word)
    rings, notes = [], []
    for index, found in words.items():
        x, y = (float(value) for value in plane.coordinates[index])
        colour = VERMILLION if "chosen" in found else INK
        rings.append(
            {
                "type": "circle",
                "xref": "x",
                "yref": "y",
                "xsizemode": "pixel",
                "ysizemode": "pixel",
                "xanchor": x,
                "yanchor": y,
                "x0": -8,
                "x1": 8,
                "y0": -8,
                "y1": 8,
                "line": {"color": colour, "width": 2.5},
            }
        )
        notes.append(
            {
                "x": x,
                "y": y,
                "text": ", ".join(found),
                "showarrow": False,
                "yshift": 18,
                "font": {"color": colour, "size": 12},
                "bgcolor": "rgba(255,255,255,0.8)",
            }
        )
    return {"shapes": rings, "annotations": notes}


def themed(
    figure: Mapping[str, Any], *, revision: str = "drawing", margin: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """A figure with the page's fonts, paper and margins.

    Args:
        figure: plain values, ``{"data": [...], "layout": {...}}``.
        revision: as long as it is the same, the reader's zoom and view are kept.
        margin: around the axes, in pixels; where there are none that have numbers, a narrow one.
    """
    layout = {name: value for name, value in figure.get("layout", {}).items() if name not in ("width", "height")}
    for name, value in layout.items():
        if name.startswith(("xaxis", "yaxis")) and isinstance(value, Mapping):
            layout[name] = {"gridcolor": "#e4e8ec", "linecolor": GREY, "automargin": True, **value}
    layout |= {
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": layout.get("plot_bgcolor", _CLEAR),
        "font": {"family": FONT, "size": 12, "color": INK},
        "margin": dict(margin or _margin(layout)),
        "autosize": True,
        "modebar": {"bgcolor": _CLEAR, "color": PALE, "activecolor": GREY},
        "uirevision": layout.get("uirevision", revision),
    }
    return {"data": list(figure.get("data", [])), "layout": layout}


def _margin(layout: Mapping[str, Any]) -> dict[str, int]:
    top = 32 if layout.get("title") else 12
    axes = [value for name, value in layout.items() if name.startswith(("xaxis", "yaxis"))]
    numbered = any(axis.get("visible", True) for axis in axes if isinstance(axis, Mapping))
    if numbered or not (axes or "scene" in layout):
        return {"l": 48, "r": 12, "t": top, "b": 40}
    return {"l": 4, "r": 4, "t": top, "b": 12}


def height_of(figure: Mapping[str, Any] | None) -> int:
    """Of a family's figure on the page, in CSS pixels."""
    wanted = (figure or {}).get("layout", {}).get("height")
    return int(min(max(wanted, 80), 900)) if isinstance(wanted, int | float) else HEIGHT


def takes_webgl(figure: Mapping[str, Any] | None) -> bool:
    """Whether a figure is drawn by the graphics card."""
    traces: Sequence[Mapping[str, Any]] = (figure or {}).get("data", [])
    return any(mark in str(trace.get("type", "")) for trace in traces for mark in _WEBGL)


def _plain(name: Any) -> str:
    """Text of the data as plotly shows it letter by letter: a name may hold what it would take for markup."""
    return escape(str(name), quote=False)
