"""What benchmarks that keep their results share: reading the lines of JSON, and Markdown tables."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""One line of a result file."""


def read_results(path: Path) -> list[Row]:
    """The lines of a result file; none where there is no file yet.

    Raises:
        ValueError: a line is no JSON object, with its number.
    """
    rows: list[Row] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}.")
        rows.append(row)
    return rows


def picked(rows: Iterable[Row], **facts: object) -> list[Row]:
    """The rows that have all these facts.

    Raises:
        ValueError: there are none, so that a table never loses a row in silence.
    """
    found = [row for row in rows if all(row.get(name) == fact for name, fact in facts.items())]
    if not found:
        said = ", ".join(f"{name} {fact!r}" for name, fact in facts.items())
        raise ValueError(f"there is no result of {said}.")
    return found


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, without a line break at its end; an empty cell is as narrow as in the header."""
    lines = [header, *rows]
    if wrong := [cells[0] for cells in lines if len(cells) != len(header)]:
        raise ValueError(f"rows {wrong} have another number of cells than the header's {len(header)}.")
    written = ["|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in lines]
    return "\n".join([written[0], "|---" * len(header) + "|", *written[1:]])


def bold(text: str) -> str:
    """Bold, if there is anything."""
    return f"**{text}**" if text else text


def bold_best(column: Sequence[str]) -> list[str]:
    """The greatest of a column of numbers in bold, and all that are written like it.

    ``0.957 ± 0.003`` counts as 0.957; what is no number is left as it is.
    """
    numbers = [_number(cell) for cell in column]
    best = max((number for number in numbers if number is not None), default=None)
    return [
        bold(cell) if number is not None and number == best else cell
        for cell, number in zip(column, numbers, strict=True)
    ]


def _number(cell: str) -> float | None:
    try:
        return float(cell.split(" ± ")[0])
    except ValueError:
        return None


def mean_and_range(values: Sequence[float]) -> str:
    """``0.61 (0.61 to 0.62)``: mean, least and greatest; the mean alone of a single value, ``-`` of none."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else mean


def mean_and_spread(values: Sequence[float]) -> str:
    """``0.957 ± 0.003``: mean and standard deviation; the mean alone of a single value, ``–`` of none."""
    if not values:
        return "–"
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")
