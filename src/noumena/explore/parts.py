"""Pieces of the page: a place for one drawing, tables, messages."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ParamSpec

from dash import Output, dcc, html
from dash.exceptions import PreventUpdate
from plotly.io.json import to_json_plotly

from noumena.core.errors import NoumenaError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.evaluation.report import format_number, table_cells
from noumena.explore.figures import CONFIG, HEIGHT, height_of, themed

log = logging.getLogger("noumena")
P = ParamSpec("P")

_HIDDEN = {"display": "none"}


def slot(name: str, label: str, *, with_table: bool = True) -> html.Div:
    """A place for one drawing, which :func:`shown` and :func:`said` fill.

    Its graph stays when another figure comes, so that a turned view stays turned.

    Args:
        name: of the place.
        label: what is read aloud of the figure.
        with_table: the table stands below the figure; else the page has :func:`place_of_table` elsewhere.
    """
    return html.Div(
        className="drawing",
        children=[
            html.Div(
                dcc.Graph(id=f"{name}-figure", figure=_empty(), config=CONFIG, style=_HIDDEN),
                role="figure",
                **aria(label),
            ),
            *([place_of_table(name)] if with_table else []),
            html.P(id=f"{name}-note", className="note"),
            html.Button("Download", id=f"{name}-download", className="small", hidden=True),
        ],
    )


def place_of_table(name: str) -> html.Div:
    """Where the table of a slot stands."""
    return html.Div(id=f"{name}-table")


def outputs(name: str) -> list[Output]:
    """What a callback that fills a slot gives, in the order of :func:`shown`."""
    return [
        Output(f"{name}-figure", "figure"),
        Output(f"{name}-figure", "style"),
        Output(f"{name}-table", "children"),
        Output(f"{name}-note", "children"),
        Output(f"{name}-note", "className"),
        Output(f"{name}-download", "hidden"),
        Output(f"{name}-download", "children"),
    ]


def shown(drawing: Drawing, *, whose: str = "") -> list[Any]:
    """A drawing for the outputs of a slot.

    Args:
        drawing: what to show.
        whose: said before the table's heading, where the table is not below its figure.
    """
    content = drawing.table
    if content is not None and whose:
        content = replace(content, title=f"{whose}: {content.title}")
    return [
        *graph(drawing),
        [] if content is None else table(content),
        drawing.note,
        "note",
        drawing.file is None,
        f"Download {drawing.ending}",
    ]


def said(message: str, *, kind: str = "message") -> list[Any]:
    """Words instead of a drawing, for the outputs of a slot."""
    return [_empty(), _HIDDEN, [], message, kind, True, "Download"]


def graph(drawing: Drawing) -> tuple[dict[str, Any], dict[str, str]]:
    """A drawing's figure in the page's look, and the style of its graph."""
    if drawing.figure is None:
        return _empty(), _HIDDEN
    return themed(drawing.figure), {"height": f"{height_of(drawing.figure)}px"}


def _empty() -> dict[str, Any]:
    return {"data": [], "layout": {"height": HEIGHT}}


def table(content: Table) -> html.Div:
    """A table with its heading and caption."""
    rows = table_cells(content)
    numeric = [cell.numeric for cell in rows[0]] if rows else [False] * len(content.columns)
    head = [
        html.Th(column, scope="col", className="number" if is_number else "")
        for column, is_number in zip(content.columns, numeric, strict=False)
    ]
    body = [
        html.Tr(
            [
                html.Td(html.Strong(cell.text) if cell.best else cell.text, className="number" if cell.numeric else "")
                for cell in row
            ]
        )
        for row in rows
    ]
    return html.Div(
        [
            html.H3(content.title),
            html.Div(
                html.Table([html.Thead(html.Tr(head)), html.Tbody(body)]),
                className="scroll",
                tabIndex=0,
                role="region",
                **aria(content.title),
            ),
            *([html.P(content.caption, className="note")] if content.caption else []),
        ]
    )


def aria(label: str) -> dict[str, Any]:
    """What is read aloud of a part that has no words."""
    return {"aria-label": label}


def number(value: float) -> str:
    """As tables show it."""
    return format_number(value)


def guarded(say: Callable[[str], Any]) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """A callback whose errors become a message in its own place.

    Args:
        say: makes the callback's outputs of a message. An error that the library did not foresee is written to the
            log with its traceback, of which the page shows none.
    """

    def wrap(function: Callable[P, Any]) -> Callable[P, Any]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                answer = function(*args, **kwargs)
                # Here, where an error becomes a message: a family's drawing or table may hold what is no plain value.
                to_json_plotly(answer)
                return answer
            except PreventUpdate:
                raise
            except NoumenaError as error:
                return say(str(error))
            except Exception as error:
                log.exception("the explorer's page: %s failed", function.__name__)
                return say(f"this did not work: {type(error).__name__}: {error}. The terminal has the details.")

        return called

    return wrap


def listed(tables: Sequence[Table]) -> list[html.Div]:
    """Several tables."""
    return [table(content) for content in tables]
