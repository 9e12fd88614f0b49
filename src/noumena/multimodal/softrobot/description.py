"""What a data set of the soft robot says about itself: surface mesh and metadata."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from noumena.core.errors import ConfigError
from noumena.multimodal.softrobot.geometry import cylinder_mesh
from noumena.multimodal.softrobot.settings import POSE_COLUMNS, POSE_UNITS, SoftRobot

_WRENCH = {"columns": ["Fx", "Fy", "Fz", "Tx", "Ty", "Tz"], "units": ["N", "N", "N", "N mm", "N mm", "N mm"]}
_POSE = {"columns": list(POSE_COLUMNS), "units": list(POSE_UNITS)}


def surface_arrays(robot: SoftRobot) -> dict[str, np.ndarray]:
    """The surface at rest.

    Returns:
        ``nodes`` (surface, 3) in mm, float32; ``quads`` (quads, 4) and ``triangles`` (2 quads, 3), rows of
        ``nodes``, int32; ``node_ids`` (surface,), the nodes' numbers in the volume mesh, int32.
    """
    mesh = cylinder_mesh(robot)
    return {
        "nodes": mesh.nodes[mesh.surface].astype(np.float32),
        "quads": mesh.quads.astype(np.int32),
        "triangles": mesh.triangles.astype(np.int32),
        "node_ids": mesh.surface.astype(np.int32),
    }


def describe(totals: Mapping[str, int], *, robot: SoftRobot, paths: int, seed: int, targets: int) -> dict[str, Any]:
    """The metadata of a data set: columns, units, geometry, material, sampling and what failed.

    Args:
        totals: ``rows``, ``failed_steps`` and ``newton_iterations`` of all paths together.
        robot, seed, targets: as in :func:`~noumena.multimodal.softrobot.paths.load_path`.
        paths: how many load paths there are.

    Raises:
        ConfigError: there is no row.
    """
    if totals["rows"] == 0:
        raise ConfigError(
            f"no step of any of the {paths} load paths converged. Narrow the range of poses or refine the mesh."
        )
    mesh = cylinder_mesh(robot)
    return {
        "samples": totals["rows"],
        "surface_nodes": len(mesh.surface),
        "shape_dim": 3 * len(mesh.surface),
        "quads": len(mesh.quads),
        "triangles": len(mesh.triangles),
        "volume_nodes": len(mesh.nodes),
        "hexahedra": len(mesh.cells),
        "mesh": {"turns": robot.turns, "layers": robot.layers, "levels": robot.levels},
        "element": "Q1P0 hexahedron (mean dilatation)",
        "geometry": {
            "outer_radius_mm": robot.outer_radius,
            "inner_radius_mm": robot.inner_radius,
            "height_mm": robot.height,
        },
        "material": {
            "model": "Neo-Hookean, nearly incompressible",
            "mu_MPa": robot.shear_modulus,
            "bulk_MPa": robot.bulk_modulus,
        },
        "group": "path_id",
        "modalities": {
            "pose": {**_POSE, "kind": "pose"},
            "force": {**_WRENCH, "kind": "wrench"},
            "shape": {"columns": None, "units": "mm", "kind": "displacement", "mesh": "surface_mesh.npz"},
        },
        "pose": {
            **_POSE,
            "rotation": f"rotation vector of the rigid top about its reference point (0, 0, {robot.height:g})",
            "low": list(robot.pose_low),
            "high": list(robot.pose_high),
        },
        "force": {
            **_WRENCH,
            "meaning": "wrench the robot exerts on its base, about the base centre (0, 0, 0); equals the external "
            "wrench applied at the top",
        },
        "top_wrench": "same load taken about the moved top reference point",
        "shape": "displacements (ux, uy, uz) in mm of the surface nodes, row-major (n, 3)",
        "energy": "stored elastic energy, N mm (mJ)",
        "path_id": "load path; split by path, never by row: consecutive rows of a path are close",
        "sampling": f"each path starts at rest and visits {targets} uniformly random poses of the range, in steps of "
        "at most a fifth of it, moved off the straight line by up to 0.3 step; every converged step is a row",
        "paths": paths,
        "targets": targets,
        "seed": seed,
        "failed_steps": totals["failed_steps"],
        "newton_iterations_mean": totals["newton_iterations"] / totals["rows"],
        "solver": "three-field Newton with sparse LU, relative residual 1e-8",
    }


def settings(robot: SoftRobot, *, seed: int, targets: int) -> dict[str, Any]:
    """All that the numbers of a load path depend on besides its own, the versions of the solvers included."""
    versions = {name: version(name) for name in ("noumena", "numpy", "scipy", "scikit-fem")}
    return {**asdict(robot), "seed": seed, "targets": targets, "versions": versions}
