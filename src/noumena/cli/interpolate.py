"""``noumena interpolate``."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Opened, Samples, Source
from noumena.core.errors import DataError, NotSupportedError
from noumena.engines.work import ids

_CHUNK = 1024


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="interpolate", no_args_is_help=True)(interpolate)


def interpolate(
    source: Source,
    start: Annotated[
        str, typer.Argument(metavar="START", help="A file, FILE:NUMBER for a row from 0, or FILE:ID of a crystal.")
    ],
    end: Annotated[str, typer.Argument(metavar="END", help="Where the path ends; likewise.")],
    steps: Annotated[int, typer.Option(min=2, help="Rows of the path, both ends included.")] = 50,
    output: Samples = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """A path through latent space from one conformation of a molecule, or one crystal, to another."""
    opened = Opened(source, device)
    model: Any = opened.model
    if not hasattr(model, "interpolate"):
        raise NotSupportedError(
            f"the {opened.family.name} family has no paths between rows; `interpolate` is for models of molecules and "
            "of crystals."
        )
    path = model.interpolate(row_of(opened, start), row_of(opened, end), steps)
    opened.write_samples(iter([path]), output, to_stdout=not as_json)
    if as_json:
        typer.echo(json.dumps({"rows": steps, "output": str(output)}))
    else:
        typer.echo(f"{steps:,} rows -> {output}")


def row_of(opened: Opened, place: str) -> Any:
    """One row of ``FILE``, ``FILE:NUMBER`` or, where rows have names that are no numbers, ``FILE:NAME``.

    Returns:
        A conformation, shape (atoms, 3), or a batch of one crystal.

    Raises:
        DataError: the file cannot be read, is shorter or has no such name.
    """
    file, wanted = _file_and_row(place)
    first = 0
    # A reader need not give chunks of the size asked for.
    for batch in opened.batches(file, min(_CHUNK, wanted + 1) if isinstance(wanted, int) else _CHUNK):
        number = wanted - first if isinstance(wanted, int) else _number_of(batch, wanted)
        if number < len(batch):
            return _taken(batch, number)
        first += len(batch)
    if isinstance(wanted, str):
        raise DataError(f"{file}: none of its {first:,} rows has the id '{wanted}'.")
    raise DataError(f"{file}: there is no row {wanted}; it has {first:,} that the model can take, numbered from 0.")


def _number_of(batch: Any, name: str) -> int:
    """The first row of this name; the number of rows if there is none."""
    names = ids(batch).get("id", ())
    return next((number for number, found in enumerate(names) if found == name), len(batch))


def _file_and_row(place: str) -> tuple[str, int | str]:
    file, _, row = place.rpartition(":")
    if Path(place).exists() or not file:
        return place, 0
    if row.isdecimal():
        return file, int(row)
    # Windows drives and samples have a colon of their own.
    return (file, row) if Path(file).exists() or ":" in file else (place, 0)


def _taken(batch: Any, number: int) -> Any:
    """A row of a batch: an element of a tensor, or a batch of one of what can select."""
    if isinstance(batch, Iterable):
        return next(islice(iter(batch), number, None))
    import torch

    return batch.select(torch.tensor([number]))
