"""Crystals of CIF texts: every block that has atoms is one."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from noumena.crystals import libraries
from noumena.crystals.formats.cells import cell, element, impossible, labelled
from noumena.crystals.formats.raw import Skipped, Structure
from noumena.crystals.formats.symmetry import Operations, expanded, operations_of

_CELL = (
    "_cell_length_a",
    "_cell_length_b",
    "_cell_length_c",
    "_cell_angle_alpha",
    "_cell_angle_beta",
    "_cell_angle_gamma",
)
_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz", "_space_group_symop.operation_xyz")
_HALL = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_HERMANN_MAUGUIN = ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M", "_space_group_name_H-M_full")
_NUMBER = ("_space_group_IT_number", "_symmetry_Int_Tables_number")
_SITES = "_atom_site_"
_COORDINATES = ("fract_x", "fract_y", "fract_z")
_UNKNOWN = ("", ".", "?")
_FULL = 1e-3
"""How far an occupancy may be from 1 and count as 1."""
_EXACT = 1e-12
_DIGITS = 10.0 ** np.arange(4, 9)


class _NotUsable(Exception):
    """Why a block is no crystal."""


def read_cif(text: str, where: str, name: str, first: int | None = None) -> tuple[list[Structure], list[Skipped]]:
    """The crystals of a text, and the blocks that are none.

    A block without atom sites is left aside if another one has some: a header. Deuterium is read as hydrogen. A
    coordinate that is a multiple of 1/6 rounded or cut to the digits it has (0.3333, 0.66667) is read as that.
    Without operations those of the space group it names are used, and with neither it is P1, as in the format's
    definition.

    Args:
        text: of one file.
        where: the file, for messages.
        name: for a single crystal; several add the names of their blocks.
        first: number of the first block, if the text is a part of a file of several.
    """
    try:
        document: Any = libraries.gemmi().cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        return [], [Skipped(where, name, f"it is no CIF: {_line(error)}")]
    every = [(block, _sites(block)) for block in document]
    blocks = [(block, sites) for block, sites in every if sites[0]] or every
    if not blocks:
        return [], [Skipped(where, name, "it has no data block")]
    structures: list[Structure] = []
    skipped: list[Skipped] = []
    several = len(blocks) > 1 or first is not None
    for block, sites in blocks:
        title = f"{name}:{block.name}" if several else name
        place = f"{where}, block '{block.name}'" if several else where
        try:
            lattice, frac, types = _structure(block, *sites)
        except _NotUsable as reason:
            skipped.append(Skipped(place, title, str(reason)))
        else:
            structures.append(Structure(lattice, frac, types, place, title))
    return structures, skipped


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _structure(block: Any, columns: dict[str, list[str]], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattice (3, 3), coordinates (atoms, 3) and elements (atoms,) of a block."""
    parameters = [_cell_value(block, tag) for tag in _CELL]
    reason = impossible(parameters)
    if reason:
        raise _NotUsable(reason)
    lattice = np.array(cell(parameters))
    if not size:
        raise _NotUsable("it has no atom sites")
    missing = [f"{_SITES}{axis}" for axis in _COORDINATES if axis not in columns]
    if missing:
        raise _NotUsable(f"{' and '.join(missing)} are missing")
    _refuse_disorder(columns)
    types = np.array(_elements(columns), np.int64)
    frac = _rational(np.array([_numbers(columns[axis], axis) for axis in _COORDINATES]).T)
    operations = _operations(block)
    if len(operations) > 1:
        frac, site = expanded(frac, lattice, operations)
        types = types[site]
    return lattice, frac, types


def _cell_value(block: Any, tag: str) -> float:
    text = block.find_value(tag)
    if text is None or text in _UNKNOWN:
        raise _NotUsable(f"{tag} is missing")
    return _number(text, tag)


def _number(text: str, tag: str) -> float:
    """A number with or without its uncertainty: ``0.1234(5)``."""
    try:
        return float(text.partition("(")[0])
    except ValueError:
        raise _NotUsable(f"{tag} is '{text}'; expected a number") from None


def _numbers(column: Sequence[str], axis: str) -> list[float]:
    try:
        return [float(text) for text in column]
    except ValueError:
        return [_number(text, f"{_SITES}{axis} of site {row + 1}") for row, text in enumerate(column)]


def _sites(block: Any) -> tuple[dict[str, list[str]], int]:
    """Columns of the table of atom sites by name (without the prefix), and the number of sites."""
    loop = block.find_loop("_atom_site_fract_x").get_loop()
    if loop is None:
        loop = block.find_loop("_atom_site_label").get_loop()
    if loop is None:
        # A single site may be given without a loop.
        single = {
            axis: block.find_value(_SITES + axis) for axis in (*_COORDINATES, "type_symbol", "label", "occupancy")
        }
        found = {name: [value] for name, value in single.items() if value is not None}
        return found, int("fract_x" in found)
    values: list[str] = loop.values
    width = loop.width()
    columns = {tag.lower().removeprefix(_SITES): values[at::width] for at, tag in enumerate(loop.tags)}
    return columns, loop.length()


