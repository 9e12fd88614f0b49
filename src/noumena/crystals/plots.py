"""Pictures of crystals: cells beside their reconstructions, and a map of the latent space."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import formulas_of
from noumena.crystals.drawing import (
    EDGES,
    Floats,
    Scene,
    aligned,
    element_colours,
    lighter,
    mismatch,
    radii,
    rim,
    scenes,
    symbols,
)
from noumena.style import CYCLE, GREY, INK, PALE, SEQUENTIAL, new_figure, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 8.0  # inches
_SHOWN = 6
# Discs of a ball from its rim to its light: radius, shift to the upper left (both of the radius), share of white.
_SHADES = ((0.93, 0.03, 0.0), (0.74, 0.11, 0.1), (0.56, 0.18, 0.22), (0.38, 0.24, 0.38), (0.2, 0.29, 0.6))
_HAZE = 0.45
_EDGE_PARTS = 16
_STICK = 0.1  # angstrom, half the width
_DOTS = 4000

CLASSES: dict[str, tuple[int, ...]] = {
    "oxides": (8,),
    "halides": (9, 17, 35, 53, 85),
    "chalcogenides": (16, 34, 52),
    "pnictides": (7, 15, 33),
    "other non-metals": (1, 5, 6, 14),
}
"""Classes of crystals by their most electronegative element; the rest are intermetallics."""


def reconstruction_cells(
    truth: CrystalBatch, found: CrystalBatch, *, titles: Sequence[str] | None = None, most: int = _SHOWN
) -> "Figure":
    """Original cells and their reconstructions side by side, two crystals per row, with the mismatch beneath.

    The reconstruction is moved by the best common translation. Atoms on faces are shown on all of them; bonds join
    atoms nearer than 1.15 times the sum of their covalent radii.

    Args:
        truth, found: the same crystals with the same atoms in the same order.
        titles: over each crystal; its formula where there are none.
        most: crystals shown: the first ones.

    Raises:
        DataError: crystals or atoms do not agree, or there are none.
    """
    number = min(most, len(truth))
    truth, found = _first(truth, number), _first(found, min(most, len(found)))
    found = aligned(truth, found)
    notes = mismatch(truth, found)
    drawn = scenes(truth, found)
    return _panels(drawn, _titles(truth, titles), notes, ("original", "reconstruction"))


def cells(batch: CrystalBatch, n: int = 8, *, titles: Sequence[str] | None = None) -> "Figure":
    """The first ``n`` crystals, such as samples, four per row.

    Args:
        batch: crystals.
        n: how many are shown.
        titles: over each; its formula where there are none.

    Raises:
        DataError: there are none.
    """
    shown = _first(batch, min(n, len(batch)))
    notes = [
        f"{count} atom{'s' if count > 1 else ''}, {volume / count:.1f} Å³ each"
        for count, volume in zip(shown.num_atoms.tolist(), shown.volume.tolist(), strict=True)
    ]
    return _panels(scenes(shown), _titles(shown, titles), notes, ("",))


def chemistry(batch: CrystalBatch) -> list[str]:
    """The class of each crystal by its most electronegative element; see :data:`CLASSES`."""
    from noumena.crystals.elements import ELECTRONEGATIVITIES

    rank = torch.tensor(ELECTRONEGATIVITIES, dtype=torch.float64).nan_to_num(nan=0.0)
    strength = rank.to(batch.device)[batch.atom_types]
    order = torch.argsort(strength, descending=True, stable=True)
    order = order[torch.argsort(batch.crystal[order], stable=True)]
    names = {number: name for name, numbers in CLASSES.items() for number in numbers}
    return [names.get(z, "intermetallics") for z in batch.atom_types[order[batch.offsets[:-1]]].tolist()]


def latent_map(vectors: Tensor, colours: Mapping[str, Tensor | Sequence[str]]) -> "Figure":
    """Crystal vectors on their first two principal axes, one panel per colouring.

    Args:
        vectors: shape (crystals, dimensions).
        colours: by their title: numbers, shape (crystals,), where NaN is drawn grey, or a label of each crystal.

    Raises:
        DataError: fewer than two crystals, or colours of another number.
    """
    for title, values in colours.items():
        if len(values) != len(vectors):
            raise DataError(f"latent map: {len(values)} colours '{title}' for {len(vectors)} crystals; give one each.")
    if len(vectors) < 2 or not colours:
        raise DataError(
            f"latent map: {len(vectors)} crystals and {len(colours)} colourings; expected 2 and 1 at least."
        )
    points, shares = _principal(vectors.detach().cpu().double().numpy())
    columns = min(2, len(colours))
    rows = math.ceil(len(colours) / columns)
    some = np.arange(0, len(points), max(1, len(points) // _DOTS))
    with style():
        figure = new_figure(_WIDTH if columns > 1 else 0.62 * _WIDTH, 3.1 * rows + 0.3)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel().tolist()
        for axis, (title, values) in zip(axes, colours.items(), strict=False):
            _map(figure, axis, points, some, values)
            axis.set_title(short(title, 44))
            axis.locator_params(nbins=5)
        for unused in axes[len(colours) :]:
            unused.remove()
        figure.supxlabel(f"principal axis 1 ({100 * shares[0]:.0f} % of the variance)", fontsize=9)
        figure.supylabel(f"principal axis 2 ({100 * shares[1]:.0f} %)", fontsize=9)
    return figure


def _map(figure: "Figure", axis: "Axes", points: Floats, some: np.ndarray, values: Tensor | Sequence[str]) -> None:
    look: dict[str, Any] = {"s": 9, "linewidths": 0, "rasterized": True}
    if isinstance(values, Tensor):
        number = values.detach().cpu().double().numpy()[some]
        known = np.isfinite(number)
        axis.scatter(*points[some][~known].T, color=PALE, **look)
        if known.any():
            low, high = np.quantile(number[known], (0.01, 0.99)).tolist()
            dots = axis.scatter(
                *points[some][known].T, c=number[known], cmap=SEQUENTIAL, vmin=low, vmax=max(high, low + 1e-9), **look
            )
            figure.colorbar(dots, ax=axis, shrink=0.9, extend="both").outline.set_visible(False)
        return
    label = np.asarray([values[i] for i in some])
    names, counts = np.unique(label, return_counts=True)
    frequent = [str(names[i]) for i in np.argsort(-counts, kind="stable")]
    # The most frequent labels get the colours; the last group takes what is left.
    named = frequent[: len(CYCLE)]
    rest = ~np.isin(label, named)
    if rest.any():
        axis.scatter(*points[some][rest].T, color=GREY, label="others", **look)
    for name, colour in zip(named, CYCLE, strict=False):
        axis.scatter(*points[some][label == name].T, color=colour, label=short(name), **look)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2.0, handletextpad=0.2)


def _principal(vectors: Floats) -> tuple[Floats, Floats]:
    """Coordinates on the first two principal axes (crystals, 2), signs fixed, and their shares of the variance."""
    centred = vectors - vectors.mean(0)
    _, singular, axes = np.linalg.svd(np.pad(centred, ((0, 0), (0, max(0, 2 - centred.shape[1])))), full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    padded = np.pad(centred, ((0, 0), (0, axes.shape[1] - centred.shape[1])))
    return padded @ axes.T, singular[:2] ** 2 / max(float((singular**2).sum()), 1e-12)


def _first(batch: CrystalBatch, number: int) -> CrystalBatch:
    if number < 1:
        raise DataError("pictures: there are no crystals to be drawn; give at least one.")
    return batch.select(torch.arange(number, device=batch.device))


def _titles(batch: CrystalBatch, titles: Sequence[str] | None) -> list[str]:
    if titles is None:
        return formulas_of(batch)
    if len(titles) < len(batch):
        raise DataError(f"pictures: {len(titles)} titles for {len(batch)} crystals; give one each, or none.")
    return [short(title, 40) for title in titles[: len(batch)]]


def _panels(
    drawn: Sequence[Sequence[Scene]], titles: Sequence[str], notes: Sequence[str], heads: Sequence[str]
) -> "Figure":
    """Each crystal in a box of its own: title, one or two cells at one scale, note and elements."""
    columns = min(4 // len(heads), len(drawn))
    rows = math.ceil(len(drawn) / columns)
    with style():
        figure = new_figure(_WIDTH * columns * len(heads) / 4, 2.75 * rows)
        boxes = figure.subfigures(rows, columns, squeeze=False).ravel().tolist()
        for box, row, title, note in zip(boxes, drawn, titles, notes, strict=False):
            axes = box.subplots(1, len(heads), squeeze=False)[0].tolist()
            colours = element_colours(z for scene in row for z in scene.types.tolist())
            half = _half(row)
            for axis, scene, head in zip(axes, row, heads, strict=True):
                _draw(axis, scene, colours, half)
                if head:
                    axis.set_title(head, loc="center", fontsize=8, color=GREY)
            box.suptitle(title, fontsize=10.5, fontweight="bold", color=INK)
            _legend(box, colours, note)
    return figure


def _half(row: Sequence[Scene]) -> tuple[float, float]:
    """Half the width and height in angstrom that show all cells of a row."""
    ends: list[Floats] = []
    for scene in row:
        size = radii(scene.types)[:, None]
        ends.append(np.abs(np.concatenate([np.abs(scene.xyz[:, :2]) + size, scene.corners[:, :2]])).max(0))
    wide, high = np.max(ends, axis=0) + 0.45
    return float(wide), float(high)


def _legend(box: Any, colours: Mapping[int, str], note: str) -> None:
    """The elements, and the note over them: a layout keeps no two things apart that stand outside below."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, markerfacecolor=c, markeredgecolor=rim(c))
        for c in colours.values()
    ]
    box.legend(
        handles,
        symbols(colours),
        title=note,
        title_fontsize=7.5,
        loc="outside lower center",
        ncols=min(len(colours), 7),
        handletextpad=0.1,
        columnspacing=1.0,
        borderpad=0.1,
    )


