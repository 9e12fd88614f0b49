"""A comparison of runs for people and scripts: on the terminal, as one HTML file, as plain data."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noumena.evaluation.comparison import Absent, Comparison, Measure, letter, short_fingerprint
from noumena.evaluation.overlay import overlaid_curves
from noumena.evaluation.pages import template
from noumena.evaluation.report import Cell, _embedded, format_number, format_seconds, readable
from noumena.evaluation.runs import Run
from noumena.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_VALUE = 60
_NAME_WIDTH = 30
_CELL_WIDTH = 12


def write_comparison(path: str | Path, comparison: Comparison) -> Path:
    """Write a comparison as one HTML file, whole or not at all.

    The file needs nothing but a browser: its picture is inside it, it asks for nothing and runs no script.

    Returns:
        ``path``.

    Raises:
        ArtifactError: the file cannot be written.
    """
    path = Path(path)
    named = [(f"{letter(i)}  {run.path.name}", run.history) for i, run in enumerate(comparison.runs)]
    curves = overlaid_curves(named)
    first = [row for row in comparison.metrics if row.name in comparison.headlines]
    page = template("compare.html.j2", breakable=_breakable).render(
        title=f"{len(comparison.runs)} runs compared",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        runs=[_run_facts(i, run) for i, run in enumerate(comparison.runs)],
        letters=[letter(i) for i in range(len(comparison.runs))],
        notes=comparison.notes,
        settings=[(row.key, [_setting_cell(value) for value in row.values]) for row in comparison.settings],
        same=_nothing_differs(comparison),
        training=[(readable(row.name), measure_cells(row)) for row in comparison.training],
        metrics=[(row.name, measure_cells(row)) for row in first],
        others=[(row.name, measure_cells(row)) for row in comparison.metrics if row not in first],
        curves=None if curves is None else _embedded(curves),
    )
    write_text(path, page)
    return path


def _run_facts(position: int, run: Run) -> dict[str, str]:
    return {
        "letter": letter(position),
        "path": str(run.path),
        "model": run.model or "unknown",
        "recipe": run.recipe or "–",
        "state": f"{run.state}: {run.reason}" if run.reason else run.state,
        "when": "–" if run.when is None else run.when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "data": short_fingerprint(run.data) or "unknown",
    }


def _setting_cell(value: Any) -> dict[str, Any]:
    return {"text": show_value(value), "missing": isinstance(value, Absent)}


def _breakable(name: str) -> Any:
    """A dotted key or a metric's name that a narrow column may break after its marks, not inside its words."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[._/>])", name))


def _nothing_differs(comparison: Comparison) -> str:
    if all("data" in run.config for run in comparison.runs):
        return "The configurations are the same."
    return "Nothing differs in what is known of the configurations."


def show_value(value: Any) -> str:
    """The value of a setting as text, a long one cut."""
    if isinstance(value, Absent):
        return value.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE // 2]}…{text[-_LONGEST_VALUE // 2 + 1 :]}"


def measure_cells(measure: Measure) -> list[Cell]:
    """The numbers of a row as text, the best marked."""
    show = _show_seconds if measure.name == "training_seconds" else format_number
    return [
        Cell(show(value), value is not None, position in measure.best) for position, value in enumerate(measure.values)
    ]


def _show_seconds(value: float | None) -> str:
    return format_number(None) if value is None else format_seconds(value)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data, by the paths of the runs; a key or a number that a run does not have is left out."""
    paths = [str(run.path) for run in comparison.runs]

    def measures(rows: Sequence[Measure]) -> dict[str, Any]:
        return {
            row.name: {
                "values": {path: v for path, v in zip(paths, row.values, strict=True) if v is not None},
                "better": row.better,
                "best": [paths[i] for i in sorted(row.best)],
            }
            for row in rows
        }

    return {
        "runs": [run_json(run) for run in comparison.runs],
        "notes": list(comparison.notes),
        "configuration": {
            row.key: {path: v for path, v in zip(paths, row.values, strict=True) if not isinstance(v, Absent)}
            for row in comparison.settings
        },
        "training": measures(comparison.training),
        "metrics": measures(comparison.metrics),
    }


def run_json(run: Run) -> dict[str, Any]:
    """A run as plain data, without its configuration and curves."""
    return {
        "run": str(run.path),
        "state": run.state,
        "reason": run.reason,
        "recipe": run.recipe,
        "model": run.model,
        "when": None if run.when is None else run.when.isoformat(timespec="seconds"),
        "epochs": run.history.epochs,
        "training_seconds": run.training_seconds,
        "data": run.data,
        "metrics": run.all_metrics(),
    }


def print_comparison(comparison: Comparison, console: "Console") -> None:
    """Print a comparison to the terminal, the best number of a row with a star."""
    from rich.table import Table as RichTable
    from rich.text import Text

    def table(title: str, rows: Sequence[tuple[str, Sequence[Cell]]]) -> None:
        # Side by side as many runs as the terminal is wide for, the others below.
        at_once = max(1, (console.width - _NAME_WIDTH) // _CELL_WIDTH)
        for start in range(0, len(comparison.runs), at_once):
            positions = range(start, min(start + at_once, len(comparison.runs)))
            shown = RichTable(title=Text(title), title_justify="left")
            first = min(_NAME_WIDTH, max(len(name) for name, _ in rows))
            shown.add_column("", overflow="fold", width=first)
            widest = (console.width - first - 4) // len(positions) - 3  # less borders and padding
            for i in positions:
                numeric = any(cells[i].numeric for _, cells in rows)
                shown.add_column(letter(i), justify="right" if numeric else "left", overflow="fold", max_width=widest)
            for name, cells in rows:
                # Text, not a string: names from files may hold what rich would take for markup.
                marked = (Text(f"{cells[i].text} *" if cells[i].best else cells[i].text) for i in positions)
                shown.add_row(Text(name), *marked)
            console.print(shown)

    for i, run in enumerate(comparison.runs):
        data = short_fingerprint(run.data)
        facts = [run.model or "unknown model", run.state, *([f"data {data}"] if data else [])]
        console.print(Text(f"{letter(i)}  {run.path}  ({', '.join(facts)})"), soft_wrap=True)
    for note in comparison.notes:
        console.print(Text(note, style="bold"), soft_wrap=True)
    if comparison.settings:
        rows = [(row.key, [Cell(show_value(value)) for value in row.values]) for row in comparison.settings]
        table("Configuration: what differs", rows)
    else:
        console.print(_nothing_differs(comparison))
    if comparison.training:
        table("Training", [(readable(row.name), measure_cells(row)) for row in comparison.training])
    shown = [row for row in comparison.metrics if row.name in comparison.headlines]
    if shown:
        table("Metrics (*: best of the row)", [(row.name, measure_cells(row)) for row in shown])
    if len(shown) < len(comparison.metrics):
        console.print(f"{len(comparison.metrics) - len(shown)} further metrics: --metrics '*' shows all.")
