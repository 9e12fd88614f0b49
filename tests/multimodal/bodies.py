"""A toy soft body with exact laws: eight-fold symmetric, elastic, resting at the zero pose."""

import numpy as np
import torch

from noumena.multimodal.modality import Surface
from noumena.multimodal.observations import Observations, from_arrays

HEIGHT = 4.0
KINDS = {"pose": "pose", "force": "wrench", "shape": "displacement"}
QUICK = {"max_epochs": 30, "batch_size": 64, "lr": 5e-3, "accelerator": "cpu", "lr_schedule": "cosine", "seed": 0}
SMALL = {"z_dim": 8, "hidden_dims": (32, 32), "components": 12, "mixture": 2}


def surface(turns=8, levels=3):
    """Rings of nodes around the z axis; the lowest one is clamped."""
    angle = 2 * np.pi * np.arange(turns) / turns
    rings = [
        np.stack([2 * np.cos(angle), 2 * np.sin(angle), np.full(turns, z)], 1) for z in np.linspace(0, HEIGHT, levels)
    ]
    triangles = []
    for level in range(levels - 1):
        for i in range(turns):
            a, b = level * turns + i, level * turns + (i + 1) % turns
            triangles += [[a, b, b + turns], [a, b + turns, a + turns]]
    return Surface.of(np.concatenate(rings), np.array(triangles))


def rotations(vectors):
    """Matrices of rotation vectors, shape (rows, 3, 3)."""
    w = torch.as_tensor(vectors, dtype=torch.float64)
    zero = torch.zeros_like(w[:, 0])
    skew = torch.stack([zero, -w[:, 2], w[:, 1], w[:, 2], zero, -w[:, 0], -w[:, 1], w[:, 0], zero], 1)
    return torch.matrix_exp(skew.view(-1, 3, 3)).numpy()


def respond(pose, body):
    """Wrench and displacements of poses, both equivariant under the symmetry of the body."""
    moved, turned = pose[:, :3], pose[:, 3:]
    force = np.concatenate([moved * [1.0, 1.0, 3.0], 5.0 * turned], 1)
    force = force + 0.1 * force * (np.square(moved).sum(1) + np.square(turned).sum(1))[:, None]
    nodes = body.nodes.double().numpy()
    top = nodes - [0.0, 0.0, HEIGHT]
    rigid = moved[:, None] + np.einsum("nij,pj->npi", rotations(turned), top) - top
    share = (nodes[:, 2] / HEIGHT) ** 1.5
    return force, (rigid * share[None, :, None]).reshape(len(pose), -1)


def observations(n=400, seed=0, paths=20, missing=0.0, **changes) -> Observations:
    rng = np.random.default_rng(seed)
    body = surface()
    pose = rng.uniform(-1, 1, (n, 6)) * [1.0, 1.0, 0.5, 0.3, 0.3, 0.3]
    force, shape = respond(pose, body)
    arrays = {"pose": pose, "force": force, "shape": shape}
    if missing:
        hidden = rng.random((n, 3)) < missing
        hidden[np.arange(n), rng.integers(3, size=n)] = False
        arrays = {name: np.where(hidden[:, [i]], np.nan, array) for i, (name, array) in enumerate(arrays.items())}
    options = {"kinds": KINDS, "units": {"shape": "mm"}, "groups": np.arange(n) * paths // n, "surface": body}
    return from_arrays(arrays, **{**options, **changes})
