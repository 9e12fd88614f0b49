"""Metadata beside the data: which arrays are modalities, their columns, units, kinds and mesh, and the groups."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noumena.core.errors import DataError


@dataclass(frozen=True)
class Description:
    """What the metadata say of one modality; ``None`` where they say nothing."""

    columns: tuple[str, ...] | None = None
    units: str | tuple[str, ...] | None = None
    kind: str | None = None
    mesh: str | None = None


@dataclass(frozen=True)
class Facts:
    """What the metadata say of a data set.

    Attributes:
        path: of the metadata; ``None`` where there are none.
        modalities: by name.
        complete: whether these are all the modalities there are, in order.
        group: the array that says which rows belong together.
        side: arrays that are no modality but are to be kept beside them.
    """

    path: Path | None = None
    modalities: Mapping[str, Description] = field(default_factory=dict[str, Description])
    complete: bool = False
    group: str | None = None
    side: tuple[str, ...] = ()


def read_facts(path: Path) -> Facts:
    """The metadata of a JSON file ``{"modalities": {name: {"columns", "units", "kind", "mesh"}}, "group", "side"}``.

    Of a file without "modalities" every entry that is a mapping with "columns" is taken for a modality's description.

    Returns:
        Empty facts where there is no such file, or where it holds something else.

    Raises:
        DataError: the file is no JSON, or an entry is of a wrong type.
    """
    if not path.is_file():
        return Facts()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Correct or remove it.") from error
    if not isinstance(found, dict):
        return Facts()
    content: dict[str, Any] = found
    complete = "modalities" in content
    entries = content["modalities"] if complete else _with_columns(content)
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DataError(f"{path}: 'modalities' should map each name to {{columns, units, kind, mesh}}. Correct it.")
    group = content.get("group")
    if group is not None and not isinstance(group, str):
        raise DataError(f"{path}: 'group' should be the name of an array, found {group!r}. Correct it.")
    side = _words(content.get("side", []), f"{path}: 'side'")
    described = {name: _description(entry, f"{path}: '{name}'") for name, entry in entries.items()}
    return Facts(path, described, complete, group, side)


def _with_columns(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in content.items() if isinstance(entry, dict) and "columns" in entry}


def _description(entry: Mapping[str, Any], where: str) -> Description:
    columns, units = entry.get("columns"), entry.get("units")
    for key in ("kind", "mesh"):
        if not isinstance(entry.get(key), str | None):
            raise DataError(f"{where}: '{key}' should be text, found {entry[key]!r}. Correct it.")
    return Description(
        None if columns is None else _words(columns, f"{where}, 'columns'"),
        units if units is None or isinstance(units, str) else _words(units, f"{where}, 'units'"),
        entry.get("kind"),
        entry.get("mesh"),
    )


def _words(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise DataError(f"{where} should be a list of texts, found {value!r:.80}. Correct it.")
    return tuple(value)
