"""Network blocks that know no modality."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from noumena.core.errors import ConfigError, did_you_mean

Activation = Literal["relu", "silu", "gelu", "tanh", "elu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}


def mlp(sizes: Sequence[int], activation: Activation = "relu", *, activate_last: bool = False) -> nn.Sequential:
    """Fully connected layers with an activation between them.

    Args:
        sizes: widths from input to output, at least two.
        activation: the nonlinearity.
        activate_last: also after the last layer, for a trunk that heads follow.

    Raises:
        ConfigError: fewer than two widths, a width below 1 or an unknown activation.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ConfigError(f"layer widths: expected at least two positive integers, got {list(sizes)}.")
    if activation not in _ACTIVATIONS:
        raise ConfigError(f"unknown activation '{activation}'. {did_you_mean(activation, _ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(fan_in, fan_out))
        if activate_last or i < len(sizes) - 2:
            layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)
