"""``noumena compare``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from noumena.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="compare", no_args_is_help=True)(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run or model folders, two or more.")],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", "-m", help="Only metrics of this name, such as 'auroc/*'; may be repeated."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write this .html file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Put runs side by side: settings that differ, training, metrics; says when they cannot be compared."""
    if output is not None and output.suffix != ".html":
        raise ConfigError(f"{output}: unknown ending '{output.suffix}'. A comparison is written as .html.")
    from noumena.evaluation import comparison, comparison_page
    from noumena.evaluation.runs import read_run

    found = comparison.compare([read_run(path) for path in runs], metrics or [])
    if output is not None:
        comparison_page.write_comparison(output, found)
    if as_json:
        typer.echo(json.dumps(comparison_page.comparison_json(found), indent=2))
        return
    from rich.console import Console

    comparison_page.print_comparison(found, Console())
    if output is not None:
        typer.echo(f"written: {output}", err=True)
