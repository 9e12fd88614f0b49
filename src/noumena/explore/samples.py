"""The panel of new samples: small multiples, each with its file."""

from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.explore import checks
from noumena.explore.figures import CONFIG, takes_webgl
from noumena.explore.parts import graph, guarded, table
from noumena.explore.service import Service

# A browser has sixteen WebGL contexts; the map takes three, and the other panels one each.
MOST_IN_SPACE = 8


def connect_samples(app: Dash, service: Service) -> None:
    """Give the panel its functions."""
    reason = service.explorer.without.get("samples", "")

    @app.callback(
        Output("samples", "children"),
        Output("samples-note", "children"),
        Output("samples-note", "className"),
        Output("draw-samples", "disabled"),
        Output("other-samples", "disabled"),
        Output("seed", "value"),
        Output("drawn-samples", "data"),
        Input("draw-samples", "n_clicks"),
        Input("other-samples", "n_clicks"),
        State("n", "value"),
        State("seed", "value"),
    )
    @guarded(lambda message: ([], message, "message", bool(reason), bool(reason), no_update, None))
    def draw(_: Any, __: Any, n: Any, seed: Any) -> Any:
        if reason:
            return [], reason, "reason", True, True, no_update, None
        if ctx.triggered_id is None:
            raise PreventUpdate
        used = checks.whole_number(seed, 0, checks.MAX_SEED, "seed")
        used = (used + 1) % checks.MAX_SEED if ctx.triggered_id == "other-samples" else used
        drawings = service.samples(n, used)
        note, most = f"{len(drawings)} samples of seed {used}.", len(drawings)
        if any(takes_webgl(drawing.figure) for drawing in drawings) and most > MOST_IN_SPACE:
            most = MOST_IN_SPACE
            note += f" The first {most} are shown: a browser draws few in three dimensions at once."
        together = _together([drawing.table for drawing in drawings[:most]])
        shown = [_multiple(i, drawing, listed=together is None) for i, drawing in enumerate(drawings[:most])]
        if together is not None:
            shown.append(html.Div(table(together), className="across"))
        return shown, note, "note", False, False, used, [n, used]


def _together(tables: Sequence[Table | None]) -> Table | None:
    """One table of all samples, where each has a number for the same things; else ``None``."""
    found = [one for one in tables if one is not None]
    if len(found) < max(2, len(tables)) or any(len(one.columns) != 2 for one in found):
        return None
    names = [[row[0] for row in one.rows] for one in found]
    if any(other != names[0] for other in names):
        return None
    numbers = zip(*([row[1] for row in one.rows] for one in found), strict=True)
    rows = [[name, *values] for name, values in zip(names[0], numbers, strict=True)]
    return Table("Samples", [found[0].columns[0], *(f"sample {i + 1}" for i in range(len(found)))], rows)


def _multiple(position: int, drawing: Drawing, *, listed: bool) -> html.Div:
    figure, style = graph(drawing)
    return html.Div(
        [
            *([dcc.Graph(figure=figure, config=CONFIG, style=style)] if drawing.figure is not None else []),
            *([table(drawing.table)] if listed and drawing.table is not None else []),
            html.P(drawing.note, className="note"),
            html.Button(
                f"Download {drawing.ending}",
                id={"sample": position},
                className="small",
                hidden=drawing.file is None,
                n_clicks=0,
            ),
        ],
        className="drawing multiple",
    )
