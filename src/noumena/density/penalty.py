"""What a transition pays for being unlike the data: reward penalties for model-based offline reinforcement learning."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.model import load_trained
from noumena.density.calibration import threshold_of
from noumena.density.detector import Detector
from noumena.density.rl import gormpo
from noumena.density.rl.formulas import FORMULAS, SmoothPValue, conformal_p_values
from noumena.density.rl.rows import Part, joined, layout_of
from noumena.density.rl.scoring import density_scores

Kind = Literal["linear", "inverse", "tanh", "softplus", "conformal", "tanh_reg"]

_LIMIT = 10.0


class Penalties(NamedTuple):
    """What is known of transitions; arrays or tensors like the transitions that were given, one value for each.

    Attributes:
        penalty: the coefficient included.
        log_density: the score of the model, in nats where it is a density; higher is more normal.
        p_value: the chance of a normal transition to score as low; ``None`` of a model that is not calibrated.
    """

    penalty: Any
    log_density: Any
    p_value: Any


class DensityPenalty:
    r"""A penalty of at least 0 for each transition whose density is below the model's threshold.

    With the score ``L`` of a row (its log-density), the threshold ``t`` and the spread ``s`` of the calibration scores
    (their inter-quartile range), the depth ``u = (t - L) / s`` has no unit: threshold and score are on one scale,
    whatever the model. With ``c`` the coefficient and ``m`` the limit:

    =============  ============================================  ==================================================
    kind           penalty                                       for
    =============  ============================================  ==================================================
    ``linear``     ``c min(max(0, u), m)``                       a gradient that leads back to the data from afar
    ``inverse``    ``c min(exp(max(0, u)) - 1, m)``              mild near the data, harsh soon after
    ``tanh``       ``c min(tanh(max(0, u)), m)``                 never more than ``c``, as GORMPO's own settings have
    ``softplus``   ``c min(log(1 + exp(4 u)) / 4, m)``           smooth at the threshold, where it is ``.17 c``
    ``conformal``  ``c max(0, 1 - p(L) / p(t))``                 how rare a row is among normal ones; at most ``c``
    =============  ============================================  ==================================================

    ``p`` is the conformal p-value made continuous (see :class:`~noumena.density.rl.formulas.SmoothPValue`), so that
    its gradient is constant between two calibration scores. All but ``softplus`` are 0 for rows at the threshold and
    above, and ``softplus`` vanishes above it as ``c exp(4 u) / 4``. All are finite, continuous, do not rise with the
    score, and depend on nothing but the row. A row so far away that its score is not finite pays the greatest penalty.

    Tensors get tensors on their device, through which gradients flow to the transitions (once; never to the weights of
    the model); arrays get arrays. Both have the floating type of the transitions.

    ``compat="gormpo"`` gives the penalties of GORMPO (Tumay et al., arXiv 2605.24405), for runs that must match.
    ``L`` is then ``(L - score_mean) / score_std`` where these are given, ``t`` the raw threshold, and the penalties are

    - ``linear``: ``c clip(t - L, 0, q3 + 1.5 IQR)``, quartiles over the batch of ``t - L``. So what a row pays depends
      on its batch, and in a batch well inside the data every row gets the same negative penalty: a bonus.
    - ``inverse``: ``c exp(t) / (exp(L) + 1e-6)`` where ``L < t``, else 0. It jumps at the threshold, and where scores
      are low the 1e-6 is the larger term: of two very unlikely rows both pay the same.
    - ``tanh``: ``c max(0, tanh(.1 (t - L)))``. The gain is per unit of score, which the number of columns and the
      model set.
    - ``tanh_reg``: ``c tanh(.1 (t - L))``. Normal rows are paid for being normal.
    - ``softplus``: ``c log(1 + exp(-L))``. It knows no threshold: a log-density of 0 means nothing by itself, and other
      units of the data change every penalty.

    With the mean and standard deviation, which go with its VAE alone, a standardised score is compared with a raw
    threshold, so that many rows that should pay do not.
    """

    def __init__(
        self,
        model: Detector | str | Path,
        kind: Kind = "tanh",
        *,
        coefficient: float = 1.0,
        on: Sequence[Part] | None = None,
        false_alarm_rate: float | None = None,
        scale: float | None = None,
        limit: float | None = None,
        compat: Literal["gormpo"] | None = None,
        score_mean: float | None = None,
        score_std: float | None = None,
    ) -> None:
        """
        Args:
            model: a calibrated model of the density family, or the path of a saved one. Threshold and calibration are
                read now: make a new penalty after calibrating again.
            kind: the formula, see above; ``tanh_reg`` with ``compat="gormpo"`` alone.
            coefficient: ``c``, in the unit of the reward.
            on: the parts of a row, in the order in which the model was trained. By default what the model knows, else
                ``("next_observation", "action")``.
            false_alarm_rate: threshold at this share of the calibration rows; by default the model's threshold.
            scale: ``s`` in the unit of the score, instead of the inter-quartile range.
            limit: ``m``, the greatest penalty before the coefficient; 10 by default.
            compat: ``gormpo`` for the original's formulas.
            score_mean, score_std: of the scores of the training rows, for ``compat="gormpo"`` alone.

        Raises:
            ConfigError: an option is unknown, out of range, or not for this ``compat``.
            NotSupportedError: the model is no detector, or has no threshold or no calibration scores.
            DataError: the calibration scores are all the same, so that there is no scale.
        """
        self.model = _detector(model)
        self.kind: Kind = kind
        self.coefficient = coefficient
        self.compat = compat
        _check_options(kind, coefficient, scale, limit, compat)
        self.layout = layout_of(self.model, on)
        self._calibration = self.model.calibration.detach().cpu()
        self._limit = _LIMIT if limit is None else limit
        self.threshold = self._threshold(false_alarm_rate)
        self._mean, self._std = _standardisation(compat, score_mean, score_std)
        # The original's formulas have no scale.
        self.scale = scale or (1.0 if compat else self._spread())
        self._p_value = SmoothPValue(self._calibrated(), self.scale) if kind == "conformal" else None

    def __call__(self, next_obs: Any, action: Any = None, obs: Any = None) -> Any:
        """The penalty of each transition, see :meth:`evaluate`; shape (...)."""
        rows = joined(self.layout, next_obs, action, obs)
        return rows.like_input(self._penalty(density_scores(self.model, rows.values)))

    def evaluate(self, next_obs: Any, action: Any = None, obs: Any = None) -> Penalties:
        """Penalty, score and p-value of transitions, scored once.

        Args:
            next_obs: next observations (..., observation), arrays or tensors; or whole rows (..., columns) in the order
                of the model, alone.
            action: shape (..., action).
            obs: shape (..., observation); needed if the model was trained on observations.

        Raises:
            DataError: another shape than the model was trained on, NaN or infinity.
        """
        rows = joined(self.layout, next_obs, action, obs)
        scores = density_scores(self.model, rows.values)
        p_value = None
        if len(self._calibration):
            p_value = rows.like_input(conformal_p_values(scores, self._calibration.to(scores.device)))
        return Penalties(rows.like_input(self._penalty(scores)), rows.like_input(scores), p_value)

    def __repr__(self) -> str:
        compat = "" if self.compat is None else f", compat='{self.compat}'"
        return f"DensityPenalty({type(self.model).__name__}, '{self.kind}', coefficient={self.coefficient:g}{compat})"

    def _penalty(self, scores: Tensor) -> Tensor:
        """float64, shape (rows,), of scores (rows,)."""
        if self.compat == "gormpo":
            return self.coefficient * gormpo.FORMULAS[self.kind]((scores - self._mean) / self._std, self.threshold)
        known = torch.where(scores.isfinite(), scores, -math.inf)
        if self._p_value is not None:
            at_threshold = self._p_value(scores.new_full((), self.threshold))
            return self.coefficient * (1.0 - self._p_value(known) / at_threshold).clamp(min=0.0)
        return self.coefficient * FORMULAS[self.kind]((self.threshold - known) / self.scale, self._limit)

    def _calibrated(self) -> np.ndarray:
        scores = self._calibration.numpy()
        if not len(scores):
            raise NotSupportedError(
                "the model has no calibration scores: call calibrate(rows) with rows that it was not trained on, or "
                "fit it with validation data."
            )
        return scores

    def _threshold(self, false_alarm_rate: float | None) -> float:
        if false_alarm_rate is None:
            threshold = float(self.model.threshold)
            if math.isnan(threshold):
                raise NotSupportedError("no threshold is set: call calibrate(rows), or fit with validation data.")
            return threshold
        scores = self._calibrated()
        return max(threshold_of(scores, false_alarm_rate), float(scores[np.isfinite(scores)].min()))

    def _spread(self) -> float:
        """Inter-quartile range of the finite calibration scores."""
        scores = self._calibrated()
        low, high = np.quantile(scores[np.isfinite(scores)], [0.25, 0.75])
        if not high > low:
            raise DataError(
                f"the middle half of the {len(scores)} calibration scores are all {low:g}, so that there is no scale "
                "for a penalty. Calibrate on more and different rows, or pass scale=..., in the unit of the score."
            )
        return float(high - low)


def _detector(model: Detector | str | Path) -> Detector:
    found = load_trained(model) if isinstance(model, str | Path) else model
    if not isinstance(found, Detector):
        raise NotSupportedError(
            f"a penalty needs a model of the density family, found {type(found).__name__}. Pass the model itself, not "
            "what holds it."
        )
    if not found.is_built:
        raise NotSupportedError("the model has no weights yet: call fit(data), or load a saved one.")
    return found


def _check_options(kind: str, coefficient: float, scale: float | None, limit: float | None, compat: str | None) -> None:
    if compat not in (None, "gormpo"):
        raise ConfigError(f"compat={compat!r}: expected 'gormpo' or None.")
    known = [*gormpo.FORMULAS] if compat else [name for name in get_args(Kind) if name != "tanh_reg"]
    if kind not in known:
        of = " with compat='gormpo'" if compat else ""
        raise ConfigError(f"kind={kind!r} is not known{of}. {did_you_mean(str(kind), known)}")
    if not 0.0 <= coefficient < math.inf:
        raise ConfigError(f"coefficient={coefficient}: expected a finite number of at least 0.")
    for name, value in (("scale", scale), ("limit", limit)):
        if compat and value is not None:
            raise ConfigError(f"{name}={value}: the formulas of compat='gormpo' have none. Leave it out.")
        if value is not None and not 0.0 < value < math.inf:
            raise ConfigError(f"{name}={value}: expected a positive finite number.")


def _standardisation(compat: str | None, mean: float | None, std: float | None) -> tuple[float, float]:
    """What is subtracted from scores and what they are divided by."""
    if compat is None and (mean, std) != (None, None):
        raise ConfigError(
            "score_mean and score_std are for compat='gormpo' alone: otherwise threshold and score are on one scale."
        )
    if (mean is None) != (std is None):
        raise ConfigError(f"score_mean={mean}, score_std={std}: expected both or neither.")
    if mean is None or std is None:
        return 0.0, 1.0
    if not math.isfinite(mean) or not 0.0 < std < math.inf:
        raise ConfigError(f"score_mean={mean}, score_std={std}: expected finite numbers, the second positive.")
    return mean, std
