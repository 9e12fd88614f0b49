"""The latent's primitives: how active its principal axes are, whether the modalities agree on them, what they do; and
files that other programs open: sweeps for ParaView, a surface to turn in the browser.
"""

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from noumena.core.evaluation import Picture, Table
from noumena.core.posterior import DiagonalGaussian, active_units
from noumena.multimodal import plots
from noumena.multimodal.metrics import column_correlation, effect_sizes, parts_of
from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.observations import Batch, Observations
from noumena.style import SEQUENTIAL

if TYPE_CHECKING:
    from noumena.multimodal.model import MVAE

_EXTRA = "pip install 'noumena[multimodal]'"
# An axis with less than this share of the latents' variance says nothing.
_LEAST_SHARE = 1e-6
_LISTED_AXES = 12
_ACTIVE_SHARE = 0.01
_STEPS, _SPAN = 5, 2.0


@dataclass(frozen=True)
class LatentQuality:
    """What the latents of some rows are like.

    Attributes:
        active_units: latent dimensions whose posterior mean varies (Burda et al. 2016).
        kl: mean KL divergence of the posterior to the prior in nats, of each row's modalities together.
        codes: posterior means of each row's modalities together along the principal axes, shape (rows, latent).
        spread: standard deviation of the training latents along each axis, descending, shape (latent,).
        shares: of the training latents' variance, shape (latent,).
        correlation: by pair of modalities, of the codes inferred from each alone, shape (latent,); NaN where fewer
            than three rows have both.
        effects: by modality and part what ±1 standard deviation of each axis does (see
            :func:`~noumena.multimodal.metrics.effect_sizes`), shape (latent,).
    """

    active_units: int
    kl: float
    codes: np.ndarray
    spread: np.ndarray
    shares: np.ndarray
    correlation: Mapping[tuple[str, str], np.ndarray]
    effects: Mapping[tuple[str, str], np.ndarray]

    @property
    def active_axes(self) -> int:
        """Principal axes with at least 1 % of the variance each."""
        return int((self.shares >= _ACTIVE_SHARE).sum())

    def axes(self, most: int) -> list[int]:
        """Numbers of the most active axes, at most ``most``."""
        return list(range(min(most, int((self.shares > _LEAST_SHARE).sum()))))


@torch.inference_mode()
def latent_quality(model: "MVAE", rows: Observations) -> LatentQuality:
    """The latents of held-out rows.

    Args:
        model: trained.
        rows: as the model arranges them.
    """
    spread = model.latents.spread.cpu().double().numpy()
    posterior = model.encode(rows)
    correlation = {
        (first, second): _agreement(model, rows, first, second) for first, second in combinations(model.names, 2)
    }
    return LatentQuality(
        active_units(posterior.mean),
        float(posterior.kl().mean()),
        _codes(model, posterior),
        spread,
        np.square(spread) / max(float(np.square(spread).sum()), 1e-300),
        correlation,
        _effects(model),
    )


def _codes(model: "MVAE", posterior: DiagonalGaussian) -> np.ndarray:
    """Posterior means along the principal axes, shape (rows, latent)."""
    along = (posterior.mean - model.latents.centre) @ model.latents.axes.T
    return along.cpu().double().numpy()


def _agreement(model: "MVAE", rows: Observations, first: str, second: str) -> np.ndarray:
    both = rows.subset(rows.has(first, second))
    if len(both) < 3:
        return np.full(model.z_dim, np.nan)
    codes: list[np.ndarray] = []
    for name in (first, second):
        only = torch.tensor([name == other for other in model.names], device=both.device)
        codes.append(_codes(model, model.encode(Batch(both.values, only.expand(len(both), -1)))))
    return column_correlation(*codes)


def _effects(model: "MVAE") -> dict[tuple[str, str], np.ndarray]:
    latents = model.latents
    reach = latents.spread[:, None] * latents.axes
    ends = [model.decode(latents.centre + sign * reach) for sign in (-1.0, 1.0)]
    found: dict[tuple[str, str], np.ndarray] = {}
    for modality in model.modalities:
        low, high = (end[modality.name].cpu().numpy() for end in ends)
        found |= {(modality.name, part): size for part, size in effect_sizes(modality, low, high).items()}
    return found


