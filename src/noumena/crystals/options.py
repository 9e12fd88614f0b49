"""The choices of the crystal models, and what is wrong with a value."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from noumena.core.errors import ConfigError, did_you_mean
from noumena.crystals.networks.transformer import Activation

RepresentationKind = Literal["periodic", "original"]

WEIGHTS = {
    "types": "type_weight",
    "circle": "circle_weight",
    "coords": "coord_weight",
    "cell": "cell_weight",
    "lengths": "length_weight",
    "angles": "angle_weight",
}
"""Option that holds the weight of each term of the loss."""

_AT_LEAST = {
    "latent_dim": 1,
    "width": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "heads": 1,
    "feedforward": 1,
    "species": 2,
    "frequencies": 1,
    "vector_dim": 0,
}
_NOT_NEGATIVE = (*WEIGHTS.values(), "beta", "latent_noise")
_SHARES = ("corruption",)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values out of range.

    Raises:
        ConfigError: the message names the option, what it is and what it may be.
    """
    kinds = get_args(RepresentationKind)
    if options["representation"] not in kinds:
        raise ConfigError(
            f"model.representation: unknown '{options['representation']}'. "
            f"{did_you_mean(str(options['representation']), kinds)}"
        )
    activations = get_args(Activation)
    if options["activation"] not in activations:
        raise ConfigError(
            f"model.activation: unknown '{options['activation']}'. "
            f"{did_you_mean(str(options['activation']), activations)}"
        )
    for name, least in _AT_LEAST.items():
        if options[name] < least:
            raise ConfigError(f"model.{name}: expected at least {least}, got {options[name]}.")
    for name in _NOT_NEGATIVE:
        if not 0.0 <= options[name] < float("inf"):
            raise ConfigError(f"model.{name}: expected a finite number of at least 0, got {options[name]}.")
    for name in _SHARES:
        if not 0.0 <= options[name] < 1.0:
            raise ConfigError(f"model.{name}: expected a share from 0 to below 1, got {options[name]}.")
    width, heads = options["width"], options["heads"]
    if width % heads or width % 2:
        raise ConfigError(f"model.width: {width} must be even and a multiple of model.heads, which is {heads}.")
