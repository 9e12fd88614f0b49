"""The density family's variational autoencoder."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.losses import LossTerms, kl_loss
from noumena.core.model import LatentModel
from noumena.core.networks import Activation
from noumena.core.posterior import DiagonalGaussian, active_units
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import Noise
from noumena.density.networks import DecoderScale, GaussianDecoder, GaussianEncoder
from noumena.density.table import Table, as_table

Scoring = Literal["elbo", "reconstruction"]

# Rows are scored in blocks of one size, the last one padded: matrix products of one shape run the same kernel, so a
# row's score does not depend on the rows beside it (to the last bit for layer widths that are multiples of 4).
# 512 rows of the usual widths stay in a core's cache.
_BLOCK = 512


class VAE(LatentModel):
    r"""β-VAE of table rows, for densities and anomaly or out-of-distribution scores.

    .. math:: \mathcal{L}(x) = -\log p(x \mid z) + \beta\, \mathrm{KL}(q(z \mid x)\,\|\,\mathcal{N}(0, I)),
        \qquad z \sim q(z \mid x)

    (Kingma & Welling 2014; Higgins et al. 2017), both terms summed over columns and latent dimensions and averaged
    over rows. The score of a row takes the posterior mean in place of the draw, which makes it deterministic; higher
    is more normal.

    With ``decoder_scale="fixed"`` and ``standardize=False`` the loss is the squared error plus β KL and the score the
    negative squared error, which is the VAE of GORMPO (Tumay et al., arXiv 2605.24405). The learned scale (one
    standard deviation per column, as in the σ-VAE of Rybkin et al. 2021) tells near anomalies apart far better:
    a fixed scale gives up every direction whose variance is below its own.
    """

    sizes_from_data = ("input_dim",)
    threshold: Tensor

    def __init__(
        self,
        *,
        input_dim: int | None = None,
        hidden_dims: Sequence[int] = (256, 128),
        latent_dim: int = 8,
        beta: float = 1.0,
        free_bits: float = 0.0,
        decoder_scale: DecoderScale = "learned",
        scoring: Scoring | None = None,
        standardize: bool = True,
        activation: Activation = "relu",
        anomaly_fraction: float = 0.01,
    ) -> None:
        """
        Args:
            input_dim: columns of a row; inferred by ``fit`` when missing.
            hidden_dims: widths of the encoder; the decoder mirrors them.
            latent_dim: size of the latent.
            beta: weight of the KL term.
            free_bits: nats per latent dimension below which the KL is not minimised.
            decoder_scale: ``fixed`` (squared error) or ``learned`` (one standard deviation per column).
            scoring: ``elbo`` is ``log p(x | z) - KL`` at the posterior mean ``z``: a row is also abnormal when only its
                latent is. ``reconstruction`` is ``log p(x | z)`` alone. By default ``elbo`` with the learned scale
                and, as published, ``reconstruction`` with the fixed one.
            standardize: map columns to zero mean and unit variance inside the model.
            activation: nonlinearity of the hidden layers.
            anomaly_fraction: share of validation rows below the threshold that ``fit`` sets.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__()
        self.input_dim = input_dim
        self.hidden_dims = tuple(hidden_dims)
        self.latent_dim = latent_dim
        self.beta = beta
        self.free_bits = free_bits
        self.decoder_scale: DecoderScale = decoder_scale
        self.scoring: Scoring | None = scoring
        self.standardize = standardize
        self.activation: Activation = activation
        self.anomaly_fraction = anomaly_fraction
        self._check_hyperparameters()
        if self.is_built:
            self._build()

    def _check_hyperparameters(self) -> None:
        if self.input_dim is not None and self.input_dim < 1:
            raise ConfigError(f"model.input_dim: expected a positive integer or null, got {self.input_dim}.")
        if not all(width >= 1 for width in self.hidden_dims):
            raise ConfigError(f"model.hidden_dims: expected positive widths, got {list(self.hidden_dims)}.")
        if self.latent_dim < 1:
            raise ConfigError(f"model.latent_dim: expected at least 1, got {self.latent_dim}.")
        if not 0.0 <= self.beta < float("inf"):
            raise ConfigError(f"model.beta: expected a finite number of at least 0, got {self.beta}.")
        if not 0.0 <= self.free_bits < float("inf"):
            raise ConfigError(f"model.free_bits: expected a finite number of at least 0, got {self.free_bits}.")
        if self.decoder_scale not in ("fixed", "learned"):
            raise ConfigError(f"model.decoder_scale: expected fixed or learned, got {self.decoder_scale!r}.")
        if self.activation not in get_args(Activation):
            raise ConfigError(
                f"model.activation: unknown '{self.activation}'. {did_you_mean(self.activation, get_args(Activation))}"
            )
        if self.scoring not in ("elbo", "reconstruction", None):
            raise ConfigError(f"model.scoring: expected elbo, reconstruction or null, got {self.scoring!r}.")
        if not 0.0 < self.anomaly_fraction < 1.0:
            raise ConfigError(f"model.anomaly_fraction: expected a share in (0, 1), got {self.anomaly_fraction}.")

    def _build(self) -> None:
        assert self.input_dim is not None
        self.standardizer = Standardizer(self.input_dim) if self.standardize else None
        self.encoder = GaussianEncoder(self.input_dim, self.hidden_dims, self.latent_dim, self.activation)
        self.decoder = GaussianDecoder(
            self.latent_dim, self.hidden_dims[::-1], self.input_dim, self.activation, self.decoder_scale
        )
        self.register_buffer("threshold", torch.full((), float("nan"), dtype=torch.float64))

    def as_dataset(self, data: Any) -> Table:
        """Rows of any kind as a :class:`~noumena.density.table.Table`."""
        return as_table(data)

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, int]:
        return {"input_dim": dataset.batch(torch.zeros(1, dtype=torch.int64, device=dataset.device)).shape[1]}

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        if self.standardizer is not None:
            rows = dataset.batch(torch.arange(len(dataset), device=dataset.device))
            self.standardizer.fit(rows.to(self.device))

    def after_fit(self, train: Dataset, val: Dataset | None) -> None:
        """Set the threshold on the validation rows."""
        if val is not None:
            self.set_threshold(val, self.anomaly_fraction)

    # Mathematics on tensors

    @property
    def _constant(self) -> Tensor | None:
        return None if self.standardizer is None else self.standardizer.constant

    def _standardized(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return x if self.standardizer is None else self.standardizer(x)

    def encode(self, batch: Tensor) -> DiagonalGaussian:
        """The posterior over latents (batch, latent) of rows (batch, columns) in the units of the data."""
        rows = self._tensor(batch)
        return self.encoder(self._standardized(rows))

    def decode(self, z: Tensor) -> Tensor:
        """The mean of the rows (batch, columns) given latents ``z`` (batch, latent), in the units of the data."""
        z = z.to(self.device, self.dtype)
        mean = self.decoder(z)
        return mean if self.standardizer is None else self.standardizer.inverse(mean)

    def loss(self, batch: Tensor, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Negative ELBO of rows (batch, columns) in nats, with the parts ``reconstruction`` and ``kl``.

        Of standardised rows when ``standardize`` is on. ``reconstruction`` is the squared error with the fixed scale.
        """
        x = self._standardized(batch)
        posterior = self.encoder(x)
        eps = None if noise is None else noise.normal_like(posterior.mean)
        mean = self.decoder(posterior.sample(noise=eps))
        reconstruction = -self.decoder.log_prob(x, mean, self._constant).mean()
        kl = kl_loss(posterior, self.free_bits)
        total = reconstruction + (self.beta * beta_scale) * kl
        return LossTerms(total, {"reconstruction": reconstruction, "kl": kl})

    def _score(self, x: Tensor) -> Tensor:
        x = self._standardized(x)
        posterior = self.encoder(x)
        score = self.decoder.log_prob(x, self.decoder(posterior.mean), self._constant)
        if self.scoring == "elbo" or (self.scoring is None and self.decoder_scale == "learned"):
            score = score - posterior.kl()
        if self.standardizer is not None and self.decoder_scale == "learned":
            score = score + self.standardizer.log_det
        return score

    # Use

    @torch.inference_mode()
    def score_samples(self, data: Any) -> np.ndarray:
        """How normal each row is; higher is more normal.

        See ``scoring`` of the constructor. With the learned scale in nats per row, in the units of the data; with the
        fixed one the negative squared error. Deterministic, and independent of the other rows.

        Args:
            data: rows (rows, columns): array, tensor, DataFrame, table or path.

        Returns:
            float64, shape (rows,). ``-inf`` for rows so far away that float32 cannot tell how far.

        Raises:
            DataError: NaN or infinity in the rows, or another number of columns than in training.
        """
        rows = self._tensor(data)
        scores = torch.empty(len(rows), dtype=self.dtype, device=self.device)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            n = len(block)
            if n < _BLOCK:
                block = torch.cat([block, block.new_zeros(_BLOCK - n, block.shape[1])])
            scores[start : start + n] = self._score(block)[:n]
        found = scores.double().cpu().numpy()
        return np.where(np.isnan(found), -np.inf, found)

    def set_threshold(self, data: Any, anomaly_fraction: float | None = None) -> float:
        """Set the score below which a row is an anomaly, so that this share of ``data`` lies below.

        Args:
            data: normal rows that were not trained on.
            anomaly_fraction: share in (0, 1); the model's ``anomaly_fraction`` when missing.

        Returns:
            The threshold: the quantile of the finite scores.
        """
        fraction = self.anomaly_fraction if anomaly_fraction is None else anomaly_fraction
        if not 0.0 < fraction < 1.0:
            raise ConfigError(f"anomaly_fraction: expected a share in (0, 1), got {fraction}.")
        scores = self.score_samples(data)
        finite = scores[np.isfinite(scores)]
        if len(finite) == 0:
            raise DataError("no row has a finite score, so no threshold can be set; are these rows in training units?")
        self.threshold.fill_(float(np.quantile(finite, fraction)))
        return float(self.threshold)

    def predict_anomaly(self, data: Any) -> np.ndarray:
        """Whether each row is an anomaly: its score is below the threshold or not finite. bool, shape (rows,)."""
        return self.is_anomaly(self.score_samples(data))

    def is_anomaly(self, scores: np.ndarray) -> np.ndarray:
        """The same from scores that are known already.

        Raises:
            NotSupportedError: no threshold has been set.
        """
        threshold = float(self.threshold)
        if np.isnan(threshold):
            raise NotSupportedError("no threshold is set: call set_threshold(rows), or fit with validation data.")
        # The comparison is this way round because NaN compares false: a score that is no number is an anomaly.
        return ~((scores >= threshold) & np.isfinite(scores))

    def predict(self, data: Any) -> np.ndarray:
        """+1 for normal rows and -1 for anomalies, int64, shape (rows,), as in scikit-learn."""
        return np.where(self.predict_anomaly(data), -1, 1)

    @torch.inference_mode()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: bool = False) -> Tensor:
        """``n`` new rows (n, columns) in the units of the data: decoded draws from the prior N(0, I).

        Args:
            n: number of rows.
            generator: source of randomness; torch's global one when missing.
            noise: add the decoder's noise to the means, which gives draws from the modelled density.
        """
        if n < 0:
            raise ConfigError(f"n: expected a number of rows of at least 0, got {n}.")
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=self.dtype, device=self.device)
        mean = self.decoder(z)
        if noise:
            eps = torch.randn(mean.shape, generator=generator, dtype=self.dtype, device=self.device)
            mean = mean + self.decoder.std.to(mean) * eps
        return mean if self.standardizer is None else self.standardizer.inverse(mean)

    @torch.inference_mode()
    def reconstruct(self, data: Any) -> Tensor:
        """Rows (rows, columns) encoded to the posterior mean and decoded, in the units of the data."""
        return self.decode(self.encode(self._tensor(data)).mean)

    @torch.inference_mode()
    def evaluate(self, data: Any, *, seed: int = 0) -> dict[str, float]:
        """Loss terms in nats per row, score statistics, reconstruction error and active latent units on rows."""
        rows = self._tensor(data)
        terms = self.loss(rows, noise=Noise(seed))
        error = (self.reconstruct(rows) - rows).double()
        scores = self.score_samples(rows)
        return {
            **dict(zip(terms.names(), terms.vector().tolist(), strict=True)),
            "score_mean": float(scores.mean()),
            "score_std": float(scores.std()),
            "reconstruction_rmse": float(error.square().mean().sqrt()),
            "active_units": active_units(self.encode(rows).mean),
        }

    def evaluate_anomaly_detection(self, normal: Any, anomaly: Any) -> dict[str, float]:
        """How well the score separates anomalies from normal rows; see :func:`noumena.density.metrics.detection`."""
        from noumena.density.metrics import detection

        return detection(self.score_samples(normal), self.score_samples(anomaly), float(self.threshold))

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
