"""``noumena explain``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, ChunkRows, Data, Device, Opened, Source
from noumena.core.errors import ConfigError, DataError, NotSupportedError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from noumena.density.explaining.explained import Explanation
    from noumena.density.explaining.nearest import Nearest

_PICTURES = (".png", ".pdf", ".svg")
_MOST_PICTURED = 20


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="explain", no_args_is_help=True)(explain)


def explain(
    source: Source,
    data: Data,
    rows: Annotated[
        str | None, typer.Option("--rows", help="Numbers of the rows to explain, from 0, such as 3,17.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Without --rows: how many of the most unusual ones.")] = 5,
    reference: Annotated[
        str | None,
        typer.Option(help="A file among whose normal rows the nearest is searched; DATA itself when missing."),
    ] = None,
    target_p: Annotated[
        float | None, typer.Option(help="The p-value that a changed row is to reach; the threshold when missing.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", help="A column that may not change; repeat it.")] = None,
    space: Annotated[
        str | None, typer.Option(help="Where the change is searched: latent (the default where there is one) or data.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="gradients, or terms: of a mixture, or of a VAE with a reconstruction score.")
    ] = "gradients",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all numbers to a .parquet, .csv or .npz file.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw the contributions as bars to a .png, .pdf or .svg file.")
    ] = None,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Why rows score as they do: contributions by column, the nearest normal row, what would make them normal.

    For models of the density family. The files are read twice, at constant memory.
    """
    numbers = None if rows is None else _numbers(rows)
    _check_figure(figure, top if numbers is None else len(numbers))
    opened = _opened(source, device)
    model: Any = opened.model
    from noumena.density.explaining.explained import explain as explain_rows

    chosen, found = _chosen(opened, data, chunk_rows, numbers, top)
    nearest, some = _nearest(opened, reference or data, chunk_rows, found)
    choices: dict[str, Any] = {"target_p": target_p, "keep": keep or (), "space": space, "method": method}
    explanation = explain_rows(model, found, reference=some, nearest=nearest, numbers=chosen, **choices)
    _write(explanation, output, figure)
    if as_json:
        typer.echo(json.dumps(_as_json(explanation)))
        return
    if output is None and figure is None:
        _print(explanation)
    for path in (output, figure):
        if path is not None:
            typer.echo(f"{len(explanation):,} rows -> {path}")


def _numbers(text: str) -> list[int]:
    """Row numbers in the order given, each once."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--rows: expected numbers from 0, divided by commas, got '{text}'. Example: --rows 3,17.")
    return list(dict.fromkeys(int(part) for part in parts))


def _check_figure(figure: Path | None, rows: int) -> None:
    if figure is None:
        return
    if figure.suffix.lower() not in _PICTURES:
        raise ConfigError(f"--figure {figure}: unknown ending '{figure.suffix}'. Known: {', '.join(_PICTURES)}.")
    if rows > _MOST_PICTURED:
        raise ConfigError(f"--figure shows at most {_MOST_PICTURED} rows, {rows} are asked for. Ask for fewer.")


def _opened(source: Path, device: str) -> Opened:
    from noumena.artifact import read_manifest
    from noumena.artifact.store import model_folder

    name = read_manifest(model_folder(source)).model
    if not name.startswith("density/"):
        raise NotSupportedError(
            f"{source} is a model '{name}': explanations are of scores, which models of the density family have."
        )
    return Opened(source, device)


def _chosen(
    opened: Opened, data: str, chunk_rows: int, numbers: list[int] | None, top: int
) -> "tuple[np.ndarray, Tensor]":
    """Numbers and rows (rows, columns) to explain: those asked for, else those that score lowest, lowest first.

    Raises:
        DataError: the file is shorter than a number asked for.
    """
    import numpy as np
    import torch

    model: Any = opened.model
    kept: list[tuple[np.ndarray, Tensor]] = []
    lowest, seen = np.empty(0), 0
    for batch in opened.batches(data, chunk_rows):
        if numbers is not None:
            inside = np.asarray([number for number in numbers if seen <= number < seen + len(batch)], dtype=np.int64)
            kept.append((inside, batch[torch.from_numpy(inside - seen)]))
        else:
            lowest = np.concatenate([lowest, model.score_samples(batch)])
            kept.append((np.arange(seen, seen + len(batch)), batch))
            order = np.argsort(lowest, kind="stable")[:top]
            every = np.concatenate([number for number, _ in kept])
            kept, lowest = [(every[order], torch.cat([part for _, part in kept])[order])], lowest[order]
        seen += len(batch)
    found, rows = np.concatenate([number for number, _ in kept]), torch.cat([part for _, part in kept])
    if numbers is None:
        return found, rows
    if missing := sorted(set(numbers) - set(found.tolist())):
        raise DataError(f"{data}: there is no row {missing[0]}; it has {seen:,}, numbered from 0.")
    place = {number: i for i, number in enumerate(found.tolist())}
    order = [place[number] for number in numbers]
    return found[order], rows[order]


def _nearest(opened: Opened, reference: str, chunk_rows: int, rows: "Tensor") -> "tuple[Nearest | None, Tensor]":
    """The nearest normal rows of a file of any size, if the model has a threshold, and the file's first rows."""
    from noumena.density.differentiable import column_scale
    from noumena.density.explaining.nearest import NearestSearch

    model: Any = opened.model
    batches: Iterator[Any] = opened.batches(reference, chunk_rows)
    first = next(batches)
    if bool(model.threshold.isnan()):
        return None, first
    search = NearestSearch(model, rows.to(model.device), column_scale(model, first))
    search.look_at(first.to(model.device))
    for batch in batches:
        search.look_at(batch.to(model.device))
    return search.found, first


def _write(explanation: "Explanation", output: Path | None, figure: Path | None) -> None:
    from noumena.files import replacing

    if output is not None:
        from noumena.cli.output import write_columns

        write_columns(iter([explanation.as_columns()]), output)
    if figure is not None:
        from noumena.density.explaining.plots import contribution_bars

        picture = contribution_bars(explanation)
        with replacing(figure) as beside:
            picture.figure.savefig(beside, format=figure.suffix.lower().removeprefix("."), dpi=160)


def _as_json(explanation: "Explanation") -> dict[str, Any]:
    """The numbers row by row; those that are not finite, which JSON lacks, as null."""
    columns = explanation.as_columns()
    rows: list[dict[str, Any]] = []
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        row: dict[str, Any] = {}
        for name, value in zip(columns, values, strict=True):
            head, dot, column = name.partition(".")
            sane = None if isinstance(value, float) and not abs(value) < float("inf") else value
            if dot:
                row.setdefault(f"{head}s" if head == "contribution" else f"{head}_by_column", {})[column] = sane
            else:
                row[name] = sane
        rows.append(row)
    return {"unit": explanation.unit, "rows": rows}


def _print(explanation: "Explanation") -> None:
    from rich.console import Console
    from rich.table import Table

    table = explanation.table()
    shown = Table(title=table.title, caption=table.caption, caption_justify="left", show_lines=True)
    for column in table.columns:
        shown.add_column(column, justify="right" if column in ("score", "p-value") else "left", overflow="fold")
    for row in table.rows:
        cells = ("–" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row)
        shown.add_row(*cells)
    Console().print(shown, markup=False)
