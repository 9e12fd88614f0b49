"""What a sweep varies: keys of a recipe and the values each may take, checked like a recipe."""

import copy
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from noumena.config import Config
from noumena.config.recipes import read_yaml
from noumena.config.schema import check_section, configurable
from noumena.core.errors import ConfigError, did_you_mean
from noumena.registry import family, model_class, resolve
from noumena.training.settings import FitSettings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# What the other keys mean hangs on the first two; the others belong to the worker, not to the trial.
_FIXED = ("model.name", "data.kind", "fit.devices", "fit.num_nodes", "fit.strategy", "fit.progress")

_SHIPPED = Path(__file__).parent / "spaces"
_FORMS = "{choices: [...]} or {low: ..., high: ..., log: true, step: ...}"


@dataclass(frozen=True)
class Choices:
    """One of some values, of any kind a recipe has.

    Attributes:
        values: in the order of the file.
    """

    values: tuple[Any, ...]

    def labels(self) -> list[Any]:
        """The values as optuna keeps them: what is no plain value as JSON text."""
        return [value if _is_plain(value) else json.dumps(value) for value in self.values]

    def distribution(self) -> "BaseDistribution":
        """For optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.labels())

    def value(self, label: Any) -> Any:
        """The value of a label."""
        return self.values[self.labels().index(label)]


@dataclass(frozen=True)
class Range:
    """A number between two others, both included.

    Attributes:
        low, high: the ends.
        whole: integers only.
        log: even on a logarithmic scale.
        step: distance of the values from ``low`` on; ``None`` for any number.
    """

    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None

    def distribution(self) -> "BaseDistribution":
        """For optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, label: Any) -> Any:
        """The number itself."""
        return int(label) if self.whole else float(label)


@dataclass(frozen=True)
class Space:
    """The keys of a sweep.

    Attributes:
        entries: dotted key of the recipe to its values.
    """

    entries: Mapping[str, Choices | Range]

    def distributions(self) -> "dict[str, BaseDistribution]":
        """For optuna's ``ask``."""
        return {key: entry.distribution() for key, entry in self.entries.items()}

    def values(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the recipe's keys from what optuna chose."""
        return {key: entry.value(labels[key]) for key, entry in self.entries.items()}

    def grid(self) -> list[dict[str, Any]] | None:
        """Every combination, as optuna's labels, the last key fastest; ``None`` if an entry is a range."""
        columns: list[list[Any]] = []
        for entry in self.entries.values():
            if isinstance(entry, Range):
                return None
            columns.append(entry.labels())
        return [dict(zip(self.entries, row, strict=True)) for row in product(*columns)]


def shipped_spaces() -> list[str]:
    """Names of the spaces that come with the library."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def read_space(path: Path) -> dict[str, Any]:
    """A space as it is written; :func:`check_space` says whether it fits a recipe.

    Args:
        path: a YAML file, or the name of a shipped space.

    Raises:
        ConfigError: it cannot be read, is no YAML mapping or is empty.
    """
    raw = read_yaml(_SHIPPED / f"{path}.yaml" if str(path) in shipped_spaces() else path)
    if not raw:
        raise ConfigError(f"{path} is empty: give at least one key, such as 'model.latent_dim: {{low: 2, high: 16}}'.")
    return raw


def check_space(raw: Mapping[str, Any], config: Config, where: str) -> Space:
    """Check a space against the recipe whose keys it varies.

    Args:
        raw: dotted keys to ``{choices: [...]}`` or ``{low, high, log, step}``.
        config: the recipe, which the keys must be of.
        where: the file, for messages.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, an empty range; with file and key.
    """
    targets = _targets(config)
    entries: dict[str, Choices | Range] = {}
    for key, spec in raw.items():
        try:
            entries[key] = _entry(key, spec, config, targets)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return Space(entries)


def with_values(sections: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a recipe with some dotted keys set; the given ones are left as they are."""
    merged = copy.deepcopy(dict(sections))
    for key, value in values.items():
        *way, last = key.split(".")
        place = merged
        for part in way:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[last] = value
    return merged


def _targets(config: Config) -> dict[str, Callable[..., Any]]:
    entry = family(config.family)
    return {
        "model": model_class(config.model_name),
        "data": resolve(entry.data[config.data["kind"]]),
        "fit": FitSettings,
        "evaluate": resolve(entry.evaluate),
    }


def _entry(key: str, spec: Any, config: Config, targets: Mapping[str, Callable[..., Any]]) -> Choices | Range:
    if key in _FIXED:
        raise ConfigError(f"'{key}' cannot be varied within a sweep; make one sweep for each.")
    section, _, rest = key.partition(".")
    known = sorted(f"{name}.{parameter}" for name, target in targets.items() for parameter in configurable(target))
    parameter = rest.partition(".")[0]
    if section not in targets or f"{section}.{parameter}" not in known:
        raise ConfigError(f"unknown key '{key}'. {_nearest(key, known, targets)}")
    if not isinstance(spec, Mapping):
        raise ConfigError(f"'{key}': expected {_FORMS}, got {spec!r} ({type(spec).__name__}).")
    given = {str(name): value for name, value in spec.items()}
    if "choices" in given:
        _only(key, given, ("choices",))
        entry, samples = _choices(key, given["choices"])
    else:
        _only(key, given, ("low", "high", "log", "step"))
        hint = get_type_hints(_signature(targets[section])).get(parameter) if "." not in rest else None
        entry, samples = _range(key, given, _numbers(hint))
    base = config.sections()
    for sample in samples:
        changed = with_values(base, {key: sample})[section][parameter]
        target = targets[section]
        check_section(section, {parameter: changed}, target, optional=frozenset(configurable(target)))
    return entry


def _nearest(key: str, known: list[str], targets: Mapping[str, Callable[..., Any]]) -> str:
    section, dot, _ = key.partition(".")
    if not dot and section in targets:
        return f"Write each key in full: '{section}.NAME'. {did_you_mean('', [k for k in known if k.startswith(key)])}"
    return did_you_mean(key, [k for k in known if k.startswith(f"{section}.")] or known)


def _only(key: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f"'{key}': unknown '{name}'. {did_you_mean(name, (*known, 'choices'))} Write {_FORMS}.")


def _choices(key: str, values: Any) -> tuple[Choices, Iterator[Any]]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"'{key}.choices': expected a list with at least one value, got {values!r}.")
    entry = Choices(tuple(values))
    labels = entry.labels()
    for position, label in enumerate(labels):
        if isinstance(values[position], dict):
            raise ConfigError(f"'{key}.choices': {values[position]!r} is a mapping; vary its keys: '{key}.NAME'.")
        # True equals 1 for Python, and for optuna.
        if label in labels[:position]:
            raise ConfigError(f"'{key}.choices': {values[position]!r} is there twice (or 1 beside true).")
    return entry, iter(values)


