"""Files to take away: drawings, the map as a table, the latents. Made anew from what the page says is shown."""

import base64
import csv
import io
import re
from typing import Any

import numpy as np
from dash import ALL, Dash, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from noumena.core.errors import ConfigError
from noumena.core.exploring import Drawing
from noumena.explore import checks
from noumena.explore.callbacks import drawing_of_path
from noumena.explore.parts import guarded
from noumena.explore.service import Service

_ENDING = re.compile(r"\.[A-Za-z0-9]{1,12}(\.[A-Za-z0-9]{1,12})?")
_SLOTS = ("original", "rebuilt", "moved", "path")


def connect_downloads(app: Dash, service: Service) -> None:
    """Give the page's download buttons their functions."""

    @app.callback(
        Output("file", "data"),
        Output("file-note", "children"),
        *[Input(f"{name}-download", "n_clicks") for name in _SLOTS],
        Input({"sample": ALL}, "n_clicks"),
        Input("download-map", "n_clicks"),
        Input("download-latents", "n_clicks"),
        State("chosen", "data"),
        State("moves", "data"),
        State("path", "data"),
        State("step", "value"),
        State("drawn-samples", "data"),
        prevent_initial_call=True,
    )
    @guarded(lambda message: (no_update, message))
    def download(*values: Any) -> Any:
        chosen, moves, path, step, drawn = values[-5:]
        if not ctx.triggered or not ctx.triggered[0]["value"]:
            raise PreventUpdate  # the buttons of samples that have just come
        asked = ctx.triggered_id
        if asked == "download-map":
            return _file("map.csv", map_table(service)), ""
        if asked == "download-latents":
            return _file("latents.npz", latents(service)), ""
        if isinstance(asked, dict):
            return _of_sample(service, drawn, asked["sample"]), ""
        if asked == "path-download":
            return _of(service, drawing_of_path(service, path, step), f"path-step-{step}"), ""
        if asked == "moved-download":
            if not isinstance(moves, dict):
                raise ConfigError("nothing has been moved yet.")
            drawing = service.moved(moves.get("chosen"), moves.get("values"), page="download")
            assert drawing is not None  # nobody overtakes a download
            return _of(service, drawing, f"{_name(service, chosen)}-moved"), ""
        if asked == "original-download":
            return _of(service, service.original(chosen), _name(service, chosen)), ""
        return _of(service, service.reconstruction(chosen), f"{_name(service, chosen)}-reconstruction"), ""


def _of_sample(service: Service, drawn: Any, position: Any) -> dict[str, Any]:
    if not isinstance(drawn, list) or len(drawn) != 2:
        raise ConfigError("no samples have been drawn yet.")
    drawings = service.samples(*drawn)
    i = checks.whole_number(position, 0, len(drawings) - 1, "sample")
    return _of(service, drawings[i], f"sample-seed{drawn[1]}-{i}")


def _name(service: Service, chosen: Any) -> str:
    return service.name(checks.position(chosen, service.points))


def _of(service: Service, drawing: Drawing, stem: str) -> dict[str, Any]:
    if not _ENDING.fullmatch(drawing.ending):
        raise ConfigError(f"the family's drawing has a file with the ending '{drawing.ending}'.")
    return _file(file_name(stem, drawing.ending), service.content(drawing))


def file_name(stem: str, ending: str) -> str:
    """A name that every file system takes, from one that comes from the data."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:80]
    return f"{plain or 'drawing'}{ending}"


def _file(name: str, content: bytes) -> dict[str, Any]:
    return {
        "filename": name,
        "content": base64.b64encode(content).decode(),
        "base64": True,
        "type": "application/octet-stream",
    }


def map_table(service: Service) -> bytes:
    """The points of the maps that have been computed, as CSV: name, coordinates, colours."""
    columns: dict[str, Any] = {"name": service.points.names}
    for method, plane in service.ready_maps().items():
        columns |= {f"{method}{i + 1}": plane.coordinates[:, i].tolist() for i in range(2)}
    columns |= {name: values.tolist() for name, values in service.points.colours.items() if name not in columns}
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return target.getvalue().encode()


def latents(service: Service) -> bytes:
    """Vectors and names of the points, as an .npz file without pickled objects."""
    target = io.BytesIO()
    names = np.asarray([str(name) for name in service.points.names], dtype=np.str_)
    np.savez(target, vectors=service.points.vectors, names=names)
    return target.getvalue()
