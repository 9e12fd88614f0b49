"""Drawings of states for the explorer's page: the deformed surface, vectors as lines, poses and wrenches as a table."""

import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.multimodal.metrics import parts_of, row_errors
from noumena.multimodal.modality import Modality, Surface
from noumena.style import BLUE, SEQUENTIAL, VERMILLION

State = Mapping[str, np.ndarray]
"""Modalities by name, each float32 of shape (size,); those that are missing are left out."""

LISTED_COLUMNS = 24
"""Modalities of at most so many columns are listed in tables."""

# A surface of more points is drawn by some of them: a page has to fetch it at every move of a slider.
_MOST_POINTS = 2200
_MOST_ENTRIES = 2000
# Share of a view that the bar of its colours takes.
_BAR = 0.2
# How far a surface fills its view.
_ENLARGED = 1.5


class Thinned:
    """A surface drawn by fewer points: of those in one cell of a grid the first stands for all.

    Attributes:
        kept: numbers of the points that are drawn, int64, shape (drawn,).
        triangles: of them, counted among the drawn ones, int64, shape (triangles, 3).
    """

    def __init__(self, surface: Surface, most: int = _MOST_POINTS) -> None:
        """
        Args:
            surface: at rest.
            most: points to draw at most.
        """
        nodes, triangles = surface.nodes.cpu().double().numpy(), surface.triangles.cpu().numpy()
        self.kept = np.arange(len(nodes))
        self.triangles = triangles
        if len(nodes) <= most:
            return
        size = np.ptp(nodes, axis=0)
        side = float(size.max()) / max(1.0, math.sqrt(most))
        while True:
            cells = np.floor((nodes - nodes.min(0)) / side).astype(np.int64)
            _, self.kept, member = np.unique(cells, axis=0, return_index=True, return_inverse=True)
            if len(self.kept) <= most:
                break
            side *= 1.1
        corners = member.reshape(-1)[triangles]
        apart = (corners != np.roll(corners, 1, axis=1)).all(1)
        _, first = np.unique(np.sort(corners[apart], axis=1), axis=0, return_index=True)
        self.triangles = corners[apart][np.sort(first)]


