"""The pictures of a trained density model: scores, ROC curves, sampled columns, the latent space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noumena.core.evaluation import Picture
from noumena.density.metrics import detection, roc_points
from noumena.style import BLUE, CYCLE, GREY, INK, SEQUENTIAL, VERMILLION, new_figure, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ScorePair = tuple[np.ndarray, np.ndarray]
"""Scores of normal rows and of anomalies, shapes (normal rows,) and (anomalies,)."""

_WIDTH = 8.0  # inches
_BINS = 48
_PANELS = 14
_LEAST_RATE = 1e-3


def score_histograms(pairs: Mapping[str, ScorePair], *, threshold: float | None, unit: str) -> Picture:
    """How normal and anomalous rows score: one panel per level, all on one axis around the normal scores.

    Args:
        pairs: scores by level.
        threshold: drawn as a line where it is finite.
        unit: of the score, for the axis.
    """
    low, high = _score_range([normal for normal, _ in pairs.values()], [bad for _, bad in pairs.values()])
    edges = np.linspace(low, high, _BINS + 1)
    with style():
        figure, axes = _grid(len(pairs), columns=3, panel_height=1.75, sharex=True)
        for axis, (name, pair) in zip(axes, pairs.items(), strict=True):
            _score_panel(axis, pair, edges)
            axis.set_title(short(name))
            if threshold is not None and low <= threshold <= high:
                axis.axvline(threshold, color=INK, linewidth=1.0, linestyle="--", label="threshold")
        figure.supxlabel(f"score ({unit}), higher is more normal", fontsize=9)
        figure.supylabel("share of rows per bin (%)", fontsize=9)
        _shared_legend(figure, axes[0])
    caption = (
        f"Scores in {unit} of normal rows that were not trained on and of anomalous rows. Scores beyond the axis, "
        "minus infinity included, are counted in its first or last bin; where more than 1 % of the anomalies are "
        "beyond it, the panel says so. The height of the axis follows the bins between."
    )
    return Picture("scores", "Scores of normal and anomalous rows", figure, caption)


def roc_curves(pairs: Mapping[str, ScorePair], *, threshold: float | None) -> Picture:
    """ROC curves on a linear and on a logarithmic axis of the false-alarm rate, with the AUROC in the legend.

    Args:
        pairs: scores by level or method; each gets a line.
        threshold: where the pairs share one, its operating point is a dot on each line.
    """
    with style():
        figure = new_figure(_WIDTH, 3.6 + 0.2 * ((len(pairs) + 2) // 3))
        linear, logarithmic = figure.subplots(1, 2)
        for (name, (normal, anomalous)), look in zip(pairs.items(), _line_looks(len(pairs)), strict=True):
            found = detection(normal, anomalous, threshold)
            false_alarms, hits = roc_points(normal, anomalous)
            label = f"{short(name)}: {found['roc_auc']:.3f}"
            linear.plot(false_alarms, hits, label=label, **look)
            logarithmic.plot(false_alarms.clip(min=_LEAST_RATE / 2), hits, **look)
            if "true_positive_rate" in found:
                point = (1.0 - found["true_negative_rate"], found["true_positive_rate"])
                _dot(linear, point, look["color"])
                _dot(logarithmic, (max(point[0], _LEAST_RATE), point[1]), look["color"])
        _finish_roc(linear, logarithmic)
        figure.legend(*linear.get_legend_handles_labels(), loc="outside lower center", ncols=3, title="AUROC")
    dots = "" if threshold is None else " Dots: the rates at the model's threshold."
    caption = (
        "Share of the anomalies found against share of the normal rows falsely called anomalies, as the threshold "
        f"varies; grey dashes: chance. Right: the same with the small false-alarm rates spread out.{dots}"
    )
    return Picture("roc", "ROC curves", figure, caption)


def column_histograms(real: np.ndarray, sampled: np.ndarray, columns: Sequence[str], gap: np.ndarray) -> Picture:
    """Sampled rows beside real ones, column by column; of many columns those that differ most.

    Args:
        real, sampled: rows, shapes (rows, columns), in the units of the data.
        columns: their names.
        gap: how much each column differs, shape (columns,).
    """
    shown = np.arange(len(columns)) if len(columns) <= _PANELS else np.argsort(-gap, kind="stable")[:_PANELS]
    with style():
        figure, axes = _grid(len(shown), columns=4, panel_height=1.3)
        for axis, column in zip(axes, shown, strict=True):
            edges = _column_edges(real[:, column], sampled[:, column])
            for rows, look in ((real, _filled(BLUE, "real")), (sampled, _outlined(VERMILLION, "sampled"))):
                axis.stairs(_shares(rows[:, column], edges), edges, **look)
            axis.set_title(f"{short(columns[int(column)], 20)} ({gap[column]:.2f})")
            axis.set_yticks([])
            axis.locator_params(axis="x", nbins=4)
        figure.supxlabel("value, in the units of the data", fontsize=9)
        figure.supylabel("share of rows", fontsize=9)
        _shared_legend(figure, axes[0])
    which = "" if len(shown) == len(columns) else f"The {len(shown)} of {len(columns)} columns that differ most. "
    caption = (
        f"{which}{len(real):,} real rows that were not trained on and {len(sampled):,} rows sampled from the model. "
        "In brackets the Kolmogorov-Smirnov distance: 0 for equal distributions, 1 for disjoint ones. "
        "The outer bins hold what lies beyond the axis."
    )
    return Picture("samples", "Sampled rows beside real ones", figure, caption)


def latent_map(means: np.ndarray, scores: np.ndarray, *, threshold: float | None, unit: str) -> Picture:
    """Posterior means on their first two principal components, coloured by score.

    Args:
        means: shape (rows, latent).
        scores: shape (rows,).
        threshold: rows below it are ringed.
        unit: of the score, for the colour bar.
    """
    points, labels = _plane(means)
    finite = scores[np.isfinite(scores)]
    low, high = np.quantile(finite, [0.02, 0.98]) if len(finite) else (0.0, 1.0)
    shade = np.where(np.isfinite(scores), scores, low).clip(low, high)
    order = np.argsort(-shade, kind="stable")  # the unusual rows on top
    with style():
        figure = new_figure(_WIDTH * 0.75, 4.6)
        axis = figure.subplots()
        dots = axis.scatter(*points[order].T, c=shade[order], s=7, cmap=SEQUENTIAL, linewidths=0, rasterized=True)
        ringed = points[~(scores >= (-np.inf if threshold is None else threshold))]
        if threshold is not None and len(ringed):
            label = f"below the threshold ({len(ringed):,})"
            axis.scatter(*ringed.T, s=34, facecolors="none", edgecolors=VERMILLION, linewidths=0.9, label=label)
            figure.legend(loc="outside lower center")
        axis.set_xlabel(labels[0])
        axis.set_ylabel(labels[1])
        axis.set_aspect("equal", adjustable="datalim")
        bar = figure.colorbar(dots, ax=axis, label=f"score ({unit})", extend="both", shrink=0.9)
        bar.outline.set_visible(False)  # type: ignore[operator]
    caption = (
        f"Posterior means of {len(means):,} rows that were not trained on; both axes in latent units (the prior has "
        "standard deviation 1). Colours end at the 2 % and 98 % quantiles of the scores."
    )
    return Picture("latent_map", "Map of the latent space", figure, caption)


def latent_kl(kl: np.ndarray, active: np.ndarray) -> Picture:
    """Mean KL divergence of each latent dimension to the prior: how much the model says with it.

    Args:
        kl: nats, shape (latent,).
        active: bool, shape (latent,): whether the posterior mean varies over the rows.
    """
    order = np.argsort(-kl, kind="stable")
    places = np.arange(len(kl))
    with style():
        figure = new_figure(_WIDTH * 0.75, 2.6)
        axis = figure.subplots()
        for mask, colour, label in ((active, BLUE, "active"), (~active, GREY, "inactive")):
            chosen = mask[order]
            if chosen.any():
                axis.bar(places[chosen], kl[order][chosen], color=colour, label=f"{label} ({chosen.sum()})", width=0.75)
        if len(kl) <= 40:
            axis.set_xticks(places, [str(dimension) for dimension in order])
        axis.set_xlabel("latent dimension" if len(kl) <= 40 else "rank of the latent dimension")
        axis.set_ylabel("mean KL to the prior (nats)")
        axis.grid(axis="x", visible=False)
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper right")
    caption = (
        "Latent dimensions by what they carry. A dimension is active when the variance of its posterior mean over "
        f"held-out rows is above 0.01 (Burda et al. 2016). Sum: {kl.sum():.2f} nats per row."
    )
    return Picture("latent_kl", "What each latent dimension carries", figure, caption)


def _grid(panels: int, *, columns: int, panel_height: float, sharex: bool = False) -> "tuple[Figure, list[Axes]]":
    """A figure with ``panels`` axes in reading order, at most ``columns`` beside each other."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = new_figure(_WIDTH if columns > 1 else _WIDTH * 0.75, max(panel_height * rows + 0.9, 3.0))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    if sharex:
        for axis in axes[max(0, panels - columns) : panels]:  # panels above a gap keep their numbers
            axis.tick_params(labelbottom=True)
    return figure, axes[:panels]