def latent_table(modalities: Sequence[Modality], quality: LatentQuality) -> Table:
    """The most active principal axes: activity, agreement of the modalities, effects in physical units."""
    by_name = {modality.name: modality for modality in modalities}
    effects: dict[str, np.ndarray] = {}
    for (name, part), sizes in quality.effects.items():
        unit = by_name[name].unit_of(parts_of(by_name[name])[part])
        effects[f"{part or name}{f' ({unit})' if unit else ''}"] = sizes
    lines: list[list[Any]] = []
    for axis in quality.axes(_LISTED_AXES):
        agreement = [float(values[axis]) for values in quality.correlation.values()]
        shares = [float(quality.spread[axis]), 100.0 * float(quality.shares[axis])]
        lines.append([axis, *shares, *agreement, *(float(sizes[axis]) for sizes in effects.values())])
    headings = ["axis", "sd", "variance (%)", *(f"{a} ~ {b}" for a, b in quality.correlation), *effects]
    return Table(
        "Latent primitives",
        headings,
        lines,
        "Principal axes of the training latents, the most active first. sd: of the training latents, in latent units. "
        "a ~ b: correlation of the codes inferred from a alone and from b alone. Further columns: what one sd changes "
        "about the mean latent (length of a vector; root mean square over points or columns). "
        f"{quality.active_units} of {len(quality.spread)} latent dimensions are active; {quality.active_axes} "
        f"principal axes have at least 1 % of the variance; mean KL to the prior "
        f"{quality.kl:.1f} nats.",
    )


def displaced(model: "MVAE") -> tuple[Modality, Surface] | None:
    """The modality of displacements and the surface it belongs to; ``None`` without."""
    surface = model.mesh
    on_it = [modality for modality in model.modalities if modality.kind == "displacement"]
    return None if surface is None or not on_it else (on_it[0], surface)


def swept_surfaces(
    model: "MVAE", axes: Sequence[int], target: Modality, surface: Surface
) -> tuple[Picture, dict[str, bytes]]:
    """Surfaces along principal axes through the mean latent, as a picture and as files.

    Args:
        model: trained.
        axes: numbers of the axes; 0 is the most active.
        target: the displacements.
        surface: at rest.
    """
    sweeps = {axis: model.latent_traversal(axis, _STEPS, _SPAN)[target.name].cpu().numpy() for axis in axes}
    files = primitive_files(surface, sweeps)
    note = " The same surfaces for ParaView: primitive_<axis>_<step>.vtu in the figures folder."
    note = note if files else missing_note("meshio", "Files of these surfaces for ParaView (.vtu)")
    return plots.traversals(surface, target.unit_of(slice(None)), sweeps, _SPAN, note), files


