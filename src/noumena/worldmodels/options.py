"""Ranges of hyperparameters, checked before anything is built."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from noumena.core.errors import ConfigError, did_you_mean
from noumena.worldmodels.networks.encoders import Encoder
from noumena.worldmodels.networks.predictors import Predictor
from noumena.worldmodels.objectives.inverse import InverseInput

_CHOICES: dict[str, tuple[str, ...]] = {
    "objective": ("vicreg", "simclr", "idm", "sigreg"),
    "encoder": get_args(Encoder),
    "predictor": get_args(Predictor),
    "idm_input": get_args(InverseInput),
    "negatives": ("across", "within", "both"),
    "swap": ("auto", "always", "never"),
}
_AT_LEAST_ONE = (
    *("width", "latent_dim", "predictor_layers", "predictor_width", "sigreg_directions"),
    *("backbone_mlp", "projector"),
)
_NOT_NEGATIVE = ("sim", "sim_start", "std", "cov", "std_time", "cov_time", "idm", "sigreg", "episode_dim")


def check_jepa(values: Mapping[str, Any]) -> None:
    """Refuse values that cannot be, and combinations that train nothing.

    Raises:
        ConfigError: the first one, by name.
    """
    for name, choices in _CHOICES.items():
        if name in values and values[name] not in choices:
            raise ConfigError(f"model.{name}: unknown '{values[name]}'. {did_you_mean(str(values[name]), choices)}")
    for name in _AT_LEAST_ONE:
        entries = values.get(name, 1)
        for value in entries if isinstance(entries, list | tuple) else (entries,):
            if value < 1:
                raise ConfigError(f"model.{name}: expected at least 1, got {value}.")
    for name in _NOT_NEGATIVE:
        value = values.get(name) or 0.0
        if not (value >= 0.0 and math.isfinite(value)):
            raise ConfigError(f"model.{name}: expected a finite number of at least 0, got {value}.")
    if "temperature" in values and not (values["temperature"] > 0.0 and math.isfinite(values["temperature"])):
        raise ConfigError(f"model.temperature: expected a finite number above 0, got {values['temperature']}.")
    targets = values.get("targets")
    if targets is not None and targets < 1:
        raise ConfigError(f"model.targets: expected at least 1, or null for all later frames, got {targets}.")
    if values.get("objective") == "idm" and values["idm"] == 0.0:
        raise ConfigError("model.idm: objective 'idm' trains by nothing else; give it a weight, such as model.idm=1.")
    for name in ("std_time", "cov_time"):
        if values.get("objective") in ("simclr", "idm") and values[name] > 0.0:
            raise ConfigError(f"model.{name}: objective '{values['objective']}' has no such term; leave it at 0.")
    if values.get("predictor") == "none" and values.get("objective") == "idm":
        raise ConfigError("model.predictor: 'none' predicts no state that an action could be read from; use 'gru'.")