def _score_range(normal: Sequence[np.ndarray], anomalous: Sequence[np.ndarray]) -> tuple[float, float]:
    """An axis on which normal scores take at least a third of the width, whatever the anomalies do."""
    inside = _finite(np.concatenate(normal))
    everything = _finite(np.concatenate([*normal, *anomalous]))
    if len(inside) == 0:
        inside = everything if len(everything) else np.zeros(1)
    start, stop = (float(value) for value in np.quantile(inside, [0.005, 0.9995]))
    width = max(stop - start, 1e-9 * max(1.0, abs(stop)))
    low = max(float(everything.min()) if len(everything) else start, start - 2.0 * width)
    return min(low, start) - 0.02 * width, stop + 0.05 * width


def _score_panel(axis: "Axes", pair: ScorePair, edges: np.ndarray) -> None:
    normal, anomalous = pair
    looks = (_filled(BLUE, "normal"), _filled(VERMILLION, "anomalous"))
    tallest = 0.0
    for scores, look in zip((normal, anomalous), looks, strict=True):
        shares = 100.0 * _shares(scores, edges)
        axis.stairs(shares, edges, **look)
        tallest = max(tallest, float(shares[1:-1].max()))
    axis.set_ylim(0, 1.15 * tallest if tallest > 0 else 105)
    axis.set_xlim(edges[0], edges[-1])
    axis.locator_params(axis="x", nbins=5)
    beyond = float((_far_as_low(anomalous) < edges[0]).mean())
    if beyond > 0.01:
        note = f"◂ {100 * beyond:.0f} % of anomalies\n   beyond the axis"
        axis.text(0.05, 0.96, note, transform=axis.transAxes, va="top", fontsize=7.5, color=VERMILLION)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values per bin, shape (edges - 1,); those beyond the axis are in the outer bins."""
    inside = _far_as_low(values).clip(edges[0], edges[-1])
    return np.histogram(inside, edges)[0] / max(len(values), 1)


def _far_as_low(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, -np.inf)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _column_edges(real: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    ends = np.array([np.quantile(_finite(values), [0.005, 0.995]) for values in (real, sampled)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    margin = 0.05 * (high - low) or 0.5 * max(1.0, abs(low))
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _filled(colour: str, label: str) -> dict[str, Any]:
    return {"fill": True, "color": colour, "alpha": 0.55, "linewidth": 0.0, "label": label}


def _outlined(colour: str, label: str) -> dict[str, Any]:
    return {"fill": False, "color": colour, "linewidth": 1.2, "label": label}


def _shared_legend(figure: "Figure", axis: "Axes") -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))


def _line_looks(lines: int) -> list[dict[str, Any]]:
    """Colours and dashes for ``lines`` lines: hues for a few, an ordered ramp for many."""
    import matplotlib

    dashes = ("-", "--", "-.")
    if lines <= len(CYCLE):
        return [{"color": colour, "linestyle": "-"} for colour in CYCLE[:lines]]
    ramp = matplotlib.colormaps[SEQUENTIAL](np.linspace(0.0, 0.88, lines))
    return [{"color": tuple(colour), "linestyle": dashes[i % 3]} for i, colour in enumerate(ramp)]


def _dot(axis: "Axes", point: tuple[float, float], colour: Any) -> None:
    axis.plot(*point, marker="o", markersize=5, color=colour, markeredgecolor="white", markeredgewidth=0.7, zorder=5)


def _finish_roc(linear: "Axes", logarithmic: "Axes") -> None:
    chance = np.geomspace(_LEAST_RATE, 1.0, 50)
    for axis in (linear, logarithmic):
        axis.plot(chance, chance, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)))
        axis.set_xlabel("false-alarm rate")
        axis.set_ylabel("true-positive rate")
        axis.set_ylim(-0.02, 1.02)
    linear.set_xlim(-0.02, 1.02)
    linear.set_aspect("equal")
    logarithmic.set_xscale("log")
    logarithmic.set_xlim(_LEAST_RATE, 1.0)
    logarithmic.set_xticks([0.001, 0.01, 0.1, 1.0], ["0.001", "0.01", "0.1", "1"])
    logarithmic.set_box_aspect(1)


def _plane(means: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Rows on the first two principal components, shape (rows, 2), and the labels of the axes."""
    centred = means - means.mean(axis=0)
    if centred.shape[1] == 1:
        return np.column_stack([means[:, 0], np.zeros(len(means))]), ("latent dimension 0", "(one dimension only)")
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    variances = np.square(np.append(lengths, [0.0, 0.0]))
    shares = 100.0 * variances / max(variances.sum(), 1e-300)
    plane = np.zeros((len(means), 2))
    plane[:, : len(lengths[:2])] = centred @ directions[:2].T
    names = (
        f"{word} principal component ({share:.0f} % of the variance)"
        for word, share in zip(("first", "second"), shares[:2], strict=True)
    )
    first, second = names
    return plane, (first, second)
