"""Doing the runs of a sweep: in this process, or in several that it starts."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from noumena.core.errors import (
    ArtifactError,
    ConfigError,
    NoumenaError,
    StopTraining,
    TrainingInterrupted,
    did_you_mean,
)
from noumena.sweep.alive import Heartbeat
from noumena.sweep.plan import VAL_LOSS, read_plan
from noumena.sweep.space import with_values
from noumena.sweep.study import Claim, Sweep
from noumena.sweep.summary import write_summary

if TYPE_CHECKING:
    from noumena.experiment import RunResult
    from noumena.training.callbacks import OnEpoch

log = logging.getLogger("noumena.sweep")

WORKERS = ".workers"
_POLL_SECONDS = 1.0


def work(
    sweep: Sweep, wanted: int, *, until: float | None = None, reports: bool = True, parent: int | None = None
) -> None:
    """Do runs until ``wanted`` are finished, by this process or by others.

    Args:
        sweep: on disk.
        wanted: runs in all.
        until: time (as of ``time.time``) after which none is begun.
        reports: whether runs get figures and a report.
        parent: process that started this one, whose end is this one's too.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; the run at hand is given back and goes on from its checkpoint later.
        ConfigError: every run fails.
        ArtifactError: the folder cannot be written.
    """
    with Heartbeat(sweep.out / WORKERS, parent=parent) as heartbeat:
        while until is None or time.time() < until:
            claim = sweep.claim(wanted, heartbeat)
            if claim is not None:
                _do(sweep, claim, reports)
                write_summary(sweep)
                sweep.refuse_if_all_fail()
                continue
            if sum(run.is_finished for run in sweep.runs()) >= sweep.count(wanted):
                return
            time.sleep(_POLL_SECONDS)  # others are at the last ones, and may die at it


def _do(sweep: Sweep, claim: Claim, reports: bool) -> None:
    started = time.perf_counter()
    rows: list[float] = []

    def on_epoch(epoch: int, row: Mapping[str, float]) -> None:
        rows.append(time.perf_counter() - started)
        if not sweep.is_mine(claim.trial):
            raise StopTraining("another worker has taken this run over")
        value = sweep.watched(row)
        if value is None or epoch in claim.earlier:
            return
        claim.trial.report(value, epoch)
        if claim.trial.should_prune():
            raise StopTraining(f"pruned after epoch {epoch + 1}")

    state, value, error = "failed", None, None
    epochs: int | None = None
    try:
        epochs, value = _train(sweep, claim, on_epoch, reports)
        state = "complete"
    except StopTraining:
        state, epochs = "pruned", len(rows)
    except (TrainingInterrupted, KeyboardInterrupt) as stop:
        sweep.lose(claim.trial._trial_id, "interrupted")
        raise TrainingInterrupted(f"run {claim.number} is given back; calling again continues it.") from stop
    except ArtifactError:
        sweep.lose(claim.trial._trial_id, "interrupted")  # the disk is to blame, not the values
        raise
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
        log.debug("run %d", claim.number, exc_info=True)
    facts = {"seconds": round(time.perf_counter() - started, 3), **({} if epochs is None else {"epochs": epochs})}
    sweep.finish(claim, state, value, facts, error)
    shown = error or (f"{sweep.plan.metric} {value:.6g}" if value is not None else f"{state} after {epochs} epochs")
    log.info("run %d  %s  %s", claim.number, shown, "  ".join(f"{k}={v}" for k, v in claim.values.items()))


def _train(sweep: Sweep, claim: Claim, on_epoch: "OnEpoch", reports: bool) -> tuple[int, float]:
    """Do the run, or the rest of it; its epochs and its value."""
    from noumena.config.compose import check
    from noumena.experiment import resume_run, start_run, with_absolute_paths

    folder = sweep.folder(claim.number)
    if (folder / "config.yaml").is_file():
        result = resume_run(folder, on_epoch=on_epoch, report=reports)
    else:
        sections = with_values(sweep.plan.base, {**claim.values, "fit.progress": False})
        config = with_absolute_paths(check(sections, sweep.plan.recipe))
        result = start_run(config, folder, on_epoch=on_epoch, report=reports)
    return result.history.epochs, _measured(sweep.plan.metric, result)


def _measured(metric: str, result: "RunResult") -> float:
    """The metric of the weights that a run has kept.

    Raises:
        ConfigError: the run has no such metric, or it is not finite.
    """
    assert result.evaluation is not None  # one process trains a run
    history, metrics = result.history, result.evaluation.metrics
    if metric in history:
        kept = history.best_epoch if result.config.fit.get("keep", "best") == "best" else None
        value = history[metric][-1 if kept is None else kept]
    elif metric in metrics:
        value = metrics[metric]
    elif metric == VAL_LOSS:
        raise ConfigError(f"without validation data there is no {VAL_LOSS}. Choose --metric: {', '.join(metrics)}.")
    else:
        raise ConfigError(f"the runs have no metric '{metric}'. {did_you_mean(metric, [*history, *metrics])}")
    if not math.isfinite(value):
        raise ConfigError(f"{metric} is {value}")
    return float(value)


def work_in_processes(
    sweep: Sweep, wanted: int, workers: int, *, until: float | None = None, reports: bool = True
) -> None:
    """Do runs in several processes that share the processors, until ``wanted`` are finished.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; every process gave its run back.
        NoumenaError: what stopped a process; its message is on stderr.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, processors // workers)
    task = {"out": str(sweep.out), "wanted": wanted, "threads": threads, "until": until, "reports": reports}
    command = [sys.executable, "-m", "noumena.sweep.worker", json.dumps(task)]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # Not in this terminal's group: Ctrl-C would reach them beside the signal of `_stop`, and a second one stops a
    # training before it has saved.
    processes = [
        subprocess.Popen(command, env={**os.environ, **limits}, start_new_session=True) for _ in range(workers)
    ]
    with _sigterm_interrupts():
        try:
            codes = [process.wait() for process in processes]
        except KeyboardInterrupt as stop:
            _stop(processes)
            raise TrainingInterrupted("stopped; every worker has given its run back.") from stop
        finally:
            _stop(processes)
    _explain(sweep, wanted, codes, until)


