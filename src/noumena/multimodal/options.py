"""Hyperparameters of the multimodal VAE that cannot be, refused by name."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.networks import Activation
from noumena.multimodal.objective import Fusion
from noumena.multimodal.symmetry import PointGroup

MOST_MODALITIES = 8
"""2^8 - 1 subsets of modalities, each with its own calibrated errors."""

_BY_NAME = ("hidden_dims", "components", "scale", "source_weights")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values that are out of range, whatever the data.

    Args:
        options: see :class:`~noumena.multimodal.model.MVAE`.

    Raises:
        ConfigError: it names the option.
    """
    for name, choices in (("fusion", get_args(Fusion)), ("activation", get_args(Activation))):
        if options[name] not in choices:
            raise ConfigError(f"model.{name}: unknown '{options[name]}'. {did_you_mean(options[name], choices)}")
    for name in ("z_dim", "mixture"):
        if options[name] < 1:
            raise ConfigError(f"model.{name}: expected at least 1, got {options[name]}.")
    for name in ("beta", "alignment", "recon_pred_scale", "z_coeff", "kl_coeff"):
        if not 0.0 <= options[name] < float("inf"):
            raise ConfigError(f"model.{name}: expected a finite number of at least 0, got {options[name]}.")
    for name in ("joint_share", "cvib_weight"):
        if not 0.0 <= options[name] <= 1.0:
            raise ConfigError(f"model.{name}: expected a share in [0, 1], got {options[name]}.")
    widths = options["hidden_dims"]
    lists = widths.values() if isinstance(widths, dict) else [widths]
    if not all(width >= 1 for one in lists for width in one):
        raise ConfigError(f"model.hidden_dims: expected positive widths, got {widths}.")
    if any(number < 1 for number in _values(options["components"])):
        raise ConfigError(f"model.components: expected at least 1 or null, got {options['components']}.")
    if not all(0.0 < weight < float("inf") for weight in _values(options["source_weights"])):
        raise ConfigError(f"model.source_weights: expected positive numbers, got {options['source_weights']}.")
    if options["symmetry"] is not None:
        PointGroup.parse(options["symmetry"])
        if options["fusion"] == "align":
            raise ConfigError(
                "model.symmetry: fusion=align is the original objective, which has none. Use another one."
            )
    if options["sizes"] is not None:
        check_names(options, options["sizes"])


def check_names(options: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Refuse options that do not fit the modalities.

    Args:
        options: see :class:`~noumena.multimodal.model.MVAE`.
        sizes: numbers of each modality by name.

    Raises:
        ConfigError: it names the option.
    """
    if not 1 <= len(sizes) <= MOST_MODALITIES:
        raise ConfigError(f"model.sizes: expected 1 to {MOST_MODALITIES} modalities, got {len(sizes)}.")
    if options["fusion"] == "align" and len(sizes) < 2:
        raise ConfigError("model.fusion=align predicts the other modalities from the first; one is not enough.")
    if not all(size >= 1 for size in sizes.values()):
        raise ConfigError(f"model.sizes: expected positive sizes, got {dict(sizes)}.")
    for option in _BY_NAME:
        value = options[option]
        for name in value if isinstance(value, dict) else ():
            if name not in sizes:
                raise ConfigError(f"model.{option}: no modality '{name}'. {did_you_mean(name, sizes)}")
    widths = options["hidden_dims"]
    for name in sizes if isinstance(widths, dict) else ():
        if name not in widths:
            raise ConfigError(f"model.hidden_dims: no widths for '{name}'. Give them, or one list for all.")


def _values(option: Any) -> Iterable[Any]:
    return option.values() if isinstance(option, dict) else () if option is None else (option,)
