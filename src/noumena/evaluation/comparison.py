"""Runs side by side: what was set differently, what came out, and whether the numbers may be compared at all."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from noumena.artifact.manifest import read_small
from noumena.artifact.store import model_folder
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.evaluation.report import format_number
from noumena.evaluation.runs import BROKEN, FINISHED, Run, best_losses

_SECTIONS = ("model", "data", "fit", "evaluate")
# Of each run, as many as its report shows large.
_HEADLINES = 8
_LOWER = re.compile(
    r"(?<![a-z0-9])(loss|errors?|rmse|rmsd|c?rms|mae|mse|nll|w1|js|tv|residual|failures|invalid|clash|broken|bad"
    r"|false_(alarm|positive|negative))(?![a-z0-9])"
)
_LOSS = re.compile(r"(?<![a-z0-9])loss(?![a-z0-9])")
_HIGHER = re.compile(
    r"(?<![a-z0-9])(auroc|auc|accuracy|match|r2|precision|recall|f1|success|valid|unique|novel|exact"
    r"|true_(positive|negative))(?![a-z0-9])"
)


class Absent(Enum):
    """Stands where there is no value, which ``None`` would say of a key that is set to null."""

    NOT_SET = "not set"  # the configuration does not have the key: its default held
    UNKNOWN = "unknown"  # there is no configuration, as of a model without its run


@dataclass(frozen=True)
class Setting:
    """A key of the configuration that differs: one value per run, or why there is none."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Measure:
    """A number of each run.

    Attributes:
        name: of the metric.
        values: one per run, ``None`` where a run has none.
        better: ``"lower"`` or ``"higher"``, ``None`` where the name does not tell.
        best: the runs, by position, with the best value; empty where the values may not be compared.
    """

    name: str
    values: tuple[float | None, ...]
    better: str | None = None
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: in the order of the columns.
        notes: what a reader must know before looking at the numbers.
        settings: keys of the configurations that differ.
        training: parameters, epochs, seconds and the losses at the best epoch.
        metrics: of the evaluations.
        headlines: names of the metrics to show first.
    """

    runs: tuple[Run, ...]
    notes: tuple[str, ...]
    settings: tuple[Setting, ...]
    training: tuple[Measure, ...]
    metrics: tuple[Measure, ...]
    headlines: frozenset[str]


def better(name: str) -> str | None:
    """Whether ``"lower"`` or ``"higher"`` values of a metric are better, by the words of its name.

    The first of the parts between slashes that has such a word decides. Lower: loss, error, rmse, rmsd, rms, mae, mse,
    nll, w1, js, tv, residual, failures, invalid, clash, broken, bad, false_alarm/positive/negative. Higher: auroc,
    auc, accuracy, match, r2, precision, recall, f1, success, valid, unique, novel, exact, true_positive/negative.
    ``None`` where there is none, or one of each.
    """
    for part in name.lower().split("/"):
        lower, higher = _LOWER.search(part), _HIGHER.search(part)
        if lower or higher:
            return None if lower and higher else "lower" if lower else "higher"
    return None


def check_metric(name: str, known: Iterable[str], *, pattern: bool = True) -> None:
    """Refuse the name of a metric, or a pattern of names, that no run has.

    Raises:
        ConfigError: naming the nearest ones.
    """
    names = list(dict.fromkeys(known))
    if name in names or (pattern and any(_fits(entry, name) for entry in names)):
        return
    plain = name.strip("*").lower()
    inside = [entry for entry in names if plain and plain in entry.lower()]
    near = list(dict.fromkeys([*difflib.get_close_matches(plain, names, n=4, cutoff=0.5), *inside]))[:6]
    shown = f"Nearest: {', '.join(near)}." if near else f"There are: {', '.join(names)}." if names else "None has any."
    raise ConfigError(f"no run has the metric '{name}'. {shown}")


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def compare(runs: Sequence[Run], patterns: Sequence[str] = ()) -> Comparison:
    """Put runs, or models without a run, side by side.

    Args:
        runs: two or more, of whatever families; see :func:`noumena.evaluation.runs.read_run`.
        patterns: names of metrics, with ``*`` for anything; all of them when missing.

    Raises:
        ConfigError: fewer than two runs, one twice, or a pattern that fits no metric.
    """
    _check_runs(runs)
    every = list(dict.fromkeys(name for run in runs for name in run.metrics))
    for pattern in patterns:
        check_metric(pattern, every)
    names = [name for name in every if not patterns or any(_fits(name, pattern) for pattern in patterns)]
    settings = _settings([run.config for run in runs])
    notes, comparable = _notes(runs, settings)
    first = frozenset(name for run in runs for name in list(run.metrics)[:_HEADLINES])
    return Comparison(
        tuple(runs),
        tuple(notes),
        tuple(settings),
        tuple(_training(runs, comparable)),
        tuple(_measure(name, [run.metrics.get(name) for run in runs], comparable) for name in names),
        frozenset(names) if patterns else first,
    )


def _check_runs(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise ConfigError("give two or more runs or models to compare; `noumena runs` lists runs.")
    places = [run.path.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"{run.path} is given twice.")


def _settings(configs: Sequence[Mapping[str, Any]]) -> list[Setting]:
    flat = [dict(_flattened(config)) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config if key != "description")
    rows = [Setting(key, tuple(config.get(key, _absent(key, config)) for config in flat)) for key in keys]
    order = {name: position for position, name in enumerate(_SECTIONS)}
    differing = [row for row in rows if _differs(row)]
    return sorted(differing, key=lambda row: order.get(row.key.partition(".")[0], len(_SECTIONS)))


def _absent(key: str, config: Mapping[str, Any]) -> Absent:
    whole = any(name.startswith("data.") for name in config)  # what every run has and no saved model
    return Absent.NOT_SET if whole or key.startswith("model.") else Absent.UNKNOWN


def _differs(row: Setting) -> bool:
    known = [value for value in row.values if value is not Absent.UNKNOWN]
    return any(not _same(value, known[0]) for value in known)


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _same(one: Any, other: Any) -> bool:
    # 1 and 1.0 are the same setting, 1 and true are not.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


@dataclass(frozen=True)
class Comparable:
    """Whether the best of a row may be marked: of any metric, and of losses."""

    metrics: bool
    losses: bool


def _notes(runs: Sequence[Run], settings: Sequence[Setting]) -> tuple[list[str], Comparable]:
    """What must be said above the tables, and what may be marked in them."""
    notes = [f"{letter(i)} is {run.state}: {run.reason}." for i, run in enumerate(runs) if run.state != FINISHED]
    without = [letter(i) for i, run in enumerate(runs) if not run.metrics]
    if without:
        notes.append(f"Without an evaluation: {', '.join(without)}.")
    different = _different(runs, settings)
    if different:
        notes.append(f"{different} Metrics and losses are not comparable; no best one is marked.")
        return notes, Comparable(metrics=False, losses=False)
    how = [row.key for row in settings if row.key.startswith("evaluate.")]
    if how:
        notes.append(f"Evaluated with other settings ({', '.join(how)}): metrics that these concern differ for that.")
    if len({run.model for run in runs}) > 1:
        notes.append("Different models: their losses are different quantities, and no best one is marked.")
        return notes, Comparable(metrics=True, losses=False)
    if any(row.key.startswith("model.") for row in settings):
        # Which of them weigh a term of the loss, as beta does, only the families know.
        notes.append("Other hyperparameters may make the loss another sum: of losses, no best one is marked.")
        return notes, Comparable(metrics=True, losses=False)
    return notes, Comparable(metrics=True, losses=True)


def _different(runs: Sequence[Run], settings: Sequence[Setting]) -> str:
    """Why numbers of the runs were measured on different data, as far as their folders tell; empty if they were not."""
    families = _grouped(runs, lambda run: run.family or "unknown")
    if len(families) > 1:
        return f"DIFFERENT FAMILIES: {_listed(families)}."
    prints = _grouped(runs, lambda run: short_fingerprint(run.data) or "unknown")
    if len(prints.keys() - {"unknown"}) > 1:
        return f"DIFFERENT DATA: trained on {_listed(prints)}."
    options = [row.key for row in settings if row.key.startswith("data.")]
    if "unknown" in prints and (options or any("data" not in run.config for run in runs)):
        return f"DATA NOT KNOWN to be the same: {', '.join(prints['unknown'])} without a fingerprint of the rows."
    # The same rows may come from another place; any other option may have made other held-out rows of them.
    if [key for key in options if key != "data.path"]:
        return f"HELD-OUT DATA MAY DIFFER: the training rows are the same, but not {', '.join(options)}."
    return ""


def _grouped(runs: Sequence[Run], key: Callable[[Run], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(key(run), []).append(letter(i))
    return groups


def _listed(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{', '.join(letters)}: {name}" for name, letters in groups.items())


def _training(runs: Sequence[Run], comparable: "Comparable") -> list[Measure]:
    losses = [best_losses(run.history) for run in runs]
    plain = (
        ("parameters", [count_parameters(run) for run in runs]),
        ("epochs", [run.history.epochs or None for run in runs]),
        ("training_seconds", [run.training_seconds for run in runs]),
    )
    names = dict.fromkeys(name for found in losses for name in found)
    return [
        *(Measure(name, tuple(values)) for name, values in plain if any(value is not None for value in values)),
        *(_measure(name, [found.get(name) for found in losses], comparable) for name in names),
    ]


def _measure(name: str, values: Sequence[float | None], comparable: "Comparable") -> Measure:
    direction = better(name)
    numbers = [value for value in values if value is not None]
    allowed = comparable.losses if _LOSS.search(name) else comparable.metrics
    if not allowed or direction is None or len(numbers) < 2:
        return Measure(name, tuple(values), direction)
    # Compared as shown: two numbers that look the same are both the best.
    winner = format_number(min(numbers) if direction == "lower" else max(numbers))
    best = [i for i, value in enumerate(values) if value is not None and format_number(value) == winner]
    # Where all are the same there is no best.
    return Measure(name, tuple(values), direction, frozenset(best if len(best) < len(numbers) else []))


def count_parameters(run: Run) -> int | None:
    """How many trained numbers the model has, from its shapes alone; ``None`` if it cannot be built here."""
    import torch

    from noumena.registry import model_class

    path = model_folder(run.path) / "config.json"
    if run.state == BROKEN or not path.is_file():
        return None
    try:
        with torch.device("meta"):
            model = model_class(run.model)(**json.loads(read_small(path))["hyperparameters"])
    except (ArtifactError, ConfigError, NotSupportedError, TypeError, ValueError, RuntimeError, OverflowError):
        return None  # of another version, or its family's packages are not installed
    return sum(parameter.numel() for parameter in model.parameters())


def letter(position: int) -> str:
    """The column heading of a run: A, B, ..., Z, AA, AB, ..."""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def short_fingerprint(data: str | None) -> str:
    """The first eight digits of a fingerprint; empty for ``None``."""
    return "" if data is None else data.rpartition(":")[2][:8]
