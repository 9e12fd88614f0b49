"""``noumena encode``, ``reconstruct`` and ``score``: read a file of any size in chunks, write results as they come."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from noumena.core.model import LatentModel

Source = Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder or a model folder.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="A file of the kind the model was trained on, of any size.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help=".parquet, .csv or .npz; CSV on the terminal when missing.")
]
Device = Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")]
ChunkRows = Annotated[int, typer.Option(min=1, help="Rows held in memory at a time.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")]

Columns = Mapping[str, "np.ndarray"]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (encode, reconstruct, score):
        app.command(name=verb.__name__, no_args_is_help=True)(verb)


def encode(
    source: Source,
    data: Data,
    output: Output = None,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Posterior mean of each row: columns z0, z1, ..."""

    def columns(model: "LatentModel", rows: Any) -> Columns:
        mean = model.encode(rows).mean.cpu().numpy()
        return {f"z{i}": mean[:, i] for i in range(mean.shape[1])}

    _stream(source, data, output, device, chunk_rows, as_json, columns)


def reconstruct(
    source: Source,
    data: Data,
    output: Output = None,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Each row encoded and decoded again, in the columns and units of the data."""

    def columns(model: "LatentModel", rows: Any) -> Columns:
        return named_columns(model, model.reconstruct(rows))

    _stream(source, data, output, device, chunk_rows, as_json, columns)


def score(
    source: Source,
    data: Data,
    output: Output = None,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """How normal each row is (higher is more normal) and whether it lies below the model's threshold."""

    def columns(model: Any, rows: Any) -> Columns:
        scores = model.score_samples(rows)
        threshold = getattr(model, "threshold", None)
        if threshold is None or bool(threshold.isnan()):
            return {"score": scores}
        return {"score": scores, "is_anomaly": model.is_anomaly(scores)}

    _stream(source, data, output, device, chunk_rows, as_json, columns)


def named_columns(model: "LatentModel", found: Any) -> dict[str, "np.ndarray"]:
    """What a model gave, under the names it was trained with: columns of a tensor (rows, columns), or modalities."""
    if isinstance(found, Mapping):
        return {name: rows.cpu().numpy() for name, rows in found.items()}
    rows = found.cpu().numpy()
    names = model.schema.get("columns") or [f"x{i}" for i in range(rows.shape[1])]
    return {name: rows[:, i] for i, name in enumerate(names)}


def names_within(model: "LatentModel") -> dict[str, Sequence[str]]:
    """The columns of each modality and of its deviations, for a model of several modalities."""
    columns = {modality.name: modality.columns for modality in getattr(model, "modalities", ())}
    return columns | {f"{name}_std": names for name, names in columns.items()}


def _stream(
    source: Path,
    data: str,
    output: Path | None,
    device: str,
    chunk_rows: int,
    as_json: bool,
    columns: Callable[["LatentModel", Any], Columns],
) -> None:
    import torch

    from noumena.artifact import load, read_manifest
    from noumena.artifact.store import model_folder
    from noumena.cli.output import write_columns
    from noumena.registry import family, resolve

    model = load(source, device=device)
    name = read_manifest(model_folder(source)).model.partition("/")[0]
    read = resolve(family(name).stream)
    counted = {"rows": 0}
    anomalies: list[int] = []

    def results() -> Iterator[Columns]:
        with torch.inference_mode():
            for rows in read(data, model.schema, batch_rows=chunk_rows):
                found = columns(model, rows)
                counted["rows"] += len(rows)
                if "is_anomaly" in found:
                    anomalies.append(int(found["is_anomaly"].sum()))
                yield found

    write_columns(results(), output, to_stdout=not as_json, names=names_within(model))
    facts = {**counted, **({"anomalies": sum(anomalies)} if anomalies else {})}
    if as_json:
        typer.echo(json.dumps({**facts, "output": None if output is None else str(output)}))
    elif output is not None:
        typer.echo(f"{', '.join(f'{value:,} {key}' for key, value in facts.items())} -> {output}")
