"""Normalizing flows as a scikit-learn estimator."""

from typing import Any

from noumena.core.networks import Activation
from noumena.density.detector import Detector
from noumena.density.estimators.single import LatentDetector
from noumena.density.flow import Architecture, Flow


class FlowDetector(LatentDetector):
    """Outliers by the likelihood of a normalizing flow; see :class:`noumena.density.flow.Flow`.

    Scores are log-likelihoods in nats in the units of the data; ``transform`` gives the latents, as many as columns.
    """

    def __init__(
        self,
        *,
        architecture: Architecture = "realnvp",
        transforms: int = 8,
        hidden_dims: tuple[int, ...] = (128, 128),
        bins: int = 8,
        activation: Activation = "relu",
        whiten: bool = True,
        dequantise: bool = True,
        standardize: bool = True,
        max_epochs: int = 100,
        batch_size: int = 256,
        lr: float = 1e-3,
        patience: int | None = 15,
        contamination: float | str = "auto",
        anomaly_fraction: float = 0.05,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.15,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        """
        Args:
            architecture, transforms, hidden_dims, bins, activation, whiten, dequantise, standardize: of the model.
            max_epochs, batch_size, lr: of Adam.
            patience: epochs without a lower validation loss after which training stops; ``None`` never.
            contamination: share of the rows of ``X`` that ``predict`` calls outliers, in (0, 0.5]; ``auto`` takes the
                threshold that calls the share ``anomaly_fraction`` of the calibration rows so.
            anomaly_fraction: see ``contamination``.
            validation_fraction: share of ``X`` that chooses the weights; 0 keeps the last ones.
            calibration_fraction: share of ``X`` that calibrates thresholds and p-values.
            device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the best there is.
            random_state: an integer for the same result each time.
        """
        self.architecture: Architecture = architecture
        self.transforms = transforms
        self.hidden_dims = hidden_dims
        self.bins = bins
        self.activation: Activation = activation
        self.whiten = whiten
        self.dequantise = dequantise
        self.standardize = standardize
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.patience = patience
        self.contamination = contamination
        self.anomaly_fraction = anomaly_fraction
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.device = device
        self.random_state = random_state

    def _make_model(self) -> Detector:
        return Flow(
            architecture=self.architecture,
            transforms=self.transforms,
            hidden_dims=self.hidden_dims,
            bins=self.bins,
            activation=self.activation,
            whiten=self.whiten,
            dequantise=self.dequantise,
            standardize=self.standardize,
            anomaly_fraction=self.anomaly_fraction,
        )

    def _fit_options(self) -> dict[str, Any]:
        return {
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "patience": self.patience,
        }
