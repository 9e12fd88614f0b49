"""The same work by Ray Data, on this machine or on a cluster.

Each worker is an actor with a model of its own that reads whole files and gives back chunks of columns; Ray schedules
the files, keeps the results in their order, holds them back when memory is short, and gives the file of a worker that
died to another. What is here says only what to compute.

Between its own processes Ray passes functions and arguments in a pickled form (cloudpickle). That is its transport,
inside one cluster that its owner trusts; nothing of a model or of data is read that way: a model's files travel as
bytes and are checked and loaded by :func:`noumena.artifact.load` where they arrive, and results as plain arrays.
"""

import importlib
import io
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from noumena.artifact.manifest import MANIFEST, read_manifest
from noumena.artifact.store import model_folder
from noumena.core import errors
from noumena.core.errors import ConfigError, NotSupportedError, NoumenaError
from noumena.engines.opened import OpenedModel
from noumena.engines.work import Columns, Work

log = logging.getLogger("noumena")

# What is in flight between processes is a few chunks; Ray spills to disk what is more.
_OBJECT_STORE_BYTES = 1 << 30
_SCHEMA = pa.schema(
    [
        ("names", pa.list_(pa.string())),
        ("columns", pa.large_binary()),
        ("notes", pa.string()),
        ("fault", pa.list_(pa.string())),
    ]
)


def chunks_by_ray(
    source: Path,
    files: Sequence[str],
    work: Work,
    *,
    workers: int = 0,
    device: str = "cpu",
    chunk_rows: int = 65536,
    strict: bool = False,
) -> Iterator[Columns]:
    """Columns of each chunk of each file, in the order of the files and of their rows.

    A cluster that this process is connected to is used; else the one that the environment variable ``RAY_ADDRESS``
    names; else one on this machine, which ends with the last chunk.

    Args:
        source: a run or model folder of this machine, or the address of a model; workers need not see it.
        files: paths that every worker can read.
        work: what to compute.
        workers: processes with a model each, and one processor or accelerator each; 0: as many as the cluster has.
            There are never more than files.
        device: where each of them computes.
        chunk_rows: rows at a time.
        strict: refuse structures of crystals that are else skipped.

    Raises:
        NotSupportedError: Ray is not installed.
        ConfigError: the cluster cannot be reached, or has not so many processors or accelerators.
        NoumenaError: what reading or computing raised, for the first row in the order of the files; or Ray itself
            failed.
    """
    ray = _ray()
    accelerated = device.partition(":")[0] != "cpu"
    with _connected(ray, workers):
        pool = min(len(files), _workers(ray, workers, "GPU" if accelerated else "CPU"))
        settings = {"work": work, "device": device, "chunk_rows": chunk_rows, "strict": strict}
        table = pa.table({"file": [str(Path(file).absolute()) if Path(file).exists() else file for file in files]})
        # Nested in a list, references are passed on as they are; workers take what they name.
        model = [ray.put(_model_files(source))]
        try:
            with _ordered(ray):
                found = ray.data.from_arrow([table.slice(i, 1) for i in range(len(table))]).map_batches(
                    _Worker,
                    batch_size=1,
                    batch_format="pyarrow",
                    compute=ray.data.ActorPoolStrategy(size=pool),
                    fn_constructor_args=(model, settings),
                    num_cpus=0 if accelerated else 1,
                    num_gpus=1 if accelerated else 0,
                )
                for block in found.iter_batches(batch_size=None, batch_format="pyarrow"):
                    yield from _chunks(block)
        except ray.exceptions.RayError as error:
            raise NoumenaError(
                f"Ray could not finish: {_last_line(error)} Its logs are in the session folder of the cluster "
                "(/tmp/ray/session_latest/logs). Fewer --workers or smaller --chunk-rows need less memory."
            ) from error


class _Worker:
    """In a process of Ray: a model, loaded once, and what it computes of files.

    Results are rows of a table, one per chunk. Errors are rows as well, so that the first in the order of the files is
    the one that is raised, as in a single process.
    """

    def __init__(self, model: Sequence[Any], settings: Mapping[str, Any]) -> None:
        ray = _ray()
        if settings["device"] == "cpu":
            torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in ray.get(model[0]).items():
                (Path(folder) / name).write_bytes(content)
            self._opened = OpenedModel(Path(folder), settings["device"])
        self._compute = settings["work"].on(self._opened)
        self._options = {"rows": settings["chunk_rows"], "strict": settings["strict"]}

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        (file,) = batch["file"].to_pylist()
        with _noted() as notes:
            try:
                for rows in self._opened.batches(file, **self._options):
                    yield _row(notes, columns=self._compute(rows))
            except NoumenaError as error:
                yield _row(notes, fault=error)
                return
        yield _row(notes)


