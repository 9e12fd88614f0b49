"""Crystals of extended XYZ texts: frames with a ``Lattice``."""

import re
from collections.abc import Iterator

import numpy as np

from noumena.crystals.formats.cells import element
from noumena.crystals.formats.raw import Skipped, Structure

_PAIR = re.compile(r"""([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|\{([^}]*)\}|(\S+))""")
_DEFAULT = "species:S:1:pos:R:3"
_NAMES = ("material_id", "name", "id", "label")
_LAYOUT = ("lattice", "properties", "pbc", *_NAMES)


def read_xyz(text: str, where: str, name: str, first: int | None = None) -> tuple[list[Structure], list[Skipped]]:
    """The crystals of a text; numbers in the comment lines are their properties.

    Args:
        text: of one or more frames.
        where: the file, for messages.
        name: for a frame that has no ``name``, ``material_id``, ``id`` or ``label``; several add their number.
        first: number of the first frame, if the text is a part of a file of several.
    """
    structures: list[Structure] = []
    skipped: list[Skipped] = []
    try:
        frames = list(split_frames(text.splitlines()))
    except ValueError as error:
        return [], [Skipped(where, name, f"it is no extended XYZ: {error}")]
    several = len(frames) > 1 or first is not None
    for number, (comment, atoms) in enumerate(frames, first or 0):
        info = {key.lower(): next(filter(None, values), "") for key, *values in _PAIR.findall(comment)}
        place = f"{where}, frame {number}" if several else where
        title = next((info[key] for key in _NAMES if info.get(key)), f"{name}:{number}" if several else name)
        try:
            lattice, frac, types = _frame(info, atoms)
        except ValueError as error:
            skipped.append(Skipped(place, title, str(error)))
        else:
            structures.append(Structure(lattice, frac, types, place, title, _properties(comment)))
    return structures, skipped


def split_frames(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Comment line and lines of the atoms of each frame.

    Raises:
        ValueError: a number of atoms is none, or lines are missing.
    """
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        try:
            count = int(lines[at])
        except ValueError:
            raise ValueError(f"line {at + 1} is '{lines[at].strip()[:40]}'; expected a number of atoms") from None
        if count < 0 or at + 2 + count > len(lines):
            raise ValueError(f"line {at + 1} announces {count} atoms, and {len(lines) - at - 2} lines follow")
        yield lines[at + 1], lines[at + 2 : at + 2 + count]
        at += 2 + count


def _frame(info: dict[str, str], atoms: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    words = info.get("lattice", "").split()
    if len(words) != 9:
        raise ValueError("its comment line has no Lattice of nine numbers: it is not periodic")
    periodic = info.get("pbc", "T T T").split()
    if any(word.upper() not in ("T", "TRUE", "1") for word in periodic):
        raise ValueError(f"it is not periodic in all directions: pbc is '{info['pbc']}'")
    lattice = np.array([float(word) for word in words]).reshape(3, 3)
    columns, width = _columns(info.get("properties", _DEFAULT))
    rows = [line.split() for line in atoms]
    short = next((number for number, row in enumerate(rows) if len(row) < width), None)
    if short is not None:
        raise ValueError(f"atom {short + 1} has {len(rows[short])} columns; expected {width}")
    at = columns["pos"]
    coords = np.array([row[at : at + 3] for row in rows], np.float64).reshape(-1, 3)
    if not abs(np.linalg.det(lattice)) > 0:
        raise ValueError("its cell has no volume")
    return lattice, np.linalg.solve(lattice.T, coords.T).T, np.array(_types(rows, columns), np.int64)


def _columns(layout: str) -> tuple[dict[str, int], int]:
    """First column of each entry of ``Properties``, and how many columns there are."""
    words = layout.split(":")
    if len(words) % 3:
        raise ValueError(f"Properties is '{layout}'; expected names, types and numbers of columns")
    first: dict[str, int] = {}
    width = 0
    for name, count in zip(words[::3], words[2::3], strict=True):
        first[name.lower()] = width
        width += int(count)
    if "pos" not in first or not first.keys() & {"species", "z", "numbers"}:
        raise ValueError(f"Properties is '{layout}'; expected species and pos among them")
    return first, width


def _types(rows: list[list[str]], columns: dict[str, int]) -> list[int]:
    if "species" not in columns:
        at = columns.get("z", columns.get("numbers", 0))
        return [int(row[at]) for row in rows]
    at = columns["species"]
    types = [element(row[at]) for row in rows]
    if not all(types):
        raise ValueError(f"atom {types.index(0) + 1} is '{rows[types.index(0)][at]}'; expected a symbol of an element")
    return types


def _properties(comment: str) -> dict[str, float]:
    """Entries of the comment line that are one number."""
    found: dict[str, float] = {}
    for key, *values in _PAIR.findall(comment):
        if key.lower() in _LAYOUT:
            continue
        try:
            found[key] = float(next(filter(None, values), ""))
        except ValueError:
            continue
    return found
