"""Preprocessing whose fitted statistics are buffers, so that they are saved and moved with the weights."""

import torch
from torch import Tensor, nn

from noumena.core.errors import DataError


class Standardizer(nn.Module):
    """Maps each column to zero mean and unit variance, and back.

    A column that never varies carries no information and has no scale. It is mapped to its deviation from the
    constant in the column's own unit (0 on training data), and :meth:`inverse` gives the constant back exactly.

    Buffers: ``mean``, ``scale`` float, ``constant`` bool, each of shape (columns,).
    """

    mean: Tensor
    scale: Tensor
    constant: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("constant", torch.zeros(columns, dtype=torch.bool))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the statistics of ``x``, shape (rows, columns), computed in float64.

        Raises:
            DataError: ``x`` is not a finite matrix of the right width with at least one row.
        """
        columns = self.mean.shape[0]
        if x.ndim != 2 or x.shape[1] != columns or x.shape[0] == 0:
            raise DataError(f"a standardizer for {columns} columns needs rows of that width, got {tuple(x.shape)}.")
        wide = x.double()
        # The first row as provisional mean keeps the digits of columns like 1e9 + small.
        shift = wide[0]
        centred = wide - shift
        mean = centred.mean(0)
        std = (centred - mean).square().mean(0).sqrt()
        if not torch.isfinite(std).all():
            column = int((~torch.isfinite(std)).nonzero()[0])
            raise DataError(
                f"column {column} has no finite mean and variance; rescale it or remove its extreme values."
            )
        constant = (wide == shift).all(0) | (std.to(self.scale.dtype) == 0)
        self.mean.copy_(torch.where(constant, shift, mean + shift))
        self.scale.copy_(torch.where(constant, torch.ones_like(std), std))
        self.constant.copy_(constant)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise ``x``, shape (..., columns)."""
        return (x - self.mean) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """Back to the units of the data; constant columns come back exactly, whatever ``y`` holds there."""
        return torch.where(self.constant, self.mean, y * self.scale + self.mean)

    @property
    def log_det(self) -> Tensor:
        """Log-determinant of the map, a scalar in nats: add it to a log-density of standardised rows."""
        return -self.scale.log().sum()
