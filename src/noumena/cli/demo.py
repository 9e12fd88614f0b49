"""``noumena demo``."""

import importlib.util
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, NoumenaError, TrainingInterrupted
from noumena.core.family import Family

if TYPE_CHECKING:
    from noumena.evaluation.demo_page import Record, Result

_MARK = ".demo"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="demo")(demo)


def demo(
    family: Annotated[str | None, typer.Argument(help="One family instead of all that take part.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the demonstration; what an older one left of these families is replaced.")
    ] = Path("runs/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Train a small model of each family on data that come with the package, and show all of them on one page."""
    from noumena.evaluation.demo_page import read_results
    from noumena.registry import families

    known = {entry.name: entry for entry in families() if entry.demo}
    if family is not None and family not in known:
        raise ConfigError(f"no demo of '{family}'. Known: {', '.join(known)}.")
    chosen = [known[family]] if family is not None else list(known.values())
    if family is not None:
        lacks = _missing_package(chosen[0])
        if lacks is not None:
            raise NotSupportedError(lacks)
    _prepare(out, chosen)
    read_results(out, list(known.values()))  # a damaged one is told now, not after the training
    try:
        with _one_thread():
            failures = _train_all(chosen, out, alone=family is not None)
    except (KeyboardInterrupt, Exception):
        if any((out / entry.name / _MARK).is_file() for entry in known.values()):
            typer.echo(f"page so far: {_write_page(out, list(known.values()))[0]}", err=True)
        raise
    page, results = _write_page(out, list(known.values()))
    if as_json:
        trained = [result for result in results if result.family in chosen]
        typer.echo(json.dumps([result.as_json() for result in trained], indent=2))
    else:
        typer.echo(f"\npage  {page}")
    if failures:
        raise typer.Exit(failures[0])


def _prepare(out: Path, chosen: Sequence[Family]) -> None:
    """Delete what an earlier demo left of the families.

    Raises:
        ArtifactError: something is there that no demo wrote, or a training that goes on.
    """
    from noumena.files import cannot_write, is_busy, write_text

    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out} is a file. Choose another --out.")
    # Only what a demo wrote may be replaced.
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise ArtifactError(f"{out} exists and is no earlier demo. Choose another --out.")
    folders = [out / entry.name for entry in chosen]
    for folder in folders:
        if folder.exists() and not (folder / _MARK).is_file():
            raise ArtifactError(f"{folder} exists and is no earlier demo. Move it away, or choose another --out.")
        if is_busy(folder):
            raise ArtifactError(f"{folder} is being trained by another process. Wait for it, or choose another --out.")
    write_text(out / _MARK, "Made by `noumena demo`, which replaces the folders of families when it runs again.\n")
    for folder in folders:
        try:
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread inside the block.

    Models this small gain little from more, and on a busy machine threads that wait for each other cost a multiple.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_all(chosen: Sequence[Family], out: Path, *, alone: bool) -> list[int]:
    """Train one family after the other; exit codes of those that failed.

    Raises:
        NoumenaError: of a family that was asked for ``alone``, or an interruption.
    """
    from noumena.evaluation.demo_page import FAILED, MISSING, STARTED, Record

    started = time.perf_counter()
    failures: list[int] = []
    for number, entry in enumerate(chosen, 1):
        folder, head = out / entry.name, f"[{number}/{len(chosen)}] {entry.name}"
        lacks = _missing_package(entry)
        if lacks is not None:
            typer.echo(f"{head}: left out. {lacks}", err=True)
            Record(MISSING, message=lacks).write(folder)
            continue
        typer.echo(f"{head}: {entry.demo[0]} ({_clock(time.perf_counter() - started)} so far)", err=True)
        Record(STARTED).write(folder)
        try:
            record = _train(entry, folder)
        except TrainingInterrupted:
            raise
        except Exception as error:  # whatever becomes of one family, the others are shown
            told = f"{type(error).__name__}: {error}"
            lacking = isinstance(error, NotSupportedError) and isinstance(error.__cause__, ImportError)
            Record(MISSING if lacking else FAILED, message=str(error) if lacking else told).write(folder)
            if alone or os.environ.get("NOUMENA_DEBUG"):
                raise
            typer.echo(f"{head}: {f'left out. {error}' if lacking else f'failed. {told}'}", err=True)
            if not lacking:
                failures.append(error.exit_code if isinstance(error, NoumenaError) else 1)
            continue
        record.write(folder)
        _tell(entry, folder)
    return failures


def _missing_package(entry: Family) -> str | None:
    """A sentence with the command that installs a package which the demo imports late."""
    for name in entry.demo_needs:
        if importlib.util.find_spec(name) is None:
            command = f"pip install 'noumena[{entry.name}]'"
            return f"The demo of {entry.name} needs the package '{name}': {command}"
    return None


def _train(entry: Family, folder: Path) -> "Record":
    from noumena.config import compose
    from noumena.evaluation.demo_page import DONE, Record
    from noumena.experiment import open_data, start_run, with_absolute_paths
    from noumena.registry import model_class, resolve

    started = time.perf_counter()
    recipe, *overrides = entry.demo
    config = with_absolute_paths(compose(recipe, (), overrides))
    model_class(config.model_name)
    resolve(entry.evaluate)  # what these need and is missing is missed now, not after the training
    samples = len(open_data(config).train)
    result = start_run(config, folder)
    parameters = sum(parameter.numel() for parameter in result.model.parameters())
    return Record(DONE, round(time.perf_counter() - started, 1), samples, parameters)


def _tell(entry: Family, folder: Path) -> None:
    """Print the number of a family that is finished."""
    from noumena.evaluation.demo_page import read_result
    from noumena.evaluation.report import format_seconds

    result = read_result(folder, entry)
    if result.shown is None:
        return
    lines = [(result.shown.text, result.shown.says)]
    if result.shown.against:
        lines.append((result.shown.baseline_text, result.shown.against))
    width = max(len(number) for number, _ in lines)
    typer.echo(f"{entry.name}: done in {format_seconds(result.record.seconds or 0.0)}", err=True)
    for number, words in lines:
        typer.echo(f"    {number:<{width}}  {words}", err=True)


def _write_page(out: Path, known: Sequence[Family]) -> "tuple[Path, list[Result]]":
    """Make the page of everything that the folder holds."""
    from noumena.evaluation.demo_page import read_results, write_demo_page

    results = read_results(out, known)
    places = {entry.name: shlex.quote(str(out / entry.name)) for entry in known}
    return write_demo_page(out / "index.html", results, places), results


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
