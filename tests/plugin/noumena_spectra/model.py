"""The variational autoencoder of spectra."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError
from noumena.core.losses import LossTerms, kl_loss
from noumena.core.model import LatentModel
from noumena.core.posterior import DiagonalGaussian
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import Noise
from noumena.readers.checks import check_rows
from noumena_spectra.data import Spectra, open_file
from noumena_spectra.networks import Decoder, Encoder


class SpectraVAE(LatentModel):
    """β-VAE of spectra with a Gaussian likelihood of one learned standard deviation."""

    sizes_from_data = ("channels",)

    def __init__(self, *, channels: int | None = None, latent_dim: int = 6, width: int = 16, beta: float = 1.0) -> None:
        """
        Args:
            channels: points of a spectrum; inferred by ``fit`` when missing.
            latent_dim: size of the latent.
            width: channels of the convolutions.
            beta: weight of the KL term.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__()
        for name, value, least in (("channels", channels, 8), ("latent_dim", latent_dim, 1), ("width", width, 1)):
            if value is not None and value < least:
                raise ConfigError(f"model.{name}: expected at least {least}, got {value}.")
        if not 0.0 <= beta < float("inf"):
            raise ConfigError(f"model.beta: expected a finite number of at least 0, got {beta}.")
        self.channels, self.latent_dim, self.width, self.beta = channels, latent_dim, width, beta
        if self.is_built:
            self._build()

    # What training asks for

    def as_dataset(self, data: Any) -> Dataset:
        """Spectra, the path of a file, or an array (spectra, channels) whose axis is 0, 1, 2, ..."""
        if isinstance(data, Spectra):
            return data
        if isinstance(data, str | Path):
            return open_file(str(data), val_fraction=0.0, test_fraction=0.0).train
        array = data if isinstance(data, Tensor) else np.asarray(data)
        names = [str(i) for i in range(array.shape[-1] if array.ndim else 0)]
        return Spectra(check_rows(array, names, "the spectra"), tuple(map(float, range(len(names)))))

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        return {"channels": len(dataset.schema["axis"])}

    def _build(self) -> None:
        assert self.channels is not None
        self.standardizer = Standardizer(self.channels)
        self.encoder = Encoder(self.channels, self.width, self.latent_dim)
        self.decoder = Decoder(self.channels, self.width, self.latent_dim)

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        assert isinstance(dataset, Spectra)
        self.standardizer.fit(dataset.rows.to(self.device))

    def loss(self, batch: Tensor, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Negative ELBO of spectra (batch, channels) in nats, with the parts ``reconstruction`` and ``kl``."""
        rows = self.standardizer(batch)
        posterior = self.encoder(rows)
        eps = None if noise is None else noise.normal_like(posterior.mean)
        reconstruction = -self._log_likelihood(rows, posterior.sample(noise=eps)).mean()
        kl = kl_loss(posterior)
        return LossTerms(reconstruction + self.beta * beta_scale * kl, {"reconstruction": reconstruction, "kl": kl})

    def _log_likelihood(self, rows: Tensor, z: Tensor) -> Tensor:
        """``log p(x | z)`` of standardised spectra (batch, channels) in nats, shape (batch,)."""
        log_scale = self.decoder.log_scale
        deviation = (rows - self.decoder(z)) * torch.exp(-log_scale)
        return -(0.5 * deviation.square() + log_scale + 0.5 * math.log(2.0 * math.pi)).sum(-1)

    # What users ask for

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The posterior over latents (batch, latent) of spectra (batch, channels)."""
        return self.encoder(self.standardizer(self._rows(batch)))

    def decode(self, z: Tensor) -> Tensor:
        """The mean of the spectra (batch, channels) given latents (batch, latent), in the units of the data."""
        return self.standardizer.inverse(self.decoder(z.to(self.device, self.dtype)))

    @torch.inference_mode()
    def reconstruct(self, data: Any) -> Tensor:
        """Spectra encoded to the posterior mean and decoded again."""
        return self.decode(self.encode(data).mean)

    @torch.inference_mode()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` new spectra (n, channels): decoded draws from the prior N(0, I)."""
        return self.decode(torch.randn(n, self.latent_dim, generator=generator, device=self.device))

    @torch.inference_mode()
    def score_samples(self, data: Any) -> np.ndarray:
        """``log p(x | z) - KL`` at the posterior mean in nats, of standardised spectra; float64, shape (spectra,)."""
        rows = self.standardizer(self._rows(data))
        posterior = self.encoder(rows)
        return (self._log_likelihood(rows, posterior.mean) - posterior.kl()).double().cpu().numpy()

    def _rows(self, data: Any) -> Tensor:
        dataset = self.as_dataset(data)
        assert isinstance(dataset, Spectra)
        return dataset.rows.to(self.device, self.dtype)
