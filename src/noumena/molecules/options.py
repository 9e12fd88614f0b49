"""The options of the model: their choices and ranges."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from noumena.core.errors import ConfigError, did_you_mean
from noumena.molecules.networks.heads import PosteriorKind
from noumena.molecules.objective import Loss

Encoder = Literal["torsions", "visnet"]
Decoder = Literal["internal", "egnn"]
Symmetry = Literal["SE3", "E3"]

WEIGHTS = ("aligned", "local", "torsion", "chirality", "clash")
"""The options that are weights of terms, as in :class:`~noumena.molecules.objective.Weights`."""

_CHOICES = {
    "encoder": get_args(Encoder),
    "decoder": get_args(Decoder),
    "symmetry": get_args(Symmetry),
    "posterior": get_args(PosteriorKind),
    "loss": get_args(Loss),
}
_SIZES = ("z_dim", "width", "layers", "channels", "neighbours", "mixture")
# Layers are made, if only as shapes, before a saved model can be compared with its file.
_MOST = 1 << 16
_MOST_BLOCKS = 1 << 10


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse an option out of range.

    Args:
        options: by name, as :class:`~noumena.molecules.model.MoleculeVAE` takes them.

    Raises:
        ConfigError: the message names the option, what is expected and what was found.
    """
    for name, known in _CHOICES.items():
        if options[name] not in known:
            raise ConfigError(f"model.{name}: unknown '{options[name]}'. {did_you_mean(str(options[name]), known)}")
    for name in _SIZES:
        if not 1 <= options[name] <= _MOST:
            raise ConfigError(f"model.{name}: expected 1 to {_MOST}, got {options[name]}.")
    if not 1 <= options["blocks"] <= _MOST_BLOCKS:
        raise ConfigError(f"model.blocks: expected 1 to {_MOST_BLOCKS}, got {options['blocks']}.")
    for name in (*WEIGHTS, "beta", "free_bits"):
        if not 0.0 <= options[name] < float("inf"):
            raise ConfigError(f"model.{name}: expected a finite number of at least 0, got {options[name]}.")
    if not 0.0 <= options["crossover"] <= 1.0:
        raise ConfigError(f"model.crossover: expected a share from 0 to 1, got {options['crossover']}.")
    if not 0.0 < options["cutoff"] < float("inf"):
        raise ConfigError(f"model.cutoff: expected a distance in angstrom above 0, got {options['cutoff']}.")
