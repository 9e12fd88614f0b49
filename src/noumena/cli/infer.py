"""``noumena infer``."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, ChunkRows, Data, Device, Output, Source, names_within


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="infer", no_args_is_help=True)(infer)


def infer(
    source: Source,
    data: Data,
    inputs: Annotated[
        list[str] | None, typer.Option("--inputs", help="A modality to look at; repeat it. All of the data's if none.")
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--targets", help="A modality to infer; repeat it. Those not looked at if none, or all."),
    ] = None,
    std: Annotated[bool, typer.Option("--std/--no-std", help="With standard deviations.")] = True,
    output: Output = None,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Modalities inferred from others: means as NAME and deviations as NAME_std, in physical units."""
    from noumena.artifact import load, read_manifest
    from noumena.artifact.store import model_folder
    from noumena.cli.output import write_columns
    from noumena.registry import family, resolve

    model: Any = load(source, device=device)
    _check_can_infer(model)
    name = read_manifest(model_folder(source)).model.partition("/")[0]
    batches = resolve(family(name).stream)(data, model.schema, batch_rows=chunk_rows, inputs=inputs)
    first = next(batches, None)
    wanted = targets or _not_seen(model, inputs, first)
    rows = 0

    def results() -> Iterator[dict[str, Any]]:
        nonlocal rows
        for batch in chain([] if first is None else [first], batches):
            rows += len(batch)
            found = model.infer(batch, wanted)
            yield {
                column: values
                for name, prediction in found.items()
                for column, values in ((name, prediction.mean), *([(f"{name}_std", prediction.std)] if std else []))
            }

    write_columns(results(), output, to_stdout=not as_json, names=names_within(model))
    if as_json:
        facts = {"rows": rows, "targets": list(wanted), "output": None if output is None else str(output)}
        typer.echo(json.dumps(facts))
    elif output is not None:
        typer.echo(f"{rows:,} rows: {', '.join(wanted)} -> {output}")


def _check_can_infer(model: Any) -> None:
    from noumena.core.errors import NotSupportedError

    if not hasattr(model, "infer"):
        raise NotSupportedError(
            f"{type(model).__name__} has one kind of data, so there is nothing to infer from another; use `encode`, "
            "`reconstruct` or `score`, or a model of the multimodal family."
        )


def _not_seen(model: Any, inputs: list[str] | None, first: Any) -> list[str]:
    """Modalities that are not looked at, told by the first rows; all if every one is."""
    names = [modality.name for modality in model.modalities]
    if inputs:
        seen = {name: name in inputs for name in names}
    elif first is None or first.present is None:
        seen = dict.fromkeys(names, True)
    else:
        seen = dict(zip(names, first.present.any(0).tolist(), strict=True))
    return [name for name in names if not seen[name]] or names
