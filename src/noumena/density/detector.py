"""What every model of the density family has: scores, calibrated p-values and thresholds, anomalies."""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.model import LatentModel
from noumena.core.posterior import DiagonalGaussian
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import Noise
from noumena.density.calibration import (
    Randomness,
    Ties,
    calibration_fold,
    check_rate,
    p_values,
    reaches,
    sorted_scores,
    threshold_of,
)
from noumena.density.table import Table, as_table

log = logging.getLogger("noumena")

ScoreUnit = Literal["nats", "negative squared error", "negative distance"]


class Detector(LatentModel):
    """A model whose score says how normal a row is; higher is more normal.

    A subclass gives :meth:`log_density`, its score of rows of tensors; where it is a density, in nats in the units of
    the data. Scoring, thresholds and p-values follow from it, the same for all models.
    """

    sizes_from_data = ("input_dim",)
    threshold: Tensor
    calibration: Tensor
    standardizer: Standardizer | None

    has_latents: ClassVar[bool] = False
    """Whether :meth:`encode` and :meth:`decode` are there."""

    block: ClassVar[int] = 512
    """Rows scored at once. Rows are scored in blocks of one size, the last one padded: matrix products of one shape
    run the same kernel, so that a row's score does not depend on the rows beside it (to the last bit for layer widths
    that are multiples of 4). 512 rows of the usual widths stay in a core's cache."""

    def __init__(
        self, input_dim: int | None, standardize: bool, anomaly_fraction: float, calibration_rows: int
    ) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.standardize = standardize
        self.anomaly_fraction = anomaly_fraction
        self.calibration_rows = calibration_rows
        if input_dim is not None and input_dim < 1:
            raise ConfigError(f"model.input_dim: expected a positive integer or null, got {input_dim}.")
        check_rate("model.anomaly_fraction", anomaly_fraction)
        if calibration_rows < 0:
            raise ConfigError(f"model.calibration_rows: expected a number of at least 0, got {calibration_rows}.")

    def _build(self) -> None:
        """Make what all models have; a subclass makes its networks after it."""
        assert self.input_dim is not None
        self.standardizer = Standardizer(self.input_dim) if self.standardize else None
        self.register_buffer("threshold", torch.full((), float("nan"), dtype=torch.float64))
        self.register_buffer("calibration", torch.zeros(self.calibration_rows, dtype=torch.float64))

    def as_dataset(self, data: Any) -> Table:
        """Rows of any kind as a :class:`~noumena.density.table.Table`."""
        return as_table(data)

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        return {"input_dim": dataset.batch(torch.zeros(1, dtype=torch.int64, device=dataset.device)).shape[1]}

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        if self.standardizer is not None:
            self.standardizer.fit(_all_rows(dataset).to(self.device))

    def divide_validation(self, val: Dataset) -> tuple[Dataset, Dataset]:
        """Half of the rows to choose the weights, half to calibrate: whole trajectories or groups where there are."""
        assert isinstance(val, Table)
        if len(val) < 2:
            return val, val
        groups = None if val.groups is None else val.groups.cpu().numpy()
        stopping, calibration = calibration_fold(len(val), groups)
        return val.subset(torch.from_numpy(stopping)), val.subset(torch.from_numpy(calibration))

    def after_fit(self, train: Dataset, val: Dataset | None) -> None:
        """Calibrate on rows that neither the weights nor the choice of epoch have seen."""
        if val is not None:
            self.calibrate(val)

    # Scores

    def log_density(self, x: Tensor) -> Tensor:
        """The score of rows ``x`` (batch, columns) in the units of the data, shape (batch,); differentiable."""
        raise NotImplementedError

    @property
    def score_unit(self) -> ScoreUnit:
        """What :meth:`score_samples` counts."""
        return "nats"

    def _standardized(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return x if self.standardizer is None else self.standardizer(x)

    @property
    def _log_det(self) -> Tensor | float:
        """What takes a log-density of standardised rows to the units of the data, in nats."""
        return 0.0 if self.standardizer is None else self.standardizer.log_det

    @property
    def _constant(self) -> Tensor | None:
        return None if self.standardizer is None else self.standardizer.constant

    @torch.inference_mode()
    def score_samples(self, data: Any) -> np.ndarray:
        """How normal each row is; higher is more normal. In nats in the units of the data where it is a log-density.

        Deterministic, and independent of the other rows.

        Args:
            data: rows (rows, columns): array, tensor, DataFrame, table or path.

        Returns:
            float64, shape (rows,). ``-inf`` for rows so far away that the arithmetic cannot tell how far.

        Raises:
            DataError: NaN or infinity in the rows, or another number of columns than in training.
        """
        rows = self._tensor(data)
        scores = torch.empty(len(rows), dtype=self.dtype, device=self.device)
        size = self._rows_of_a_block
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            n = len(block)
            if n < size:
                block = torch.cat([block, block.new_zeros(size - n, block.shape[1])])
            scores[start : start + n] = self.log_density(block)[:n]
        found = scores.double().cpu().numpy()
        return np.where(np.isnan(found), -np.inf, found)

    @property
    def _rows_of_a_block(self) -> int:
        return self.block

    # Calibration

    def calibrate(self, data: Any, false_alarm_rate: float | None = None) -> float:
        """Keep the scores of normal rows for p-values, and set the threshold that calls so many of them anomalies.

        Args:
            data: normal rows that were not trained on, exchangeable with those to come. Rows of one trajectory or
                group are alike: give whole ones.
            false_alarm_rate: share in (0, 1); the model's ``anomaly_fraction`` when missing.

        Returns:
            The threshold; :func:`~noumena.density.calibration.rate_interval` says how near the rate will be.
        """
        rate = self.anomaly_fraction if false_alarm_rate is None else false_alarm_rate
        check_rate("false_alarm_rate", rate)
        scores = sorted_scores(self.score_samples(data))
        if not np.isfinite(scores).any():
            raise DataError("no row has a finite score, so none can be calibrated on; are these in training units?")
        self.calibration_rows = len(scores)
        self.calibration = torch.from_numpy(scores).to(self.device)
        self.threshold.fill_(self.threshold_at(rate))
        return float(self.threshold)

    def threshold_at(self, false_alarm_rate: float) -> float:
        """The threshold of another false-alarm rate, from the calibration scores; the model's own stays as it is.

        Raises:
            NotSupportedError: the model is not calibrated.
        """
        scores, n = self._calibration_scores(), self.calibration_rows
        threshold = threshold_of(scores, false_alarm_rate)
        if not reaches(n, false_alarm_rate):
            log.warning(
                "calibration: %d rows cannot keep a false-alarm rate of %g, only %.2g; give at least %d.",
                *(n, false_alarm_rate, 1.0 / (n + 1), int(np.ceil(1.0 / false_alarm_rate)) - 1),
            )
        # Scores that are not finite are anomalies as they are.
        return max(threshold, float(scores[np.isfinite(scores)].min()))

    def _calibration_scores(self) -> np.ndarray:
        if not self.calibration_rows:
            raise NotSupportedError("no scores to compare with: call calibrate(rows), or fit with validation data.")
        return self.calibration.cpu().numpy()

    def set_threshold(self, data: Any, anomaly_fraction: float | None = None) -> float:
        """Set the threshold alone, at the quantile of the finite scores of ``data``; p-values stay as they are.

        Args:
            data: normal rows that were not trained on.
            anomaly_fraction: share in (0, 1); the model's ``anomaly_fraction`` when missing.

        Returns:
            The threshold.
        """
        fraction = self.anomaly_fraction if anomaly_fraction is None else anomaly_fraction
        check_rate("anomaly_fraction", fraction)
        scores = self.score_samples(data)
        finite = scores[np.isfinite(scores)]
        if len(finite) == 0:
            raise DataError("no row has a finite score, so no threshold can be set; are these rows in training units?")
        self.threshold.fill_(float(np.quantile(finite, fraction)))
        return float(self.threshold)

    def p_value(self, data: Any, *, ties: Ties = "conservative", seed: Randomness = 0) -> np.ndarray:
        """The chance of a normal row to score as low or lower: float64, shape (rows,), in (0, 1].

        See :func:`~noumena.density.calibration.p_values`.

        Raises:
            NotSupportedError: the model is not calibrated.
        """
        return self.p_value_of(self.score_samples(data), ties=ties, seed=seed)

    def p_value_of(self, scores: np.ndarray, *, ties: Ties = "conservative", seed: Randomness = 0) -> np.ndarray:
        """The same from scores that are known already."""
        return p_values(scores, self._calibration_scores(), ties=ties, seed=seed)

    def predict_anomaly(self, data: Any) -> np.ndarray:
        """Whether each row is an anomaly: its score is below the threshold or not finite. bool, shape (rows,)."""
        return self.is_anomaly(self.score_samples(data))

    def is_anomaly(self, scores: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """The same from scores that are known already, at the model's threshold or another.

        Raises:
            NotSupportedError: no threshold has been set.
        """
        threshold = float(self.threshold) if threshold is None else threshold
        if np.isnan(threshold):
            raise NotSupportedError("no threshold is set: call calibrate(rows), or fit with validation data.")
        # The comparison is this way round because NaN compares false: a score that is no number is an anomaly.
        return ~((scores >= threshold) & np.isfinite(scores))

    def decision_function(self, data: Any) -> np.ndarray:
        """The score above the threshold: negative for anomalies. float64, shape (rows,), as in scikit-learn."""
        scores = self.score_samples(data)
        self.is_anomaly(scores[:0])
        return scores - float(self.threshold)

    def predict(self, data: Any) -> np.ndarray:
        """+1 for normal rows and -1 for anomalies, int64, shape (rows,), as in scikit-learn."""
        return np.where(self.predict_anomaly(data), -1, 1)

    def evaluate_anomaly_detection(self, normal: Any, anomaly: Any) -> dict[str, float]:
        """How well the score separates anomalies from normal rows; see :func:`noumena.density.metrics.detection`."""
        from noumena.density.metrics import detection

        return detection(self.score_samples(normal), self.score_samples(anomaly), float(self.threshold))

    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: bool = False) -> Tensor:
        """``n`` new rows (n, columns) in the units of the data.

        Args:
            n: number of rows.
            generator: source of randomness; torch's global one when missing.
            noise: of a model that decodes latents to means, whether to add the decoder's noise, which gives draws from
                the modelled density. Other models always draw from it.
        """
        raise NotSupportedError(
            f"{type(self).__name__} cannot draw rows; use density/vae, density/flow or density/gmm."
        )

    @torch.inference_mode()
    def evaluate(self, data: Any, *, seed: int = 0) -> dict[str, float]:
        """Loss terms and score statistics on rows."""
        rows = self._tensor(data)
        terms = self.loss(rows, noise=Noise(seed))
        scores = self.score_samples(rows)
        return {
            **dict(zip(terms.names(), terms.vector().tolist(), strict=True)),
            "score_mean": float(scores.mean()),
            "score_std": float(scores.std()),
        }

    # Capabilities a model may lack

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The posterior over latents of each row."""
        raise NotSupportedError(f"{type(self).__name__} has no latents; use density/vae or density/flow.")

    def decode(self, z: Tensor) -> Tensor:
        """Rows given latents."""
        raise NotSupportedError(f"{type(self).__name__} has no latents; use density/vae or density/flow.")

    def _tensor(self, data: Any) -> Tensor:
        """Rows as a checked float tensor of the right width on the model's device."""
        if not self.is_built:
            raise NotSupportedError("the model has no weights yet: call fit(data), or load a saved one.")
        if isinstance(data, Tensor) and data.requires_grad:
            return data.to(self.device)  # part of somebody's gradient graph: left as it is
        # A far row must be scored as far, not refused: beyond float32 it is clipped.
        rows = as_table(data, self.schema.get("columns"), overflow="clip").rows
        if rows.shape[-1] != self.input_dim:
            raise DataError(f"expected rows of {self.input_dim} columns, as in training, found {rows.shape[-1]}.")
        return rows.to(self.device)


def _all_rows(dataset: Dataset) -> Tensor:
    return dataset.batch(torch.arange(len(dataset), device=dataset.device))
