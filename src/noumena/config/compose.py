"""Merging a recipe, files and command-line overrides into one checked configuration."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from noumena.config.recipes import Recipe, find_recipe, read_yaml
from noumena.config.schema import check_section, configurable
from noumena.core.errors import ArtifactError, ConfigError, did_you_mean
from noumena.registry import families, family, model_class, model_names, resolve
from noumena.training.settings import FitSettings

log = logging.getLogger("noumena")

_SECTIONS = ("description", "model", "data", "fit", "evaluate")


@dataclass(frozen=True)
class Config:
    """A checked configuration; every section is passed as keywords to what it configures.

    Attributes:
        recipe: where it began.
        model: hyperparameters; ``name`` is the registered model.
        data: options of the reader; ``kind`` chooses the reader.
        fit: see :class:`~noumena.training.FitSettings`.
        evaluate: options of the family's evaluation.
        description: one line.
    """

    recipe: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    fit: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    description: str = ""

    @property
    def model_name(self) -> str:
        """The registered name of the model."""
        return self.model["name"]

    @property
    def family(self) -> str:
        """The family of the model."""
        return self.model_name.partition("/")[0]

    def sections(self) -> dict[str, Any]:
        """The configuration as plain data, in the layout of a recipe."""
        return {name: getattr(self, name) for name in _SECTIONS if getattr(self, name)}

    def to_yaml(self) -> str:
        """The configuration as YAML, complete enough to run it again."""
        return OmegaConf.to_yaml(OmegaConf.create(self.sections()))


def compose(
    recipe: str,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    study: str | Path | None = None,
    require_data: bool = True,
) -> Config:
    """Merge and check; later wins: recipe, then ``study``, then ``files`` in order, then ``overrides``.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        files: further YAML files.
        overrides: ``key.path=value`` with the value in YAML.
        study: a configuration file of the study that the recipe's family comes from. It describes a whole experiment,
            so that the sections it gives take the place of the recipe's.
        require_data: refuse a configuration whose reader lacks a required key, such as ``data.path``.

    Raises:
        ConfigError: unknown keys, wrong types, values out of range, unreadable files.
    """
    found = find_recipe(recipe)
    content = found.content if study is None else {**found.content, **_study_sections(found, study)}
    merged = dict(content)
    for layer in (*(read_yaml(Path(file)) for file in files), parse_overrides(overrides)):
        merged = _merged(_without_strangers(merged, layer), layer)
    return check(merged, found.name, require_data=require_data)


def _merged(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(base, layer), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the configuration cannot be merged: {' '.join(str(error).split())}.") from error
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def _without_strangers(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` less the options that mean nothing to the other model or kind of data that ``layer`` names."""
    kept = dict(base)
    for section, choice in (("model", "name"), ("data", "kind")):
        old, new = base.get(section), layer.get(section)
        if not isinstance(old, dict) or not isinstance(new, dict) or new.get(choice) in (None, old.get(choice)):
            continue
        try:
            name = str((new if section == "model" else _merged(kept, layer)["model"])["name"])
            target = model_class(name) if section == "model" else _reader(name, new[choice])
        except (ArtifactError, ConfigError, KeyError, TypeError):
            continue  # no such model, no such kind: check() says so
        options = {choice, *configurable(target)}
        strangers = [key for key in old if key not in options]
        kept[section] = {key: value for key, value in old.items() if key in options}
        if strangers:
            taken = f"{section}.{choice}={new[choice]}"
            log.warning("%s: left out %s: for %s alone.", taken, ", ".join(strangers), old.get(choice))
    return kept


def _reader(model: str, kind: Any) -> Any:
    return resolve(family(model.partition("/")[0]).data[kind])


def _study_sections(recipe: Recipe, study: str | Path) -> dict[str, Any]:
    model = recipe.content.get("model")
    name = str(model.get("name")) if isinstance(model, dict) else ""
    entry = family(name.partition("/")[0])
    if not entry.study:
        known = [other.name for other in families() if other.study]
        raise ConfigError(
            f"the family '{entry.name}' takes no configurations of a study; recipes of {', '.join(known)} do."
        )
    return resolve(entry.study)(study)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``["fit.lr=1e-3"]`` as nested dictionaries.

    Raises:
        ConfigError: an entry is not of the form ``key=value``.
    """
    for entry in overrides:
        key, equals, _ = entry.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{entry}' is no override; write key=value, for instance fit.max_epochs=20.")
    try:
        container = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read the overrides {list(overrides)}: {' '.join(str(error).split())}.") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check(merged: Mapping[str, Any], recipe: str, *, require_data: bool = True) -> Config:
    """Check a merged configuration against the signatures it configures, before any data are read.

    Raises:
        ConfigError: the first key that is unknown, of the wrong type or out of range.
    """
    for key in merged:
        if key not in _SECTIONS:
            raise ConfigError(f"unknown key '{key}'. {did_you_mean(key, _SECTIONS)}")
    description = merged.get("description") or ""
    if not isinstance(description, str):
        raise ConfigError(f"'description': expected text, got {description!r} ({type(description).__name__}).")
    sections = {name: _section(merged, name) for name in _SECTIONS[1:]}
    model = dict(sections["model"])
    cls = _model(model.pop("name", None))
    entry = family(str(sections["model"]["name"]).partition("/")[0])
    data = dict(sections["data"])
    kind = data.pop("kind", None)
    if not isinstance(kind, str) or kind not in entry.data:
        raise ConfigError(f"'data.kind': expected one of {', '.join(entry.data)}, got {kind!r}.")
    reader = resolve(entry.data[kind])
    check_section("model", model, cls)
    check_section("data", data, reader, optional=frozenset() if require_data else frozenset(["path"]))
    check_section("fit", sections["fit"], FitSettings)
    check_section("evaluate", sections["evaluate"], resolve(entry.evaluate))
    # Ranges are checked where they are known: by the constructors.
    cls(**model)
    FitSettings(**sections["fit"])
    return Config(recipe=recipe, description=description, **sections)


def _section(merged: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = merged.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"'{name}': expected a section of keys, got {value!r} ({type(value).__name__}).")
    return {str(key): item for key, item in value.items()}


def _model(name: Any) -> Any:
    if not isinstance(name, str):
        raise ConfigError(f"'model.name': expected one of {', '.join(model_names())}, got {name!r}.")
    try:
        return model_class(name)
    except ArtifactError as error:
        raise ConfigError(f"'model.name': {error}") from error
