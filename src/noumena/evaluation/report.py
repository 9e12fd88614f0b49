"""One self-contained HTML file per run, the same pictures as files, and the same tables on the terminal."""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noumena.core.errors import ArtifactError
from noumena.core.evaluation import Evaluation, Page, Picture, Table
from noumena.evaluation.curves import training_curves
from noumena.evaluation.pages import template
from noumena.files import replacing, write_text
from noumena.training.history import History

if TYPE_CHECKING:
    from rich.console import Console

_CARDS = 8
_SPLITS = ("train", "val", "test")
_DPI = 200  # twice the resolution at which the page shows them
# Pictures whose name begins so are about the latent space, in whatever family.
_LATENT = "latent"


@dataclass(frozen=True)
class Cell:
    """A table cell as it is shown."""

    text: str
    numeric: bool = False
    best: bool = False


def write_report(
    path: str | Path,
    *,
    title: str,
    about: Mapping[str, Any],
    history: History,
    evaluation: Evaluation,
    config: str,
    model_summary: Mapping[str, Any],
    timings: Mapping[str, float],
    versions: Mapping[str, str],
    explorable: bool = False,
) -> Path:
    """Write the report of a run, whole or not at all.

    The file needs nothing but a browser: pictures and pages are inside it, and it asks for nothing. It runs no script
    but those of interactive pages, each in a frame without access to anything, and its policy names them by their
    hashes: text that finds its way into the report cannot run.

    Args:
        path: the HTML file, usually ``report.html`` in the run's folder, beside ``model/``.
        title: heading, such as the recipe's name.
        about: facts about the data (:attr:`noumena.core.data.Splits.about`). Entries that give a number per split
            become one table.
        history: of the training.
        evaluation: metrics, tables and pictures. The first eight metrics are shown large; pictures whose name begins
            with ``latent`` have a section of their own.
        config: the configuration as YAML text.
        model_summary: facts about the model (name, parameters, sizes).
        timings: seconds by what they were spent on.
        versions: version by package.
        explorable: whether ``noumena explore`` can show the run; the report then names the command.

    Returns:
        ``path``.

    Raises:
        ArtifactError: the file cannot be written.
    """
    path = Path(path)
    curves = training_curves(history)
    per_split, facts = _data_facts(about)
    latent = [picture for picture in evaluation.pictures if picture.name.startswith(_LATENT)]
    results = [picture for picture in evaluation.pictures if not picture.name.startswith(_LATENT)]
    page = template("report.html.j2", cells=table_cells, quoted=json.dumps).render(
        title=title,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=facts,
        per_split=per_split,
        model_summary=_facts(model_summary),
        cards=[(readable(name), format_number(value)) for name, value in list(evaluation.metrics.items())[:_CARDS]],
        metrics=[(name, format_number(value)) for name, value in evaluation.metrics.items()],
        curves=None if curves is None else _embedded(curves),
        tables=[(table, table_cells(table)) for table in evaluation.tables],
        results=[_embedded(picture) for picture in results],
        latent=[_embedded(picture) for picture in latent],
        pages=evaluation.pages,
        scripts=script_hashes(evaluation.pages),
        config=config,
        timings=[(readable(name), format_seconds(seconds)) for name, seconds in timings.items()],
        versions=list(versions.items()),
        run=path.resolve().parent.name,
        explorable=explorable,
    )
    write_text(path, page)
    return path


def save_figures(folder: str | Path, evaluation: Evaluation, history: History) -> list[Path]:
    """Write training curves and every picture of an evaluation as ``<name>.png``, its pages as ``<name>.html``, and its
    further files.

    Args:
        folder: made when missing.
        evaluation, history: of the run.

    Returns:
        The files: curves, pictures, pages, others.

    Raises:
        ArtifactError: a file cannot be written, or a name is none of a file in the folder.
    """
    others = {f"{page.name}.html": page.html.encode() for page in evaluation.pages} | dict(evaluation.files)
    for name in others:
        if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
            raise ArtifactError(f"cannot write {name!r}: a file beside the pictures has a plain name. Rename it.")
    curves = training_curves(history)
    written = []
    for picture in [*([] if curves is None else [curves]), *evaluation.pictures]:
        path = Path(folder) / f"{picture.name}.png"
        with replacing(path) as beside:
            beside.write_bytes(_png(picture))
        written.append(path)
    for name, content in others.items():
        path = Path(folder) / name
        with replacing(path) as beside:
            beside.write_bytes(content)
        written.append(path)
    return written


