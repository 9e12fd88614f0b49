"""``noumena sweep``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noumena.core.errors import ConfigError, TrainingInterrupted

if TYPE_CHECKING:
    from noumena.sweep.plan import Plan
    from noumena.sweep.study import Sweep

_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="sweep", no_args_is_help=True)(sweep)


def sweep(
    recipe: Annotated[str | None, typer.Argument(help="A recipe (see `noumena recipes`) or a YAML file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="For all runs, such as fit.max_epochs=20.")
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(help="YAML: recipe keys to {choices: [...]} or {low: , high: , log: true, step: }."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("-n", min=1, help="Finished runs in all, by all workers; a grid has them all by default."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep; runs/sweep-<recipe>-<time> by default.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share this machine's processors.")] = 1,
    metric: Annotated[
        str | None, typer.Option(help="A column of metrics.csv or a metric of the evaluation; val_loss by default.")
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="minimize or maximize; losses are minimised by default.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="tpe learns from finished runs and is the default; random; grid: every combination."),
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option(
            help="median: end runs whose validation loss is worse than half of those before; none. median by default "
            "where the metric is a loss."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed and one worker, same choices; 0 by default.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Minutes after which no run is begun.")] = None,
    reports: Annotated[
        bool, typer.Option("--reports/--no-reports", help="Whether each run gets its figures and its report.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Tune a recipe: many runs with values from a space, the best one as a recipe of its own.

    The same command continues a sweep that was stopped or killed; so does `noumena sweep --out DIR -n N` alone.
    Machines that share a folder work on one sweep when each of them is given it with --out.
    """
    options = {"metric": metric, "direction": direction, "sampler": sampler, "pruner": pruner, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    plan = _plan(recipe, overrides or [], space, given) if recipe is not None else _plan_in(out, space, given)
    if trials is None and plan.sampler != "grid":
        raise ConfigError("give the number of runs: -n N.")
    from noumena.sweep.run import open_sweep

    found = open_sweep(plan, out)
    try:
        _work(found, trials or len(found.grid or []), workers, timeout, reports)
    except (KeyboardInterrupt, TrainingInterrupted) as stop:
        words = str(stop) or "interrupted."
        raise TrainingInterrupted(f"{words} Continue with `noumena sweep --out {found.out} -n N`.") from stop
    _show(found, as_json)


def _plan(recipe: str, overrides: list[str], space: Path | None, options: dict[str, Any]) -> "Plan":
    if space is None:
        raise ConfigError(
            "give the space: --space FILE, with lines such as 'fit.lr: {low: 1e-4, high: 1e-2, log: true}'."
        )
    from noumena.sweep.plan import make_plan

    return make_plan(recipe, overrides, space, **options)


def _plan_in(out: Path | None, space: Path | None, options: dict[str, Any]) -> "Plan":
    if out is None or space is not None:
        raise ConfigError("give a recipe and --space FILE, or --out DIR alone to continue the sweep in it.")
    if options:
        raise ConfigError(f"--{next(iter(options))} is what the sweep in {out} began with; leave it out to continue.")
    from noumena.sweep.plan import read_plan

    return read_plan(out)


def _work(found: "Sweep", wanted: int, workers: int, timeout: float | None, reports: bool) -> None:
    from noumena.sweep.run import run_sweep

    run_sweep(found, wanted, workers=workers, minutes=timeout, reports=reports)


def _show(found: "Sweep", as_json: bool) -> None:
    from noumena.sweep.summary import BEST, TABLE, as_facts, ranked

    if as_json:
        typer.echo(json.dumps(as_facts(found), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    runs = ranked(found)
    keys = list(found.space.entries)
    table = Table(title=f"{found.plan.recipe}: {len(runs)} runs, {found.plan.direction} {found.plan.metric}")
    for number, column in enumerate(("run", found.plan.metric, *keys, "epochs", "state")):
        table.add_column(column, justify="right" if number < 2 else "left", overflow="fold")
    for run in runs[:_SHOWN]:
        value = "–" if run.value is None else f"{run.value:.6g}"
        shown = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in (run.values[key] for key in keys))
        table.add_row(str(run.number), value, *shown, str(run.facts.get("epochs", "–")), run.state)
    Console().print(table)
    for run in runs:
        if run.error:
            typer.echo(f"run {run.number} failed: {run.error}")
    importance = found.importance()
    if importance:
        typer.echo("importance  " + "  ".join(f"{key} {share:.2f}" for key, share in importance.items()))
    typer.echo(f"\nsweep   {found.out}\ntable   {found.out / TABLE}")
    best = found.best()
    if best is not None:
        typer.echo(f"best    {found.folder(best.number)}\nrecipe  {found.out / BEST}")
