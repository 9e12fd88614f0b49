"""Cells of lengths and angles, and elements of symbols, as files write them."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from noumena.crystals.elements import NUMBERS

_LETTERS = re.compile(r"[A-Za-z]+")
_ISOTOPES = {"D": 1, "T": 1}


def cell(parameters: Sequence[float]) -> list[list[float]]:
    """The lattice with a along x and b in the plane of x and y, as rows of three numbers.

    Args:
        parameters: a, b, c in angstrom, alpha, beta, gamma in degrees, of a cell (see :func:`impossible`).
    """
    a, b, c, *angles = parameters
    cos_a, cos_b, cos_g = map(_cosine, angles)
    sin_g = math.sqrt(1.0 - cos_g * cos_g)
    y = (cos_a - cos_b * cos_g) / sin_g
    z = math.sqrt(1.0 - cos_b * cos_b - y * y)
    return [[a, 0.0, 0.0], [b * cos_g, b * sin_g, 0.0], [c * cos_b, c * y, c * z]]


def impossible(parameters: Sequence[float]) -> str | None:
    """Why six numbers (a, b, c in angstrom, alpha, beta, gamma in degrees) are no cell; None if they are one."""
    if not all(map(math.isfinite, parameters)):
        return f"a length or angle of the cell is not finite: {_shown(parameters)}"
    if min(parameters[:3]) <= 0:
        return f"a length of the cell is not positive: {_shown(parameters)}"
    x, y, z = map(_cosine, parameters[3:])
    if min(parameters[3:]) <= 0 or max(parameters[3:]) >= 180 or 1 + 2 * x * y * z - x * x - y * y - z * z <= 1e-10:
        return f"the angles of the cell close none: {_shown(parameters)}"
    return None


def _cosine(angle_deg: float) -> float:
    # That of 90 degrees is 6e-17 in floating point, which would make no right angle quite one.
    return 0.0 if angle_deg == 90.0 else math.cos(math.radians(angle_deg))


def _shown(parameters: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in parameters)


@lru_cache(maxsize=4096)
def element(symbol: str) -> int:
    """Atomic number of a symbol, such as ``Fe``, ``FE``, ``Fe3+`` or ``O2-``; deuterium and tritium are hydrogen.

    Returns 0 if it is none.
    """
    letters = _letters(symbol).capitalize()
    return NUMBERS.get(letters) or _ISOTOPES.get(letters, 0)


@lru_cache(maxsize=4096)
def labelled(label: str) -> int:
    """Atomic number that the label of a site (``Fe1``, ``O12``, ``Ow1``) begins with.

    Returns 0 if there is none, or if it may be two: ``CA1`` is carbon to some programs and calcium to others.
    """
    letters = _letters(label)
    if len(letters) > 2:
        return 0
    whole, begin = element(letters), element(letters[:1])
    if len(letters) == 2 and letters[1].isupper() and whole and begin:
        return 0
    return whole or begin


def _letters(text: str) -> str:
    found = _LETTERS.match(text.strip())
    return found[0] if found else ""
