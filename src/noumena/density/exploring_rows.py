"""Drawings of table rows for the explorer's page: bars in standard deviations, tables, CSV files."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.core.preprocessing import Standardizer
from noumena.style import BLUE, VERMILLION

LISTED_COLUMNS = 200
"""Columns in a table at most; files have all of them."""

# Standard deviations to which bars can rise before the axis grows.
_USUAL = 3.2


def draw(
    columns: Sequence[str],
    scale: Standardizer,
    row: Tensor,
    note: str,
    beside: Tensor | None = None,
    *,
    listed: bool = True,
) -> Drawing:
    """A row as bars in standard deviations of the columns, as a table and as a CSV file.

    Args:
        columns: names.
        scale: what takes rows to standard deviations.
        row: shape (columns,), in the units of the data.
        note: what it is.
        beside: the row it is to be compared with, shape (columns,).
        listed: with a table; else another part of the page has one of the same numbers.
    """
    unit = scale(row)
    # The bars tell the deviations: the table is to fit where three drawings stand beside each other.
    headings, cells = ["column", "value"], [row]
    if beside is not None:
        headings = ["column", "original", "decoded", "difference (sd)"]
        cells = [beside, row, unit - scale(beside)]
    table = table_of("Row", columns, dict(zip(headings[1:], cells, strict=True))) if listed else None
    left = len(columns) - LISTED_COLUMNS
    note += f"; {left} further columns are in the file" if left > 0 else ""
    figure = bars(columns, row, unit, None if beside is None else scale(beside))
    return Drawing(figure, table, note, ".csv", partial(csv_row, columns, row.tolist()))


def table_of(
    title: str, columns: Sequence[str], values: Mapping[str, Tensor], order: Sequence[int] = (), caption: str = ""
) -> Table:
    """A line for each column, the first :data:`LISTED_COLUMNS` of them.

    Args:
        title: of the table.
        columns: names.
        values: heading to one number per column, shape (columns,).
        order: of the columns; as they come when missing.
        caption: below.
    """
    chosen = list(order or range(len(columns)))[:LISTED_COLUMNS]
    numbers = [found.tolist() for found in values.values()]
    lines = [[columns[k], *(cell(found[k]) for found in numbers)] for k in chosen]
    return Table(title, ["column", *values], lines, caption)


def bars(columns: Sequence[str], row: Tensor, unit: Tensor, beside: Tensor | None) -> dict[str, Any]:
    """A plotly figure: one bar per column, with a mark where the row it is compared with stands."""
    names = [name.replace("<", "&lt;") for name in columns]
    values = [float(f"{value:.5g}") for value in row.tolist()]
    heights = [float(f"{value:.4g}") for value in unit.tolist()]
    bars: dict[str, Any] = {
        "type": "bar",
        "name": "row" if beside is None else "decoded",
        "x": names,
        "y": heights,
        "customdata": values,
        "marker": {"color": BLUE},
        "hovertemplate": "%{x}: %{customdata} (%{y:.2f} sd)<extra></extra>",
    }
    traces = [bars]
    if beside is not None:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "original",
                "x": names,
                "y": [float(f"{value:.4g}") for value in beside.tolist()],
                "marker": {
                    "color": VERMILLION,
                    "symbol": "line-ew",
                    "size": 14,
                    "line": {"width": 3, "color": VERMILLION},
                },
                "hovertemplate": "%{x}: %{y:.2f} sd in the original<extra></extra>",
            }
        )
    # Rows of a usual size are on one scale, so that the steps of a path can be compared.
    farthest = max(_USUAL, *(1.05 * abs(height) for trace in traces for height in trace["y"]))
    layout = {
        "xaxis": {"type": "category", "automargin": True},
        "yaxis": {"title": {"text": "sd from the training mean"}, "range": [-farthest, farthest], "automargin": True},
        "showlegend": beside is not None,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    }
    return {"data": traces, "layout": layout}


def cell(value: float) -> float | str:
    """A number of a table; those that are none in words, since JSON has no infinity."""
    return value if math.isfinite(value) else "−∞" if value < 0 else "not finite"


def csv_row(columns: Sequence[str], row: Sequence[float]) -> bytes:
    """One row under its columns' names, with the digits that give float32 back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerow([f"{value:.9g}" for value in row])
    return text.getvalue().encode()
