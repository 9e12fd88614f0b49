"""``noumena encode``, ``reconstruct`` and ``score``: read a file of any size in chunks, write results as they come."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noumena.cli.engine import Engine, EngineName, Place, Target, Workers, place_of
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.engines.opened import OpenedModel
from noumena.engines.work import Work, with_times

if TYPE_CHECKING:
    import numpy as np

    from noumena.core.model import LatentModel

Source = Annotated[
    Path,
    typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, a model folder, or hf://OWNER/NAME of one on the Hub."),
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A file of the kind the model was trained on, of any size; or many: a pattern in quotes ('day*.parquet'), "
        "or a folder of tables.",
    ),
]
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
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".parquet, .csv or .npz; FOLDER.parquet/ for many; CSV on the terminal when missing. Of molecules "
            "also PLUMED text: COLVAR, .colvar or .dat.",
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
    engine: EngineName = "local",
    workers: Workers = 0,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """Vector of each row, the posterior mean in most families: columns z0, z1, ..., after an id where rows have one."""
    if per_atom and (torsions or time_step is not None):
        raise ConfigError("--per-atom gives rows of atoms: leave out --torsions and --time-step.")
    target = place_of(output)
    chosen = Engine(engine, workers, device)
    opened = chosen.open(source)
    work = Work("atoms") if per_atom else Work("vectors", ("torsions",) if torsions else ())
    chunks = chosen.chunks(opened, source, data, work, chunk_rows, strict=strict)
    facts = {"rows": 0}

    def columns() -> Iterator[Columns]:
        for found in chunks:
            first, facts["rows"] = facts["rows"], facts["rows"] + len(next(iter(found.values())))
            yield found if time_step is None else with_times(found, first, time_step)

    opened.write_table(columns(), target, to_stdout=not as_json)
    report(facts, target.path, as_json)


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
    output: Target = None,
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
    engine: EngineName = "local",
    workers: Workers = 0,
    device: Device = "cpu",
    chunk_rows: ChunkRows = 65536,
    as_json: AsJson = False,
) -> None:
    """How normal each row is: score (higher is more normal), is_anomaly and p_value where the model is calibrated."""
    from noumena.cli.data_scoring import Verdicts

    target = place_of(output)
    chosen = Engine(engine, workers, device)
    opened = chosen.open(source)
    verdicts = Verdicts(opened.model, false_alarm_rate, fdr)
    chunks = chosen.chunks(opened, source, data, Work("scores"), chunk_rows)
    columns = verdicts.columns(found["score"] for found in chunks)
    opened.write_table(columns, target, to_stdout=not as_json)
    report(verdicts.facts, target.path, as_json, verdicts.settings)


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


class Opened(OpenedModel):
    """A saved model, what its family knows of files, and where results go."""

    def write_table(self, chunks: Iterator[Columns], output: Path | Place | None, *, to_stdout: bool) -> None:
        """Write columns by the ending of ``output``, or to a folder of Parquet files."""
        from noumena.cli.output import write_columns, write_folder

        place = output if isinstance(output, Place) else Place(output)
        names = names_within(self.model)
        if place.is_folder and place.path is not None:
            write_folder(chunks, place.path, names=names)
            return
        others = self._functions(self.family.tables)
        write_columns(chunks, place.path, to_stdout=to_stdout, names=names, others=others)

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
