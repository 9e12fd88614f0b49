"""``noumena encode``, ``reconstruct`` and ``score``: read a file of any size in chunks, write results as they come."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noumena.core.errors import ConfigError, NotSupportedError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from noumena.core.family import Family
    from noumena.core.model import LatentModel

Source = Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder or a model folder.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="A file of the kind the model was trained on, of any size.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help=".parquet, .csv or .npz; CSV on the terminal when missing.")
]
# Where a model gives conformations of a molecule, or crystals, instead of rows of a table.
Samples = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help=".parquet, .csv or .npz; CSV on the terminal when missing. Conformations: .pdb, .xtc, .sdf, .xyz or .npz. "
        "Crystals: .cif, .extxyz, .vasp (one crystal), .zip of .cif or .parquet.",
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")]
ChunkRows = Annotated[int, typer.Option(min=1, help="Rows held in memory at a time.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Of crystals: refuse structures that are else skipped and reported.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")]

Symmetrise = Annotated[
    bool, typer.Option("--symmetrise", help="Of crystals: move each onto the space group that it has approximately.")
]

Columns = Mapping[str, "np.ndarray"]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (encode, reconstruct, score):
        app.command(name=verb.__name__, no_args_is_help=True)(verb)


def encode(
    source: Source,
    data: Data,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=".parquet, .csv or .npz; CSV on the terminal when missing. Of molecules also PLUMED text: COLVAR, "
            ".colvar or .dat.",
        ),
    ] = None,
    torsions: Annotated[bool, typer.Option("--torsions", help="Of molecules: add all torsions, in radians.")] = False,
    time_step: Annotated[
        float | None, typer.Option(help="Add a column `time`: the row's number, from 0, times this.")
    ] = None,
    per_atom: Annotated[
        bool, typer.Option("--per-atom", help="Of crystals: the latents of each atom, with its number and element.")
    ] = False,
    strict: Strict = False,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Vector of each row, the posterior mean in most families: columns z0, z1, ..., after an id where rows have one."""
    if per_atom and (torsions or time_step is not None):
        raise ConfigError("--per-atom gives rows of atoms: leave out --torsions and --time-step.")
    opened = Opened(source, device)
    feature = opened.feature("torsions") if torsions else None
    atoms = opened.feature("per-atom") if per_atom else None
    first = 0

    def columns(rows: Any) -> Columns:
        nonlocal first
        if atoms is not None:
            posterior: Any = opened.model.encode(rows)
            return {**atoms(rows), **_numbered(posterior.atoms)}
        vectors = opened.model.embed(rows)
        time = _times(first, len(vectors), time_step)
        first += len(vectors)
        return {**ids(rows), **time, **_numbered(vectors), **(feature(rows) if feature else {})}

    opened.stream(data, output, chunk_rows, as_json, columns, strict=strict)


def ids(rows: Any) -> dict[str, "np.ndarray"]:
    """The names of rows as a column ``id``, or no column where they have none."""
    import numpy as np

    names = getattr(rows, "names", ())
    # Tensors have names too, of their axes.
    if not isinstance(names, tuple) or len(names) != len(rows) or not all(isinstance(name, str) for name in names):
        return {}
    return {"id": np.asarray(names)}


def _numbered(vectors: "Tensor") -> Columns:
    found = vectors.cpu().numpy()
    return {f"z{i}": found[:, i] for i in range(found.shape[1])}


def _times(first: int, count: int, step: float | None) -> Columns:
    import numpy as np

    return {} if step is None else {"time": step * np.arange(first, first + count, dtype=np.float64)}


