"""The door to sweeps: open one, work on it."""

import time
from datetime import datetime
from pathlib import Path

from noumena.core.errors import ConfigError
from noumena.sweep.plan import Plan, write_plan
from noumena.sweep.study import Sweep
from noumena.sweep.summary import write_summary
from noumena.sweep.worker import work, work_in_processes


def open_sweep(plan: Plan, out: str | Path | None = None) -> Sweep:
    """Begin a sweep, or go on with the one that is in ``out``.

    Args:
        plan: see :func:`noumena.sweep.plan.make_plan`.
        out: its folder; ``runs/sweep-<recipe>-<time>`` when missing.

    Raises:
        ConfigError: ``out`` holds a sweep with another plan.
        ArtifactError: ``out`` holds something else, is damaged or cannot be written.
        NotSupportedError: optuna is not installed.
    """
    folder = _new_folder(plan) if out is None else Path(out)
    write_plan(plan, folder)
    return Sweep(folder, plan)


def run_sweep(sweep: Sweep, n: int, *, workers: int = 1, minutes: float | None = None, reports: bool = True) -> None:
    """Work on a sweep until ``n`` runs are finished, those of other processes and machines included.

    Args:
        sweep: from :func:`open_sweep`.
        n: finished runs in all.
        workers: processes; one works in this process.
        minutes: after which no run is begun.
        reports: whether runs get figures and a report, which takes longer than a small training.

    Raises:
        ConfigError: every run fails, or none is complete in the end.
        TrainingInterrupted: Ctrl-C or SIGTERM; calling again continues.
        ArtifactError: the folder cannot be written.
    """
    until = None if minutes is None else time.time() + 60.0 * minutes
    try:
        if workers == 1:
            work(sweep, n, until=until, reports=reports)
        else:
            work_in_processes(sweep, n, workers, until=until, reports=reports)
    finally:
        write_summary(sweep)
    runs = sweep.runs()
    if runs and sweep.best() is None and all(run.is_finished for run in runs):
        raise ConfigError(f"{sweep.out}: no run is complete. Run {runs[-1].number}: {runs[-1].error or runs[-1].state}")


def _new_folder(plan: Plan) -> Path:
    recipe = plan.recipe.replace("/", "-") if not plan.recipe.endswith((".yaml", ".yml")) else Path(plan.recipe).stem
    folder = Path("runs") / f"sweep-{recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{folder.name}-{number}")
    return folder
