"""The pictures of a trained multimodal model: inferred against true, deformed surfaces, primitives, latent space."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from noumena.core.evaluation import Picture
from noumena.multimodal.metrics import column_r2, coverage, r2_text
from noumena.multimodal.modality import Modality, Surface
from noumena.style import CYCLE, GREY, INK, SEQUENTIAL, new_figure, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 8.0  # inches
_PANELS = 12
_DOTS = 4000
_NOMINAL = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
# Where a robot that stands on the x-y plane shows most of itself.
_VIEW = {"elev": 18.0, "azim": -60.0}
_BINS = 10


def scatter(target: Modality, direction: str, truth: np.ndarray, mean: np.ndarray) -> Picture:
    """Inferred against true values, one panel per column; of many columns those that are explained least.

    Args:
        target: the inferred modality.
        direction: ``pose -> force``, for headings.
        truth, mean: shape (rows, size).
    """
    r2 = column_r2(truth, mean)
    shown = np.arange(target.size)
    if target.size > _PANELS:
        shown = np.sort(np.argsort(np.nan_to_num(r2, nan=2.0), kind="stable")[:_PANELS])
    some = slice(None, None, max(1, len(truth) // _DOTS))
    with style():
        figure, axes = _grid(len(shown), columns=3 if len(shown) % 3 == 0 else 4, panel_height=2.2)
        for axis, i in zip(axes, shown.tolist(), strict=True):
            ends = _ends(truth[:, i], mean[:, i])
            axis.plot(ends, ends, color=GREY, linewidth=1.0)
            axis.scatter(truth[some, i], mean[some, i], s=6, color=CYCLE[0], alpha=0.5, linewidths=0, rasterized=True)
            axis.set_title(f"{short(target.columns[i], 14)}{_in(target.units[i])}: R² {r2_text(r2[i])}")
            axis.set_aspect("equal")
            axis.set(xlim=ends, ylim=ends)
            axis.locator_params(nbins=5)
        figure.supxlabel("true", fontsize=9)
        figure.supylabel("inferred", fontsize=9)
    which = "" if len(shown) == target.size else f" The {len(shown)} of {target.size} columns explained least."
    caption = (
        f"{direction}: means inferred for {len(truth):,} rows that were not trained on, against the truth; grey: where "
        f"both are equal.{which}"
    )
    return Picture(f"inferred_{target.name}", f"Inferred and true {target.name}", figure, caption)


def deformed(
    surface: Surface, unit: str, direction: str, rows: Mapping[str, tuple[np.ndarray, np.ndarray]], note: str = ""
) -> Picture:
    """True and inferred deformed surface and the error between them, one row of panels per state.

    Args:
        surface: at rest.
        unit: of the displacements.
        direction: ``pose -> shape``, for the caption.
        rows: truth and mean (3 points,) by heading.
        note: appended to the caption.
    """
    pairs = {h: (truth.reshape(-1, 3), mean.reshape(-1, 3)) for h, (truth, mean) in rows.items()}
    clouds = [surface.nodes.cpu().numpy() + field for pair in pairs.values() for field in pair]
    most = max(float(np.linalg.norm(field, axis=1).max()) for pair in pairs.values() for field in pair)
    errors = {heading: np.linalg.norm(mean - truth, axis=1) for heading, (truth, mean) in pairs.items()}
    wrong = max(float(error.max()) for error in errors.values())
    with style():
        figure = new_figure(_WIDTH, 0.5 + 2.75 * len(pairs))
        axes = figure.subplots(len(pairs), 3, squeeze=False, subplot_kw={"projection": "3d"})
        drawn = broken = None
        for line, (heading, (truth, mean)) in zip(axes, pairs.items(), strict=True):
            for axis, field, title in ((line[0], truth, f"{heading}: true"), (line[1], mean, "inferred")):
                drawn = _draw(axis, surface, field, np.linalg.norm(field, axis=1), most, SEQUENTIAL, clouds)
                axis.set_title(title, y=1.0)
            broken = _draw(line[2], surface, mean, errors[heading], wrong, "magma_r", clouds, gamma=0.5)
            line[2].set_title(f"error (rms {np.sqrt(np.square(errors[heading]).mean()):.3g}{_unit(unit)})", y=1.0)
        _bar(figure, drawn, axes[:, :2], f"displacement{_in(unit)}")
        _bar(figure, broken, axes[:, 2], f"distance from the truth{_in(unit)}", shrink=0.9)
    caption = (
        f"{direction}. Left and middle: the surface coloured by the size of the displacement. Right: the inferred "
        f"surface coloured by each point's distance from where it should be. All at the true scale, "
        f"faces shaded by their direction; the colours of the error are spread where it is small.{note}"
    )
    return Picture("surface", "Inferred and true surface", figure, caption)


def traversals(surface: Surface, unit: str, sweeps: Mapping[int, np.ndarray], span: float, note: str = "") -> Picture:
    """Deformed surfaces along the most active latent axes, one row of panels per axis.

    Args:
        surface: at rest.
        unit: of the displacements.
        sweeps: displacements by number of the axis, shape (steps, 3 points).
        span: standard deviations of the first and the last step.
        note: appended to the caption.
    """
    fields = {axis: steps.reshape(len(steps), -1, 3) for axis, steps in sweeps.items()}
    rest = surface.nodes.cpu().numpy()
    clouds = [rest + field for steps in fields.values() for field in steps]
    most = max(float(np.linalg.norm(field, axis=-1).max()) for field in fields.values())
    count = len(next(iter(fields.values())))
    with style():
        figure = new_figure(_WIDTH, 0.5 + 1.55 * len(fields))
        axes = figure.subplots(len(fields), count, squeeze=False, subplot_kw={"projection": "3d"})
        drawn = None
        for line, (number, steps) in zip(axes, fields.items(), strict=True):
            for axis, field in zip(line, steps, strict=True):
                drawn = _draw(axis, surface, field, np.linalg.norm(field, axis=1), most, SEQUENTIAL, clouds)
            line[0].text2D(-0.06, 0.5, f"axis {number}", transform=line[0].transAxes, rotation=90, va="center")
        for axis, step in zip(axes[0], np.linspace(-span, span, count), strict=True):
            axis.set_title(f"{step:+g} sd".replace("-", "−").replace("+0 ", "0 "), loc="center", y=1.0)
        _bar(figure, drawn, axes, f"displacement{_in(unit)}", shrink=min(0.9, 2.5 / len(fields)))
    caption = (
        "Surfaces decoded along the principal axes of the training latents, the most active axis first, through the "
        f"mean latent; sd: standard deviation of the training latents along the axis.{note}"
    )
    return Picture("latent_traversals", "Latent primitives", figure, caption)


def latent_map(codes: np.ndarray, shares: np.ndarray, values: np.ndarray, modality: Modality) -> Picture:
    """Codes on the first two principal axes, one panel per column that colours them.

    Args:
        codes: along the two axes, shape (rows, 2).
        shares: of the variance of the latents that the axes have, shape (2,).
        values: the modality's columns in the same rows, shape (rows, size).
        modality: the first six columns of it are shown.
    """
    some = slice(None, None, max(1, len(codes) // _DOTS))
    columns = min(6, modality.size)
    with style():
        figure, axes = _grid(columns, columns=3, panel_height=2.35)
        for i, axis in enumerate(axes):
            low, high = np.quantile(values[:, i], [0.02, 0.98])
            look: dict[str, Any] = {"cmap": SEQUENTIAL, "linewidths": 0, "rasterized": True, "s": 7}
            dots = axis.scatter(*codes[some].T, c=values[some, i], vmin=low, vmax=high, **look)
            axis.set_title(f"{short(modality.columns[i], 16)}{_in(modality.units[i])}")
            axis.set_aspect("equal", adjustable="datalim")
            _without_frame(axis.figure.colorbar(dots, ax=axis, extend="both", shrink=0.85))
        figure.supxlabel(f"principal axis 0 ({100 * shares[0]:.0f} % of the variance)", fontsize=9)
        figure.supylabel(f"principal axis 1 ({100 * shares[1]:.0f} %)", fontsize=9)
    caption = (
        f"Posterior means of {len(codes):,} rows that were not trained on, along the two most active principal axes "
        f"of the training latents, in latent units, coloured by the columns of {modality.name}. Colours end at the "
        "2 % and 98 % quantiles."
    )
    return Picture("latent_map", "Map of the latent space", figure, caption)


def errors_by_distance(
    distance: np.ndarray, errors: Mapping[str, tuple[np.ndarray, np.ndarray]], limit: float, reference: str
) -> Picture:
    """Error of each row over the row's distance from the training centre, one panel per quantity.

    Args:
        distance: shape (rows,).
        errors: rows (int64) and their errors by label with the unit.
        limit: distance beyond which rows are called far.
        reference: name of the modality that the distance is taken in.
    """
    from matplotlib.ticker import LogFormatter

    with style():
        figure, axes = _grid(len(errors), columns=3, panel_height=2.3)
        for axis, (label, (rows, error)) in zip(axes, errors.items(), strict=True):
            x, y = distance[rows], np.maximum(error, 1e-12)
            axis.scatter(x, y, s=7, color=CYCLE[0], alpha=0.45, linewidths=0, rasterized=True, label="row")
            edges = np.unique(np.quantile(x, np.linspace(0, 1, _BINS + 1)))
            bins = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(0, len(edges) - 2))
            used = np.unique(bins)
            middles = [(np.median(x[bins == b]), np.median(y[bins == b])) for b in used]
            axis.plot(*np.array(middles).T, color=CYCLE[1], marker="o", markersize=3, label="median of a tenth")
            axis.axvline(limit, color=INK, linewidth=0.9, linestyle="--", label="far rows begin")
            axis.set_yscale("log")
            # Plain numbers; the usual labels of the smaller ticks are formulas, which the style leaves as they are.
            axis.yaxis.set_major_formatter(LogFormatter())
            axis.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
            axis.set_title(short(label, 34))
        figure.supxlabel(f"distance of the row's {reference} from the training centre", fontsize=9)
        figure.supylabel("error of the row", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
    caption = (
        f"Distance: root mean square of the standardised columns of {reference}, so that a typical row has 1. Extreme "
        "states are rare in training and inferred worse."
    )
    return Picture("errors_by_distance", "Error and distance from the training centre", figure, caption)


def calibration(found: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Picture | None:
    """Observed against nominal coverage of central intervals; ``None`` where no direction has deviations.

    Args:
        found: truth, mean and std (rows, size) by direction.
    """
    widths = [NormalDist().inv_cdf(0.5 + 0.5 * float(p)) for p in _NOMINAL]
    lines = {name: [coverage(*three, width) for width in widths] for name, three in found.items()}
    lines = {name: shares for name, shares in lines.items() if not np.isnan(shares).any()}
    if not lines:
        return None
    with style():
        figure = new_figure(_WIDTH * 0.75, 4.2)
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1.0)
        for i, (name, shares) in enumerate(lines.items()):
            look = ("-", "--", ":")[(i // len(CYCLE)) % 3]
            axis.plot(
                _NOMINAL, shares, color=CYCLE[i % len(CYCLE)], linestyle=look, marker="o", markersize=3, label=name
            )
        axis.axvline(0.9, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal coverage", ylabel="observed coverage")
        axis.set_aspect("equal")
        figure.legend(loc="outside right upper")
    caption = (
        "Share of the held-out values inside the central interval mean ± k std against the share it should hold; grey: "
        "perfect calibration. The deviations were set at 90 % (dotted line) on validation rows; elsewhere the curve "
        "shows whether the errors are as heavy-tailed as a normal distribution. Above the line: too wide."
    )
    return Picture("calibration", "Calibration of the standard deviations", figure, caption)


def _draw(
    axis: Any,
    surface: Surface,
    field: np.ndarray,
    shade: np.ndarray,
    most: float,
    colours: str,
    clouds: Sequence[np.ndarray],
    gamma: float = 1.0,
) -> Any:
    """One surface moved by ``field``, coloured by ``shade`` from 0 to ``most``; all panels share one box."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    scale = ScalarMappable(PowerNorm(gamma, 0.0, most if most > 0 else 1.0), colours)
    points = surface.nodes.cpu().numpy() + field
    corners = surface.triangles.cpu().numpy()
    if len(corners):
        faces = scale.to_rgba(shade[corners].mean(1))
        faces[:, :3] *= _lighting(points[corners])[:, None]
        # Edges in the colour of their face close the seams between neighbours.
        axis.add_collection3d(Poly3DCollection(points[corners], facecolors=faces, edgecolors=faces, linewidths=0.2))
    else:
        axis.scatter(*points.T, c=scale.to_rgba(shade), s=4, depthshade=False)
    together = np.concatenate(clouds)
    low, high = together.min(0), together.max(0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-9 + 0.05 * float((high - low).max()))
    axis.set(xlim=_range(middle, half, 0), ylim=_range(middle, half, 1), zlim=_range(middle, half, 2))
    axis.set_box_aspect(tuple(half), zoom=1.2)
    axis.set_proj_type("ortho")
    axis.view_init(**_VIEW)
    axis.set_axis_off()
    return scale


