"""The density family's variational autoencoder."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.losses import LossTerms, kl_loss
from noumena.core.networks import Activation
from noumena.core.posterior import DiagonalGaussian, active_units
from noumena.core.seeding import Noise
from noumena.density.detector import Detector, ScoreUnit
from noumena.density.networks import DecoderScale, GaussianDecoder, GaussianEncoder
from noumena.density.noise import normal_nodes, row_noise

Scoring = Literal["importance", "elbo", "reconstruction", "reconstruction_probability", "original"]

# Decoded draws at once: as many rows as keep a layer's activations in a core's cache.
_DRAWS = 4096


class VAE(Detector):
    r"""β-VAE of table rows, for densities and anomaly or out-of-distribution scores.

    .. math:: \mathcal{L}(x) = -\log p(x \mid z) + \beta\, \mathrm{KL}(q(z \mid x)\,\|\,\mathcal{N}(0, I)),
        \qquad z \sim q(z \mid x)

    (Kingma & Welling 2014; Higgins et al. 2017), both terms summed over columns and latent dimensions and averaged
    over rows. The score of a row is by default the importance-weighted estimate of its log-likelihood

    .. math:: \log \frac1K \sum_k \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)},
        \qquad z_k = \mu(x) + \sigma(x)\, \epsilon_k

    (Burda et al. 2016, eq. 8) with the same ``K`` points ``ε`` for every row, so that it is deterministic; higher is
    more normal.

    With ``decoder_scale="fixed"`` and ``standardize=False`` the loss is the squared error plus β KL and the score the
    negative squared error, which is the VAE of GORMPO (Tumay et al., arXiv 2605.24405). The learned scale (one
    standard deviation per column, as in the σ-VAE of Rybkin et al. 2021) tells near anomalies apart far better:
    a fixed scale gives up every direction whose variance is below its own.
    """

    has_latents = True

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
        draws: int = 64,
        standardize: bool = True,
        activation: Activation = "relu",
        anomaly_fraction: float = 0.01,
        calibration_rows: int = 0,
    ) -> None:
        """
        Args:
            input_dim: columns of a row; inferred by ``fit`` when missing.
            hidden_dims: widths of the encoder; the decoder mirrors them.
            latent_dim: size of the latent.
            beta: weight of the KL term.
            free_bits: nats per latent dimension below which the KL is not minimised.
            decoder_scale: ``fixed`` (squared error) or ``learned`` (one standard deviation per column).
            scoring: ``importance`` is the log-likelihood above. ``elbo`` is ``log p(x | z) - KL`` at the posterior
                mean ``z``, faster by ``draws``. ``reconstruction`` is ``log p(x | z)`` there: a row whose latent alone
                is abnormal is not seen. ``reconstruction_probability`` is its mean over draws of the posterior (An &
                Cho 2015, algorithm 4). ``original`` is that of GORMPO: minus the squared error of one draw, noisy, for
                comparison. By default ``importance`` with the learned scale and ``reconstruction`` with the fixed one.
            draws: points of the posterior per row, for ``importance`` and ``reconstruction_probability``.
            standardize: map columns to zero mean and unit variance inside the model.
            activation: nonlinearity of the hidden layers.
            anomaly_fraction: share of normal rows that the threshold set by ``fit`` calls anomalies.
            calibration_rows: scores that the model holds for p-values; set by ``fit`` and ``calibrate``.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(input_dim, standardize, anomaly_fraction, calibration_rows)
        self.hidden_dims = tuple(hidden_dims)
        self.latent_dim = latent_dim
        self.beta = beta
        self.free_bits = free_bits
        self.decoder_scale: DecoderScale = decoder_scale
        self.scoring: Scoring | None = scoring
        self.draws = draws
        self.activation: Activation = activation
        self._check_hyperparameters()
        if self.is_built:
            self._build()

    def _check_hyperparameters(self) -> None:
        if not all(width >= 1 for width in self.hidden_dims):
            raise ConfigError(f"model.hidden_dims: expected positive widths, got {list(self.hidden_dims)}.")
        for name in ("latent_dim", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: expected at least 1, got {getattr(self, name)}.")
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
        if self.scoring is not None and self.scoring not in get_args(Scoring):
            raise ConfigError(
                f"model.scoring: unknown '{self.scoring}'. {did_you_mean(str(self.scoring), get_args(Scoring))}"
            )

    def _build(self) -> None:
        super()._build()
        assert self.input_dim is not None
        self.encoder = GaussianEncoder(self.input_dim, self.hidden_dims, self.latent_dim, self.activation)
        self.decoder = GaussianDecoder(
            self.latent_dim, self.hidden_dims[::-1], self.input_dim, self.activation, self.decoder_scale
        )

    # Mathematics on tensors

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

    @property
    def active_scoring(self) -> Scoring:
        """The score in use: ``scoring``, or its default."""
        return self.scoring or ("importance" if self.decoder_scale == "learned" else "reconstruction")

    @property
    def score_unit(self) -> ScoreUnit:
        """What :meth:`score_samples` counts; the density of the fixed scale is known up to a constant alone."""
        learned = self.decoder_scale == "learned" and self.active_scoring != "original"
        return "nats" if learned else "negative squared error"

    @property
    def _rows_of_a_block(self) -> int:
        sampled = self.active_scoring in ("importance", "reconstruction_probability")
        return max(1, _DRAWS // self.draws) if sampled else self.block

    def log_density(self, x: Tensor) -> Tensor:
        """The score of rows ``x`` (batch, columns), shape (batch,), see ``scoring``; differentiable."""
        scoring = self.active_scoring
        rows = self._standardized(x)
        posterior = self.encoder(rows)
        if scoring == "original":
            mean = self.decoder(posterior.sample(noise=row_noise(rows, self.latent_dim)))
            return -(rows - mean).square().sum(-1)
        if scoring in ("importance", "reconstruction_probability"):
            score = self._sampled(rows, posterior, weighted=scoring == "importance")
        else:
            score = self.decoder.log_prob(rows, self.decoder(posterior.mean), self._constant)
        if scoring == "elbo":
            score = score - posterior.kl()
        return score + self._log_det if self.decoder_scale == "learned" else score

    def _sampled(self, rows: Tensor, posterior: DiagonalGaussian, *, weighted: bool) -> Tensor:
        """The log-likelihood from points of the posterior: importance-weighted, or of the mean log-likelihood."""
        noise = normal_nodes(self.draws, self.latent_dim).to(rows)
        z = posterior.mean[:, None] + posterior.std[:, None] * noise
        likelihood = self.decoder.log_prob(rows[:, None], self.decoder(z), self._constant)
        if not weighted:
            return likelihood.mean(-1)
        # log p(z) - log q(z | x): the normalisers of both normal densities cancel.
        weight = 0.5 * (noise.square().sum(-1) - z.square().sum(-1) + posterior.log_var.sum(-1, keepdim=True))
        return torch.logsumexp(likelihood + weight, -1) - math.log(self.draws)

    # Use

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
        error = (self.reconstruct(rows) - rows).double()
        return {
            **super().evaluate(rows, seed=seed),
            "reconstruction_rmse": float(error.square().mean().sqrt()),
            "active_units": active_units(self.encode(rows).mean),
        }
