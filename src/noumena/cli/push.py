"""``noumena push``."""

import json
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="push", no_args_is_help=True)(push)


def push(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder or a model folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private; a public one is refused.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made if it does not exist; main by default.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="For the card, such as apache-2.0.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Another server than HF_ENDPOINT or the public one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a model to the Hugging Face Hub: manifest, configuration, weights and card, nothing else of a run."""
    from noumena.artifact import hub

    made = hub.push(
        source, repo, private=private, revision=revision, message=message, licence=licence, endpoint=endpoint
    )
    if as_json:
        typer.echo(json.dumps({"repo": made.repo, "commit": made.commit, "url": made.url, "load": made.address}))
    else:
        typer.echo(f'{made.url}\nload it with noumena.load("{made.address}")')
