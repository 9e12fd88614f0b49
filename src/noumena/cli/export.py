"""``noumena export``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from noumena.cli.data_verbs import AsJson, Source
from noumena.core.errors import ConfigError, NotSupportedError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="export", no_args_is_help=True)(export)


def export(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; .onnx.")],
    inputs: Annotated[list[str], typer.Option("--inputs", help="A modality that will be known; repeat it.")],
    targets: Annotated[list[str], typer.Option("--targets", help="A modality to infer; repeat it.")],
    std: Annotated[bool, typer.Option("--std/--no-std", help="With standard deviations.")] = True,
    as_json: AsJson = False,
) -> None:
    """The inference of some modalities from others as one file for other runtimes, checked against the model."""
    from noumena.artifact import load, read_manifest
    from noumena.artifact.store import model_folder
    from noumena.files import replacing
    from noumena.registry import families, family, resolve

    model = load(source)
    name = read_manifest(model_folder(source)).model
    known = family(name.partition("/")[0]).exports
    if not known:
        able = ", ".join(entry.name for entry in families() if entry.exports)
        raise NotSupportedError(f"a {name} model cannot be exported; models of these families can: {able}.")
    if (ending := output.suffix.removeprefix(".")) not in known:
        raise ConfigError(
            f"{output}: unknown ending '{output.suffix}'. Known: {', '.join(f'.{key}' for key in known)}."
        )
    content: bytes = resolve(known[ending])(model, inputs, targets, std=std)
    with replacing(output) as beside:
        beside.write_bytes(content)
    facts = {"inputs": inputs, "targets": targets, "bytes": len(content), "output": str(output)}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{', '.join(inputs)} -> {', '.join(targets)}: {len(content):,} bytes -> {output}")