class _Notes(logging.Handler):
    """Log records, to be shown by the process that asked for the work."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.waiting: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.waiting.append((record.levelno, record.getMessage()))

    def taken(self) -> str:
        """What has come since the last call, as JSON."""
        taken, self.waiting = self.waiting, []
        return json.dumps(taken)


@contextmanager
def _noted() -> Iterator[_Notes]:
    notes = _Notes()
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    try:
        yield notes
    finally:
        log.removeHandler(notes)


def _row(notes: _Notes, *, columns: Columns | None = None, fault: NoumenaError | None = None) -> pa.Table:
    stored = io.BytesIO()
    if columns is not None:
        np.savez(stored, *columns.values())
    row = {
        "names": list(columns or ()),
        "columns": stored.getvalue(),
        "notes": notes.taken(),
        "fault": [] if fault is None else [type(fault).__name__, str(fault)],
    }
    return pa.Table.from_pylist([row], schema=_SCHEMA)


def _chunks(block: pa.Table) -> Iterator[Columns]:
    """The columns of the chunks in a block; what workers logged is logged here, what they raised is raised."""
    for row in block.to_pylist():
        for level, message in json.loads(row["notes"]):
            log.log(level, "%s", message)
        if row["fault"]:
            name, message = row["fault"]
            raise getattr(errors, name, NoumenaError)(message)
        if row["names"]:
            with np.load(io.BytesIO(row["columns"]), allow_pickle=False) as stored:
                yield {name: stored[f"arr_{i}"] for i, name in enumerate(row["names"])}


def _ray() -> Any:
    """The package, without its usage reports and its lines on the terminal.

    Raises:
        NotSupportedError: it is not installed.
    """
    # Read by Ray when it is imported and when it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ModuleNotFoundError as error:
        raise NotSupportedError(f"--engine ray needs the package '{error.name}': pip install 'noumena[ray]'") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


@contextmanager
def _connected(ray: Any, workers: int) -> Iterator[None]:
    """A cluster for the time of the block; one that was there stays."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    else:
        here = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        quiet |= {"address": "local", **here, **({"num_cpus": workers} if workers else {})}
    try:
        with _silent():
            ray.init(**quiet)
    # Ray leaves the process where a cluster that was there does not answer.
    except (ConnectionError, RuntimeError, ValueError, OSError, SystemExit) as error:
        if address:
            raise _unreachable(address, error) from error
        raise ConfigError(
            f"Ray cannot be started here: {_last_line(error)} See its logs in /tmp/ray/session_latest/logs."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address where nobody listens, which Ray would try for minutes.

    Raises:
        ConfigError: so it is.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():  # ``auto``: a cluster that this machine belongs to
        return
    try:
        socket.create_connection((host, int(port)), timeout=20).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: BaseException) -> ConfigError:
    return ConfigError(
        f"the Ray cluster at RAY_ADDRESS={address} cannot be reached: {_last_line(error)} "
        "Start it, or unset RAY_ADDRESS to compute on this machine."
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's C++ part says on the terminal that it was told to say nothing; what fails comes as an exception."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _workers(ray: Any, wanted: int, kind: str) -> int:
    """How many workers there can be; Ray would wait for ever for what a cluster does not have."""
    there = int(ray.cluster_resources().get(kind, 0))
    if max(wanted, 1) > there:
        raise ConfigError(
            f"--workers {wanted}: each needs one {kind} and the Ray cluster has {there}. Use fewer, or more machines."
        )
    return wanted or there


@contextmanager
def _ordered(ray: Any) -> Iterator[None]:
    """Data sets made in the block keep the order of their blocks, and draw no bars."""
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with ray.data.DataContext.current(context):
        yield


def _model_files(source: Path) -> dict[str, bytes]:
    folder = model_folder(source)
    return {name: (folder / name).read_bytes() for name in (MANIFEST, *read_manifest(folder).files)}


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return last if last.endswith(".") else f"{last}."
