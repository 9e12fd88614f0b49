"""Entry point: assembles the verbs and turns errors into one readable block and an exit code."""

import logging
import os
import sys
from typing import Annotated

import typer

from noumena.cli import (
    compare,
    data,
    data_verbs,
    demo,
    evaluate,
    explain,
    explore,
    export,
    fit,
    import_model,
    infer,
    interpolate,
    listings,
    neighbours,
    plan,
    push,
    runs,
    sample,
    sweep,
)
from noumena.core.errors import NoumenaError

app = typer.Typer(
    name="noumena",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn, compare and serve latent representations of scientific data.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from noumena import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and results only.")] = False,
) -> None:
    """Options of every verb; they stand before it."""
    if debug:
        os.environ["NOUMENA_DEBUG"] = "1"
    console = logging.StreamHandler()
    # On a terminal the progress bar shows what the lines per epoch would say; `log.txt` has them all.
    console.setLevel(logging.WARNING if quiet or sys.stderr.isatty() else logging.INFO)
    logging.basicConfig(format="%(message)s", handlers=[console])
    logging.getLogger("noumena").setLevel(logging.INFO)


for verbs in (
    fit,
    sweep,
    evaluate,
    explain,
    explore,
    plan,
    data_verbs,
    infer,
    sample,
    interpolate,
    neighbours,
    export,
    import_model,
    push,
    data,
    listings,
    runs,
    compare,
    demo,
):
    verbs.register(app)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except NoumenaError as error:
        _fail(error, error.exit_code, f"{type(error).__name__}: {error}")
    except KeyboardInterrupt as error:
        _fail(error, 130, "interrupted")
    except BrokenPipeError:
        # The reader of a pipe has gone, as `| head` does; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        _fail(
            error, 1, f"unexpected {type(error).__name__}: {error}\nRun again with `noumena --debug ...` for details."
        )


def _fail(error: BaseException, code: int, message: str) -> None:
    if os.environ.get("NOUMENA_DEBUG"):
        raise error
    typer.echo(message, err=True)
    sys.exit(code)
