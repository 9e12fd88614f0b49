"""``noumena sample``."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Opened, Samples, Source, Symmetrise, check_options

_CHUNK = 65536
# Of modalities with thousands of columns fewer rows at a time.
_MOST_NUMBERS = 1 << 24


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="sample", no_args_is_help=True)(sample)


def sample(
    source: Source,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same samples.")] = 0,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Of molecules: fitted (to the training data; the default) or normal. Of crystals/vae: standard or "
            "gaussian, controls for crystals/prior."
        ),
    ] = None,
    n_atoms: Annotated[int | None, typer.Option("--n-atoms", min=1, help="Of crystals: atoms of each cell.")] = None,
    composition: Annotated[
        str | None, typer.Option(help='Of crystals: elements and their ratio, such as NaCl or "Li2 O".')
    ] = None,
    separate: Annotated[
        bool | None,
        typer.Option(
            "--separate/--no-separate",
            help="Of crystals/prior: move atoms apart that came to lie on each other; the default.",
            show_default=False,
        ),
    ] = None,
    symmetrise: Symmetrise = False,
    output: Samples = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """New samples from the prior, in the columns and units of the data."""
    import torch

    opened = Opened(source, device)
    model = opened.model
    given = {
        **{"prior": prior, "n_atoms": n_atoms, "composition": composition},
        **{"separate": separate, "symmetrise": symmetrise or None},
    }
    options = {name: value for name, value in given.items() if value is not None}
    check_options(options, model.sample, opened)
    generator = torch.Generator(device).manual_seed(seed)
    width = sum(modality.size for modality in getattr(model, "modalities", ()))
    chunk = opened.rows_at_once(min(_CHUNK, _MOST_NUMBERS // max(1, width)))

    def chunks() -> Iterator[Any]:
        for start in range(0, n, chunk):
            yield model.sample(min(chunk, n - start), generator, **options)

    opened.write_samples(chunks(), output, to_stdout=not as_json)
    if as_json:
        typer.echo(json.dumps({"rows": n, "seed": seed, "output": None if output is None else str(output)}))
    elif output is not None:
        typer.echo(f"{n:,} rows -> {output}")