class Views:
    """How the states of one data set are drawn, all on the same scale.

    Attributes:
        modalities: what there is.
        surface: that displacements live on, or ``None``.
        box: lowest and highest coordinates of all surfaces, shape (2, 3).
        most: the largest displacement.
    """

    def __init__(self, modalities: Sequence[Modality], surface: Surface | None, box: np.ndarray, most: float) -> None:
        self.modalities = modalities
        self.surface = surface
        self.box = box
        self.most = most
        self._thinned = None if surface is None else Thinned(surface)

    def draw(self, state: State, note: str, beside: State | None = None) -> Drawing:
        """A state, alone or compared with another one.

        Args:
            state: in physical units.
            note: what it is.
            beside: the original that it is compared with; modalities may be missing in it.
        """
        content = {name: np.asarray(values, np.float32)[None] for name, values in state.items()}
        if self.surface is not None:
            content["mesh_nodes"] = self.surface.nodes.cpu().numpy()
            content["mesh_triangles"] = self.surface.triangles.cpu().numpy()
        if self._thinned is not None and self.surface is not None and len(self._thinned.kept) < len(self.surface.nodes):
            note += f"; drawn by {len(self._thinned.kept):,} of {len(self.surface.nodes):,} points"
        return Drawing(
            self._figure(state, beside), self._table(state, beside), note, ".npz", partial(_archive, content)
        )

    # Figure

    def _figure(self, state: State, beside: State | None) -> dict[str, Any] | None:
        """One view above the other; ``None`` where the table says it all."""
        there = [modality for modality in self.modalities if modality.name in state]
        solid = [modality for modality in there if self._has_surface(modality)]
        lines = [modality for modality in there if modality.kind == "vector" or self._lacks_surface(modality)]
        if not solid and not lines:
            return None
        # A surface takes as much room as two panels of lines.
        share = 1.0 / (2 * len(solid) + len(lines))
        traces: list[dict[str, Any]] = []
        legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
        layout: dict[str, Any] = {"showlegend": bool(lines) and beside is not None, "legend": legend}
        top = 1.0
        for number, modality in enumerate(solid):
            bottom = max(0.0, top - 2 * share)
            scene = "scene" if number == 0 else f"scene{number + 1}"
            traces.append({**self._solid(modality, state[modality.name], number, (bottom, top)), "scene": scene})
            layout[scene] = self._scene(state[modality.name], (bottom, top))
            top = bottom
        for number, modality in enumerate(lines):
            end = "" if number == 0 else str(number + 1)
            bottom = max(0.0, top - share)
            other = None if beside is None else beside.get(modality.name)
            traces += _lines(modality, state[modality.name], other, end, first=number == 0)
            layout |= _axes(modality, end, (bottom + (0.2 * share if number + 1 < len(lines) else 0.0), top))
            top = bottom
        return {"data": traces, "layout": layout}

    def _has_surface(self, modality: Modality) -> bool:
        nodes = 0 if self.surface is None else len(self.surface.nodes)
        return modality.kind == "displacement" and 3 * nodes == modality.size

    def _lacks_surface(self, modality: Modality) -> bool:
        return modality.kind == "displacement" and not self._has_surface(modality)

    def _solid(
        self, modality: Modality, values: np.ndarray, number: int, domain: tuple[float, float]
    ) -> dict[str, Any]:
        """The surface moved by its displacements and coloured by their size."""
        assert self.surface is not None
        assert self._thinned is not None
        field = values.reshape(-1, 3)[self._thinned.kept].astype(np.float64)
        points = self.surface.nodes.cpu().numpy()[self._thinned.kept] + field
        unit = modality.unit_of(slice(None))
        size = _short(np.linalg.norm(field, axis=1))
        title = f"displacement ({unit})" if unit else "displacement"
        where = {"x": _short(points[:, 0]), "y": _short(points[:, 1]), "z": _short(points[:, 2])}
        scale = {"colorscale": SEQUENTIAL.capitalize(), "cmin": 0.0, "cmax": self.most or 1.0}
        # Below the surface: beside it, the bar takes half of a narrow view.
        bar = {"title": {"text": title, "side": "top"}, "thickness": 10, "len": 0.8, "orientation": "h"}
        bar |= {"x": 0.5, "xanchor": "center", "y": domain[0], "yanchor": "bottom"}
        hover = f"%{{text}} {unit}<extra>{_plain(modality.name)}</extra>"
        common = {"name": _plain(modality.name), **where, "text": size, "hovertemplate": hover}
        if not len(self._thinned.triangles):
            marker = {"color": size, "size": 3, "colorbar": bar, **scale}
            return {"type": "scatter3d", "mode": "markers", "marker": marker, **common}
        corners = dict(zip("ijk", self._thinned.triangles.T.tolist(), strict=True))
        lighting = {"ambient": 0.8, "diffuse": 0.45, "specular": 0.05}
        look = {"colorbar": bar, **scale, "lighting": lighting, "showscale": number == 0}
        return {"type": "mesh3d", **corners, "intensity": size, **look, **common}

    def _scene(self, values: np.ndarray, domain: tuple[float, float]) -> dict[str, Any]:
        """Equal scales, the same box for every state unless one leaves it, and the view of the report's pictures."""
        assert self.surface is not None
        points = self.surface.nodes.cpu().numpy() + values.reshape(-1, 3)
        low, high = np.minimum(self.box[0], points.min(0)), np.maximum(self.box[1], points.max(0))
        size = np.maximum(high - low, 1e-3 * float((high - low).max()) or 1.0)
        axes = {
            f"{name}axis": {"visible": False, "range": [float(middle - 0.52 * long), float(middle + 0.52 * long)]}
            for name, middle, long in zip("xyz", (low + high) / 2, size, strict=True)
        }
        ratio = dict(zip("xyz", (_ENLARGED * size / size.max()).tolist(), strict=True))
        camera = {"eye": {"x": 0.9, "y": -1.5, "z": 0.6}, "projection": {"type": "orthographic"}}
        place = {"x": [0.0, 1.0], "y": [domain[0] + _BAR * (domain[1] - domain[0]), domain[1]]}
        return {**axes, "aspectmode": "manual", "aspectratio": ratio, "camera": camera, "domain": place}

    # Table

    def _table(self, state: State, beside: State | None) -> Table:
        headings = ["", "value"] if beside is None else ["", "original", "decoded", "difference"]
        lines: list[list[Any]] = []
        for modality in self.modalities:
            if modality.name in state:
                lines += _table_lines(modality, state[modality.name], None if beside is None else beside, modality.name)
        return Table("State", headings, lines)


