"""``noumena demo``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from noumena.core.errors import ArtifactError, ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="demo")(demo)


def demo(
    family: Annotated[str | None, typer.Argument(help="One family instead of all that take part.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the demonstration; an older one is replaced.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Train a small model of each family on real data that comes with the package, and write a report."""
    from rich.console import Console

    from noumena.evaluation.report import summary_table
    from noumena.experiment import run_recipe
    from noumena.registry import families

    shown = {entry.name: entry for entry in families() if entry.demo}
    if family is not None and family not in shown:
        raise ConfigError(f"no demo of '{family}'. Known: {', '.join(shown)}.")
    if out.exists():
        # Only what a demo wrote may be replaced.
        if not (out / "config.yaml").is_file():
            raise ArtifactError(f"{out} exists and is no earlier demo. Choose another --out.")
        shutil.rmtree(out)
    entry = shown[family or "density"]
    assert entry.demo is not None
    recipe, *overrides = entry.demo
    typer.echo(f"{entry.name}: training {recipe} on the shipped sample ...")
    result = run_recipe(recipe, overrides, out=out)
    if result.evaluation is not None:
        summary_table(result.evaluation, Console())
        typer.echo(f"\nreport  {result.report}")
