"""Spectra in memory, from a file or made; the keyword arguments of ``open_*`` are the ``data`` section of a recipe."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import split_rows
from noumena.readers.arrays import array_blocks, list_arrays, whole_array
from noumena.readers.checks import Overflow, check_rows


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra on one axis.

    Attributes:
        rows: intensities, float32, shape (spectra, channels).
        axis: position of each channel, such as wavenumbers in 1/cm, shape (channels,).
    """

    rows: Tensor
    axis: tuple[float, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """What one spectrum is; ``kind`` names the reader of further files, ``columns`` those of written tables."""
        return {"kind": "file", "axis": list(self.axis), "columns": [f"{position:g}" for position in self.axis]}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.rows.device

    def batch(self, index: Tensor) -> Tensor:
        """The spectra at ``index`` (int64, shape (batch,)), shape (batch, channels)."""
        return self.rows.index_select(0, index)

    def to(self, device: torch.device) -> Self:
        """The same spectra on ``device``."""
        return replace(self, rows=self.rows.to(device))

    @property
    def nbytes(self) -> int:
        """Memory of the tensor, in bytes."""
        return self.rows.nbytes

    def fingerprint(self) -> str:
        """A hash of the axis and of every intensity."""
        digest = hashlib.sha256(repr((tuple(self.rows.shape), self.axis)).encode())
        digest.update(self.rows.contiguous().cpu().numpy().data)
        return f"sha256:{digest.hexdigest()}"


def open_file(path: str, *, val_fraction: float = 0.2, test_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Spectra of an .npz or .h5 file, divided at random.

    Args:
        path: the file; its array ``spectra`` has shape (spectra, channels), its array ``axis`` (channels,).
        val_fraction, test_fraction: shares of the spectra; 0 leaves the part out.
        seed: of the division.

    Raises:
        DataError: the file is missing or damaged, or has not these arrays, or numbers that are not finite.
    """
    axis = _axis_of(Path(path))
    rows = torch.cat(list(_blocks(Path(path), axis, "refuse")))
    return _divided(Spectra(rows, axis), str(path), val_fraction, test_fraction, seed)


def open_synthetic(
    *,
    n: int = 2000,
    channels: int = 128,
    noise: float = 0.02,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Made spectra: three Lorentzian lines of random height, width and shift on a sloping baseline, with noise.

    Nothing here is measured. The data are for trying things out, and a report of them says that they are made.

    Args:
        n: how many.
        channels: points of the axis, from 400 to 1800 1/cm.
        noise: standard deviation of the Gaussian noise; the lines are about 1 high.
        val_fraction, test_fraction: as of :func:`open_file`.
        seed: of the spectra and of the division.

    Raises:
        ConfigError: an option is out of range.
    """
    if n < 1 or channels < 8 or not 0.0 <= noise < float("inf"):
        raise ConfigError(f"data: expected n >= 1, channels >= 8 and noise >= 0, got {n}, {channels}, {noise}.")
    random = np.random.default_rng(seed)
    axis = np.linspace(400.0, 1800.0, channels)
    heights = random.uniform(0.3, 1.0, (n, 3, 1))
    widths = random.uniform(20.0, 50.0, (n, 3, 1))
    centres = np.array([700.0, 1050.0, 1450.0])[:, None] + random.normal(0.0, 20.0, (n, 1, 1))
    lines = (heights / (1.0 + ((axis - centres) / widths) ** 2)).sum(1)
    baseline = random.uniform(0.0, 0.3, (n, 1)) * (axis - axis[0]) / (axis[-1] - axis[0])
    rows = lines + baseline + noise * random.standard_normal((n, channels))
    made = Spectra(torch.from_numpy(rows.astype(np.float32)), tuple(axis.tolist()))
    return _divided(made, f"synthetic: three Lorentzian lines, seed {seed}", val_fraction, test_fraction, seed)


def stream_file(path: str, schema: Mapping[str, Any], *, batch_rows: int = 65536) -> Iterator[Tensor]:
    """The spectra of a file of any size in chunks of at most ``batch_rows``, shape (chunk, channels).

    Raises:
        DataError: the file is missing or damaged, or its axis is not the one of ``schema``.
    """
    axis = _axis_of(Path(path))
    expected = tuple(schema["axis"])
    if len(axis) != len(expected) or not np.allclose(axis, expected):
        raise DataError(
            f"{path}: its axis has {len(axis)} channels from {axis[0]:g} to {axis[-1]:g}, the model's has "
            f"{len(expected)} from {expected[0]:g} to {expected[-1]:g}. Interpolate the spectra to the model's axis."
        )
    for block in _blocks(Path(path), axis, "clip"):
        yield from block.split(batch_rows)


def _axis_of(path: Path) -> tuple[float, ...]:
    arrays = list_arrays(path)
    shapes = {name: arrays[name].shape if name in arrays else None for name in ("spectra", "axis")}
    spectra, axis = shapes["spectra"], shapes["axis"]
    if spectra is None or axis is None or len(spectra) != 2 or len(axis) != 1 or spectra[1] != axis[0]:
        raise DataError(
            f"{path}: expected arrays 'spectra' (spectra, channels) and 'axis' (channels,), found shapes {shapes}. "
            "Save both with numpy.savez."
        )
    row = check_rows(whole_array(path, "axis").reshape(1, -1), [str(i) for i in range(axis[0])], f"{path}: 'axis'")
    return tuple(row[0].double().tolist())


def _blocks(path: Path, axis: tuple[float, ...], overflow: Overflow) -> Iterator[Tensor]:
    first, names = 0, [f"{position:g}" for position in axis]
    for block in array_blocks(path, ["spectra"]):
        yield check_rows(block["spectra"], names, str(path), first, overflow)
        first += len(block["spectra"])


def _divided(all_of_them: Spectra, source: str, val_fraction: float, test_fraction: float, seed: int) -> Splits:
    shares: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
    index = split_rows(len(all_of_them), shuffle=True, where=source, **shares)
    parts = {name: replace(all_of_them, rows=all_of_them.rows[rows]) for name, rows in index.items()}
    about = {"source": source, "rows": {name: len(part) for name, part in parts.items()}, "split": "at random"}
    return Splits(parts["train"], parts.get("val"), parts.get("test"), about=about)
