"""Figures of inference in physical units: errors by part and row, variance explained, coverage, latent quality."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from noumena.multimodal.calibration import NINETY_PERCENT
from noumena.multimodal.modality import Modality

_PARTS = {"pose": ("translation", "rotation"), "wrench": ("force", "torque")}


def parts_of(modality: Modality) -> dict[str, slice]:
    """The groups of columns whose errors may be pooled: translation and rotation of a pose, force and torque of a
    wrench; all columns under the name ``""`` for other kinds.
    """
    names = _PARTS.get(modality.kind)
    if names is None:
        return {"": slice(0, modality.size)}
    return {names[0]: slice(0, 3), names[1]: slice(3, 6)}


def pooled_r2(truth: np.ndarray, inferred: np.ndarray) -> float:
    """Share of the variance explained, squared errors and variances summed over columns.

    Args:
        truth, inferred: shape (rows, columns).
    """
    wide = truth.astype(np.float64)
    residual = np.square(inferred.astype(np.float64) - wide).sum()
    total = np.square(wide - wide.mean(0)).sum()
    return float(1.0 - residual / total) if total > 0 else float("nan")


def column_r2(truth: np.ndarray, inferred: np.ndarray) -> np.ndarray:
    """Share of the variance explained of each column, shape (columns,); NaN for a column that does not vary.

    Args:
        truth, inferred: shape (rows, columns).
    """
    wide = truth.astype(np.float64)
    residual = np.square(inferred.astype(np.float64) - wide).sum(0)
    total = np.square(wide - wide.mean(0)).sum(0)
    varies = total > 0
    return np.where(varies, 1.0 - residual / np.where(varies, total, 1.0), np.nan)


def column_rmse(truth: np.ndarray, inferred: np.ndarray) -> np.ndarray:
    """Root mean squared error of each column in its unit, shape (columns,)."""
    return np.sqrt(np.square(inferred.astype(np.float64) - truth).mean(0))


def node_distances(truth: np.ndarray, inferred: np.ndarray) -> np.ndarray:
    """Euclidean distance of every point from where it should be, shape (rows, points).

    Args:
        truth, inferred: displacements, shape (rows, 3 points).
    """
    difference = (inferred.astype(np.float64) - truth).reshape(len(truth), -1, 3)
    return np.sqrt(np.einsum("rnc,rnc->rn", difference, difference))


def row_errors(modality: Modality, truth: np.ndarray, inferred: np.ndarray) -> dict[str, np.ndarray]:
    """One error per row and part, each of shape (rows,), in the part's unit.

    Of columns the root mean square over the part; of displacements the root mean square of the points' distances.

    Args:
        modality: what the columns are.
        truth, inferred: shape (rows, size).
    """
    if modality.kind == "displacement":
        return {"": np.sqrt(np.square(node_distances(truth, inferred)).mean(1))}
    squared = np.square(inferred.astype(np.float64) - truth)
    return {name: np.sqrt(squared[:, part].mean(1)) for name, part in parts_of(modality).items()}


def summary(errors: np.ndarray) -> dict[str, float]:
    """``rmse``, ``median`` and ``p95`` over rows of :func:`row_errors`; NaN without a row."""
    if not len(errors):
        return dict.fromkeys(("rmse", "median", "p95"), float("nan"))
    return {
        "rmse": float(np.sqrt(np.square(errors).mean())),
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
    }


def error_metrics(modality: Modality, truth: np.ndarray, inferred: np.ndarray) -> dict[tuple[str, str], float]:
    """Errors by (measure, part), in the part's unit.

    ``rmse``, ``median`` and ``p95`` over rows of :func:`row_errors`. Displacements have ``node_rmse``, ``node_p95``
    and ``node_max`` in place of ``rmse``: root mean square, 95 % quantile and maximum over a row's points of their
    distances, averaged over rows.

    Args:
        modality: what the columns are.
        truth, inferred: shape (rows, size), at least one row.
    """
    by_part = {part: summary(errors) for part, errors in row_errors(modality, truth, inferred).items()}
    found = {(measure, part): value for part, values in by_part.items() for measure, value in values.items()}
    if modality.kind != "displacement":
        return found
    distances = node_distances(truth, inferred)
    nodes = {
        ("node_rmse", ""): float(np.sqrt(np.square(distances).mean(1)).mean()),
        ("node_p95", ""): float(np.quantile(distances, 0.95, axis=1).mean()),
        ("node_max", ""): float(distances.max(1).mean()),
    }
    return nodes | {key: value for key, value in found.items() if key[0] != "rmse"}


def main_measure(modality: Modality) -> str:
    """The measure that stands for the others: ``node_rmse`` of displacements, ``rmse`` of anything else."""
    return "node_rmse" if modality.kind == "displacement" else "rmse"


def main_error(modality: Modality, errors: np.ndarray) -> float:
    """The :func:`main_measure` of some rows, from their :func:`row_errors` of one part."""
    if not len(errors):
        return float("nan")
    return float(errors.mean()) if modality.kind == "displacement" else summary(errors)["rmse"]


def named(values: Mapping[tuple[str, str], float], direction: str) -> dict[str, float]:
    """Metrics by name, ``measure/direction`` or ``measure/direction/part``."""
    return {f"{measure}/{direction}" + (f"/{part}" if part else ""): v for (measure, part), v in values.items()}


def coverage(truth: np.ndarray, mean: np.ndarray, std: np.ndarray, width: float = NINETY_PERCENT) -> float:
    """Share of the values within ``mean ± width std``, over the columns that vary; NaN where there is no deviation.

    Constant columns (a clamped edge) are always right and would flatter the share.

    Args:
        truth, mean, std: shape (rows, columns).
        width: in standard deviations; that of the central 90 % of a normal distribution when left out.
    """
    varies = (truth != truth[:1]).any(0)
    if not varies.any() or np.isnan(std[:, varies]).any():
        return float("nan")
    return float((np.abs(truth - mean) <= width * std)[:, varies].mean())


def column_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column of one array with that of the other, shape (columns,); NaN if one is constant.

    Args:
        first, second: shape (rows, columns).
    """
    a, b = first - first.mean(0), second - second.mean(0)
    size = np.sqrt(np.square(a).sum(0) * np.square(b).sum(0))
    varies = size > 0
    return np.where(varies, (a * b).sum(0) / np.where(varies, size, 1.0), np.nan)


