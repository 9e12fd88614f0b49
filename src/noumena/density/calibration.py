"""Split-conformal calibration: p-values, thresholds and how far a realised false-alarm rate may lie from its target.

Scores of rows that were not trained on, the calibration scores, say how low a normal row may score. What follows holds
for any model and any density as long as a new normal row is exchangeable with the calibration rows (Vovk, Gammerman &
Shafer 2005; Bates, Candès, Lei, Romano & Sesia 2023).
"""

import math
from typing import Any, Literal, get_args

import numpy as np

from noumena.core.errors import ConfigError, DataError, did_you_mean

Ties = Literal["conservative", "smoothed"]
Fold = Literal["auto", "random", "trajectory", "group"]
Randomness = int | np.random.Generator

# Fewer groups than these cannot be halved into two parts that resemble each other.
FEWEST_GROUPS = 8
_HAIR = 1.0 + 1e-12  # because 0.1 * 10 may come out below 1


def check_rate(name: str, rate: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: it names the option.
    """
    if not 0.0 < rate < 1.0:
        raise ConfigError(f"{name}: expected a share in (0, 1), got {rate}.")


def sorted_scores(scores: np.ndarray) -> np.ndarray:
    """Calibration scores ascending, float64; scores that are not finite rank below every other, as ``-inf``.

    Raises:
        DataError: there are none.
    """
    if scores.ndim != 1 or not len(scores):
        raise DataError(f"calibration: expected at least one score in one axis, found shape {scores.shape}.")
    return np.sort(_ranked(scores))


def p_values(
    scores: np.ndarray, calibration: np.ndarray, *, ties: Ties = "conservative", seed: Randomness = 0
) -> np.ndarray:
    r"""How likely a normal row is to score as low: ``(1 + #{calibration <= score}) / (n + 1)``, in (0, 1].

    A normal row gets a value of at most ``a`` with a probability of at most ``a`` (Bates et al. 2023, eq. 2). Smoothed,
    ``(#{calibration < score} + u (1 + #{calibration = score})) / (n + 1)`` with ``u`` uniform in (0, 1], the
    probability is exactly ``a``, whatever ties there are (Vovk et al. 2005, eq. 2.20); the value is then random, and
    rows far away share the range up to ``1 / (n + 1)``. A score that is not finite ranks below every finite one.

    Args:
        scores: shape (rows,); higher is more normal.
        calibration: ascending, shape (n,), see :func:`sorted_scores`.
        ties: "conservative" is deterministic; "smoothed" draws ``u`` for each row.
        seed: of the draws, or their generator.

    Returns:
        float64, shape (rows,).
    """
    _check_ties(ties)
    ranked = _ranked(scores)
    at_most = np.searchsorted(calibration, ranked, side="right")
    if ties == "conservative":
        return (1.0 + at_most) / (len(calibration) + 1.0)
    below = np.searchsorted(calibration, ranked, side="left")
    uniform = 1.0 - np.random.default_rng(seed).random(len(ranked))
    return (below + uniform * (1.0 + at_most - below)) / (len(calibration) + 1.0)


def p_values_by_group(
    scores: np.ndarray,
    groups: np.ndarray,
    calibration: np.ndarray,
    calibration_groups: np.ndarray,
    *,
    ties: Ties = "conservative",
    seed: Randomness = 0,
) -> np.ndarray:
    """:func:`p_values` of each row among the calibration rows of its own group, so that each group keeps its rate.

    Without it the rate holds for all rows together: a rare group may get all the false alarms. (Mondrian conformal
    prediction, Vovk et al. 2005, section 4.5.)

    Args:
        scores, groups: shape (rows,); groups are numbers or text known without looking at the score: a machine, a
            task, a class.
        calibration, calibration_groups: shape (n,), in any order.
        ties, seed: as for :func:`p_values`.

    Raises:
        DataError: a group has no calibration row, or lengths differ.
    """
    for what, values, names in (("rows", scores, groups), ("calibration", calibration, calibration_groups)):
        if values.shape != names.shape or values.ndim != 1:
            raise DataError(f"{what}: expected one group for each score, found {names.shape} for {values.shape}.")
    generator = np.random.default_rng(seed)
    known, member = np.unique(groups, return_inverse=True)
    found = np.empty(len(scores))
    for number, group in enumerate(known):
        own = calibration[calibration_groups == group]
        if not len(own):
            raise DataError(f"group {group!s} has no calibration row; calibrate on rows of every group.")
        mine = member == number
        found[mine] = p_values(scores[mine], sorted_scores(own), ties=ties, seed=generator)
    return found


def threshold_of(calibration: np.ndarray, false_alarm_rate: float) -> float:
    """The score below which a row's p-value is at most ``false_alarm_rate``.

    With fewer than ``1 / rate - 1`` calibration rows no threshold keeps the rate; the lowest calibration score is
    taken, whose rate is ``1 / (n + 1)`` at most (see :func:`rate_interval`).

    Args:
        calibration: ascending, shape (n,).
        false_alarm_rate: share of normal rows that may be called anomalies.
    """
    check_rate("false_alarm_rate", false_alarm_rate)
    return float(calibration[_rank(len(calibration), false_alarm_rate) - 1])


def rate_interval(
    n: int, false_alarm_rate: float, confidence: float = 0.95, *, rows: int | None = None
) -> tuple[float, float]:
    """Where the false-alarm rate of :func:`threshold_of` lies, with the chance ``confidence`` over calibration sets.

    The rate of continuous scores is Beta(k, n + 1 - k) distributed with ``k = floor(rate (n + 1))``
    (Vovk 2012, proposition 2), and the share of false alarms among ``rows`` new normal rows beta-binomial. Where scores
    tie, rates are lower.

    Args:
        n: calibration rows.
        false_alarm_rate: the target.
        confidence: of the interval, both tails alike; at least that of the share among ``rows``, which is discrete.
        rows: normal rows in which false alarms are counted; infinitely many by default.
    """
    from scipy.stats import beta, betabinom

    check_rate("false_alarm_rate", false_alarm_rate)
    check_rate("confidence", confidence)
    k = _rank(n, false_alarm_rate)
    tail = (1.0 - confidence) / 2.0
    if rows is None:
        low, high = beta.ppf([tail, 1.0 - tail], k, n + 1 - k)
    else:
        low, high = betabinom.ppf([tail, 1.0 - tail], rows, k, n + 1 - k) / rows
    return float(low), float(high)


def reaches(n: int, false_alarm_rate: float) -> bool:
    """Whether ``n`` calibration rows are enough for a threshold that keeps the rate."""
    return false_alarm_rate * (n + 1) * _HAIR >= 1.0


def same_distribution(scores: np.ndarray, calibration: np.ndarray) -> float:
    """The p-value of "these normal rows score as the calibration rows do" (two-sample Kolmogorov-Smirnov test).

    Everything in this module rests on it: where it is small, normal rows have changed since (drift), or the
    calibration rows were not drawn as these are, and false-alarm rates do not hold. Rows of one trajectory are alike;
    give one row of each, or few.

    Args:
        scores: of rows known to be normal, shape (rows,).
        calibration: shape (n,), in any order.
    """
    from scipy.stats import ks_2samp

    scores, calibration = np.asarray(scores), np.asarray(calibration)  # a model's own are a tensor
    for what, values in (("rows", scores), ("calibration", calibration)):
        if values.ndim != 1 or not len(values):
            raise DataError(f"{what}: expected at least one score in one axis, found shape {values.shape}.")
    result: Any = ks_2samp(_ranked(scores), _ranked(calibration))
    return float(result.pvalue)


def calibration_fold(
    rows: int, groups: np.ndarray | None = None, *, fold: Fold = "auto", share: float = 0.5, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the rest and of the rows to calibrate on.

    Args:
        rows: how many there are, at least 2.
        groups: the trajectory or group of each row, int64, shape (rows,).
        fold: "random" rows, or whole "trajectory" or "group" (the same thing), which rows that are alike within one
            need: else rows beside calibration rows look more normal than new ones will. "auto" takes whole ones where
            there are at least 8 of them.
        share: of the rows to calibrate on; whole groups come as near as they can.
        seed: of the choice.

    Returns:
        Two int64 arrays, ascending, none empty, no row in both.

    Raises:
        ConfigError: an option is out of range, or whole groups are asked for where there are none.
        DataError: there are fewer than 2 rows or groups.
    """
    import torch

    from noumena.core.splits import split_groups, split_rows

    check_rate("share", share)
    if fold not in get_args(Fold):
        raise ConfigError(f"fold: unknown '{fold}'. {did_you_mean(str(fold), get_args(Fold))}")
    if fold in ("trajectory", "group") and groups is None:
        raise ConfigError(f"fold={fold!r}: these rows belong to no {fold}; use fold='random'.")
    shares: dict[str, Any] = {
        "val_fraction": share,
        "test_fraction": 0.0,
        "seed": seed,
        "where": "rows to divide for calibration",
    }
    whole = groups is not None and (fold != "random") and (fold != "auto" or len(np.unique(groups)) >= FEWEST_GROUPS)
    if whole:
        assert groups is not None
        remedy = "Use fold='random', or add some."
        parts = split_groups(torch.from_numpy(groups), what="groups", remedy=remedy, **shares)
    else:
        parts = split_rows(rows, shuffle=True, **shares)
    return parts["train"].numpy(), parts["val"].numpy()


def _rank(n: int, rate: float) -> int:
    if n < 1:
        raise DataError(f"calibration: expected at least one row, found {n}.")
    return max(1, math.floor(rate * (n + 1) * _HAIR))


def _ranked(scores: np.ndarray) -> np.ndarray:
    """float64 scores; what is not finite tells nothing of a row but that it is far, and ranks lowest."""
    scores = scores.astype(np.float64)
    return np.where(np.isfinite(scores), scores, -np.inf)


def _check_ties(ties: str) -> None:
    if ties not in get_args(Ties):
        raise ConfigError(f"ties: unknown '{ties}'. {did_you_mean(str(ties), get_args(Ties))}")
