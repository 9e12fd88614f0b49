"""``noumena recipes``, ``models`` and ``verify``."""

import json
from typing import Annotated

import typer

from noumena.cli.data_verbs import Source

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="recipes")(recipes)
    app.command(name="models")(models)
    app.command(name="verify", no_args_is_help=True)(verify)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe's YAML.")] = None, as_json: AsJson = False
) -> None:
    """List the ready-made experiments, or print one."""
    from noumena import config

    if name is not None:
        from omegaconf import OmegaConf

        content = config.find_recipe(name).content
        typer.echo(json.dumps(content, indent=2) if as_json else OmegaConf.to_yaml(OmegaConf.create(content)).rstrip())
        return
    found = {recipe.name: recipe.description for recipe in config.recipes()}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for key, description in found.items():
        typer.echo(f"{key:<{width}}  {description}")


def models(as_json: AsJson = False) -> None:
    """List the models of every family; those of other packages too, and which of these cannot be used and why."""
    from noumena.registry import broken_families, model_names, model_summary

    for broken in broken_families():
        typer.echo(f"not usable: '{broken.name}' of the package '{broken.package}': {broken.reason}", err=True)

    found = {name: model_summary(name) for name in model_names()}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for key, summary in found.items():
        typer.echo(f"{key:<{width}}  {summary}")


def verify(
    source: Source,
    as_json: AsJson = False,
) -> None:
    """Check that every byte of a saved model is what its manifest says, and that it loads."""
    from noumena.artifact import load, read_manifest
    from noumena.artifact.store import model_folder

    model = load(source)
    manifest = read_manifest(model_folder(source))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {"model": manifest.model, "created": manifest.created, "parameters": parameters, "data": manifest.data}
    if as_json:
        typer.echo(json.dumps({"ok": True, **facts}))
    else:
        typer.echo(f"ok  {model_folder(source)}\n" + "\n".join(f"    {key}: {value}" for key, value in facts.items()))
