"""Atoms, bonds and cells in three dimensions, as plotly figures in plain values."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noumena.core.errors import DataError

Floats = NDArray[np.float64]
Trace = dict[str, Any]

_DIGITS = 3  # of an angstrom
# Markers and lines are measured in pixels of the page: this many are taken for half of the scene.
_HALF_PIXELS = 140.0
_DIAMETERS = (3.0, 40.0)  # pixels
# How large a scene is in its pane: without a vanishing point this, not the distance of the eye, decides.
_ZOOM = 1.85
# Share of a pane's height that is the legend's.
_LEGEND = 0.12
_ROOM, _TURNED = 1.02, 0.8


def balls(xyz: Floats, radius: float | Floats, half: float, colour: str, name: str, texts: Sequence[str]) -> Trace:
    """Atoms of one element as markers.

    Args:
        xyz: places in angstrom, shape (atoms, 3).
        radius: in angstrom, of all or of each, shape (atoms,).
        half: of the scene, see :func:`figure`.
        colour: ``#rrggbb``.
        name: for the legend.
        texts: what is said of each atom under the mouse.
    """
    diameter = np.clip(2.0 * np.asarray(radius) * _HALF_PIXELS / half, *_DIAMETERS).round(1)
    return {
        "type": "scatter3d",
        "mode": "markers",
        **_axes(xyz),
        "text": list(texts),
        "hovertemplate": "%{text}<extra></extra>",
        "name": name,
        "showlegend": bool(name),
        "marker": {"size": diameter.tolist(), "color": colour, "opacity": 1.0, "line": {"width": 0}},
    }


def sticks(ends: Floats, colour: str, width: float, name: str = "") -> Trace:
    """Straight lines of one colour: bonds, or edges of a cell.

    Args:
        ends: of each line in angstrom, shape (lines, 2, 3).
        colour: ``#rrggbb``.
        width: in pixels.
        name: for the legend; no entry without one.
    """
    # A point that is not there ends a line: one trace holds all of them.
    points = np.concatenate([ends, np.full((len(ends), 1, 3), np.nan)], axis=1).reshape(-1, 3)
    return {
        "type": "scatter3d",
        "mode": "lines",
        **_axes(points),
        "hoverinfo": "skip",
        "name": name,
        "showlegend": bool(name),
        "line": {"color": colour, "width": width},
    }


def labels(xyz: Floats, texts: Sequence[str]) -> Trace:
    """Words at places in angstrom, shape (words, 3), in the colour of the page's text."""
    return {
        "type": "scatter3d",
        "mode": "text",
        **_axes(xyz),
        "text": list(texts),
        "hoverinfo": "skip",
        "showlegend": False,
    }


def half_of(*points: Floats) -> float:
    """Angstrom from the middle of a scene to its sides, so that points of shape (points, 3) stay in it when turned."""
    shown = np.concatenate(points)
    # What lies farther out along an axis is cut off; corners may leave the pane for a moment of a turn.
    return float(max(_ROOM * np.abs(shown).max(), _TURNED * np.linalg.norm(shown, axis=1).max(), 1.0))


def figure(traces: Sequence[Trace], half: float) -> dict[str, Any]:
    """A scene seen from the front: x to the right, y upwards and z towards the viewer.

    Args:
        traces: what is in it.
        half: angstrom from the middle of the scene to its sides, all of them. Scenes of the same size are seen alike.

    Returns:
        ``{"data": [...], "layout": {...}}``, JSON-able.
    """
    axis = {"visible": False, "range": [-round(half, _DIGITS), round(half, _DIGITS)]}
    return {
        "data": list(traces),
        "layout": {
            "scene": {
                "domain": {"x": [0.0, 1.0], "y": [_LEGEND, 1.0]},
                "xaxis": axis,
                "yaxis": axis,
                "zaxis": axis,
                # One angstrom is as long along every axis, as all have the same range.
                "aspectmode": "manual",
                "aspectratio": {"x": _ZOOM, "y": _ZOOM, "z": _ZOOM},
                "dragmode": "orbit",
                "camera": {
                    "eye": {"x": 0.0, "y": 0.0, "z": 2.0},
                    "up": {"x": 0.0, "y": 1.0, "z": 0.0},
                    "center": {"x": 0.0, "y": 0.0, "z": 0.0},
                    "projection": {"type": "orthographic"},
                },
            },
            # Below the scene, in room of its own: beside it, a long legend would make one scene smaller than the next.
            "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0.0, "yanchor": "bottom"}
            | {"itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)"},
        },
    }


def _axes(points: Floats) -> dict[str, list[float | None]]:
    rows = points.round(_DIGITS).T.tolist()
    return {name: [None if value != value else value for value in row] for name, row in zip("xyz", rows, strict=True)}


def content_of(ending: str, write: Callable[[Path], None]) -> bytes:
    """What a function writes to a path, for a download.

    Args:
        ending: of the file, with the dot.
        write: called with a path in a folder of its own, which is deleted afterwards.

    Raises:
        DataError: of the function; or the disk has no room.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"shown{ending}"
            write(path)
            return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the file to download cannot be made: {error.strerror or error}. Free space in the folder for temporary "
            "files, or set TMPDIR to another one."
        ) from error
