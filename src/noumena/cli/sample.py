"""``noumena sample``."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Output, Source, named_columns

_CHUNK = 65536


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="sample", no_args_is_help=True)(sample)


def sample(
    source: Source,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same samples.")] = 0,
    output: Output = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """New samples from the prior, in the columns and units of the data."""
    import torch

    from noumena.artifact import load
    from noumena.cli.output import write_columns

    model = load(source, device=device)
    generator = torch.Generator(device).manual_seed(seed)

    def chunks() -> Iterator[dict[str, Any]]:
        for start in range(0, n, _CHUNK):
            yield named_columns(model, model.sample(min(_CHUNK, n - start), generator).cpu().numpy())

    write_columns(chunks(), output, to_stdout=not as_json)
    if as_json:
        typer.echo(json.dumps({"rows": n, "seed": seed, "output": None if output is None else str(output)}))
    elif output is not None:
        typer.echo(f"{n:,} rows -> {output}")
