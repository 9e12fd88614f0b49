"""``noumena demo``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from noumena.cli.fit import show_result
from noumena.core.errors import ArtifactError, ConfigError

_MARK = ".demo"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="demo")(demo)


def demo(
    family: Annotated[str | None, typer.Argument(help="One family instead of all that take part.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the demonstration; an older one is replaced.")] = Path(
        "runs/demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a small model of each family on real data that comes with the package, and write a report."""
    from noumena.experiment import run_recipe
    from noumena.files import write_text
    from noumena.registry import families

    shown = {entry.name: entry for entry in families() if entry.demo}
    if family is not None and family not in shown:
        raise ConfigError(f"no demo of '{family}'. Known: {', '.join(shown)}.")
    if out.exists():
        # Only what a demo wrote may be replaced.
        if not (out / _MARK).is_file():
            raise ArtifactError(f"{out} exists and is no earlier demo. Choose another --out.")
        shutil.rmtree(out)
    write_text(out / _MARK, "Made by `noumena demo`, which replaces this folder when it runs again.\n")
    entry = shown[family or "density"]
    recipe, *overrides = entry.demo
    typer.echo(f"{entry.name}: training {recipe} on the sample that comes with the package", err=True)
    show_result(run_recipe(recipe, overrides, out=out), as_json)
