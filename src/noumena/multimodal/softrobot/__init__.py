"""A soft hollow cylinder whose rigid top is moved by a 6-DoF pose: finite elements that make multimodal data.

Every row is a static equilibrium: pose of the top, wrench on the base, displacements of the surface, stored energy.
Everything but :class:`SoftRobot` needs scikit-fem (``pip install 'noumena[fem]'``), which is imported on first use.
"""

from typing import TYPE_CHECKING, Any

from noumena.multimodal.softrobot.settings import SoftRobot

# Public names and where they live.
_NAMES = {
    "CylinderMesh": "geometry",
    "cylinder_mesh": "geometry",
    "NearlyIncompressible": "elasticity",
    "Equilibrium": "equilibrium",
    "Observation": "equilibrium",
    "load_path": "paths",
    "describe": "description",
    "surface_arrays": "description",
}

__all__ = [
    "CylinderMesh",
    "Equilibrium",
    "NearlyIncompressible",
    "Observation",
    "SoftRobot",
    "cylinder_mesh",
    "describe",
    "load_path",
    "surface_arrays",
]

if TYPE_CHECKING:
    from noumena.multimodal.softrobot.description import describe, surface_arrays
    from noumena.multimodal.softrobot.elasticity import NearlyIncompressible
    from noumena.multimodal.softrobot.equilibrium import Equilibrium, Observation
    from noumena.multimodal.softrobot.geometry import CylinderMesh, cylinder_mesh
    from noumena.multimodal.softrobot.paths import load_path


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
