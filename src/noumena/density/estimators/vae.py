"""The VAE as a scikit-learn estimator."""

from typing import Any

from noumena.core.networks import Activation
from noumena.density.detector import Detector
from noumena.density.estimators.single import LatentDetector
from noumena.density.model import VAE, Scoring
from noumena.density.networks import DecoderScale


class VAEDetector(LatentDetector):
    """Outliers by the likelihood of a β-VAE; see :class:`noumena.density.model.VAE`.

    Scores are log-likelihoods in nats in the units of the data (with the default ``decoder_scale``); ``transform``
    gives the latents.

    >>> from noumena.density.estimators import VAEDetector
    >>> detector = VAEDetector(max_epochs=50).fit(rows)  # doctest: +SKIP
    >>> detector.predict(new_rows), detector.p_value(new_rows)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        hidden_dims: tuple[int, ...] = (256, 128),
        latent_dim: int = 8,
        beta: float = 1.0,
        free_bits: float = 0.0,
        decoder_scale: DecoderScale = "learned",
        scoring: Scoring | None = None,
        draws: int = 64,
        standardize: bool = True,
        activation: Activation = "relu",
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
            hidden_dims, latent_dim, beta, free_bits, decoder_scale, scoring, draws, standardize, activation: of the
                model.
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
        self.hidden_dims = hidden_dims
        self.latent_dim = latent_dim
        self.beta = beta
        self.free_bits = free_bits
        self.decoder_scale: DecoderScale = decoder_scale
        self.scoring: Scoring | None = scoring
        self.draws = draws
        self.standardize = standardize
        self.activation: Activation = activation
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
        return VAE(
            hidden_dims=self.hidden_dims,
            latent_dim=self.latent_dim,
            beta=self.beta,
            free_bits=self.free_bits,
            decoder_scale=self.decoder_scale,
            scoring=self.scoring,
            draws=self.draws,
            standardize=self.standardize,
            activation=self.activation,
            anomaly_fraction=self.anomaly_fraction,
        )

    def _fit_options(self) -> dict[str, Any]:
        return {
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "patience": self.patience,
        }
