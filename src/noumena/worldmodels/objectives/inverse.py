"""Inverse dynamics: the action read from two latents that follow each other."""

from typing import Literal

import torch
from torch import Tensor, nn

InverseInput = Literal["pair", "difference"]


class InverseDynamics(nn.Module):
    """A linear map from two latents to the action between them.

    From the ``pair`` [z, z'] (Sobal et al. 2022), or from their ``difference`` z' - z, in which whatever both hold
    alike has cancelled (Delta-JEPA, 2026).
    """

    def __init__(self, latent_size: int, action_dim: int, kind: InverseInput = "pair") -> None:
        super().__init__()
        self.kind: InverseInput = kind
        self.linear = nn.Linear(2 * latent_size if kind == "pair" else latent_size, action_dim)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Latents (..., latent) before and after to actions (..., action)."""
        return self.linear(torch.cat([before, after], -1) if self.kind == "pair" else after - before)