def effect_sizes(modality: Modality, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """How far each part moves from the middle to one end of swings, shape (swings,): half the distance of the ends.

    The Euclidean length of a force, torque, translation or rotation vector; the root mean square over points of their
    distances; the root mean square over the columns of a vector.

    Args:
        modality: what the columns are.
        low, high: the ends, shape (swings, size).
    """
    vector = np.sqrt(3.0) if modality.kind in _PARTS else 1.0
    return {part: 0.5 * vector * error for part, error in row_errors(modality, low, high).items()}


def r2_text(r2: float) -> str:
    """R² with as many digits as tell it from 1."""
    if math.isnan(r2):
        return "–"
    places = min(6, max(3, 1 - math.floor(math.log10(max(1e-9, 1.0 - r2)))))
    return f"{r2:.{places}f}".replace("-", "−")


@dataclass(frozen=True)
class Measured:
    """One modality inferred from others in some rows, and how well.

    Attributes:
        label: of the direction, ``pose->force``.
        sources: names of what was seen.
        target: what was inferred.
        rows: numbers of the rows, int64.
        values: by measure and part, see :func:`~noumena.multimodal.metrics.error_metrics`.
        errors: of each row by part.
        r2: of all columns pooled; NaN if the truth does not vary.
        r2_of: of each part.
        columns: root mean squared error and R² of each column.
        coverage: of the 90 % interval; NaN without deviations.
    """

    label: str
    sources: tuple[str, ...]
    target: Modality
    rows: np.ndarray
    values: Mapping[tuple[str, str], float]
    errors: Mapping[str, np.ndarray]
    r2: float
    r2_of: Mapping[str, float]
    columns: tuple[np.ndarray, np.ndarray]
    coverage: float

    @property
    def main(self) -> str:
        """Name of the measure that stands for the others."""
        return main_measure(self.target)

    def among(self, chosen: np.ndarray) -> dict[str, float]:
        """The main measure of each part in those of the rows that are ``chosen`` (bool, shape (held-out rows,))."""
        return {p: main_error(self.target, e[chosen[self.rows]]) for p, e in self.errors.items()}


def compared(
    label: str,
    sources: tuple[str, ...],
    target: Modality,
    rows: np.ndarray,
    truth: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray | None = None,
) -> Measured:
    """Inferred values measured against the truth.

    Args:
        label: of the sources; the direction is ``<label>-><target>``.
        sources, target, rows: see :class:`Measured`.
        truth, mean, std: shape (rows, size), at least one row.
    """
    parts = parts_of(target)
    return Measured(
        f"{label}->{target.name}",
        sources,
        target,
        rows,
        error_metrics(target, truth, mean),
        row_errors(target, truth, mean),
        pooled_r2(truth, mean),
        {name: pooled_r2(truth[:, part], mean[:, part]) for name, part in parts.items()},
        (column_rmse(truth, mean), column_r2(truth, mean)),
        float("nan") if std is None else coverage(truth, mean, std),
    )


@dataclass(frozen=True)
class Hard:
    """The rows that are hardest for the best regression of a direction.

    Attributes:
        baseline: its name.
        chosen: by part, bool over the direction's rows.
    """

    baseline: str
    chosen: Mapping[str, np.ndarray]

    def errors(self, one: Measured) -> dict[str, float]:
        """The main measure of each part in these rows."""
        return {part: main_error(one.target, one.errors[part][mask]) for part, mask in self.chosen.items()}
