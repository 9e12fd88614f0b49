"""``noumena export``."""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Source
from noumena.core.errors import ConfigError, NotSupportedError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="export", no_args_is_help=True)(export)


def export(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; .onnx, or .pt2 of some models.")],
    inputs: Annotated[
        list[str] | None, typer.Option("--inputs", help="Of several modalities: one that will be known; repeat it.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--targets", help="Of several modalities: one to infer; repeat it.")
    ] = None,
    std: Annotated[
        bool | None, typer.Option("--std/--no-std", help="Of several modalities: with standard deviations.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A model's inference as one file for other runtimes, checked against the model.

    Of a density model score, verdict and p-value of rows; of a multimodal model the inference of some modalities from
    others; of a model of molecules the encoder, from coordinates to latents, for use as collective variables.
    """
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
    make = resolve(known[ending])
    options = _options(make, name, {"inputs": inputs or None, "targets": targets or None, "std": std})
    content: bytes = make(model, **options)
    with replacing(output) as beside:
        beside.write_bytes(content)
    facts = {**{key: value for key, value in options.items() if key != "std"}, "bytes": len(content)}
    if as_json:
        typer.echo(json.dumps({**facts, "output": str(output)}))
    else:
        what = f"{', '.join(options['inputs'])} -> {', '.join(options['targets'])}" if "inputs" in options else name
        typer.echo(f"{what}: {len(content):,} bytes -> {output}")


def _options(make: Callable[..., bytes], name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the family's function takes of what was asked for.

    Raises:
        ConfigError: an option the family does not have, or one it needs is missing.
    """
    accepted = inspect.signature(make).parameters
    given = {key: value for key, value in asked.items() if value is not None}
    if foreign := [key for key in given if key not in accepted]:
        raise ConfigError(
            f"--{foreign[0]} is not for a {name} model: it has no modalities to choose from. Leave it out."
        )
    needed = [key for key in asked if key in accepted and accepted[key].default is inspect.Parameter.empty]
    if missing := [key for key in needed if key not in given]:
        raise ConfigError(f"a {name} model is exported for chosen modalities: give --{' and --'.join(missing)}.")
    return given
