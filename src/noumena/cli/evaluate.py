"""``noumena evaluate``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from noumena.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="evaluate", no_args_is_help=True)(evaluate)


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder or a model folder.")],
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
    from noumena.artifact import load, read_manifest
    from noumena.artifact.store import model_folder

    paths = [argument for argument in arguments or [] if "=" not in argument]
    overrides = [*(f"data.path={path}" for path in paths), *(entry for entry in arguments or [] if "=" in entry)]
    if len(paths) > 1:
        raise ConfigError(f"one DATA path at most, got {', '.join(paths)}.")
    is_run = (source / "config.yaml").is_file()
    if is_run and paths and not any(entry.startswith("data.kind=") for entry in overrides):
        _check_has_file(source, paths[0])
    model = load(source, device=device)
    if is_run and not any(entry.startswith("data.") for entry in overrides):
        config = experiment.with_overrides(experiment.run_config(source), overrides)
        splits = experiment.open_data(config)
    elif is_run:
        trained = experiment.run_config(source)
        config = experiment.with_overrides(trained, overrides)
        other = experiment.open_all(config)
        splits = replace(other, train=experiment.open_data(trained).train, test=other.train)
    else:
        if not overrides:
            raise ConfigError(
                f"{source} is a model without its run: give the DATA to evaluate it on, or of data that are made one "
                "of their options, such as data.seed=0."
            )
        # Without the rows it was trained on there is nothing to fit a baseline to.
        name = read_manifest(model_folder(source)).model
        config = experiment.bare_config(name, model.schema, ["evaluate.baselines=false", *overrides])
        if experiment.is_made(config):
            splits = experiment.open_data(config)
        else:
            other = experiment.open_all(config)
            splits = replace(other, test=other.train)
    evaluation = experiment.evaluate(config, model, splits)
    if output is not None:
        experiment.write_metrics(output, evaluation.metrics)
    if as_json:
        typer.echo(json.dumps(dict(evaluation.metrics), indent=2))
        return
    from rich.console import Console

    from noumena.evaluation.report import summary_table

    summary_table(evaluation, Console())


def _check_has_file(run: Path, path: str) -> None:
    """Refuse a file where the run's data are made."""
    from noumena import experiment

    trained = experiment.run_config(run)
    if experiment.is_made(trained):
        raise ConfigError(
            f"{run}: its data, of kind '{trained.data['kind']}', are made and have no file. Change them with "
            f"data.KEY=VALUE, or say of what kind {path} is with data.kind=KIND."
        )
