"""Making data by many independent jobs: in parallel, resumable after a kill, the same whatever the order.

A folder of generated data is whole or not there: finished jobs wait in a hidden folder of it, one file each, until
all are done; then they become one file per column, and ``metadata.json`` is written last.
"""

import json
import logging
import os
import shutil
import signal
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np

from noumena.core.errors import ArtifactError, ConfigError, NoumenaError
from noumena.files import cannot_write, clear_leftovers, replacing, write_text

Job = Callable[[int], Mapping[str, np.ndarray]]
Link = Callable[[int, Mapping[str, np.ndarray] | None], Mapping[str, np.ndarray]]

_METADATA = "metadata.json"
_PARTS = ".parts"
_SETTINGS = "settings.json"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_LOG_LINES = 10
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generated:
    """What :func:`generate` did.

    Attributes:
        metadata: content of ``metadata.json``.
        computed: jobs run by this call.
        kept: jobs whose results an earlier call had left.
    """

    metadata: dict[str, Any]
    computed: int
    kept: int


def generate(
    folder: str | Path,
    job: Job | Link,
    count: int,
    *,
    settings: Mapping[str, Any],
    describe: Callable[[Mapping[str, int]], Mapping[str, Any]],
    chain: int | None = None,
    archives: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Run jobs 1 to ``count`` and store what they give, in the order of their numbers.

    Stop it at any moment, even by a kill, and call it again: finished jobs are kept, and the files come out the
    same to the byte. A folder that is complete already is left as it is.

    Args:
        folder: where the data shall lie: one ``<column>.npy`` per column, the ``archives`` and ``metadata.json``.
        job: a function that can be pickled. Of its results, arrays with a first axis of rows are columns, the same
            for each job, and those without axes are counts. It must depend on its number alone.
        count: how many jobs.
        settings: everything else the jobs depend on, JSON-able. Results of other settings are never mixed.
        describe: makes the metadata from ``rows`` and the sums of the counts.
        chain: jobs come in chains of this many, such as the pieces of one long simulation: each but the first of a
            chain takes what the one before gave, as ``job(number, before)``; the first takes ``None``.
        archives: ``.npz`` files to write as they are, by name.
        workers: processes, each with one thread.
        progress: called with the number of finished jobs and ``count``, first with those found finished.

    Raises:
        ConfigError: ``count`` or ``workers`` is below 1.
        ArtifactError: ``folder`` holds something else, or results of other settings, or cannot be written.
        NoumenaError: a worker process was killed.
    """
    for name, value in (("count", count), ("workers", workers), ("chain", chain)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: expected at least 1.")
    folder = Path(folder)
    plain = json.loads(json.dumps(dict(settings)))
    parts = folder / _PARTS
    if (folder / _METADATA).exists():
        metadata = _finished(folder, {"jobs": count, "settings": plain})
        shutil.rmtree(parts, ignore_errors=True)
        return Generated(metadata, computed=0, kept=count)
    _open_parts(folder, parts, plain)
    numbers = range(1, count + 1)
    missing = [number for number in numbers if not _part(parts, number).exists()]
    kept = count - len(missing)
    if kept:
        _LOG.info("%s: %d of %d are done already", folder, kept, count)
    _report(progress, kept, count)
    done = kept

    def finished() -> None:
        nonlocal done
        done += 1
        _report(progress, done, count)

    _compute(job, missing, parts, workers, finished, chain)
    totals, columns = _survey(parts, numbers)
    metadata = {**describe(totals), "generated": {"jobs": count, "settings": plain}}
    for name, column in columns.items():
        chunks = (_load(_part(parts, number), name)[name] for number in numbers)
        _write_column(folder / f"{name}.npy", column, totals["rows"], chunks)
    for name, arrays in (archives or {}).items():
        _save_npz(folder / name, arrays)
    write_text(folder / _METADATA, json.dumps(metadata, indent=1) + "\n")
    shutil.rmtree(parts, ignore_errors=True)
    return Generated(metadata, computed=len(missing), kept=kept)


def _report(progress: Callable[[int, int], None] | None, done: int, count: int) -> None:
    if progress is not None:
        progress(done, count)
    if done and done % max(1, count // _LOG_LINES) == 0:
        _LOG.info("%d of %d done", done, count)


def _finished(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a complete folder, if it is of the wanted jobs."""
    metadata = _read_json(folder / _METADATA)
    found = metadata.get("generated")
    if not isinstance(found, dict):
        raise ArtifactError(f"{folder} holds another data set already. Choose another folder.")
    if found != wanted:
        raise ArtifactError(
            f"{folder} holds a complete data set already, {_differences(found, wanted)}. Choose another folder."
        )
    return metadata


def _open_parts(folder: Path, parts: Path, settings: dict[str, Any]) -> None:
    """Make the folder of finished jobs, or check that the one there is of the same settings."""
    try:
        if not parts.exists() and folder.exists() and any(folder.iterdir()):
            raise ArtifactError(f"{folder} exists and is not empty. Choose another folder.")
        parts.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder, parts)
    except OSError as error:
        raise cannot_write(folder, error) from error
    file = parts / _SETTINGS
    if not file.exists():
        write_text(file, json.dumps(settings, indent=1) + "\n")
        return
    found = _read_json(file)
    if found != settings:
        raise ArtifactError(
            f"{folder} holds unfinished work of other settings: {_differences(found, settings)}. "
            f"Repeat them to continue it, delete {parts}, or choose another folder."
        )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}. Choose another folder, or delete this one.") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{file} is no JSON object. Choose another folder, or delete this one.")
    return content