def summary_table(evaluation: Evaluation, console: "Console") -> None:
    """Print the tables of an evaluation to the terminal, the best number of a row in bold.

    A table wider than the terminal is printed in parts, each with the first column; no number is ever cut.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    for table in evaluation.tables:
        rows = table_cells(table)
        parts = _parts(table, rows, console.width)
        narrow = _natural_width(table, rows) > console.width
        for number, part in enumerate(parts):
            title = table.title if number == 0 else f"{table.title} (continued)"
            caption = table.caption if number == len(parts) - 1 else ""
            shown = RichTable(title=Text(title), caption=Text(caption), title_justify="left")
            for i in part:
                numeric = any(row[i].numeric for row in rows)
                # Where headings have to wrap, they do before any number would be cut.
                least = _least_width(table.columns[i], [row[i] for row in rows]) if numeric and narrow else None
                shown.add_column(Text(table.columns[i]), justify="right" if numeric else "left", width=least)
            for row in rows:
                # Text, not a string: names from files may hold what rich would take for markup.
                shown.add_row(*(Text(row[i].text, style="bold" if row[i].best else "") for i in part))
            console.print(shown)


def _parts(table: Table, rows: Sequence[Sequence[Cell]], width: int) -> list[list[int]]:
    """The columns in parts that fit ``width`` characters, the first column in each; text can wrap, numbers cannot."""
    needed = [_least_width(heading, [row[i] for row in rows]) + 3 for i, heading in enumerate(table.columns)]
    parts: list[list[int]] = []
    used = 0
    for i in range(1, len(needed)):
        if not parts or used + needed[i] > width:
            parts.append([0])
            used = 1 + needed[0]
        parts[-1].append(i)
        used += needed[i]
    return parts or [list(range(len(needed)))]


def _natural_width(table: Table, rows: Sequence[Sequence[Cell]]) -> int:
    texts = ([heading, *(row[i].text for row in rows)] for i, heading in enumerate(table.columns))
    return 1 + sum(3 + max(map(len, column)) for column in texts)


def _least_width(heading: str, cells: Sequence[Cell]) -> int:
    """Of a column in characters: numbers whole, text by its longest word."""
    words = heading.split() + [word for cell in cells for word in ([cell.text] if cell.numeric else cell.text.split())]
    return max(map(len, words), default=1)


def table_cells(table: Table) -> list[list[Cell]]:
    """The cells of a table as text, with the best number of each row marked where the table asks for it."""
    return [_row_cells(row, table.best) for row in table.rows]


def format_number(value: Any) -> str:
    """A number with about four significant digits, whole numbers in full; a dash for ``None``."""
    if value is None:
        return "–"
    if not _is_number(value):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    size = abs(number)
    if size == float("inf"):
        text = "∞" if number > 0 else "-∞"
    elif size == 0:
        text = "0"
    elif 1e-3 <= size < 1e5:
        text = f"{number:,.{3 if size < 10 else 2 if size < 100 else 1}f}"
    else:
        text = f"{number:.3g}"
    return text.replace("-", "−")


def format_seconds(seconds: float) -> str:
    """A duration as people say it: ``850 ms``, ``12.3 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def readable(name: str) -> str:
    """A metric's or a fact's name in words: ``auroc/shift_1`` as ``auroc · shift 1``."""
    return name.replace("_", " ").replace("/", " · ")


def _row_cells(row: Sequence[Any], best: str | None) -> list[Cell]:
    numeric = [_is_number(value) for value in row]
    texts = [format_number(value) for value in row]
    winner = None
    numbers = [float(value) for value, is_number in zip(row, numeric, strict=True) if is_number]
    if best is not None and len(numbers) > 1:
        winner = format_number(max(numbers) if best == "max" else min(numbers))
    # Compared as shown: two numbers that look the same are both the best.
    return [Cell(text, n, n and text == winner) for text, n in zip(texts, numeric, strict=True)]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and value is not True and value is not False


def _data_facts(about: Mapping[str, Any]) -> tuple[Table | None, list[tuple[str, str]]]:
    """The entries that give a number per split as one table, and the others as text."""
    counts = {name: value for name, value in about.items() if _is_per_split(value)}
    others = {name: value for name, value in about.items() if name not in counts}
    if not counts:
        return None, _facts(others)
    splits = [split for split in _SPLITS if any(split in value for value in counts.values())]
    rows = [[readable(name), *(value.get(split) for split in splits)] for name, value in counts.items()]
    return Table("Splits", ["", *splits], rows), _facts(others)


def _is_per_split(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and set(value) <= set(_SPLITS)


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(readable(name), _fact(value)) for name, value in facts.items() if value not in (None, {}, [], "")]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{readable(str(name))}: {_fact(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_fact(entry) for entry in value)
    return format_number(value)


def _embedded(picture: Picture) -> dict[str, Any]:
    width, height = picture.figure.get_size_inches()
    return {
        "title": picture.title,
        "caption": picture.caption,
        "width": round(width * _DPI / 2),
        "height": round(height * _DPI / 2),
        "data": base64.b64encode(_png(picture)).decode("ascii"),
    }


def script_hashes(pages: Sequence[Page]) -> list[str]:
    """The inline scripts of pages as sources of a content security policy, ``sha256-...``."""
    parser = _Scripts()
    for page in pages:
        parser.feed(page.html)
        parser.close()
        parser.reset()
    digests = (hashlib.sha256(text.encode()).digest() for text in parser.found)
    return [f"sha256-{base64.b64encode(digest).decode('ascii')}" for digest in dict.fromkeys(digests)]


class _Scripts(HTMLParser):
    """Collects the text of inline scripts that a browser would run; data blocks are none."""

    _RUN = ("", "module", "text/javascript", "application/javascript")

    def __init__(self) -> None:
        self.found: list[str] = []
        self._inside = False
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kind = (dict(attrs).get("type") or "").strip().lower()
        self._inside = tag == "script" and kind in self._RUN
        if self._inside:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


def _png(picture: Picture) -> bytes:
    content = io.BytesIO()
    # Without the name of the software, the same picture is the same bytes.
    picture.figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
    return content.getvalue()