def _stop(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()


def _explain(sweep: Sweep, wanted: int, codes: list[int], until: float | None) -> None:
    """Say why a sweep is not finished although its processes have ended; one that was killed alone is no reason."""
    finished = sum(run.is_finished for run in sweep.runs())
    if finished >= sweep.count(wanted) or (until is not None and time.time() >= until):
        return
    sweep.refuse_if_all_fail()
    if 130 in codes:
        raise TrainingInterrupted("a worker was stopped; it has given its run back.")
    raise ArtifactError(
        f"{sweep.out}: the workers ended with {finished} of {sweep.count(wanted)} runs finished (exit codes "
        f"{', '.join(map(str, codes))}; -9 is a kill, often for want of memory). The same command continues."
    )


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM inside the block is what Ctrl-C is."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _worker(out: str, wanted: int, threads: int, until: float | None, reports: bool) -> int:
    """A process of :func:`work_in_processes`."""
    handler = logging.StreamHandler()
    # What its trainings say epoch by epoch is in their own logs.
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == log.name)
    logging.basicConfig(format="%(message)s", handlers=[handler])
    log.setLevel(logging.INFO)
    import torch

    torch.set_num_threads(threads)
    try:
        with _sigterm_interrupts():
            sweep = Sweep(Path(out), read_plan(Path(out)))
            work(sweep, wanted, until=until, reports=reports, parent=os.getppid())
    except KeyboardInterrupt:
        return 130
    except NoumenaError as error:
        if not isinstance(error, TrainingInterrupted):
            log.warning("%s: %s", type(error).__name__, error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_worker(**json.loads(sys.argv[1])))
