"""scikit-learn estimators of the density family: outlier detectors with densities, p-values and calibrated thresholds.

>>> from noumena.density.estimators import AutoDetector
>>> detector = AutoDetector(random_state=0).fit(rows)  # doctest: +SKIP
>>> detector.p_value(new_rows)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noumena.density.estimators.auto import AutoDetector
    from noumena.density.estimators.flow import FlowDetector
    from noumena.density.estimators.gmm import GMMDetector
    from noumena.density.estimators.knn import KNNDetector
    from noumena.density.estimators.vae import VAEDetector

__all__ = ["AutoDetector", "FlowDetector", "GMMDetector", "KNNDetector", "VAEDetector"]

_MODULES = {
    "AutoDetector": "auto",
    "FlowDetector": "flow",
    "GMMDetector": "gmm",
    "KNNDetector": "knn",
    "VAEDetector": "vae",
}


def __getattr__(name: str) -> Any:
    """Import an estimator when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
