"""``noumena import``: models of other codes as model folders of this library."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from noumena.cli.data_verbs import AsJson

_verbs = typer.Typer(no_args_is_help=True, help="Take over models that other codes have trained.")


def register(app: typer.Typer) -> None:
    """Add the group of verbs."""
    app.add_typer(_verbs, name="import")


@_verbs.command(name="prosoro", no_args_is_help=True)
def prosoro(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="A file mvae_<type>_<alpha>_<zeta>_<gamma>_<z_dim>.pth.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to make.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with mu.npy, std.npy and the template's surface; that of WEIGHTS by default."),
    ] = None,
    names: Annotated[
        tuple[str, str, str], typer.Option(help="Names of the modalities, in the order of the weights.")
    ] = ("pose", "force", "shape"),
    recon_pred_scale: Annotated[float | None, typer.Option(help="Alpha, in place of the name's.")] = None,
    z_coeff: Annotated[float | None, typer.Option(help="Zeta, in place of the name's.")] = None,
    kl_coeff: Annotated[float | None, typer.Option(help="Gamma, in place of the name's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Weights of the original ProSoRo code as a model folder that computes the same."""
    from noumena.registry import family, resolve

    model = resolve(family("multimodal").importers["prosoro"])(
        weights, data=data, names=names, recon_pred_scale=recon_pred_scale, z_coeff=z_coeff, kl_coeff=kl_coeff
    )
    model.save(output, overwrite=overwrite)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "sizes": model.sizes,
        "z_dim": model.z_dim,
        "parameters": parameters,
        "physical_units": any(unit for modality in model.modalities for unit in modality.units),
        "output": str(output),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        sizes = ", ".join(f"{name} ({size})" for name, size in model.sizes.items())
        typer.echo(f"{sizes}, latent {model.z_dim}, {parameters:,} parameters -> {output}")


@_verbs.command(name="jepa-ssl", no_args_is_help=True)
def jepa_ssl(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A file epoch=<E>_sample_step=<N>.ckpt, of VICReg or SimCLR.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to make.")],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of the training; that beside CHECKPOINT, or config.yaml there, by default."),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="dots|normalised",
            help="What the model is to take: this library's frames of dots (default with a configuration), or frames "
            "and actions normalised as for the original (default without).",
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images of structured noise, for --inputs dots; as data.images in a recipe.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """A checkpoint of JEPA_SSL_NeurIPS_2022 as a model folder that computes the same."""
    from noumena.registry import family, resolve

    options = {} if images is None else {"images": images}
    model = resolve(family("worldmodels").importers["jepa-ssl"])(checkpoint, config=config, inputs=inputs, **options)
    model.save(output, overwrite=overwrite)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "objective": model.objective,
        "latent_size": model.latent_size,
        "parameters": parameters,
        "inputs": "dots" if model.schema["kind"] == "dots" else "normalised",
        "output": str(output),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(
            f"{facts['objective']}, latent {facts['latent_size']}, {parameters:,} parameters, takes {facts['inputs']} "
            f"-> {output}"
        )


@_verbs.command(name="chemeleon2", no_args_is_help=True)
def chemeleon2(
    weights: Annotated[
        Path, typer.Argument(metavar="FILE", help="State of its VAE: .safetensors, or a Lightning checkpoint (.ckpt).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to make.")],
    heads: Annotated[
        int | None, typer.Option(help="Attention heads; 'nhead' of a .json file beside FILE, or 8 at a width of 512.")
    ] = None,
    csp: Annotated[bool, typer.Option("--csp", help="A model for structure prediction: elements are given.")] = False,
    max_atoms: Annotated[int, typer.Option(help="Atoms of the largest cell that the model is to take.")] = 20,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="gelu-tanh|gelu",
            help="Of the feed-forward networks; that of the .json file, or gelu-tanh as published, by default.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """The VAE of Chemeleon2 as a model folder that computes the same."""
    from noumena.registry import family, resolve

    model = resolve(family("crystals").importers["chemeleon2"])(
        weights, heads=heads, csp=csp, max_atoms=max_atoms, activation=activation
    )
    model.save(output, overwrite=overwrite)
    facts = {
        "width": model.width,
        "encoder_layers": model.encoder_layers,
        "decoder_layers": model.decoder_layers,
        "heads": model.heads,
        "latent_dim": model.latent_dim,
        "predict_types": model.predict_types,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "output": str(output),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(
            f"width {model.width}, {model.encoder_layers}+{model.decoder_layers} layers, {model.heads} heads, "
            f"latent {model.latent_dim} per atom, "
            f"{facts['parameters']:,} parameters -> {output}"
        )


@_verbs.command(name="gormpo", no_args_is_help=True)
def gormpo(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="BASE, where BASE_model.pth and BASE_meta_data.pkl are the files, one of the two, or a folder with "
            "one such pair.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The model folder to make; the name BASE here by default.")
    ] = None,
    actions: Annotated[
        int | None,
        typer.Option(
            help="Columns of a row that are the action, the last ones: 3 of Hopper, 6 of HalfCheetah and Walker2d. "
            "Files of episodes can then be scored as they are."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """A VAE or RealNVP of GORMPO as a model folder that computes the same."""
    from noumena.registry import family, model_name, resolve

    model = resolve(family("density").importers["gormpo"])(path, actions=actions)
    folder = Path(model.schema["gormpo"]["name"]) if output is None else output
    model.save(folder, overwrite=overwrite)
    threshold = float(model.threshold)
    facts = {
        "model": model_name(type(model)),
        "columns": model.input_dim,
        "hidden_dims": list(model.hidden_dims),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threshold": threshold if math.isfinite(threshold) else None,
        "output": str(folder),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        said = "no threshold" if facts["threshold"] is None else f"threshold {threshold:.4g}"
        typer.echo(
            f"{facts['model']}, {facts['columns']} columns, {facts['parameters']:,} parameters, {said} -> {folder}"
        )