def _differences(found: Any, wanted: Any) -> str:
    """In words, what is different between two JSON objects."""
    there, asked = dict(_leaves(found)), dict(_leaves(wanted))
    names = [name for name in {**there, **asked} if there.get(name) != asked.get(name)]
    return "; ".join(f"{name} is {there.get(name)} there and {asked.get(name)} here" for name in names)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, entry in value.items():
        yield from _leaves(entry, f"{name}.{key}".removeprefix(".").removeprefix("settings."))


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.npz"


def _compute(
    job: Job | Link, numbers: Sequence[int], parts: Path, workers: int, finished: Callable[[], None], chain: int | None
) -> None:
    """Run the jobs in processes that end with this one, however it ends."""
    if not numbers:
        return
    missing = set(numbers)
    context = get_context("spawn")
    # Only this process has the end called `held`: when it is closed, on purpose or by a kill, the workers leave.
    alive, held = context.Pipe(duplex=False)
    with (
        alive,
        held,
        one_thread_each(),
        ProcessPoolExecutor(min(workers, len(numbers)), context, initializer=_start, initargs=(alive,)) as pool,
    ):
        running: dict[Future[None], int] = {}
        done: SimpleQueue[Future[None]] = SimpleQueue()

        def submit(ready: Iterable[int]) -> None:
            with _interrupts_held():  # the pool starts its processes here
                for number in ready:
                    future = pool.submit(_store, job, number, parts, chain)
                    running[future] = number
                    future.add_done_callback(done.put)

        try:
            submit(number for number in numbers if not (_takes_up(number, chain) and number - 1 in missing))
            while running:
                future = done.get()
                future.result()
                following = running.pop(future) + 1
                finished()
                if _takes_up(following, chain) and following in missing:
                    submit([following])
        except BrokenProcessPool as error:
            raise NoumenaError(
                "a worker process ended unexpectedly, perhaps for lack of memory; what is done is kept. Run it again "
                "with fewer workers. In a script, call this under `if __name__ == '__main__':`."
            ) from error
        except BaseException:
            held.close()  # nobody waits for jobs that have begun
            raise


def _takes_up(number: int, chain: int | None) -> bool:
    """Whether a job starts from what the one before it gave."""
    return chain is not None and (number - 1) % chain != 0


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started inside the block use one thread for linear algebra: the last digits depend on how many."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches a whole group of processes, but the parent decides: those started inside the block never see it.

    The parent sees it at the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems without signal masks
    threading.Thread(target=_leave_with_parent, args=(alive,), daemon=True).start()


def _leave_with_parent(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)


def _store(job: Job | Link, number: int, parts: Path, chain: int | None) -> None:
    if chain is None:
        found = cast("Job", job)(number)
    else:
        before = _load(_part(parts, number - 1)) if _takes_up(number, chain) else None
        found = cast("Link", job)(number, before)
    _save_npz(_part(parts, number), found)


def _save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _load(part: Path, *names: str) -> dict[str, np.ndarray]:
    """The named arrays of a part, or all."""
    try:
        with np.load(part, allow_pickle=False) as archive:
            return {name: archive[name] for name in names or archive.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{part} is damaged: {error}. Delete it and run again.") from error


def _survey(parts: Path, numbers: Sequence[int]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The number of rows and the sums of the counts, and each column's name, type and shape as an empty array."""
    totals: dict[str, int] = {"rows": 0}
    empty: dict[str, np.ndarray] = {}
    for number in numbers:
        loaded = _load(_part(parts, number))
        arrays = {name: array for name, array in loaded.items() if not name.startswith("_")}
        columns = {name: array for name, array in arrays.items() if array.ndim}
        for name in arrays.keys() - columns.keys():
            totals[name] = totals.get(name, 0) + int(arrays[name])
        totals["rows"] += len(next(iter(columns.values())))
        empty = {name: column[:0] for name, column in columns.items()}
    return totals, empty


def _write_column(path: Path, empty: np.ndarray, rows: int, chunks: Iterable[np.ndarray]) -> None:
    """Write the chunks one after the other as one ``.npy`` file."""
    descr, shape = np.lib.format.dtype_to_descr(empty.dtype), (rows, *empty.shape[1:])
    with replacing(path) as beside, beside.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        for chunk in chunks:
            file.write(chunk.tobytes())
