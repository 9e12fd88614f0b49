"""The form in which a family hands its metrics, tables and pictures to reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of a report. Cells are strings or numbers; ``None`` is shown as a dash.

    Attributes:
        title: heading.
        columns: column headings.
        rows: one sequence of cells per row, as long as ``columns``.
        caption: what is shown and in which unit.
        best: ``"max"`` or ``"min"`` marks the best number of each row (comparisons of methods), ``None`` none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    best: str | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes:
        name: file name without ending, unique within the run.
        title: heading.
        figure: a matplotlib figure.
        caption: what is shown, with units.
    """

    name: str
    title: str
    figure: Any
    caption: str = ""


@dataclass(frozen=True)
class Page:
    """An interactive page of a report: a whole HTML document that asks for nothing outside itself.

    It is shown in a frame of its own that may run its inline scripts and nothing else.

    Attributes:
        name: file name without ending, unique within the run.
        title: heading.
        html: the document.
        caption: what is shown, with units.
        height: of the frame in CSS pixels.
    """

    name: str
    title: str
    html: str
    caption: str = ""
    height: int = 560


@dataclass(frozen=True)
class Evaluation:
    """What a family measured of one trained model.

    Attributes:
        metrics: plain numbers by name, JSON-able, for scripts and comparisons.
        tables, pictures: for people.
        files: further files by name, written beside the pictures: what other programs open.
        pages: what a reader can move; part of the report, and files beside the pictures.
    """

    metrics: Mapping[str, float]
    tables: Sequence[Table] = field(default_factory=tuple)
    pictures: Sequence[Picture] = field(default_factory=tuple)
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    pages: Sequence[Page] = field(default_factory=tuple)
