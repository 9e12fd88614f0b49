"""Pictures of molecules as sticks: reconstructions laid over originals, and the frames of a path."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from noumena.core.evaluation import Picture
from noumena.molecules.ensembles import Ensemble
from noumena.molecules.geometry import superposed
from noumena.molecules.path import Path
from noumena.molecules.topology import Topology
from noumena.style import BLUE, GREEN, ORANGE, PALE, PURPLE, VERMILLION, new_figure, style

_WIDTH = 8.0  # inches
_OVERLAID = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_STEPS = 8
# Share of white in the colour of what lies farthest away.
_HAZE = 0.6
_BELOW = "#a3afbb"
_ELEMENTS = {"N": BLUE, "O": VERMILLION, "S": ORANGE, "P": PURPLE, "F": PURPLE, "Cl": PURPLE, "Br": PURPLE, "I": PURPLE}


@dataclass(frozen=True)
class Layer:
    """A conformation to be drawn: (atoms, 3) in angstrom, the colour of each atom, and the width of its sticks."""

    xyz: np.ndarray
    colours: Sequence[Any]
    width: float


def atom_colours(topology: Topology, carbon: str) -> list[str]:
    """A colour for each atom: those of carbon, pale for hydrogen, and by element for others."""
    return [carbon if s == "C" else PALE if s == "H" else _ELEMENTS.get(s, PURPLE) for s in topology.symbols]


def viewing_axes(xyz: np.ndarray) -> np.ndarray:
    """The proper rotation (3, 3) after which ``xyz @ rotation`` is widest to the right and shallowest in depth.

    Args:
        xyz: shape (points, 3).
    """
    _, vectors = np.linalg.eigh(np.cov((xyz - xyz.mean(0)).T))
    rotation = vectors[:, ::-1]
    return rotation * np.array([1.0, 1.0, np.sign(np.linalg.det(rotation))])


def overlays(held: Ensemble, reconstructed: Ensemble, aligned: Tensor) -> Picture:
    """Reconstructions laid over their originals, from good ones to the worst.

    Args:
        held, reconstructed: the same frames.
        aligned: mean square deviation of each frame, shape (frames,).
    """
    rmsd = aligned.sqrt().numpy()
    order = np.argsort(rmsd, kind="stable")
    shown = [int(order[round(q * (len(order) - 1))]) for q in _OVERLAID]
    topology = held.molecule.topology
    grey, colours = [_BELOW] * len(topology), atom_colours(topology, GREEN)
    guess = superposed(reconstructed.xyz[shown], held.xyz[shown]).numpy()
    panels: list[list[Layer]] = []
    for truth, other in zip(held.xyz[shown].numpy(), guess, strict=True):
        turn = viewing_axes(truth)
        panels.append([Layer(truth @ turn, grey, 4.5), Layer(other @ turn, colours, 1.8)])
    with style():
        figure = new_figure(_WIDTH, 4.3)
        axes = figure.subplots(2, 3).ravel().tolist()
        for axis, quantile, frame, layers in zip(axes, _OVERLAID, shown, panels, strict=True):
            draw(axis, topology, layers, _half(panels, 0.66))
            word = {0.5: "median", 1.0: "worst"}.get(quantile, f"{100 * quantile:.0f} % quantile")
            axis.set_title(f"{word}: {rmsd[frame]:.2f} Å", loc="center")
    caption = (
        "Thin and coloured: the reconstruction (carbon green, nitrogen blue, oxygen red, hydrogen pale); wide and "
        "grey: the original below it. Laid over each other by proper rotations. Frames at quantiles of the RMSD."
    )
    return Picture("overlays", "Reconstructions over originals", figure, caption)


def path(one: Path) -> Picture:
    """Structures along a path, all seen from the same side."""
    part = one.frames
    topology = part.molecule.topology
    shown = np.unique(np.linspace(0, len(part) - 1, min(_STEPS, len(part))).round().astype(int)).tolist()
    xyz = part.xyz.numpy()
    turn = viewing_axes(xyz[shown].reshape(-1, 3))
    panels = {step: [Layer(xyz[step] @ turn, atom_colours(topology, GREEN), 2.2)] for step in shown}
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    zeta, hand = part.zeta, part.molecule.handedness
    bad = part.flaws.bad.tolist()
    with style():
        figure = new_figure(_WIDTH, 0.1 + 1.85 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axis, step in zip(axes, shown, strict=False):
            draw(axis, topology, panels[step], _half(list(panels.values()), 0.72))
            word = f"step {step + 1}"
            if zeta is not None and hand is not None:
                word += f", ζ = {math.degrees(float(zeta[step])):.0f}°".replace("-", "−")
            axis.set_title(word + ("\nclash or broken" if bad[step] else ""), loc="center")
        for unused in axes[len(shown) :]:
            unused.remove()
    caption = (
        f"Decoded on the straight line between the latents of two held-out frames (numbers {one.ends[0] + 1} and "
        f"{one.ends[1] + 1}): {'of opposite hands' if _changes_hand(one) else 'far apart'}. The first and the last are "
        "their reconstructions."
    )
    return Picture("path", "A path between two conformations", figure, caption)


def _changes_hand(one: Path) -> bool:
    hand, zeta = one.frames.molecule.handedness, one.frames.zeta
    if hand is None or zeta is None:
        return False
    ends = set(hand.hands(zeta[[0, -1]]).tolist())
    return ends == {0, 1}


def _half(panels: Sequence[Sequence[Layer]], shape: float) -> tuple[float, float]:
    """Half the width and half the height in angstrom that show every panel at one scale.

    Args:
        panels: layers of each.
        shape: height of a panel over its width.
    """
    extent = [np.ptp(np.concatenate([layer.xyz[:, :2] for layer in layers]), axis=0) for layers in panels]
    wide, high = np.max(extent, axis=0) / 2 + 0.6
    wide = max(wide, high / shape)
    return float(wide), float(wide * shape)


def draw(axis: Any, topology: Topology, layers: Sequence[Layer], half: tuple[float, float]) -> None:
    """Draw molecules as sticks seen from the front, what is nearer over what is farther away and less hazy.

    Args:
        axis: of matplotlib.
        topology: of the molecule.
        layers: drawn into each other, x to the right, y upwards and z towards the viewer.
        half: half the width and half the height of what the axes show, in angstrom.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    pairs = topology.bond_index
    segments, colours, widths, depths = [], [], [], []
    for layer in layers:
        first, second = layer.xyz[pairs[:, 0]], layer.xyz[pairs[:, 1]]
        middle = (first + second) / 2
        for ends, atoms in ((first, pairs[:, 0]), (second, pairs[:, 1])):
            segments.append(np.stack([ends[:, :2], middle[:, :2]], axis=1))
            depths.append((ends[:, 2] + middle[:, 2]) / 2)
            colours.append(np.array([to_rgb(layer.colours[a]) for a in atoms]))
            thin = np.array([0.65 if topology.symbols[a] == "H" else 1.0 for a in atoms])
            widths.append(layer.width * thin)
    depth = np.concatenate(depths)
    near = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
    colour = 1 - (1 - np.concatenate(colours)) * (1 - _HAZE * (1 - near))[:, None]
    # A wide layer stays below a thin one that lies in it.
    order = np.lexsort((near, -np.round(np.concatenate(widths))) if len(layers) > 1 else (near,))
    lines = np.concatenate(segments)[order]
    axis.add_collection(
        LineCollection(list(lines), colors=colour[order], linewidths=np.concatenate(widths)[order], capstyle="round")
    )
    points = np.concatenate([layer.xyz[:, :2] for layer in layers])
    (x, y), (half_x, half_y) = (points.min(0) + points.max(0)) / 2, half
    axis.set(xlim=(x - half_x, x + half_x), ylim=(y - half_y, y + half_y))
    axis.set_aspect("equal")
    axis.set_axis_off()
