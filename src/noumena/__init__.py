"""Noumena learns, compares and serves latent representations of scientific data."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names and where they live; resolved on first use so that `import noumena` stays light.
_NAMES = {
    "load": "noumena.artifact",
    "save": "noumena.artifact",
    "verify": "noumena.artifact",
    "fit": "noumena.training",
    "run_recipe": "noumena.experiment",
    "NoumenaError": "noumena.core.errors",
    "ConfigError": "noumena.core.errors",
    "DataError": "noumena.core.errors",
    "ArtifactError": "noumena.core.errors",
    "NotSupportedError": "noumena.core.errors",
    "TrainingDiverged": "noumena.core.errors",
    "TrainingInterrupted": "noumena.core.errors",
}

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "NotSupportedError",
    "NoumenaError",
    "TrainingDiverged",
    "TrainingInterrupted",
    "__version__",
    "fit",
    "load",
    "run_recipe",
    "save",
    "verify",
]

if TYPE_CHECKING:
    from noumena.artifact import load, save, verify
    from noumena.core.errors import (
        ArtifactError,
        ConfigError,
        DataError,
        NotSupportedError,
        NoumenaError,
        TrainingDiverged,
        TrainingInterrupted,
    )
    from noumena.experiment import run_recipe
    from noumena.training import fit


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'noumena' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