def reconstruct(
    source: Source,
    data: Data,
    output: Samples = None,
    strict: Strict = False,
    symmetrise: Symmetrise = False,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Each row encoded and decoded again, in the columns and units of the data."""
    opened = Opened(source, device)
    options = {"symmetrise": True} if symmetrise else {}
    check_options(options, opened.model.reconstruct, opened)

    def compute(rows: Any) -> Any:
        return opened.model.reconstruct(rows, **options)

    opened.stream(data, output, chunk_rows, as_json, compute, samples=True, strict=strict)


def score(
    source: Source,
    data: Data,
    output: Output = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Call this share of normal rows anomalies, instead of the share the threshold was set for."),
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Add a column `selected`: rows chosen together, of which at most this share is expected to be normal "
            "(Benjamini & Hochberg)."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that score, with one thread each; 0: this one.")] = 0,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """How normal each row is: score (higher is more normal), is_anomaly and p_value where the model is calibrated."""
    from noumena.cli.data_scoring import Verdicts, check_workers, scores_of

    check_workers(workers, device)
    opened = Opened(source, device)
    verdicts = Verdicts(opened.model, false_alarm_rate, fdr)
    columns = verdicts.columns(scores_of(opened, source, data, chunk_rows, workers))
    opened.write_table(columns, output, to_stdout=not as_json)
    report(verdicts.facts, output, as_json, verdicts.settings)


def report(
    facts: Mapping[str, int], output: Path | None, as_json: bool, settings: Mapping[str, float] | None = None
) -> None:
    """Print how much was written: one line, or JSON with the ``settings`` it rests on."""
    if as_json:
        typer.echo(json.dumps({**facts, **(settings or {}), "output": None if output is None else str(output)}))
    elif output is not None:
        typer.echo(f"{', '.join(f'{value:,} {key}' for key, value in facts.items())} -> {output}")


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


def check_options(options: Mapping[str, Any], verb: Callable[..., Any], opened: "Opened") -> None:
    """Refuse options that a model's verb does not take.

    Raises:
        NotSupportedError: it names the first.
    """
    known = inspect.signature(verb).parameters
    for name in options:
        if name not in known:
            whose = f"for the {opened.family.name} family's {type(opened.model).__name__}"
            hint = ", which has one prior" if name == "prior" else ""
            raise NotSupportedError(f"--{name.replace('_', '-')} is not {whose}{hint}. Leave it out.")


class Opened:
    """A saved model and what its family knows of files.

    Attributes:
        model: on the device asked for.
        family: its family.
    """

    def __init__(self, source: Path, device: str) -> None:
        from noumena.artifact import load, read_manifest
        from noumena.artifact.store import model_folder
        from noumena.registry import family

        self.model: LatentModel = load(source, device=device)
        self.family: Family = family(read_manifest(model_folder(source)).model.partition("/")[0])

    def batches(self, data: str, rows: int, *, strict: bool = False) -> Iterator[Any]:
        """The rows of a file, laid out as the model expects, at most ``rows`` at a time.

        Raises:
            NotSupportedError: ``strict``, and the family skips nothing.
        """
        from noumena.registry import resolve

        read = resolve(self.family.stream)
        options = {"strict": True} if strict else {}
        if options and "strict" not in inspect.signature(read).parameters:
            raise NotSupportedError(
                f"--strict is not for the {self.family.name} family, which skips no rows. Leave it out."
            )
        return read(data, self.model.schema, batch_rows=self.rows_at_once(rows), **options)

    def rows_at_once(self, rows: int) -> int:
        """At most ``rows``, and fewer where the model says that they need much memory."""
        return max(1, min(rows, getattr(self.model, "rows_at_once", rows)))

    def feature(self, name: str) -> Callable[[Any], Columns]:
        """The function that computes further columns of the rows.

        Raises:
            NotSupportedError: the family has none of this name.
        """
        from noumena.registry import families, resolve

        if name not in self.family.features:
            able = ", ".join(entry.name for entry in families() if name in entry.features)
            raise NotSupportedError(f"--{name} is not for the {self.family.name} family; it is for: {able}.")
        compute = resolve(self.family.features[name])
        return lambda rows: compute(rows, self.model.schema)

    def write_table(self, chunks: Iterator[Columns], output: Path | None, *, to_stdout: bool) -> None:
        """Write columns by the ending of ``output``."""
        from noumena.cli.output import write_columns

        others = self._functions(self.family.tables)
        write_columns(chunks, output, to_stdout=to_stdout, names=names_within(self.model), others=others)

    def write_samples(self, chunks: Iterator[Any], output: Path | None, *, to_stdout: bool) -> None:
        """Write what the model decodes to: by the family's own writers if it has some, as a table otherwise."""
        from noumena.cli.output import write_frames

        if self.family.writers:
            write_frames(chunks, output, self._functions(self.family.writers))
        else:
            self.write_table((named_columns(self.model, found) for found in chunks), output, to_stdout=to_stdout)

    def _functions(self, places: Mapping[str, str]) -> dict[str, Callable[[Path, Iterator[Any]], None]]:
        from noumena.registry import resolve

        def bound(place: str) -> Callable[[Path, Iterator[Any]], None]:
            return lambda path, chunks: resolve(place)(path, chunks, self.model.schema)

        return {ending: bound(place) for ending, place in places.items()}

    def stream(
        self,
        data: str,
        output: Path | None,
        chunk_rows: int,
        as_json: bool,
        compute: Callable[[Any], Any],
        *,
        samples: bool = False,
        strict: bool = False,
    ) -> None:
        """Compute something of each chunk of a file, write it and print how much it was."""
        import torch

        rows = 0

        def results() -> Iterator[Any]:
            nonlocal rows
            with torch.inference_mode():
                for batch in self.batches(data, chunk_rows, strict=strict):
                    found = compute(batch)
                    rows += len(batch)
                    yield found

        write = self.write_samples if samples else self.write_table
        write(results(), output, to_stdout=not as_json)
        report({"rows": rows}, output, as_json)