def _refuse_disorder(columns: dict[str, list[str]]) -> None:
    """Structures that are not one arrangement of whole atoms."""
    for row, text in enumerate(columns.get("occupancy", ())):
        if text not in ("1", "1.0", *_UNKNOWN) and abs(_number(text, f"{_SITES}occupancy") - 1.0) > _FULL:
            raise _NotUsable(f"site {_site(columns, row)} has occupancy {text}; expected 1")
    for row, text in enumerate(columns.get("disorder_group", ())):
        if text not in ("0", *_UNKNOWN):
            raise _NotUsable(f"site {_site(columns, row)} is of disorder group {text}")
    for row, text in enumerate(columns.get("attached_hydrogens", ())):
        if text not in ("0", *_UNKNOWN):
            raise _NotUsable(f"site {_site(columns, row)} has {text} hydrogens that have no coordinates")


def _site(columns: dict[str, list[str]], row: int) -> str:
    """A site in words: its number, counted from 1, and its label."""
    label = columns.get("label") or columns.get("type_symbol")
    return f"{row + 1} ('{label[row]}')" if label else str(row + 1)


def _elements(columns: dict[str, list[str]]) -> list[int]:
    symbols = columns.get("type_symbol")
    labels = columns.get("label")
    if symbols is None and labels is None:
        raise _NotUsable(f"{_SITES}type_symbol is missing")
    if symbols is not None and all(map(element, symbols)):
        return [element(symbol) for symbol in symbols]
    found: list[int] = []
    for row in range(len(symbols or labels or ())):
        symbol = symbols[row] if symbols is not None else "?"
        if symbol not in _UNKNOWN:
            number = element(symbol.strip("'\""))
        else:
            number = labelled(labels[row].strip("'\"")) if labels is not None else 0
        if not number:
            raise _NotUsable(
                f"site {_site(columns, row)} is of no known element (type symbol {symbol}); give {_SITES}type_symbol"
            )
        found.append(number)
    return found


def _rational(frac: np.ndarray) -> np.ndarray:
    """Coordinates that are a sixth to all digits they have, as that sixth; shape (atoms, 3).

    Other fractions of special positions are exact with three digits.
    """
    sixths = frac * 6.0
    gap = np.abs(sixths - np.rint(sixths)) / 6.0
    close = (gap > _EXACT) & (gap < 1.0 / _DIGITS[0])
    if not close.any():
        return frac
    scaled = frac[close][:, None] * _DIGITS
    # It ends at this digit, and is nearer to the fraction than one unit of it.
    ends = np.abs(scaled - np.rint(scaled)) < _DIGITS * 1e-12 + 1e-6
    rounded = (ends & (gap[close][:, None] < 1.0 / _DIGITS)).any(1)
    out = frac.copy()
    out[close] = np.where(rounded, np.rint(sixths[close]) / 6.0, frac[close])
    return out


def _operations(block: Any) -> Operations:
    for tag in _OPERATIONS:
        column = block.find_values(tag)
        if len(column):
            return _listed(tuple(text.strip("'\" ") for text in column))
    group = tuple(_first(block, tags) for tags in (_HALL, _HERMANN_MAUGUIN, _NUMBER))
    return _of_group(*group)


def _first(block: Any, tags: Sequence[str]) -> str:
    for tag in tags:
        text = block.find_value(tag)
        if text is not None and text.strip("'\" ") not in _UNKNOWN:
            return text.strip("'\" ")
    return ""


def _listed(triplets: tuple[str, ...]) -> Operations:
    try:
        return operations_of(triplets)
    except (ValueError, RuntimeError) as error:
        raise _NotUsable(f"a symmetry operation cannot be read: {_line(error)}") from None


def _of_group(hall: str, hermann_mauguin: str, number: str) -> Operations:
    """Operations of the space group that a block names; P1 if it names none."""
    if not (hall or hermann_mauguin or number):
        return operations_of(("x,y,z",))
    triplets = _triplets(hall, hermann_mauguin, number)
    if triplets is None:
        raise _NotUsable(
            f"the space group '{hermann_mauguin or hall or number}' is not known and no symmetry operations are given"
        )
    return operations_of(triplets)


@functools.lru_cache(maxsize=1024)
def _triplets(hall: str, hermann_mauguin: str, number: str) -> tuple[str, ...] | None:
    gemmi: Any = libraries.gemmi()
    group = None
    if hermann_mauguin:
        group = gemmi.find_spacegroup_by_name(hermann_mauguin)
    if hall:
        try:
            return tuple(op.triplet() for op in gemmi.symops_from_hall(hall))
        except (ValueError, RuntimeError):
            pass
    elif group is None and not hermann_mauguin and number.isdigit():
        group = gemmi.find_spacegroup_by_number(int(number))
    return None if group is None else tuple(op.triplet() for op in group.operations())
