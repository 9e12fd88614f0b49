"""From a piece of a source to checked and reduced crystals, in this process or in several."""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection

from noumena.core.errors import ConfigError, NoumenaError
from noumena.crystals.checks import too_close, too_large, unsound
from noumena.crystals.formats.raw import Raw
from noumena.crystals.formats.texts import Texts
from noumena.crystals.reduction import Reduction, check_reduction, reduce

SERIAL = 30_000
"""So many structures are read before other processes are started: that takes as long as reading them, as a process
begins with all that the script imports."""
_AHEAD = 3
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Options:
    """What is done with every structure.

    Attributes:
        reduction: form of the cell.
        tolerance: of its translations, in angstrom.
        max_atoms: larger ones are left out.
    """

    reduction: Reduction = "niggli"
    tolerance: float = 0.01
    max_atoms: int | None = None

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: it names the option.
        """
        check_reduction(self.reduction, self.tolerance)
        if self.max_atoms is not None and self.max_atoms < 1:
            raise ConfigError(f"max_atoms={self.max_atoms}: expected at least 1.")


def process(piece: Texts | Raw, options: Options) -> Raw:
    """Crystals of a piece, checked and reduced; what is none is left out with the reason."""
    raw = piece.parse() if isinstance(piece, Texts) else piece
    raw = raw.without(unsound(raw))
    raw = raw.without(too_large(raw, options.max_atoms, reducible=options.reduction != "none"))
    raw = reduce(raw, options.reduction, options.tolerance)
    raw = raw.without(too_large(raw, options.max_atoms, reducible=False))
    return raw.without(too_close(raw))


def process_all(pieces: Iterable[Texts | Raw], options: Options, workers: int | None) -> Iterator[Raw]:
    """Crystals of pieces, in their order, with only a few pieces in memory.

    What goes beyond the first :data:`SERIAL` texts is read by several processes. Arrays are not: they take less
    time than sending them.

    Args:
        pieces: of a source.
        options: for every structure.
        workers: processes; None takes as many as there are processors for this one.

    Raises:
        ConfigError: ``workers`` is below 1.
        NoumenaError: a process ended unexpectedly.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: expected at least 1.")
    count = _processors() if workers is None else workers
    if current_process().daemon:
        count = 1  # a process that is itself a worker of something may start no others
    iterator = iter(pieces)
    done = 0
    for piece in iterator:
        if count > 1 and done >= SERIAL and isinstance(piece, Texts):
            yield from _in_parallel(chain([piece], iterator), options, count)
            return
        done += piece.weight if isinstance(piece, Texts) else 0
        yield process(piece, options)


def _in_parallel(pieces: Iterator[Texts | Raw], options: Options, workers: int) -> Iterator[Raw]:
    context = get_context("spawn")
    # Only this process has the end called `held`: when it is closed, on purpose or by a kill, the workers leave.
    alive, held = context.Pipe(duplex=False)
    with (
        alive,
        held,
        _one_thread_each(),
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=(alive,)) as pool,
    ):
        running: deque[Future[Raw]] = deque()
        try:
            for piece in pieces:
                running.append(pool.submit(process, piece, options))
                if len(running) >= _AHEAD * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise NoumenaError(
                "a process that read crystals ended unexpectedly, perhaps for lack of memory. Read with workers=1, or "
                "with fewer. In a script, call this under `if __name__ == '__main__':`."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # a reader that stops early waits for no more than has begun


def _start(alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, but the parent ends them
    threading.Thread(target=_leave_with_parent, args=(alive,), daemon=True).start()


def _leave_with_parent(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside the block use one thread for linear algebra."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
