"""What a sweep has found, as files and as a table."""

import csv
import io
from typing import Any

from noumena.config.compose import check
from noumena.files import write_text
from noumena.sweep.space import with_values
from noumena.sweep.study import Run, Sweep

BEST, TABLE = "best.yaml", "trials.csv"


def write_summary(sweep: Sweep) -> None:
    """Write ``trials.csv`` and, once a run is complete, ``best.yaml``: the recipe with the best run's values."""
    runs = sweep.runs()
    keys = list(sweep.space.entries)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "state", sweep.plan.metric, "epochs", "seconds", *keys, "error"])
    for run in runs:
        value = "" if run.value is None else repr(run.value)
        facts = [run.facts.get(name, "") for name in ("epochs", "seconds")]
        error = " ".join((run.error or "").split())
        writer.writerow([run.number, run.state, value, *facts, *(run.values[key] for key in keys), error])
    write_text(sweep.out / TABLE, text.getvalue())
    best = sweep.best()
    if best is not None:
        config = check(with_values(sweep.plan.base, best.values), sweep.plan.recipe)
        header = f"# run {best.number} of a sweep of {sweep.plan.recipe}: {sweep.plan.metric} {best.value!r}\n"
        write_text(sweep.out / BEST, header + config.to_yaml())


def as_facts(sweep: Sweep) -> dict[str, Any]:
    """The sweep for scripts."""
    best = sweep.best()
    return {
        "sweep": str(sweep.out),
        "metric": sweep.plan.metric,
        "direction": sweep.plan.direction,
        "best": None if best is None else {**_facts(sweep, best), "recipe": str(sweep.out / BEST)},
        "importance": sweep.importance(),
        "runs": [_facts(sweep, run) for run in sweep.runs()],
    }


def _facts(sweep: Sweep, run: Run) -> dict[str, Any]:
    facts = {"run": run.number, "state": run.state, "value": run.value, "values": dict(run.values), **run.facts}
    return {**facts, "folder": str(sweep.folder(run.number)), **({"error": run.error} if run.error else {})}


def ranked(sweep: Sweep) -> list[Run]:
    """All runs, the best first, those without a value last."""
    sign = 1.0 if sweep.plan.direction == "minimize" else -1.0
    return sorted(sweep.runs(), key=lambda run: (run.value is None, sign * (run.value or 0.0), run.number))