def _draw(axis: "Axes", scene: Scene, colours: Mapping[int, str], half: tuple[float, float]) -> None:
    """Draw a cell, what is nearer over what is farther away, and hazier the farther it is."""
    from matplotlib.collections import PatchCollection

    depth = np.concatenate([scene.xyz[:, 2], scene.corners[:, 2]])
    low, span = float(depth.min()), max(float(np.ptp(depth)), 1e-9)
    parts = _balls(scene, colours) + _sticks(scene, colours) + _box(scene)
    parts.sort(key=lambda part: part[0])
    patches: list[Any] = []
    faces: list[str] = []
    for z, items in parts:
        haze = _HAZE * (1.0 - min(max((z - low) / span, 0.0), 1.0))
        patches += [patch for patch, _ in items]
        faces += [lighter(colour, haze) for _, colour in items]
    axis.add_collection(PatchCollection(patches, facecolors=faces, edgecolors="none", linewidths=0))
    origin, middle = scene.corners[0, :2], 1.06
    for name, end in zip("abc", scene.axes[:, :2], strict=True):
        x, y = origin + (end - origin) * middle + 0.3 * (end - origin) / max(float(np.linalg.norm(end - origin)), 1e-9)
        axis.text(float(x), float(y), name, ha="center", va="center", fontsize=7, color=GREY, style="italic")
    wide, high = half[0] + 0.35, half[1] + 0.35
    axis.set(xlim=(-wide, wide), ylim=(-high, high))
    axis.set_aspect("equal")
    axis.set_axis_off()


