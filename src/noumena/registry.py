"""The families the library knows, by name. A further family is one folder and one line here."""

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, did_you_mean
from noumena.core.family import Family

if TYPE_CHECKING:
    from noumena.core.model import LatentModel

FAMILIES = {
    "density": "noumena.density",
    "multimodal": "noumena.multimodal",
    "crystals": "noumena.crystals",
    "molecules": "noumena.molecules",
    "worldmodels": "noumena.worldmodels",
}


@cache
def family(name: str) -> Family:
    """The family called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in FAMILIES:
        raise ConfigError(f"unknown family '{name}'. {did_you_mean(name, FAMILIES)}")
    return importlib.import_module(FAMILIES[name]).FAMILY


def families() -> list[Family]:
    """Every family, in the order of the registry."""
    return [family(name) for name in FAMILIES]


def model_names() -> list[str]:
    """Every model as ``family/model``."""
    return [f"{entry.name}/{model}" for entry in families() for model in entry.models]


def model_class(name: str) -> "type[LatentModel]":
    """The class of the model called ``name``, as in ``density/vae``.

    Raises:
        ArtifactError: no such model is registered.
    """
    head, _, tail = name.partition("/")
    if head not in FAMILIES or tail not in family(head).models:
        raise ArtifactError(f"unknown model '{name}'. {did_you_mean(name, model_names())}")
    return resolve(family(head).models[tail])


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
        NotSupportedError: a package of the family's extra is not installed; the message has the command.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("noumena"):
            raise
        extra = module.split(".")[1]
        raise NotSupportedError(
            f"the {extra} family needs the package '{error.name}': pip install 'noumena[{extra}]'"
        ) from error
