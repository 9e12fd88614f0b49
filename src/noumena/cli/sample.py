"""``noumena sample``."""

import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Opened, Samples, Source
from noumena.core.errors import NotSupportedError

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
        str | None, typer.Option(help="Of molecules: fitted (to the training data; the default) or normal.")
    ] = None,
    output: Samples = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """New samples from the prior, in the columns and units of the data."""
    import torch

    opened = Opened(source, device)
    model = opened.model
    options = {} if prior is None else {"prior": prior}
    if options and "prior" not in inspect.signature(model.sample).parameters:
        raise NotSupportedError(
            f"--prior is not for the {opened.family.name} family, which has one prior. Leave it out."
        )
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
