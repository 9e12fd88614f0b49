"""``noumena evaluate``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from noumena.cli.data_verbs import Source


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="evaluate", no_args_is_help=True)(evaluate)


def evaluate(
    source: Source,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA] [KEY=VALUE]...", help="Other data than the run's test split; data.label=y, ..."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the metrics to this .json file.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Measure a trained model on its run's test split, or on all rows of other DATA."""
    from noumena import experiment

    model, config, splits = experiment.load_with_data(source, arguments or [], device=device)
    evaluation = experiment.evaluate(config, model, splits)
    if output is not None:
        experiment.write_metrics(output, evaluation.metrics)
    if as_json:
        typer.echo(json.dumps(dict(evaluation.metrics), indent=2))
        return
    from rich.console import Console

    from noumena.evaluation.report import summary_table

    summary_table(evaluation, Console())
