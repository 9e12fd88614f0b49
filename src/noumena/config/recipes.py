"""The ready-made experiments that the families ship."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from noumena.core.errors import ConfigError, did_you_mean
from noumena.registry import FAMILIES, packages


@dataclass(frozen=True)
class Recipe:
    """A recipe as it is written.

    Attributes:
        name: ``family/recipe``, or the path of a file.
        content: the parsed YAML.
    """

    name: str
    content: dict[str, Any]

    @property
    def description(self) -> str:
        """One line for listings."""
        return str(self.content.get("description", ""))


def recipes() -> list[Recipe]:
    """Every shipped recipe, sorted by name; one of a plug-in that is no recipe says so in place of its description."""
    return [_listed(name) for name in _names()]


def _listed(name: str) -> Recipe:
    try:
        return _shipped(name)
    except ConfigError as error:
        if name.partition("/")[0] in FAMILIES:
            raise
        return Recipe(name, {"description": f"broken: {error}"})


def find_recipe(name: str) -> Recipe:
    """The recipe called ``family/recipe``, or the YAML file at that path.

    Raises:
        ConfigError: there is no such recipe or file, or the file is no YAML mapping.
    """
    if name in _names():
        return _shipped(name)
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return Recipe(name, read_yaml(path))
    raise ConfigError(f"unknown recipe '{name}'. {did_you_mean(name, _names())} A path to a .yaml file works too.")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dictionary.

    Raises:
        ConfigError: it cannot be read, is no YAML or no mapping.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}.") from error


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """YAML text as a dictionary; interpolations (``${...}``) are resolved.

    Raises:
        ConfigError: it is no YAML mapping.
    """
    try:
        container = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{where} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(container, dict):
        raise ConfigError(f"{where}: expected sections (model, data, fit, evaluate), got a {type(container).__name__}.")
    return {str(key): value for key, value in container.items()}


def _names() -> list[str]:
    names: list[str] = []
    for family, package in packages().items():
        folder = resources.files(package).joinpath("recipes")
        for file in folder.iterdir() if folder.is_dir() else ():  # a plug-in may have none
            if file.name.endswith(".yaml"):
                names.append(f"{family}/{file.name.removesuffix('.yaml')}")
    return sorted(names)


def _shipped(name: str) -> Recipe:
    family, _, recipe = name.partition("/")
    text = resources.files(packages()[family]).joinpath("recipes", f"{recipe}.yaml").read_text(encoding="utf-8")
    return Recipe(name, parse_yaml(text, name))