def _range(key: str, given: Mapping[str, Any], numbers: frozenset[type] | None) -> tuple[Range, Iterator[Any]]:
    for name in ("low", "high"):
        if name not in given:
            raise ConfigError(f"'{key}': '{name}' is missing. Write {_FORMS}.")
    ends = {name: _number(key, name, given[name]) for name in ("low", "high", "step") if name in given}
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"'{key}.log': expected true or false, got {log!r}.")
    low, high, step = ends["low"], ends["high"], ends.get("step")
    whole = _is_whole(key, ends, numbers)
    if low >= high:
        raise ConfigError(f"'{key}': an empty range, low {low} is not below high {high}.")
    if log and (low <= 0 or step is not None):
        reason = "step has no meaning on a logarithmic scale" if step is not None else f"low must be above 0, got {low}"
        raise ConfigError(f"'{key}': log: true, but {reason}.")
    if step is not None and not 0 < step <= high - low:
        raise ConfigError(f"'{key}.step': expected a number above 0 and at most high - low, got {step}.")
    return Range(low, high, whole, log, step), iter([low, high])


def _is_whole(key: str, ends: Mapping[str, float], numbers: frozenset[type] | None) -> bool:
    """Whether a range is of integers: as its key takes them, or as it is written where the key takes both."""
    written = all(isinstance(value, int) for value in ends.values())
    if numbers is None or len(numbers) == 2:
        return written
    if not numbers:
        raise ConfigError(f"'{key}': takes no number, so that it cannot have a range. Write {{choices: [...]}}.")
    if int in numbers and not written:
        raise ConfigError(f"'{key}': expected integers, got {', '.join(f'{n} {v}' for n, v in ends.items())}.")
    return int in numbers


def _number(key: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"'{key}.{name}': expected a finite number, got {value!r} ({type(value).__name__}).")
    return value


def _numbers(hint: Any) -> frozenset[type] | None:
    """Which kinds of number a type takes; ``None`` where the hint does not say."""
    if hint is None:
        return None
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return frozenset(kind for kind in (int, float) if kind in members)


def _signature(target: Callable[..., Any]) -> Callable[..., Any]:
    return target.__init__ if inspect.isclass(target) else target


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
