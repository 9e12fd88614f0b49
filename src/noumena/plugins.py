"""Families that other installed packages bring, through the entry-point group ``noumena.families``.

An installed package is code that somebody chose to run, and is trusted like this one; a file is not, and no file ever
names code to import. A plug-in that fails is listed with its reason and leaves every other family as it is.
"""

import importlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import ModuleType

from noumena.core.errors import NotSupportedError
from noumena.core.family import Family

GROUP = "noumena.families"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group.

    Attributes:
        name: the family it offers.
        package: the distribution it belongs to, as ``pip`` knows it.
        module: the package that has ``FAMILY``.
        requires: the requirements that the distribution states.
        fault: why it is not even imported; empty if it may be.
    """

    name: str
    package: str
    module: str
    requires: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Broken:
    """A plug-in that cannot be used: the family it offers, its distribution and what is wrong with it."""

    name: str
    package: str
    reason: str


@cache
def plugins(built_in: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Every entry point of the group, by name; found once per process, imported by none.

    Args:
        built_in: families that no plug-in may replace.
    """
    entries = sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, _package(entry)))
    names = [entry.name for entry in entries]
    return tuple(_plugin(entry, _fault(entry, built_in, names.count(entry.name))) for entry in entries)


def _plugin(entry: metadata.EntryPoint, fault: str) -> Plugin:
    requires = () if entry.dist is None else tuple(entry.dist.requires or ())
    return Plugin(entry.name, _package(entry), entry.value, requires, fault)


def _package(entry: metadata.EntryPoint) -> str:
    return entry.value if entry.dist is None else entry.dist.name


def _fault(entry: metadata.EntryPoint, built_in: tuple[str, ...], offers: int) -> str:
    if entry.name in built_in:
        return (
            f"the family '{entry.name}' is built in, and a plug-in cannot replace it; the built-in one is used. "
            "The plug-in must give its family another name."
        )
    if offers > 1:
        return f"{offers} installed packages offer a family '{entry.name}'. Uninstall all but one of them."
    if not _NAME.fullmatch(entry.name):
        return f"'{entry.name}' is no name of a family: expected small letters, digits and underscores."
    if not all(part.isidentifier() for part in entry.value.split(".")):
        return f"its entry point is '{entry.value}'; expected the name of a package that has FAMILY."
    return ""


@cache
def load(plugin: Plugin) -> Family | Broken:
    """The family of a plug-in, or what is wrong with it. Imports its package, on the first call."""
    if plugin.fault:
        return Broken(plugin.name, plugin.package, plugin.fault)
    try:
        module = importlib.import_module(plugin.module)
    except Exception as error:  # whatever a stranger's package does when it is imported
        return Broken(plugin.name, plugin.package, f"importing {plugin.module} failed: {_told(error)}")
    reason = _wrong(plugin, module)
    return Broken(plugin.name, plugin.package, reason) if reason else module.FAMILY


def _wrong(plugin: Plugin, module: ModuleType) -> str:
    found = getattr(module, "FAMILY", None)
    if not isinstance(found, Family):
        kind = "nothing" if found is None else type(found).__name__
        return f"{plugin.module}.FAMILY: expected a noumena.core.family.Family, found {kind}."
    if found.name != plugin.name:
        return f"{plugin.module}.FAMILY is called '{found.name}', its entry point '{plugin.name}'; expected one name."
    if not hasattr(module, "__path__"):
        return f"{plugin.module} is a single file; expected a package, a folder that can hold recipes/."
    return ""


def error_of(broken: Broken) -> NotSupportedError:
    """The error for asking for a family whose plug-in is broken."""
    return NotSupportedError(
        f"the family '{broken.name}' of the package '{broken.package}' cannot be used: {broken.reason} "
        f"Mend or update the package, or remove it: pip uninstall {broken.package}"
    )


def resolve(place: str, owner: Plugin) -> object:
    """The object at ``"module:attribute"`` of a plug-in.

    Raises:
        NotSupportedError: it needs a package that is not installed (with the command), or has a fault of its own.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        own = owner.module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] in (own, "noumena"):
            raise error_of(Broken(owner.name, owner.package, f"{place}: {_told(error)}")) from error
        raise NotSupportedError(_needs(owner, error.name)) from error
    except Exception as error:
        raise error_of(Broken(owner.name, owner.package, f"{place}: {_told(error)}")) from error


def _needs(owner: Plugin, missing: str) -> str:
    """Words for a package that is not installed, with the command that installs it."""
    said = f"the {owner.name} family needs the package '{missing}'"
    for requirement in owner.requires:
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and _same(name[0], missing.partition(".")[0]):
            extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)", requirement)
            return f"{said}: pip install '{owner.package}{f'[{extra[1]}]' if extra else ''}'"
    return f"{said}, which {owner.package} does not name among its requirements. Install it."


def _same(one: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _told(error: Exception) -> str:
    told = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return told if told.endswith(".") else f"{told}."
