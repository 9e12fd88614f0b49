"""``noumena runs``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noumena.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from noumena.evaluation.runs import Run

# Of a run without --best, so many metrics that tell which way is better; those its family reports first.
_HEADLINES = 2
_NOT_OWN = ("baseline", "untrained", "ideal")  # measured of something else, for comparison


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="runs")(runs)


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, and in the folders there.")] = Path("runs"),
    best: Annotated[
        str | None,
        typer.Option("--best", metavar="METRIC", help="Sort by this metric (auroc, val_loss), the best run first."),
    ] = None,
    lower: Annotated[
        bool | None,
        typer.Option("--lower/--higher", help="Which way --best is better; by its name (loss, auroc) if missing."),
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only runs of this family.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List runs: model, state, epochs, metrics. Interrupted ones go on with `noumena fit --resume RUN`."""
    if lower is not None and best is None:
        raise ConfigError("--lower and --higher say how to sort: give --best METRIC as well.")
    if family is not None:
        from noumena.registry import family as registered

        registered(family)
    from noumena.evaluation.comparison_page import run_json
    from noumena.evaluation.runs import find_runs

    found = [run for run in find_runs(folder) if family is None or run.family == family]
    if best is not None:
        best = _metric(found, best)
        found = _sorted(found, best, lower)
    if as_json:
        typer.echo(json.dumps([run_json(run) for run in found], indent=2))
        return
    if not found:
        typer.echo(f"no runs in {folder}." if family is None else f"no runs of {family} in {folder}.", err=True)
        return
    from rich.console import Console

    _print(found, folder, best, Console())


def _metric(found: "Sequence[Run]", name: str) -> str:
    """The full name of a metric that some run has; ``val_loss`` is that at the best epoch, and so is ``loss``."""
    from noumena.evaluation.comparison import check_metric

    known = dict.fromkeys(metric for run in found for metric in run.all_metrics())
    for full in (name, f"best_epoch/{name}", f"best_epoch/val_{name}", f"best_epoch/train_{name}"):
        if full in known:
            return full
    check_metric(name, known, pattern=False)
    return name


def _sorted(found: "Sequence[Run]", best: str, lower: bool | None) -> "list[Run]":
    """The runs that have the metric, best first, and then the others."""
    from noumena.evaluation.comparison import better

    if lower is None:
        direction = better(best)
        if direction is None:
            raise ConfigError(f"the name '{best}' does not tell which way is better. Add --lower or --higher.")
        lower = direction == "lower"
    sign = 1.0 if lower else -1.0

    def key(run: "Run") -> tuple[bool, float]:
        value = run.all_metrics().get(best)
        return value is None, 0.0 if value is None else sign * value

    return sorted(found, key=key)


def _print(found: "Sequence[Run]", folder: Path, best: str | None, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    from noumena.evaluation.comparison import short_fingerprint

    # Two lines a run, so that eighty columns hold them.
    table = Table(show_lines=True)
    table.add_column("run, recipe", overflow="fold")
    table.add_column("state, when", overflow="fold")
    table.add_column("epochs", justify="right")
    table.add_column(Text(best or "metrics"), overflow="fold", justify="left" if best is None else "right")
    table.add_column("data", no_wrap=True)
    for run in found:
        when = "" if run.when is None else run.when.astimezone().strftime("%Y-%m-%d %H:%M")
        cells = (
            f"{_place(run, folder)}\n{run.recipe or run.model}",
            "\n".join(line for line in (run.state, run.reason, when) if line),
            str(run.history.epochs or ""),
            _metrics(run, best),
            short_fingerprint(run.data),
        )
        # Text, not strings: names from files may hold what rich would take for markup.
        table.add_row(*map(Text, cells))
    console.print(table)
    data = {run.data for run in found if best is not None and run.data and run.all_metrics().get(best) is not None}
    if len(data) > 1:
        console.print(f"{len(data)} different data sets (last column): a metric compares only within one.")


def _place(run: "Run", folder: Path) -> str:
    inside = run.path.relative_to(folder)
    return str(inside) if inside.name else str(run.path)


def _metrics(run: "Run", best: str | None) -> str:
    from noumena.evaluation.comparison import better
    from noumena.evaluation.report import format_number

    metrics = run.all_metrics()
    if best is not None:
        return format_number(metrics.get(best))
    told = [name for name, value in metrics.items() if value is not None and better(name)]
    own = [name for name in told if name in run.metrics and not name.startswith(_NOT_OWN)]
    shown = own[:_HEADLINES] or [name for name in ("best_epoch/val_loss", "best_epoch/train_loss") if name in told][:1]
    return "\n".join(f"{name} {format_number(metrics[name])}" for name in shown)
