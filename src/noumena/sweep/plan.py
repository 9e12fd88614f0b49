"""What a sweep is: written once into its folder, read by every process that works on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from noumena.config import Config, compose
from noumena.config.compose import check, parse_overrides
from noumena.core.errors import ArtifactError, ConfigError, did_you_mean
from noumena.files import write_text
from noumena.sweep.space import Space, check_space, read_space

Direction = Literal["minimize", "maximize"]
Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "none"]

PLAN = "sweep.json"
JOURNAL = "journal.log"
TRIALS = "trials"

VAL_LOSS = "val_loss"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep: what it varies of which recipe, and what it looks for. The same for all who work on it.

    Attributes:
        recipe: where the configuration began.
        base: the sections of the configuration that every trial shares, with absolute paths.
        space: the space as it is written.
        metric: what is optimised: a column of the history or a metric of the evaluation.
        direction: of the metric.
        sampler: how values are chosen: ``tpe`` learns from finished trials, ``grid`` takes every combination in turn.
        pruner: ``median`` ends a trial whose validation loss is worse than half of those before it.
        seed: of the choices.
    """

    recipe: str
    base: Mapping[str, Any]
    space: Mapping[str, Any]
    metric: str
    direction: Direction
    sampler: Sampler
    pruner: Pruner
    seed: int

    def __post_init__(self) -> None:
        _one_of("direction", self.direction, get_args(Direction))
        _one_of("sampler", self.sampler, get_args(Sampler))
        _one_of("pruner", self.pruner, get_args(Pruner))

    def config(self) -> Config:
        """The checked configuration that every trial begins with."""
        return check(self.base, self.recipe)

    def checked_space(self, where: str) -> Space:
        """The space, checked against the recipe.

        Raises:
            ConfigError: see :func:`noumena.sweep.space.check_space`.
        """
        return check_space(self.space, self.config(), where)


def make_plan(
    recipe: str,
    overrides: Sequence[str],
    space: Path,
    *,
    metric: str = VAL_LOSS,
    direction: str | None = None,
    sampler: str = "tpe",
    pruner: str | None = None,
    seed: int = 0,
) -> Plan:
    """Compose and check a sweep; nothing is written.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        overrides: ``key.path=value`` for all trials.
        space: the space file.
        metric, direction, sampler, pruner, seed: see :class:`Plan`. Losses are minimised unless said otherwise; any
            other metric needs its direction. ``median`` is the pruner where the metric is a column of the history,
            and ``none`` where it is known only in the end.

    Raises:
        ConfigError: of the recipe, the space file or an option.
    """
    from noumena.experiment import with_absolute_paths

    config = with_absolute_paths(compose(recipe, overrides=overrides))
    raw = read_space(space)
    for key in raw:
        if key in _dotted(parse_overrides(overrides)):
            raise ConfigError(f"'{key}' is set on the command line and varied by {space}; leave one of them out.")
    is_loss = metric.endswith("_loss")
    if direction is None and not is_loss:
        raise ConfigError(f"--metric {metric}: say which is better with --direction minimize or --direction maximize.")
    plan = Plan(
        recipe=config.recipe,
        base=json.loads(json.dumps(config.sections())),
        space=json.loads(json.dumps(raw)),
        metric=metric,
        direction=_one_of("direction", direction or "minimize", get_args(Direction)),
        sampler=_one_of("sampler", sampler, get_args(Sampler)),
        pruner=_one_of("pruner", pruner or ("median" if is_loss else "none"), get_args(Pruner)),
        seed=seed,
    )
    if plan.checked_space(str(space)).grid() is None and sampler == "grid":
        raise ConfigError(f"{space}: --sampler grid needs choices for every key; a range has no combinations to count.")
    settings = config.fit
    if settings.get("devices", 1) != 1 or settings.get("num_nodes", 1) != 1:
        raise ConfigError("a trial of a sweep trains on one device: fit.devices=1 fit.num_nodes=1, with --workers K.")
    return plan


def write_plan(plan: Plan, out: Path) -> None:
    """Put the plan into the folder of its sweep, or see that it is the one that is there.

    Raises:
        ConfigError: the folder holds another sweep; the message names what differs.
        ArtifactError: the folder holds something else, or cannot be written.
    """
    path = out / PLAN
    if not path.is_file():
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise ArtifactError(f"{out} is not empty and holds no sweep ({PLAN}). Choose another --out.")
        write_text(path, json.dumps(asdict(plan), indent=2) + "\n")
        return
    there = read_plan(out)
    different = [field.name for field in fields(plan) if getattr(there, field.name) != getattr(plan, field.name)]
    if different:
        raise ConfigError(
            f"{out} holds a sweep with another {', '.join(different)}. Give what it began with, or nothing but "
            f"`noumena sweep --out {out} -n N` to continue it, or choose another --out."
        )


def read_plan(out: Path) -> Plan:
    """The plan of the sweep in ``out``.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    path = out / PLAN
    if not path.is_file():
        raise ArtifactError(f"{out} is no sweep: it has no {PLAN}. Begin one with a recipe and --space FILE.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Plan(**content)
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Begin another sweep in another folder.") from error


def _one_of(name: str, value: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ConfigError(f"--{name}: unknown '{value}'. {did_you_mean(value, known)}")
    return value


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in tree.items():
        keys += _dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return keys
