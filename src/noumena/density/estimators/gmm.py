"""Mixtures of Gaussians as a scikit-learn estimator."""

from typing import Any, cast

from noumena.density.detector import Detector
from noumena.density.estimators.single import SingleDetector
from noumena.density.gmm import GaussianMixture
from noumena.density.mixtures import Covariance
from noumena.density.table import Table


class GMMDetector(SingleDetector):
    """Outliers by the likelihood of a mixture of Gaussians; see :class:`noumena.density.gmm.GaussianMixture`.

    Scores are log-likelihoods in nats in the units of the data. ``partial_fit`` is online expectation maximisation:
    every row weighs the same, whichever call it came in.
    """

    def __init__(
        self,
        *,
        components: int | None = None,
        covariance: Covariance = "full",
        shrinkage: float | None = None,
        max_rows: int = 100_000,
        standardize: bool = True,
        contamination: float | str = "auto",
        anomaly_fraction: float = 0.05,
        calibration_fraction: float = 0.15,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        """
        Args:
            components, covariance, shrinkage, max_rows, standardize: of the model; ``None`` lets the rows choose.
            contamination: share of the rows of ``X`` that ``predict`` calls outliers, in (0, 0.5]; ``auto`` takes the
                threshold that calls the share ``anomaly_fraction`` of the calibration rows so.
            anomaly_fraction: see ``contamination``.
            calibration_fraction: share of ``X`` that calibrates thresholds and p-values.
            device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the best there is.
            random_state: an integer for the same result each time.
        """
        self.components = components
        self.covariance: Covariance = covariance
        self.shrinkage = shrinkage
        self.max_rows = max_rows
        self.standardize = standardize
        self.contamination = contamination
        self.anomaly_fraction = anomaly_fraction
        self.calibration_fraction = calibration_fraction
        self.device = device
        self.random_state = random_state

    def _make_model(self) -> Detector:
        return GaussianMixture(
            components=self.components,
            covariance=self.covariance,
            shrinkage=self.shrinkage,
            max_rows=self.max_rows,
            standardize=self.standardize,
            anomaly_fraction=self.anomaly_fraction,
        )

    def _go_on(self, train: Table, seed: int) -> None:
        cast(GaussianMixture, self.model_).partial_solve(train, seed=seed)
