"""Training on Lightning's Trainer. Lightning is imported when something trains, not before."""

from typing import TYPE_CHECKING, Any

from noumena.training.history import History
from noumena.training.settings import FitSettings

if TYPE_CHECKING:
    from noumena.training.data import DataModule
    from noumena.training.engine import fit
    from noumena.training.module import TrainingModule

_LAZY = {
    "fit": "noumena.training.engine",
    "TrainingModule": "noumena.training.module",
    "DataModule": "noumena.training.data",
}

__all__ = ["DataModule", "FitSettings", "History", "TrainingModule", "fit"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'noumena.training' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