def _table_lines(modality: Modality, values: np.ndarray, beside: State | None, name: str) -> list[list[Any]]:
    """A line for each column; of wide modalities a line for their size."""
    other = None if beside is None else beside.get(name)
    if modality.kind == "displacement" or modality.size > LISTED_COLUMNS:
        unit = modality.unit_of(slice(None))
        own, theirs = length(modality, values), None if other is None else length(modality, other)
        over = "points" if modality.kind == "displacement" else "columns"
        what = _with_unit(f"{name}, root mean square over {over}", unit)
        apart = None if other is None else length(modality, values - other)
        return [[what, own] if beside is None else [what, theirs, own, apart]]
    lines: list[list[Any]] = []
    for k, (column, unit) in enumerate(zip(modality.columns, modality.units, strict=True)):
        own, label = float(values[k]), _with_unit(f"{name}.{column}", unit)
        if beside is None:
            lines.append([label, own])
        else:
            true = None if other is None else float(other[k])
            lines.append([label, true, own, None if true is None else own - true])
    return lines


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def whole_name(modality: Modality, part: str) -> str:
    """A part of a modality by its full name: pose rotation; the force of a wrench called force is force alone."""
    return modality.name if part in ("", modality.name) else f"{modality.name} {part}"


def length(modality: Modality, values: np.ndarray) -> float:
    """Root mean square of all columns, of displacements of the points' lengths."""
    zero = np.zeros((1, modality.size))
    if modality.kind == "displacement":
        return float(row_errors(modality, zero, values[None])[""][0])
    return float(np.sqrt(np.square(values.astype(np.float64)).mean()))


def sizes(modalities: Sequence[Modality], state: State) -> str:
    """The size of each part of a state in words: lengths of vectors, root mean squares of wide modalities."""
    found: list[str] = []
    for modality in modalities:
        if modality.name not in state:
            found.append(f"{modality.name} is missing")
            continue
        values = state[modality.name]
        for part, columns in parts_of(modality).items():
            own = float(np.linalg.norm(values[columns])) if part else length(modality, values)
            found.append(f"{part or modality.name} {own:.3g} {modality.unit_of(columns)}".strip())
    return ", ".join(found)


def distances(modalities: Sequence[Modality], state: State, original: State) -> str:
    """How far each part of a state is from the original, in words."""
    found: list[str] = []
    for modality in modalities:
        if modality.name in state and modality.name in original:
            errors = row_errors(modality, original[modality.name][None], state[modality.name][None])
            for part, columns in parts_of(modality).items():
                unit = modality.unit_of(columns)
                found.append(f"{part or modality.name} {float(errors[part][0]):.3g} {unit}".strip())
    return ", ".join(found)


def _lines(
    modality: Modality, values: np.ndarray, other: np.ndarray | None, end: str, *, first: bool
) -> list[dict[str, Any]]:
    """A vector as a line over its columns, displacements by the length of each point's."""
    drawn = {"original": (other, VERMILLION, "dot"), "decoded": (values, BLUE, "solid")}
    traces: list[dict[str, Any]] = []
    for name, (numbers, colour, dash) in drawn.items():
        if numbers is None:
            continue
        heights = np.linalg.norm(numbers.reshape(-1, 3), axis=1) if modality.kind == "displacement" else numbers
        some = np.unique(np.linspace(0, len(heights) - 1, min(len(heights), _MOST_ENTRIES)).round().astype(int))
        named = modality.kind == "vector" and len(heights) <= LISTED_COLUMNS
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if named else "lines",
                "name": name,
                "legendgroup": name,
                "showlegend": first,
                "x": [_plain(modality.columns[k]) for k in some] if named else some.tolist(),
                "y": _short(heights[some]),
                "line": {"color": colour, "dash": dash},
                "xaxis": f"x{end}",
                "yaxis": f"y{end}",
            }
        )
    return traces


def _axes(modality: Modality, end: str, domain: tuple[float, float]) -> dict[str, Any]:
    unit = modality.unit_of(slice(None))
    title = f"{_plain(modality.name)} ({unit})" if unit else _plain(modality.name)
    across = {"domain": list(domain), "anchor": f"x{end}", "title": {"text": title}, "automargin": True}
    return {f"xaxis{end}": {"anchor": f"y{end}", "automargin": True}, f"yaxis{end}": across}


def _short(values: np.ndarray) -> list[float]:
    """Numbers with five digits: a drawing need not be finer, and the page fetches less."""
    return [float(f"{value:.5g}") for value in values.tolist()]


def _plain(name: str) -> str:
    """A name as plotly shows it, whatever signs it has."""
    return name.replace("<", "&lt;")


def _archive(content: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the content of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **content)
    return buffer.getvalue()
