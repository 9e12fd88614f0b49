"""The process that computes a UMAP: ``python -m noumena.explore.umap_worker FOLDER``.

Reads ``vectors.npy`` of the folder, float32 (points, size), and writes ``plane.npy``, float32 (points, 2).
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Map the vectors of ``folder`` to the plane, the same way each time."""
    vectors = np.load(folder / "vectors.npy", allow_pickle=False)
    # Seeded, so that the map of a model is the same each time; UMAP (McInnes et al. 2018) then uses one thread.
    neighbours = min(15, len(vectors) - 1)
    umap = import_module("umap").UMAP(n_components=2, n_neighbors=neighbours, random_state=0, n_jobs=1)
    found = np.asarray(umap.fit_transform(vectors), dtype=np.float32)
    beside = folder / "beside.npy"
    np.save(beside, found, allow_pickle=False)
    beside.replace(folder / "plane.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
