"""The molecule in three dimensions: a page to turn it with mouse or finger and step through conformations, offline."""

import base64
import html
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.evaluation import Page
from noumena.molecules.baselines import aligned_to, thinned
from noumena.molecules.ensembles import Ensemble
from noumena.molecules.geometry import superposed
from noumena.molecules.path import Path, moved_onto
from noumena.molecules.structures import viewing_axes

_FRAMES = 60
# Bytes of coordinates of one set at most, so that the page of a large molecule stays small.
_BYTES = 1_000_000
_STEP = 0.01  # angstrom
_LARGEST = 32_000
_SLOW, _FAST = 900, 250  # milliseconds per frame
_HEIGHT = 620


def viewer(held: Ensemble, reconstructed: Ensemble, samples: Ensemble, path: Path, aligned: Tensor) -> Page:
    """Originals with reconstructions, samples and a path as a page without any reference to the outside.

    Args:
        held, reconstructed: the same frames.
        samples: drawn from the model.
        path: between two conformations.
        aligned: mean square deviation of each reconstruction, shape (frames,).
    """
    topology = held.molecule.topology
    most = min(_FRAMES, max(3, _BYTES // (6 * len(topology))))
    shown, drawn = thinned(len(held), most), thinned(len(samples), most)
    reference = held.xyz[shown[0]]
    reference = reference - reference.mean(0)
    reference = reference @ torch.from_numpy(viewing_axes(reference.numpy())).to(reference)
    originals = aligned_to(held.xyz[shown], reference)
    notes = [
        f"frame {frame + 1:,} of {len(held):,}: RMSD {math.sqrt(float(aligned[frame])):.2f} Å"
        f"{_about(reconstructed, frame)}"
        for frame in shown.tolist()
    ]
    sets = [
        {
            "name": "Reconstructions",
            "milliseconds": _SLOW,
            "notes": notes,
            "layers": [
                {"name": "original", "xyz": originals, "below": True},
                {"name": "reconstruction", "xyz": superposed(reconstructed.xyz[shown], originals), "green": True},
            ],
        },
        {
            "name": "Samples",
            "milliseconds": _SLOW,
            "notes": [f"sample {i + 1:,} of {len(samples):,}{_about(samples, i)}" for i in drawn.tolist()],
            "layers": [{"name": "sample", "xyz": aligned_to(samples.xyz[drawn], reference)}],
        },
        _path(path, reference, most),
    ]
    caption = (
        "To be turned, zoomed and stepped through. Reconstructions: carbon green, laid over the original in grey; "
        f"{len(shown)} frames, evenly spaced over the held-out ones. Samples: of the fitted prior. Path: of the "
        "picture above. Nitrogen blue, oxygen red, hydrogen pale."
    )
    title = f"{topology.formula} in three dimensions"
    return Page("molecule_3d", title, page(title, topology.symbols, topology.bonds, sets), caption, _HEIGHT)


def _path(path: Path, reference: Tensor, most: int) -> dict[str, Any]:
    part = path.frames
    shown = thinned(len(part), most)
    xyz = part.xyz[shown]
    # As a whole: the steps lie on each other already.
    moved = moved_onto(xyz, reference)
    return {
        "name": "Path",
        "milliseconds": _FAST,
        "notes": [f"step {i + 1} of {len(part)}{_about(part, i)}" for i in shown.tolist()],
        "layers": [{"name": "path", "xyz": moved}],
    }


def _about(part: Ensemble, frame: int) -> str:
    """What is to be said of a frame: hand, clash, broken bond."""
    words = ""
    hand, zeta = part.molecule.handedness, part.zeta
    if hand is not None and zeta is not None:
        name = ("left", "right", "neither")[int(hand.hands(zeta[frame : frame + 1])[0])]
        words += f", ζ = {math.degrees(float(zeta[frame])):.0f}° ({name})".replace("-", "−")
    words += ", clash" if bool(part.flaws.clash[frame]) else ""
    return words + (", broken bond" if bool(part.flaws.broken[frame]) else "")


def page(title: str, elements: Sequence[str], bonds: Sequence[tuple[int, int]], sets: Sequence[dict[str, Any]]) -> str:
    """The page of a viewer.

    Args:
        title: of the page.
        elements: symbol of each atom.
        bonds: pairs of atoms.
        sets: each with ``name``, ``milliseconds`` per frame, ``notes`` (one per frame) and ``layers`` that are drawn
            over each other: ``name``, ``xyz`` (frames, atoms, 3), and ``below`` for a grey one or
            ``green`` for carbons.
    """
    largest = max(float(layer["xyz"].abs().max()) for one in sets for layer in one["layers"])
    scale = max(_STEP, largest / _LARGEST)
    packed = [
        {**one, "layers": [{**layer, "xyz": _packed(layer["xyz"], scale)} for layer in one["layers"]]} for one in sets
    ]
    data = {"elements": list(elements), "bonds": [list(pair) for pair in bonds], "scale": scale, "sets": packed}
    # Within a script element only "</" and "<!--" have a meaning; JSON may write any character as its number.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = files("noumena.molecules").joinpath("templates/viewer.html").read_text(encoding="utf-8")
    # In one pass: what is put in is not searched for the names of others.
    return re.sub(
        r"\{\{(title|data)\}\}", lambda found: {"title": html.escape(title), "data": text}[found[1]], template
    )


def _packed(xyz: Tensor, scale: float) -> str:
    """Coordinates as little-endian 16-bit multiples of ``scale`` angstrom in base64."""
    steps = np.rint(xyz.numpy() / scale).astype("<i2")
    return base64.b64encode(steps.tobytes()).decode("ascii")