def _lighting(corners: np.ndarray) -> np.ndarray:
    """Brightness of each triangle, from 0.8 (edge-on) to 1 (facing the light), whichever way it is wound."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = np.linalg.norm(normal, axis=1)
    light = np.array([0.45, -0.75, 0.5]) / np.linalg.norm([0.45, -0.75, 0.5])
    return 0.8 + 0.2 * np.abs(normal @ light) / np.where(size > 0, size, 1.0)


def _range(middle: np.ndarray, half: np.ndarray, i: int) -> tuple[float, float]:
    return float(middle[i] - half[i]), float(middle[i] + half[i])


def _bar(figure: "Figure", drawn: Any, axes: Any, label: str, shrink: float = 0.7) -> None:
    where = axes.ravel().tolist()
    _without_frame(figure.colorbar(drawn, ax=where, label=label, location="bottom", shrink=shrink, aspect=40))


def _without_frame(bar: Any) -> None:
    bar.outline.set_visible(False)


def _grid(
    panels: int,
    *,
    columns: int,
    panel_height: float,
) -> "tuple[Figure, list[Axes]]":
    """A figure with ``panels`` axes in reading order, at most ``columns`` beside each other."""
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    width = _WIDTH if columns > 2 else _WIDTH * (0.75 if columns == 2 else 0.5)
    figure = new_figure(width, max(panel_height * rows + 0.6, 3.0))
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def _ends(truth: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    low, high = float(min(truth.min(), mean.min())), float(max(truth.max(), mean.max()))
    margin = 0.04 * (high - low) or 0.5 * max(1.0, abs(low))
    return low - margin, high + margin


def _in(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
