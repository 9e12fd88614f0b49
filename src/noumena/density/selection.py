"""Choosing the anomalies of a table such that few of those chosen are false.

A threshold bounds the share of normal rows that are called anomalies; where anomalies are rare, most alarms may still
be false. Procedures for the false-discovery rate bound the expected share of normal rows among those chosen.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.density.calibration import check_rate

if TYPE_CHECKING:
    from noumena.density.detector import Detector

Method = Literal["bh", "by"]

_HAIR = 1.0 + 1e-12  # p-values are fractions; one that equals its bound must not miss it by rounding


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows that :func:`select_anomalies` chose.

    Attributes:
        mask: bool, shape (rows,), True where a row was chosen.
        adjusted: float64, shape (rows,): the least target at which a row is chosen.
        p_values: float64, shape (rows,).
        target: the false-discovery rate asked for.
    """

    mask: np.ndarray
    adjusted: np.ndarray
    p_values: np.ndarray
    target: float

    @property
    def indices(self) -> np.ndarray:
        """Numbers of the chosen rows, ascending, int64."""
        return np.flatnonzero(self.mask)

    def __len__(self) -> int:
        return int(self.mask.sum())


def adjusted_p_values(p_values: np.ndarray, method: Method = "bh") -> np.ndarray:
    """The least target at which each row is chosen, float64, shape (rows,), at most 1.

    Args:
        p_values: shape (rows,), in [0, 1].
        method: "bh" (Benjamini & Hochberg 1995) holds for independent p-values and for those that share calibration
            rows (Bates et al. 2023, theorem 2); "by" (Benjamini & Yekutieli 2001) holds for any and finds fewer.

    Raises:
        ConfigError: the method is unknown.
        DataError: something is no p-value.
    """
    from scipy.stats import false_discovery_control

    if method not in get_args(Method):
        raise ConfigError(f"method: unknown '{method}'. {did_you_mean(str(method), get_args(Method))}")
    _check_p_values(p_values)
    if not len(p_values):
        return np.zeros(0)
    return np.asarray(false_discovery_control(p_values, method=method), dtype=np.float64)


def benjamini_hochberg(p_values: np.ndarray, target: float) -> np.ndarray:
    """Which rows to choose such that at most a share ``target`` of the chosen is expected to be normal.

    Rows are taken from the lowest p-value up to the last ``p_(i) <= target i / rows`` (Benjamini & Hochberg 1995).

    Args:
        p_values: shape (rows,).
        target: in (0, 1).

    Returns:
        bool, shape (rows,).

    Raises:
        ConfigError, DataError: as :func:`adjusted_p_values`.
    """
    return _chosen(adjusted_p_values(p_values, "bh"), target)


def benjamini_yekutieli(p_values: np.ndarray, target: float) -> np.ndarray:
    """The same under any dependence between p-values; the target is divided by ``1 + 1/2 + ... + 1/rows``."""
    return _chosen(adjusted_p_values(p_values, "by"), target)


def largest_chosen(ascending: np.ndarray, counts: np.ndarray, target: float) -> float:
    """The p-value up to which :func:`benjamini_hochberg` chooses, from how often each value occurs; 0 for none.

    Conformal p-values of ``n`` calibration rows take ``n + 1`` values, so that rows without number can be chosen from
    at constant memory.

    Args:
        ascending: the values, shape (values,).
        counts: rows of each value, shape (values,).
        target: in (0, 1).
    """
    check_rate("target", target)
    up_to = counts.cumsum()
    passes = (counts > 0) & (ascending * up_to[-1] <= target * up_to * _HAIR)
    return float(ascending[passes].max(initial=0.0))


def select_anomalies(model: "Detector", rows: Any, target_fdr: float, *, method: Method = "bh") -> Selection:
    """The anomalies among ``rows``; at most a share ``target_fdr`` of those chosen is expected to be normal.

    The share is expected over calibration rows and rows to choose from alike, provided that the normal ones among them
    are exchangeable (Bates et al. 2023, theorem 2). With ``n`` calibration rows no p-value is below ``1 / (n + 1)``,
    so that of ``m`` rows fewer than ``m / ((n + 1) target_fdr)`` are never chosen: calibrate on many.

    Args:
        model: a calibrated model of the density family.
        rows: what its ``score_samples`` takes. The choice is made among them together.
        target_fdr: in (0, 1).
        method: "bh" or "by", see :func:`adjusted_p_values`.

    Raises:
        ConfigError: an option is out of range.
        NotSupportedError: the model is not calibrated.
    """
    check_rate("target_fdr", target_fdr)
    p_values = model.p_value(rows)
    adjusted = adjusted_p_values(p_values, method)
    return Selection(_chosen(adjusted, target_fdr), adjusted, p_values, target_fdr)


def fewest_chosen(rows: int, calibration_rows: int, target: float) -> int:
    """How many rows have to score below all calibration rows at the least for any to be chosen."""
    check_rate("target", target)
    return max(1, int(np.ceil(rows / ((calibration_rows + 1) * target) / _HAIR)))


def _chosen(adjusted: np.ndarray, target: float) -> np.ndarray:
    check_rate("target", target)
    return adjusted <= target * _HAIR


def _check_p_values(p_values: np.ndarray) -> None:
    if p_values.ndim != 1:
        raise DataError(f"p-values: expected one axis, found shape {p_values.shape}.")
    wrong = ~((p_values >= 0.0) & (p_values <= 1.0))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"p-values: row {row} (counted from 0) is {p_values[row]}; expected a number from 0 to 1.")
