"""How wrong an inference may be: standard deviations calibrated on rows that were not trained on."""

import math

import torch
from torch import Tensor, nn

# Half-width of the central 90 % interval of a normal distribution, in standard deviations.
NINETY_PERCENT = 1.6448536269514722
MOST_DISTANCE = 3.0
"""Beyond this distance deviations grow no further: nothing was seen there that would say how."""

_LEAST_ROWS = 8


class Calibration(nn.Module):
    """Standard deviations of inferred columns, for every subset of observed modalities.

    The deviation of column c, inferred from the subset S at latent z, is ``scale[S, c] * exp(slope[S, m] * d(z))``
    with m the column's modality and d the distance of z from the middle of the training latents: extreme states are
    inferred worse, and the slope says by how much. The slope is a least-squares fit to the logarithms of the errors;
    the scale is set so that mean ± 1.645 std holds 90 % of the held-out values of the column (split conformal
    prediction, Lei et al. 2018, with the finite-sample quantile).

    Buffers: ``scale`` float, shape (subsets, columns), NaN before calibration; ``slope`` float, shape (subsets,
    modalities); ``centre`` and ``width`` float, shape (latent,).
    """

    scale: Tensor
    slope: Tensor
    centre: Tensor
    width: Tensor

    def __init__(self, subsets: int, modalities: int, columns: int, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((subsets, columns), float("nan")))
        self.register_buffer("slope", torch.zeros(subsets, modalities))
        self.register_buffer("centre", torch.zeros(latent_dim))
        self.register_buffer("width", torch.ones(latent_dim))

    def set_latents(self, z: Tensor) -> None:
        """Take the middle and the widths of the training latents, shape (rows, latent)."""
        self.centre.copy_(z.mean(0))
        self.width.copy_(z.std(0, correction=0).clamp(min=1e-6))

    def distance(self, z: Tensor) -> Tensor:
        """Root mean square of the standardised latents less its typical value of 1, shape (rows,)."""
        return ((z - self.centre) / self.width).square().mean(-1).sqrt() - 1.0

    def fit(self, subset: int, modality: int, part: slice, z: Tensor, errors: Tensor) -> None:
        """Set one subset's deviations of one modality.

        Args:
            subset: its number.
            modality: number of the inferred modality.
            part: its columns.
            z: posterior means of held-out rows, shape (rows, latent).
            errors: inferred less true columns, shape (rows, columns of the modality).
        """
        if len(errors) < _LEAST_ROWS:
            return
        distance = self.distance(z).double()
        size = errors.double().square().mean(1).sqrt()
        slope = 0.0
        if bool((size > 0).all()):
            centred = distance - distance.mean()
            spread = float(centred.square().sum())
            slope = float((centred * size.log()).sum()) / spread if spread > 0 else 0.0
        # Far states must not get less room than near ones by an accident of few rows.
        slope = min(max(slope, 0.0), 10.0)
        relative = errors.double().abs() * torch.exp(-slope * distance)[:, None]
        # The ceil((n + 1) 0.9)-th smallest of n scores; beyond n the largest.
        rank = min(len(errors), math.ceil((len(errors) + 1) * 0.9))
        bound = relative.kthvalue(rank, dim=0).values
        self.scale[subset, part] = (bound / NINETY_PERCENT).to(self.scale)
        self.slope[subset, modality] = slope

    def std(self, subset: Tensor, modality: int, part: slice, z: Tensor) -> Tensor:
        """Standard deviations of a modality's columns, shape (rows, columns).

        Args:
            subset: number of each row's subset, int64, shape (rows,).
            modality, part: the modality and its columns.
            z: posterior means, shape (rows, latent).
        """
        growth = torch.exp(self.slope[subset, modality] * self.distance(z).clamp(max=MOST_DISTANCE))
        return self.scale[subset, part] * growth[:, None]
