"""Worker processes with a limit on the time of each comparison.

Every worker is a plain child process (no fork, no signal, no re-import of the caller's main module), so that it works
on every system, from every thread and from scripts without a main guard. A thread of this process speaks with each of
them; the calling thread watches the clock and kills a worker that does not answer in time: the pair it was at is a
``timeout``, and a new worker goes on with the rest.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import noumena
from noumena.core.errors import NoumenaError
from noumena.crystals.measures.pairs import ERROR, TIMEOUT, Answer, Task, read_answer, write_task
from noumena.crystals.measures.worker import READY

_GRACE = 0.5  # seconds: a worker looks at the clock itself, and is killed only if it cannot
_TICK = 0.02
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def run_tasks(tasks: Sequence[Task], workers: int) -> list[list[Answer]]:
    """The answers to every pair of every task, in order, from ``workers`` processes with one BLAS thread each.

    Raises:
        NoumenaError: a worker could not be started.
    """
    waiting = deque((number, task, 0) for number, task in enumerate(tasks))
    found: list[list[Answer]] = [[] for _ in tasks]
    staff = [_Worker(waiting, found) for _ in range(max(1, min(workers, len(tasks))))]
    try:
        for each in staff:
            each.thread.start()
        while any(each.thread.is_alive() for each in staff):
            for each in staff:
                each.watch()
            time.sleep(_TICK)
    finally:
        waiting.clear()
        for each in staff:
            each.stop()
    for each in staff:
        if each.failure is not None:
            raise each.failure
    return found


class _Worker:
    """One process, and the thread that speaks with it."""

    def __init__(self, waiting: "deque[tuple[int, Task, int]]", found: list[list[Answer]]) -> None:
        self.waiting, self.found = waiting, found
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.due: float | None = None  # when the answer that is waited for comes too late
        self.late = False
        self.failure: Exception | None = None

    def watch(self) -> None:
        """Kill the process if its answer is overdue."""
        with self.lock:
            if self.due is not None and time.monotonic() > self.due and self.process is not None:
                self.late, self.due = True, None
                self.process.kill()

    def stop(self) -> None:
        """End the process and free what it holds."""
        with self.lock:
            process, self.process, self.due = self.process, None, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _serve(self) -> None:
        try:
            while self.waiting:
                try:
                    number, task, answered = self.waiting.popleft()
                except IndexError:
                    return
                self._work(number, task, answered)
        except Exception as error:  # handed to the calling thread, which raises it
            self.failure = error
            self.waiting.clear()

    def _work(self, number: int, task: Task, answered: int) -> None:
        """Put a task to the process until all its pairs are answered; a new process after each one that is lost."""
        while answered < len(task.pairs):
            process = self._started()
            if not self._put(process, task.after(answered)):
                self._restart()
                continue
            answered += self._collect(process, number, task, answered)

    def _put(self, process: "subprocess.Popen[bytes]", task: Task) -> bool:
        try:
            write_task(cast(BinaryIO, process.stdin), task)
        except (BrokenPipeError, OSError):
            return False
        return True

    def _collect(self, process: "subprocess.Popen[bytes]", number: int, task: Task, answered: int) -> int:
        """Read answers; the number of pairs that are done with, the one a process was lost over among them."""
        done = 0
        for _ in task.pairs[answered:]:
            with self.lock:
                self.due = None if task.limit is None else time.monotonic() + task.limit + _GRACE
            answer = read_answer(cast(BinaryIO, process.stdout))
            with self.lock:
                self.due, late, self.late = None, self.late, False
            done += 1
            if answer is None or late:
                none: dict[str, float | None] = dict.fromkeys(task.criteria)
                reason = TIMEOUT if late else ERROR
                detail = f"longer than {task.limit} s" if late else "the process that compared the pair ended"
                self.found[number].append(answer or Answer(none, reason, detail))
                self._restart()
                return done
            self.found[number].append(answer)
        return done

    def _restart(self) -> None:
        self.stop()
        self.late = False

    def _started(self) -> "subprocess.Popen[bytes]":
        """The process, started if it is not, with its libraries loaded."""
        if self.process is not None:
            return self.process
        root = str(Path(next(iter(noumena.__path__))).parent)
        known = os.environ.get("PYTHONPATH")
        one: dict[str, str] = dict.fromkeys(_THREADS, "1")
        environment = {**os.environ, **one, "PYTHONPATH": os.pathsep.join([root, known] if known else [root])}
        process = subprocess.Popen(
            [sys.executable, "-m", "noumena.crystals.measures.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        with self.lock:
            self.process = process
        said = cast(BinaryIO, process.stdout).readline()
        if said != READY:
            words = said.decode(errors="replace").strip() or f"{sys.executable} ended without a word"
            raise NoumenaError(f"a worker process for matching did not start: {words}")
        return process
