"""Nearest neighbours as a scikit-learn estimator."""

from typing import Any, cast

from noumena.density.detector import Detector
from noumena.density.estimators.single import SingleDetector
from noumena.density.neighbours import Method, Neighbours
from noumena.density.table import Table


class KNNDetector(SingleDetector):
    """Outliers by the distance to the nearest training rows; see :class:`noumena.density.neighbours.Neighbours`.

    Scores are minus distances in standard deviations of the columns, or with ``method="density"`` nats in the units of
    the data. ``partial_fit`` adds reference rows, of which ``max_rows`` stay. It cannot ``sample``.
    """

    def __init__(
        self,
        *,
        neighbours: int = 10,
        method: Method = "mean",
        max_rows: int = 20_000,
        standardize: bool = True,
        contamination: float | str = "auto",
        anomaly_fraction: float = 0.05,
        calibration_fraction: float = 0.15,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        """
        Args:
            neighbours, method, max_rows, standardize: of the model.
            contamination: share of the rows of ``X`` that ``predict`` calls outliers, in (0, 0.5]; ``auto`` takes the
                threshold that calls the share ``anomaly_fraction`` of the calibration rows so.
            anomaly_fraction: see ``contamination``.
            calibration_fraction: share of ``X`` that calibrates thresholds and p-values.
            device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the best there is.
            random_state: an integer for the same result each time.
        """
        self.neighbours = neighbours
        self.method: Method = method
        self.max_rows = max_rows
        self.standardize = standardize
        self.contamination = contamination
        self.anomaly_fraction = anomaly_fraction
        self.calibration_fraction = calibration_fraction
        self.device = device
        self.random_state = random_state

    def _make_model(self) -> Detector:
        return Neighbours(
            neighbours=self.neighbours,
            method=self.method,
            max_rows=self.max_rows,
            standardize=self.standardize,
            anomaly_fraction=self.anomaly_fraction,
        )

    def _go_on(self, train: Table, seed: int) -> None:
        cast(Neighbours, self.model_).partial_solve(train, seed=seed)
