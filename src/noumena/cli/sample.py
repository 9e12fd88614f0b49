"""``noumena sample``."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Output, Source, named_columns, names_within

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
    width = sum(modality.size for modality in getattr(model, "modalities", ()))
    chunk = max(1, min(_CHUNK, _MOST_NUMBERS // max(1, width)))

    def chunks() -> Iterator[dict[str, Any]]:
        for start in range(0, n, chunk):
            yield named_columns(model, model.sample(min(chunk, n - start), generator))

    write_columns(chunks(), output, to_stdout=not as_json, names=names_within(model))
    if as_json:
        typer.echo(json.dumps({"rows": n, "seed": seed, "output": None if output is None else str(output)}))
    elif output is not None:
        typer.echo(f"{n:,} rows -> {output}")
