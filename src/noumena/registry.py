"""The families the library knows, by name: the built-in ones, and those that other installed packages bring.

A further built-in family is one folder and one line here; one of another package is an entry point of that package
(:mod:`noumena.plugins`), and nothing here.
"""

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noumena import plugins
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, did_you_mean
from noumena.core.family import Family
from noumena.plugins import Broken, Plugin

if TYPE_CHECKING:
    from noumena.core.model import LatentModel

FAMILIES = {
    "density": "noumena.density",
    "multimodal": "noumena.multimodal",
    "crystals": "noumena.crystals",
    "molecules": "noumena.molecules",
    "worldmodels": "noumena.worldmodels",
}


def family(name: str) -> Family:
    """The family called ``name``.

    Raises:
        ConfigError: there is none.
        NotSupportedError: it is one of another package, which has a fault; the message has the reason.
    """
    if name in FAMILIES:
        return _built_in(name)
    for plugin in _plugins():
        if plugin.name == name:
            found = plugins.load(plugin)
            if isinstance(found, Broken):
                raise plugins.error_of(found)
            return found
    raise ConfigError(f"unknown family '{name}'. {did_you_mean(name, packages())}")


@cache
def _built_in(name: str) -> Family:
    return importlib.import_module(FAMILIES[name]).FAMILY


def _plugins() -> tuple[Plugin, ...]:
    return plugins.plugins(tuple(FAMILIES))


def packages() -> dict[str, str]:
    """Name of every family that can be used to the package that has it, built-in ones first."""
    usable = [plugin for plugin in _plugins() if isinstance(plugins.load(plugin), Family)]
    return FAMILIES | {plugin.name: plugin.module for plugin in usable}


def families() -> list[Family]:
    """Every family that can be used, in the order of :func:`packages`."""
    return [family(name) for name in packages()]


def broken_families() -> list[Broken]:
    """Every plug-in that cannot be used, with the reason."""
    return [found for found in map(plugins.load, _plugins()) if isinstance(found, Broken)]


def model_names() -> list[str]:
    """Every model as ``family/model``."""
    return [f"{entry.name}/{model}" for entry in families() for model in entry.models]


def model_class(name: str) -> "type[LatentModel]":
    """The class of the model called ``name``, as in ``density/vae``.

    Raises:
        ArtifactError: no such model is registered.
        NotSupportedError: its family is of another package, which has a fault or lacks a package it needs.
    """
    head, _, tail = name.partition("/")
    if head not in FAMILIES and all(plugin.name != head for plugin in _plugins()):
        raise ArtifactError(
            f"unknown model '{name}'. {did_you_mean(name, model_names())} If its family comes with another package, "
            "install that one."
        )
    if tail not in family(head).models:
        raise ArtifactError(f"unknown model '{name}'. {did_you_mean(name, model_names())}")
    return resolve(family(head).models[tail])


def model_summary(name: str) -> str:
    """The first line of the docstring of the model called ``name``, read from its source: nothing is imported for it.

    Raises:
        ArtifactError: no such model is registered.
    """
    head, _, tail = name.partition("/")
    entry = family(head)
    if tail not in entry.models:
        raise ArtifactError(f"unknown model '{name}'. {did_you_mean(name, model_names())}")
    module, _, attribute = entry.models[tail].partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return entry.summary
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute), None)
    told = None if found is None else ast.get_docstring(found)
    return " ".join((told or entry.summary).split("\n\n")[0].replace("``", "").split()).rstrip(".")


def model_name(cls: type) -> str:
    """The registered name of a model class.

    Raises:
        ArtifactError: the class is not registered, so a saved copy could not be loaded again.
    """
    place = f"{cls.__module__}:{cls.__qualname__}"
    for entry in families():
        for model, target in entry.models.items():
            if target == place:
                return f"{entry.name}/{model}"
    raise ArtifactError(f"{place} is not a registered model; saved models are found by registered names only.")


def resolve(place: str) -> Any:
    """The object at ``"module:attribute"``; places come from the families' own code, never from files.

    Raises:
        NotSupportedError: a package that the family needs is not installed, and the message has the command; or the
            place is one of a plug-in, which has a fault.
    """
    module, _, attribute = place.partition(":")
    top = module.partition(".")[0]
    if top != "noumena":
        for plugin in _plugins():
            if plugin.module.partition(".")[0] == top:
                return plugins.resolve(place, plugin)
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "noumena":
            raise
        extra = module.split(".")[1]
        raise NotSupportedError(
            f"the {extra} family needs the package '{error.name}': pip install 'noumena[{extra}]'"
        ) from error
