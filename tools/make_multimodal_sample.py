"""Make the soft-robot sample of the multimodal family: whole load paths, on a coarser surface.

usage: python tools/make_multimodal_sample.py SOURCE OUTPUT
    SOURCE  folder made by `noumena data softrobot`: pose.npy, force.npy, shape.npy, energy.npy, path_id.npy,
            surface_mesh.npz
    OUTPUT  folder for softrobot.npz and softrobot.json
"""

import argparse
import json
from pathlib import Path

import numpy as np

PATHS = 64
TURNS = 12  # nodes around, of 24
LEVELS = (0.0, 10.0, 20.0, 30.0, 40.0)  # mm, of 13 levels
LARGEST_ERROR = 0.01  # mm, of displacements stored in half precision
FACTS = {
    "about": "Static equilibria of a soft hollow cylinder (outer radius 20 mm, inner radius 13 mm, height 40 mm, "
    "Neo-Hookean, shear modulus 0.1 MPa, bulk modulus 5 MPa) whose rigid top is moved, by finite elements",
    "group": "path_id",
    "modalities": {
        "pose": {
            "columns": ["Dx", "Dy", "Dz", "Rx", "Ry", "Rz"],
            "units": ["mm", "mm", "mm", "rad", "rad", "rad"],
            "kind": "pose",
            "meaning": "displacement and rotation vector of the top about its reference point (0, 0, 40)",
        },
        "force": {
            "columns": ["Fx", "Fy", "Fz", "Tx", "Ty", "Tz"],
            "units": ["N", "N", "N", "N mm", "N mm", "N mm"],
            "kind": "wrench",
            "meaning": "wrench the robot exerts on its base, about the base centre (0, 0, 0)",
        },
        "shape": {"units": "mm", "kind": "displacement", "meaning": "displacements of the nodes of the surface"},
    },
    "energy": "stored elastic energy, N mm",
    "path_id": "load path; split by path, never by row: consecutive rows of a path are close",
}


def coarse_surface(nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some nodes of the outer and inner wall, and triangles between them that close the surface.

    The nodes are symmetric under rotations by 30 degrees and under the mirror y -> -y, as the body is.

    Args:
        nodes: of the fine surface at rest, shape (nodes, 3), mm.

    Returns:
        Numbers of the nodes that are kept, shape (2 * levels * turns,), and triangles of kept nodes, shape
        (triangles, 3), counter-clockwise seen from outside.
    """
    angles = np.arange(TURNS) * 2 * np.pi / TURNS
    rings = [
        np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(TURNS, level)], 1)
        for radius in (20.0, 13.0)
        for level in LEVELS
    ]
    wanted = np.concatenate(rings)
    distances = np.linalg.norm(nodes[None] - wanted[:, None], axis=2)
    if distances.min(1).max() > 1e-3:
        raise SystemExit("the source has not the nodes of a cylinder 20 x 13 x 40 mm with 24 x 12 elements")
    count = len(LEVELS)
    # Pairs of rings, such that a quad between them faces outwards: outer wall, inner wall, top, bottom.
    outer = [(level, level + 1) for level in range(count - 1)]
    inner = [(count + level + 1, count + level) for level in range(count - 1)]
    strips = [*outer, *inner, (count - 1, 2 * count - 1), (count, 0)]
    here = np.arange(TURNS)
    after = (here + 1) % TURNS
    quads = np.concatenate(
        [
            np.stack([low * TURNS + here, low * TURNS + after, high * TURNS + after, high * TURNS + here], 1)
            for low, high in strips
        ]
    )
    return distances.argmin(1), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def main() -> None:
    """Read the source and write the sample."""
    parser = argparse.ArgumentParser(description="Make the soft-robot sample of the multimodal family.")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    folders = parser.parse_args()
    arrays = {name: np.load(folders.source / f"{name}.npy") for name in ("pose", "force", "shape", "energy", "path_id")}
    with np.load(folders.source / "surface_mesh.npz") as mesh:
        nodes = mesh["nodes"]
    kept, triangles = coarse_surface(nodes)
    rows = np.isin(arrays["path_id"], np.unique(arrays["path_id"])[:PATHS])
    shape = arrays["shape"][rows].reshape(-1, len(nodes), 3)[:, kept]
    half = shape.astype(np.float16)
    if (error := np.abs(half - shape).max()) > LARGEST_ERROR:
        raise SystemExit(f"half precision is off by {error:.4f} mm")
    sample = {
        "pose": arrays["pose"][rows].astype(np.float32),
        "force": arrays["force"][rows].astype(np.float32),
        "shape": half,
        "energy": arrays["energy"][rows].astype(np.float32),
        "path_id": arrays["path_id"][rows].astype(np.int16),
        "mesh_nodes": nodes[kept].astype(np.float32),
        "mesh_triangles": triangles.astype(np.int16),
    }
    folders.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folders.output / "softrobot.npz", allow_pickle=False, **sample)
    (folders.output / "softrobot.json").write_text(json.dumps(FACTS, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
