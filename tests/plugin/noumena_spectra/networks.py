"""Encoder and decoder of spectra: tensors in, tensors out."""

import torch
from torch import Tensor, nn

from noumena.core.posterior import DiagonalGaussian


class Encoder(nn.Module):
    """Two strided convolutions along the axis and a linear head."""

    def __init__(self, channels: int, width: int, latent_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(1, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.SiLU(),
        )
        self.head = nn.Linear(width * -(-channels // 4), 2 * latent_dim)

    def forward(self, spectra: Tensor) -> DiagonalGaussian:
        """The posterior (batch, latent) of standardised spectra (batch, channels)."""
        features = self.convolutions(spectra[:, None])
        mean, log_var = self.head(features.flatten(1)).chunk(2, dim=-1)
        return DiagonalGaussian(mean, log_var.clamp(-12.0, 4.0))


class Decoder(nn.Module):
    """A linear layer to a quarter of the channels, and two transposed convolutions up again."""

    def __init__(self, channels: int, width: int, latent_dim: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.tail = nn.Linear(latent_dim, width * -(-channels // 4))
        self.convolutions = nn.Sequential(
            nn.SiLU(),
            nn.ConvTranspose1d(width, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose1d(width, 1, 4, stride=2, padding=1),
        )
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        """The mean of standardised spectra (batch, channels) given latents (batch, latent)."""
        features = self.tail(z).unflatten(-1, (self.width, -1))
        # Transposed convolutions give a multiple of four channels.
        return self.convolutions(features)[:, 0, : self.channels]