def compared_surfaces(
    target: Modality, surface: Surface, direction: str, truth: np.ndarray, mean: np.ndarray, errors: np.ndarray
) -> tuple[Picture, dict[str, bytes]]:
    """True and inferred surface of the rows of median and largest error as a picture; the median one also as a page.

    Args:
        target: the displacements.
        surface: at rest.
        direction: for the caption.
        truth, mean: shape (rows, 3 points).
        errors: of the rows, shape (rows,).
    """
    order = np.argsort(errors, kind="stable")
    chosen = {"median row": int(order[len(order) // 2]), "worst row": int(order[-1])}
    states = {heading: (truth[i], mean[i]) for heading, i in chosen.items()}
    unit = target.unit_of(slice(None))
    files = surface_page(surface, dict(zip(("true", "inferred"), states["median row"], strict=True)), unit)
    note = " The median row to turn with the mouse: surface.html in the figures folder."
    note = note if files else missing_note("plotly", "Surfaces to turn with the mouse (surface.html)")
    return plots.deformed(surface, unit, direction, states, note), files


def can_import(package: str) -> bool:
    """Whether an optional package is there."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a spec stands in its place
        return False


def missing_note(package: str, what: str) -> str:
    """A sentence that says which package is missing for what, and how to get it; empty if it is there."""
    return "" if can_import(package) else f" {what} are left out: {package} is missing. Install it: {_EXTRA}."


def primitive_files(surface: Surface, sweeps: Mapping[int, np.ndarray]) -> dict[str, bytes]:
    """Every step of every primitive as ``primitive_<axis>_<step>.vtu``: the surface at rest with the point data
    ``displacement`` and ``magnitude``, both in the unit of the nodes. ParaView opens the steps of an axis as a series.

    Args:
        surface: at rest.
        sweeps: displacements by number of the principal axis, shape (steps, 3 points).

    Returns:
        Content by file name; empty without meshio.
    """
    if not can_import("meshio"):
        return {}
    import meshio

    points = surface.nodes.cpu().numpy().astype(np.float64)
    triangles = surface.triangles.cpu().numpy()
    cells: list[Any] = [("triangle", triangles)] if len(triangles) else [("vertex", np.arange(len(points))[:, None])]
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.vtu"
        for axis, steps in sweeps.items():
            for step, row in enumerate(steps):
                displacement = row.reshape(-1, 3).astype(np.float64)
                data = {"displacement": displacement, "magnitude": np.linalg.norm(displacement, axis=1)}
                meshio.Mesh(points, cells, point_data=data).write(path, file_format="vtu")
                found[f"primitive_{axis}_{step}.vtu"] = path.read_bytes()
    return found


def surface_page(surface: Surface, fields: Mapping[str, np.ndarray], unit: str) -> dict[str, bytes]:
    """Deformed surfaces side by side, to turn with the mouse, as ``surface.html``; the page needs nothing beside it.

    Args:
        surface: at rest, with triangles.
        fields: displacements by heading, shape (3 points,).
        unit: of the displacements.

    Returns:
        Content by file name; empty without plotly or triangles.
    """
    if not can_import("plotly") or not len(surface.triangles):
        return {}
    import plotly.graph_objects as graphs

    rest = surface.nodes.cpu().numpy().astype(np.float64)
    corners = surface.triangles.cpu().numpy()
    vectors = {heading: row.reshape(-1, 3).astype(np.float64) for heading, row in fields.items()}
    sizes = {heading: np.linalg.norm(vector, axis=1) for heading, vector in vectors.items()}
    most = max(float(size.max()) for size in sizes.values()) or 1.0
    low, high = _limits([rest, *(rest + vector for vector in vectors.values())])
    ratio = dict(zip("xyz", ((high - low) / (high - low).max()).tolist(), strict=True))
    axes = {f"{name}axis": {"range": [float(low[i]), float(high[i])]} for i, name in enumerate("xyz")}
    figure = graphs.Figure()
    layout: dict[str, object] = {"margin": {"l": 0, "r": 0, "t": 40, "b": 0}, "annotations": []}
    width = 1.0 / len(vectors)
    titles: list[dict[str, object]] = []
    for number, (heading, vector) in enumerate(vectors.items()):
        scene = "scene" if number == 0 else f"scene{number + 1}"
        x, y, z = (rest + vector).T.tolist()
        i, j, k = corners.T.tolist()
        figure.add_trace(
            graphs.Mesh3d(
                x=x,
                y=y,
                z=z,
                i=i,
                j=j,
                k=k,
                intensity=sizes[heading].tolist(),
                cmin=0.0,
                cmax=most,
                colorscale=SEQUENTIAL,
                showscale=number == len(vectors) - 1,
                colorbar={"title": {"text": f"displacement ({unit})" if unit else "displacement"}},
                scene=scene,
                hovertemplate="%{intensity:.3f} " + unit + "<extra></extra>",
            )
        )
        domain = [number * width, (number + 1) * width]
        layout[scene] = {**axes, "aspectmode": "manual", "aspectratio": ratio, "domain": {"x": domain}}
        middle = {"x": sum(domain) / 2, "y": 1.0, "xref": "paper", "yref": "paper"}
        titles.append({"text": heading, "showarrow": False, "xanchor": "center", "yanchor": "bottom", **middle})
    figure.update_layout({**layout, "annotations": titles})
    page = figure.to_html(include_plotlyjs=True, full_html=True, div_id="surface")
    return {"surface.html": page.encode()}


def _limits(clouds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box around all points."""
    together = np.concatenate(clouds)
    low, high = together.min(0), together.max(0)
    margin = 0.03 * max(float((high - low).max()), 1e-9)
    return low - margin, high + margin
