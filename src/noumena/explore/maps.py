"""From vectors to the plane: principal components at once, UMAP when it is asked for and installed."""

import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from noumena.core.errors import NotSupportedError

# Beyond this size the covariance matrix costs more than a few leading directions of it.
_EXACT_SIZE = 1024
_LEAST_FOR_UMAP = 5


@dataclass(frozen=True)
class PlaneMap:
    """Points in the plane.

    Attributes:
        coordinates: float32, shape (points, 2).
        axes: what the two axes are.
    """

    coordinates: np.ndarray
    axes: tuple[str, str]


def pca(vectors: np.ndarray) -> PlaneMap:
    """The two directions of most variance.

    Args:
        vectors: float32, shape (points, size), finite.

    Returns:
        The coordinates, and axes that say which share of the variance they have. The sign of a direction, which is
        arbitrary, is such that its largest component is positive.
    """
    x = torch.from_numpy(np.ascontiguousarray(vectors)).double()
    x = x - x.mean(0)
    size = x.shape[1]
    if size <= _EXACT_SIZE:
        directions = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)[:, :2]
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            directions = torch.svd_lowrank(x, q=10, niter=6)[2][:, :2]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    found = x @ (directions * torch.where(largest < 0, -1.0, 1.0))
    total = float(x.square().sum())
    shares = [float(column.square().sum()) / total if total > 0 else 0.0 for column in found.T]
    coordinates = np.zeros((len(x), 2), dtype=np.float32)
    coordinates[:, : found.shape[1]] = found.float().numpy()
    shares += [0.0] * (2 - len(shares))
    first, second = (f"PC{i + 1} ({share:.1%} of the variance)" for i, share in enumerate(shares))
    return PlaneMap(coordinates, (first, second))


class Embedding:
    """UMAP of some vectors, computed in a process of its own so that the page stays alive meanwhile.

    Its compiled loops hold the interpreter; in a thread they would stop every other answer for minutes.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._result: PlaneMap | None = None
        self._failure = ""

    def missing(self) -> str:
        """Why there can be none; empty if there can."""
        if find_spec("umap") is None:
            return "UMAP needs the package 'umap-learn': pip install 'noumena[umap]'. The map by PCA needs nothing."
        if len(self._vectors) < _LEAST_FOR_UMAP:
            return f"UMAP needs at least {_LEAST_FOR_UMAP} points, these are {len(self._vectors)}."
        return ""

    def get(self) -> PlaneMap | None:
        """The map, or ``None`` while it is computed; the first call starts that.

        Raises:
            NotSupportedError: the package is not installed, the points are too few, or the computation failed.
        """
        reason = self.missing()
        if reason:
            raise NotSupportedError(reason)
        with self._lock:
            if self._result is None and not self._failure:
                if self._process is None:
                    self._start()
                elif self._process.poll() is not None:
                    self._finish(self._process)
            if self._failure:
                raise NotSupportedError(self._failure)
            return self._result

    @property
    def done(self) -> PlaneMap | None:
        """The map if it has been computed."""
        return self._result

    def close(self) -> None:
        """End a computation that is under way."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="noumena-umap-")
        folder = Path(self._folder.name)
        np.save(folder / "vectors.npy", self._vectors, allow_pickle=False)
        with (folder / "errors.txt").open("wb") as errors:
            command = [sys.executable, "-m", "noumena.explore.umap_worker", str(folder)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )

    def _finish(self, process: "subprocess.Popen[bytes]") -> None:
        assert self._folder is not None
        folder = Path(self._folder.name)
        result = folder / "plane.npy"
        if process.returncode == 0 and result.is_file():
            self._result = PlaneMap(np.load(result, allow_pickle=False), ("UMAP 1", "UMAP 2"))
        else:
            lines = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self._failure = f"UMAP failed: {lines[-1] if lines else f'exit code {process.returncode}'}"
        self._process = None
        self._folder.cleanup()
        self._folder = None
