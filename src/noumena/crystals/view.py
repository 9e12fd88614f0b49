"""Crystals in three dimensions: a page to turn them with mouse or finger, original and reconstruction, offline."""

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import formulas_of
from noumena.crystals.drawing import Scene, aligned, element_colours, mismatch, radii, scenes
from noumena.crystals.elements import SYMBOLS

_REPEATS = (1, 2)
_DIGITS = 3


def cells_page(truth: CrystalBatch, found: CrystalBatch | None = None, *, captions: Sequence[str] | None = None) -> str:
    """A whole HTML document with the cells of crystals, and of their reconstructions beside them, to be turned.

    It asks for nothing outside itself. Reconstructions are moved by the best common translation.

    Args:
        truth: crystals.
        found: the same crystals with the same atoms in the same order; ``None`` for the crystals alone.
        captions: one for each crystal; its formula, and how far off the reconstruction is, when missing.

    Raises:
        DataError: no crystals, crystals or atoms that do not agree, or another number of captions.
    """
    if not len(truth):
        raise DataError("cells: there are no crystals to show.")
    if captions is not None and len(captions) != len(truth):
        raise DataError(f"cells: {len(captions)} captions for {len(truth)} crystals; give one each.")
    if found is not None:
        found = aligned(truth, found)
    notes = captions if captions is not None else _notes(truth, found)
    drawn = [scenes(truth, found, repeat=repeat) for repeat in _REPEATS]
    crystals = [
        {
            "title": f"{number + 1}. {formula}",
            "note": note,
            **_legend([one[number] for one in drawn]),
            # Each panel holds one cell and several.
            "panels": [[_scene(one[number][panel]) for one in drawn] for panel in range(len(drawn[0][number]))],
        }
        for number, (formula, note) in enumerate(zip(formulas_of(truth), notes, strict=True))
    ]
    panels = [""] if found is None else ["original", "reconstruction"]
    # Within a script element only "</" and "<!--" have a meaning; JSON may write any character as its number.
    data = json.dumps({"panels": panels, "crystals": crystals}, separators=(",", ":")).replace("<", "\\u003c")
    template = files("noumena.crystals").joinpath("templates/cells.html").read_text(encoding="utf-8")
    parts = {"title": html.escape("Crystals"), "data": data}
    # In one pass: what is put in is not searched for the names of others.
    return re.sub(r"\{\{(title|data)\}\}", lambda match: parts[match[1]], template)


def _notes(truth: CrystalBatch, found: CrystalBatch | None) -> list[str]:
    names = truth.names or ("",) * len(truth)
    words = [""] * len(truth) if found is None else mismatch(truth, found)
    return [": ".join(part for part in pair if part) for pair in zip(names, words, strict=True)]


def _legend(rows: Sequence[Sequence[Scene]]) -> dict[str, dict[int, str]]:
    numbers = {int(number) for row in rows for scene in row for number in scene.types}
    return {"colours": element_colours(numbers), "symbols": {number: SYMBOLS[number] for number in numbers}}


def _scene(scene: Scene) -> dict[str, Any]:
    return {
        "types": scene.types.tolist(),
        "xyz": scene.xyz.round(_DIGITS).tolist(),
        "radii": radii(scene.types).round(_DIGITS).tolist(),
        "bonds": scene.bonds.tolist(),
        "corners": scene.corners.round(_DIGITS).tolist(),
    }
