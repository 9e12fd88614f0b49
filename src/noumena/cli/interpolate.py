"""``noumena interpolate``."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Opened, Samples, Source
from noumena.core.errors import DataError, NotSupportedError

_CHUNK = 1024


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="interpolate", no_args_is_help=True)(interpolate)


def interpolate(
    source: Source,
    start: Annotated[str, typer.Argument(metavar="START", help="A file, or FILE:NUMBER for a frame from 0.")],
    end: Annotated[str, typer.Argument(metavar="END", help="Where the path ends; likewise.")],
    steps: Annotated[int, typer.Option(min=2, help="Frames of the path, both ends included.")] = 50,
    output: Samples = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """A path through latent space from one conformation of a molecule to another."""
    opened = Opened(source, device)
    model: Any = opened.model
    if not hasattr(model, "interpolate"):
        raise NotSupportedError(
            f"the {opened.family.name} family has no paths between rows; `interpolate` is for models of molecules."
        )
    path = model.interpolate(_frame(opened, start), _frame(opened, end), steps)
    opened.write_samples(iter([path]), output, to_stdout=not as_json)
    if as_json:
        typer.echo(json.dumps({"rows": steps, "output": str(output)}))
    else:
        typer.echo(f"{steps:,} rows -> {output}")


def _frame(opened: Opened, name: str) -> Any:
    """One frame, shape (atoms, 3), of ``FILE`` or ``FILE:NUMBER``.

    Raises:
        DataError: the file cannot be read or is shorter.
    """
    file, _, digits = name.rpartition(":")
    if Path(name).exists() or not (file and digits.isdecimal()):
        file, digits = name, "0"
    number = int(digits)
    # A reader need not give chunks of the size asked for.
    first = 0
    for batch in opened.batches(file, min(_CHUNK, number + 1)):
        if number < first + len(batch):
            return next(islice(iter(batch), number - first, None))
        first += len(batch)
    raise DataError(f"{file}: there is no frame {number}; it has {first}, numbered from 0.")
