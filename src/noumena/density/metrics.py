"""How well a score tells anomalies from normal rows, and two plain scores that a learned one must beat."""

from collections.abc import Callable

import numpy as np

from noumena.core.errors import DataError

Scorer = Callable[[np.ndarray], np.ndarray]
"""Rows, shape (rows, columns), to scores, float64 of shape (rows,); higher is more normal."""

# Least variance of a direction, as a share of the variance of a column.
_LEAST_VARIANCE = 1e-6
_BLOCK = 8192


def detection(
    normal_scores: np.ndarray, anomaly_scores: np.ndarray, threshold: float | None = None
) -> dict[str, float]:
    """How well scores separate anomalies (the positive class) from normal rows; higher scores are more normal.

    A score that is not finite counts as an anomaly, as in ``VAE.is_anomaly``, and ranks below every finite one.

    Args:
        normal_scores, anomaly_scores: shapes (normal rows,) and (anomalies,).
        threshold: rows that score below it are called anomalies.

    Returns:
        ``roc_auc`` and ``average_precision`` of minus the score; with a finite threshold ``accuracy``,
        ``true_positive_rate`` (anomalies found) and ``true_negative_rate`` (normal rows left alone); and
        ``normal_score_mean``, ``normal_score_std``, ``anomaly_score_mean``, ``anomaly_score_std`` over the finite
        scores of a class, left out when it has none.

    Raises:
        DataError: one of the classes is empty.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, is_anomaly = _joined(normal_scores, anomaly_scores)
    suspicion = -_ranks(scores)
    found = {
        "roc_auc": float(roc_auc_score(is_anomaly, suspicion)),
        "average_precision": float(average_precision_score(is_anomaly, suspicion)),
    }
    if threshold is not None and np.isfinite(threshold):
        flagged = scores < threshold
        found["accuracy"] = float((flagged == is_anomaly).mean())
        found["true_positive_rate"] = float(flagged[is_anomaly].mean())
        found["true_negative_rate"] = float((~flagged[~is_anomaly]).mean())
    for name, part in (("normal", scores[~is_anomaly]), ("anomaly", scores[is_anomaly])):
        finite = part[np.isfinite(part)]
        if len(finite):
            found[f"{name}_score_mean"] = float(finite.mean())
            found[f"{name}_score_std"] = float(finite.std())
    return found


def roc_points(normal_scores: np.ndarray, anomaly_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve of :func:`detection`: false-alarm rates and true-positive rates, each ascending from 0 to 1."""
    from sklearn.metrics import roc_curve

    scores, is_anomaly = _joined(normal_scores, anomaly_scores)
    false_alarms, hits, _ = roc_curve(is_anomaly, -_ranks(scores))
    return false_alarms, hits


def mahalanobis(train: np.ndarray) -> Scorer:
    """Log-density of one Gaussian with full covariance, fitted to ``train``, in nats in the units of the data.

    Columns are standardised and their covariance S shrunk to ``(1 - a) S + a mean(diag S) I`` with the ``a`` of
    Ledoit & Wolf 2004 (near 0 with many rows), plus 1e-6 I. So it can be inverted with constant or dependent columns
    and with fewer rows than columns. A column that never varied keeps its own unit; leaving its constant costs much.

    Args:
        train: rows, shape (rows, columns).

    Raises:
        DataError: ``train`` is no matrix with at least one row.
    """
    from sklearn.covariance import ledoit_wolf

    mean, scale = _location_and_scale(train)
    columns = len(mean)
    covariance, _ = ledoit_wolf((train - mean) / scale, assume_centered=True)
    variances, directions = np.linalg.eigh(covariance + _LEAST_VARIANCE * np.eye(columns))
    variances = variances.clip(min=_LEAST_VARIANCE)  # rounding may leave a null direction a little below
    whiten = directions / np.sqrt(variances)
    constant = -np.log(scale).sum() - 0.5 * (np.log(variances).sum() + columns * np.log(2.0 * np.pi))

    def score(rows: np.ndarray) -> np.ndarray:
        return constant - 0.5 * np.square(((rows - mean) / scale) @ whiten).sum(axis=1)

    return _in_blocks(score)


def nearest_neighbours(train: np.ndarray, *, neighbours: int = 10, max_rows: int = 20_000, seed: int = 0) -> Scorer:
    """Minus the mean distance to the nearest training rows, in standard deviations of the columns.

    Args:
        train: rows, shape (rows, columns). Of more than ``max_rows`` rows that many are drawn by ``seed`` and only
            they are searched, which bounds the time; the standard deviations are those of all rows.
        neighbours: rows to average over; all of them when there are fewer.
        max_rows: see ``train``.
        seed: of the draw.

    Raises:
        DataError: ``train`` is no matrix with at least one row.
    """
    from sklearn.neighbors import NearestNeighbors

    mean, scale = _location_and_scale(train)
    if len(train) > max_rows:
        chosen = np.random.default_rng(seed).choice(len(train), max_rows, replace=False)
        train = train[np.sort(chosen)]
    search = NearestNeighbors(n_neighbors=min(neighbours, len(train))).fit((train - mean) / scale)

    def score(rows: np.ndarray) -> np.ndarray:
        distances, _ = search.kneighbors((rows - mean) / scale)
        return -distances.mean(axis=1)

    return _in_blocks(score)


def _joined(normal_scores: np.ndarray, anomaly_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All scores, whatever is not finite as -inf, and which of them are of anomalies."""
    if len(normal_scores) == 0 or len(anomaly_scores) == 0:
        raise DataError(
            f"telling anomalies from normal rows takes both: got scores of {len(normal_scores)} normal rows and "
            f"{len(anomaly_scores)} anomalies."
        )
    scores = np.concatenate([normal_scores, anomaly_scores]).astype(np.float64)
    is_anomaly = np.arange(len(scores)) >= len(normal_scores)
    return np.where(np.isfinite(scores), scores, -np.inf), is_anomaly


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Dense ranks: the same order and the same ties, but finite, as scikit-learn asks for."""
    return np.unique(scores, return_inverse=True)[1]


def _location_and_scale(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, float64; 1 for a column that never varies."""
    if train.ndim != 2 or len(train) == 0:
        raise DataError(f"expected training rows of shape (rows, columns), at least one, got shape {train.shape}.")
    # The first row as provisional mean keeps the digits of columns like 1e9 + small.
    centred = train.astype(np.float64) - train[0]
    offset = centred.mean(axis=0)
    scale = centred.std(axis=0)
    return offset + train[0], np.where(scale > 0, scale, 1.0)


def _in_blocks(score: Scorer) -> Scorer:
    """The same scorer at bounded memory, in float64: the square of a float32 far row would overflow."""

    def scored(rows: np.ndarray) -> np.ndarray:
        blocks = [score(rows[i : i + _BLOCK].astype(np.float64)) for i in range(0, len(rows), _BLOCK)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    return scored
