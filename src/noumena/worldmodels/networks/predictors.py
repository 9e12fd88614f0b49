"""Predictors: latents after actions, by an open-loop roll-out that never looks at a later frame."""

from typing import Literal

import torch
from torch import Tensor, nn

from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.networks import mlp

Predictor = Literal["gru", "mlp", "none"]


def make_predictor(name: Predictor, *, latent_size: int, action_dim: int, layers: int, width: int) -> nn.Module:
    """A network from (start (batch, latent), actions (batch, steps, action)) to latents (batch, steps, latent).

    Args:
        name: ``gru`` (a recurrent network whose state is the latent), ``mlp`` (a network applied at each step to
            latent and action) or ``none`` (the latent stays what it was).
        latent_size, action_dim: sizes of its inputs.
        layers: of the GRU, or hidden ones of the network.
        width: of the hidden layers of ``mlp``.

    Raises:
        ConfigError: an unknown name or no layer.
    """
    if layers < 1 or width < 1:
        raise ConfigError(f"model.predictor_layers and predictor_width: at least 1, got {layers} and {width}.")
    if name == "gru":
        return GRUPredictor(latent_size, action_dim, layers)
    if name == "mlp":
        return MLPPredictor(latent_size, action_dim, layers, width)
    if name == "none":
        return Persistence()
    raise ConfigError(f"model.predictor: unknown '{name}'. {did_you_mean(str(name), ('gru', 'mlp', 'none'))}")


class GRUPredictor(nn.Module):
    """A GRU (Cho et al. 2014) driven by actions whose state begins as the latent of the first frame."""

    def __init__(self, latent_size: int, action_dim: int, layers: int = 1) -> None:
        super().__init__()
        self.rnn = nn.GRU(action_dim, latent_size, num_layers=layers, batch_first=True)

    def forward(self, start: Tensor, actions: Tensor) -> Tensor:
        """Latents after each action; each layer begins at ``start``."""
        hidden = start.expand(self.rnn.num_layers, *start.shape).contiguous()
        return self.rnn(actions, hidden)[0]


class MLPPredictor(nn.Module):
    """The change of the latent as a function of latent and action, applied step by step."""

    def __init__(self, latent_size: int, action_dim: int, layers: int, width: int) -> None:
        super().__init__()
        self.change = mlp([latent_size + action_dim, *[width] * layers, latent_size], "silu")

    def forward(self, start: Tensor, actions: Tensor) -> Tensor:
        """Latents after each action."""
        latents: list[Tensor] = []
        for action in actions.unbind(1):
            start = start + self.change(torch.cat([start, action], dim=-1))
            latents.append(start)
        return torch.stack(latents, dim=1)


class Persistence(nn.Module):
    """Nothing changes: the prediction that any other must beat."""

    def forward(self, start: Tensor, actions: Tensor) -> Tensor:
        """``start`` after each action."""
        return start[:, None].expand(-1, actions.shape[1], -1)
