"""The tables of a multimodal evaluation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from noumena.core.evaluation import Table
from noumena.multimodal.metrics import Hard, Measured, parts_of, r2_text
from noumena.multimodal.modality import Modality

BASELINES: Mapping[str, str] = {"poly": "polynomial", "mlp": "MLP", "pca_mlp": "PCA + MLP"}
"""Headings of the plain regressions by their names in metrics."""

_MEASURES = {
    "rmse": "root mean square",
    "node_rmse": "rms over points, mean of rows",
    "node_p95": "95 % of points, mean of rows",
    "node_max": "worst point, mean of rows",
    "median": "median row",
    "p95": "95 % of rows",
}
_LISTED_COLUMNS = 12


def error_tables(
    measured: Sequence[Measured],
    fitted: Mapping[str, Mapping[str, Measured]],
    far: np.ndarray,
    hard: Mapping[str, Hard],
    *,
    caption: str,
) -> list[Table]:
    """One table for each part of each target: the error from every source, the regressions beside the model.

    Args:
        measured: all directions of the model.
        fitted: by baseline the directions it was fitted for.
        far: bool, shape (held-out rows,).
        hard: by direction.
        caption: of the first table; the others refer to it.
    """
    tables: list[Table] = []
    groups = {(one.target.name, part): (one.target, part) for one in measured for part in one.errors}
    for target, part in groups.values():
        lines: list[list[Any]] = []
        for one in measured:
            if one.target.name == target.name:
                rivals = [by_label.get(one.label) for by_label in fitted.values()]
                lines += _error_lines(one, part, rivals, far, hard.get(one.label))
        unit = target.unit_of(parts_of(target)[part])
        title = f"Error of {target.name}{f', {part}' if part else ''}{f' ({unit})' if unit else ''}"
        headings = ["from", "error", "MVAE", *(BASELINES[name] for name in fitted)]
        tables.append(Table(title, headings, lines, caption, best="min" if fitted else None))
        caption = "As in the table above."
    return tables


def _error_lines(
    one: Measured, part: str, rivals: Sequence[Measured | None], far: np.ndarray, hard: Hard | None
) -> list[list[Any]]:
    """The main measure; from single other modalities also the other measures, the far and the hard rows."""
    columns = [one, *rivals]
    source = one.label.partition("->")[0].replace("+", " + ")
    lines: list[list[Any]] = [[source, _MEASURES[one.main], *_cells(columns, lambda c: c.values[one.main, part])]]
    if len(one.sources) > 1 or one.sources == (one.target.name,):
        return lines
    for measure, words in _MEASURES.items():
        if measure != one.main and (measure, part) in one.values:
            lines.append(["", words, *_cells(columns, lambda c, key=(measure, part): c.values[key])])
    if bool(far[one.rows].any()):
        lines.append(["", "far rows", *_cells(columns, lambda c: c.among(far)[part])])
    if hard is not None:
        lines.append(
            ["", f"rows hard for {BASELINES[hard.baseline]}", *_cells(columns, lambda c: hard.errors(c)[part])]
        )
    return lines


def _cells(columns: Sequence[Measured | None], value: Callable[[Measured], float]) -> list[float | None]:
    return [None if column is None else value(column) for column in columns]


def direction_table(measured: Sequence[Measured], split: str, rows: int) -> Table:
    """Rows, R² and coverage of every direction.

    Args:
        measured: all directions.
        split: name of the split.
        rows: in the split.
    """
    lines: list[list[Any]] = []
    for one in measured:
        parts = " · ".join(f"{part} {r2_text(r2)}" for part, r2 in one.r2_of.items() if part)
        covered = None if math.isnan(one.coverage) else one.coverage
        source = one.label.partition("->")[0].replace("+", " + ")
        lines.append([source, one.target.name, len(one.rows), r2_text(one.r2), parts, covered])
    return Table(
        "Every modality from every other",
        ["from", "to", "rows", "R²", "R² of its parts", "90 % interval holds"],
        lines,
        f"On the {split} split ({rows:,} rows), in the rows that have what it takes. R²: share of the variance "
        "explained, columns pooled (those with the larger numbers weigh more). The interval mean ± 1.645 std should "
        "hold 0.900 of the values; constant columns are left out.",
    )


def column_tables(modalities: Sequence[Modality], measured: Sequence[Measured]) -> list[Table]:
    """Error and R² of each column from each single modality, for modalities of at most 12 columns."""
    tables: list[Table] = []
    for target in modalities:
        ones = [one for one in measured if one.target.name == target.name and len(one.sources) == 1]
        if target.size > _LISTED_COLUMNS or not ones:
            continue
        names = [one.sources[0] for one in ones]
        headings = ["column", *(f"rmse from {name}" for name in names), *(f"R² from {name}" for name in names)]
        lines: list[list[Any]] = []
        for i, (column, unit) in enumerate(zip(target.columns, target.units, strict=True)):
            errors = [float(one.columns[0][i]) for one in ones]
            shares = [r2_text(float(one.columns[1][i])) for one in ones]
            lines.append([f"{column} ({unit})" if unit else column, *errors, *shares])
        caption = "Root mean squared error in the column's unit, and share of its variance explained."
        tables.append(Table(f"Columns of {target.name}", headings, lines, caption))
    return tables
