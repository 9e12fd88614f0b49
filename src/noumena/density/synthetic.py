"""Made-up data with known answers: a two-cluster mixture with anomalies, and graded shifts of real rows."""

from typing import Literal

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.readers.common import check_choice

AnomalyType = Literal["outlier", "uniform"]
_FIRST_SHARE = 0.7
_SMALLEST_N = 10


def create_synthetic_data(
    n: int = 1000, dim: int = 2, anomaly_type: AnomalyType = "outlier", magnitude: float = 3.0, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A mixture of two Gaussian clusters, and anomalies.

    Normal rows are 70 % N(0, I) and 30 % N(m 1, 0.5 I) with m = ``magnitude``, in random order; anomalous ones are
    n / 5 rows of N((10 + m) 1, 2 I) ("outlier") or U(-5, 8) in each column ("uniform"). The second argument of N is
    the covariance.

    Args:
        n: normal rows, at least 10.
        dim: columns.
        anomaly_type: see above.
        magnitude: distance, in each column, between the clusters.
        seed: of a generator of its own; the global one is left alone.

    Returns:
        float32 normal rows, shape (n, dim), and anomalous rows, shape (n // 5, dim).

    Raises:
        ConfigError: an argument is out of range.
    """
    _check(n, dim, anomaly_type, magnitude)
    generator = torch.Generator().manual_seed(seed)
    first = round(_FIRST_SHARE * n)
    clusters = [
        torch.randn(first, dim, generator=generator),
        torch.randn(n - first, dim, generator=generator) * 0.5**0.5 + magnitude,
    ]
    normal = torch.cat(clusters)[torch.randperm(n, generator=generator)]
    if anomaly_type == "outlier":
        anomalous = torch.randn(n // 5, dim, generator=generator) * 2**0.5 + 10 + magnitude
    else:
        anomalous = torch.rand(n // 5, dim, generator=generator) * 13 - 5
    return normal, anomalous


def shifted(rows: Tensor, distance: float, std: Tensor, generator: torch.Generator) -> Tensor:
    """Each row moved by ``distance`` standard deviations in a direction of its own, uniform on the sphere.

    Args:
        rows: shape (rows, columns).
        distance: length of the move, in standardised units.
        std: standard deviation of each column, shape (columns,).
        generator: of the directions, on the device of ``rows``.

    Returns:
        Shape (rows, columns).
    """
    direction = torch.randn(rows.shape, generator=generator, device=rows.device, dtype=rows.dtype)
    direction = direction / direction.norm(dim=1, keepdim=True)
    return rows + distance * std * direction


def _check(n: int, dim: int, anomaly_type: str, magnitude: float) -> None:
    check_choice("anomaly_type", anomaly_type, ("outlier", "uniform"))
    if n < _SMALLEST_N:
        raise ConfigError(f"n={n}: expected at least {_SMALLEST_N} rows.")
    if dim < 1:
        raise ConfigError(f"dim={dim}: expected at least one column.")
    if not abs(magnitude) < float("inf"):
        raise ConfigError(f"magnitude={magnitude}: expected a finite number.")