_Part = tuple[float, list[tuple[Any, str]]]


def _balls(scene: Scene, colours: Mapping[int, str]) -> list[_Part]:
    from matplotlib.patches import Circle

    found: list[_Part] = []
    for z, (x, y, depth), size in zip(
        scene.types.tolist(), scene.xyz.tolist(), radii(scene.types).tolist(), strict=True
    ):
        colour = colours[z]
        items: list[tuple[Any, str]] = [(Circle((x, y), size), rim(colour))]
        for part, shift, white in _SHADES:
            items.append((Circle((x - shift * size, y + shift * size), part * size), lighter(colour, white)))
        found.append((depth, items))
    return found


def _sticks(scene: Scene, colours: Mapping[int, str]) -> list[_Part]:
    """Each bond as two halves in the colours of its atoms."""
    found: list[_Part] = []
    size = radii(scene.types)
    for i, j in [*scene.bonds.tolist(), *scene.bonds[:, ::-1].tolist()]:
        start, end = scene.xyz[i], scene.xyz[j]
        # It leaves the ball a little within its surface, or it would lie on the ball.
        start = start + 0.8 * size[i] * (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        middle = (scene.xyz[i] + end) / 2
        shape = _strip(start[:2], middle[:2], _STICK)
        if shape is not None:
            inner = _strip(start[:2], middle[:2], 0.7 * _STICK)
            colour = colours[int(scene.types[i])]
            items = [(shape, rim(colour)), (inner, lighter(colour, 0.15))]
            found.append((float(start[2] + middle[2]) / 2, items))
    return found


def _box(scene: Scene) -> list[_Part]:
    """The edges of the cell in short pieces, so that each lies before or behind the atoms."""
    ends = np.linspace(0.0, 1.0, _EDGE_PARTS + 1)[:, None]
    found: list[_Part] = []
    for i, j in EDGES.tolist():
        points = scene.corners[i] + (scene.corners[j] - scene.corners[i]) * ends
        for start, end in pairwise(points):
            shape = _strip(start[:2], end[:2], 0.025, overlap=0.02)
            if shape is not None:
                found.append((float(start[2] + end[2]) / 2, [(shape, INK)]))
    return found


def _strip(start: Floats, end: Floats, half: float, overlap: float = 0.0) -> Any:
    """A straight strip of ``half`` the width as a polygon; None for one that is seen end on."""
    from matplotlib.patches import Polygon

    along = end - start
    length = float(np.linalg.norm(along))
    if length < 1e-6:
        return None
    along = along / length
    side = half * np.array([-along[1], along[0]])
    start, end = start - overlap * along, end + overlap * along
    return Polygon(np.stack([start + side, end + side, end - side, start - side]))
