"""``noumena fit``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from noumena.core.errors import ArtifactError, ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="fit", no_args_is_help=True)(fit)


def fit(
    recipe: Annotated[str | None, typer.Argument(help="A recipe (see `noumena recipes`) or a YAML file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as fit.lr=1e-3.")
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", "-c", help="YAML file merged over the recipe.")
    ] = None,
    study_config: Annotated[
        Path | None,
        typer.Option(help="Configuration of the study that the recipe's family comes from, in place of its sections."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<recipe>-<time> by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check configuration and data, train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model: read, split, fit, evaluate, write the run folder with its report."""
    if resume is not None:
        if recipe is not None or config or study_config or out is not None or dry_run:
            raise ConfigError("--resume RUN takes everything from the run; give it alone.")
        from noumena.experiment import resume_run
        from noumena.files import is_busy
        from noumena.training.processes import is_main_process

        if is_main_process() and is_busy(resume):
            raise ArtifactError(f"{resume} is being trained by another process. Wait for it, or stop it with Ctrl-C.")
        show_result(resume_run(resume), as_json)
        return
    if recipe is None:
        raise ConfigError("give a recipe, for instance density/hopper; `noumena recipes` lists them.")
    if dry_run:
        from noumena.cli.dry_run import dry_run as check

        facts = check(recipe, config or [], overrides or [], study=study_config)
        typer.echo(json.dumps(facts, indent=2) if as_json else "\n".join(f"{k:<14} {v}" for k, v in facts.items()))
        return
    from noumena.experiment import run_recipe

    show_result(run_recipe(recipe, overrides or [], files=config or [], study=study_config, out=out), as_json)


def show_result(result: Any, as_json: bool) -> None:
    """Print a finished run: its tables and where it is, or its metrics as JSON."""
    if result.evaluation is None:
        return
    if as_json:
        facts = {"run": str(result.folder), "epochs": result.history.epochs, "best_epoch": result.history.best_epoch}
        typer.echo(json.dumps({**facts, "metrics": dict(result.evaluation.metrics)}, indent=2))
        return
    from rich.console import Console

    from noumena.evaluation.report import summary_table

    summary_table(result.evaluation, Console())
    typer.echo(f"\nrun     {result.folder}\nreport  {result.report}\nmodel   {result.folder / 'model'}")
