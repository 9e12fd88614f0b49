"""Why a row scores as it does: what each column contributes, the nearest normal row, and what would change the verdict.

All of it holds for any :class:`~noumena.density.detector.Detector`, since it needs the score and its gradient alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, NotSupportedError, did_you_mean
from noumena.density.detector import Detector
from noumena.density.differentiable import Differentiable, reference_rows
from noumena.density.explaining.column_terms import column_terms
from noumena.density.explaining.counterfactuals import Change, what_would_change
from noumena.density.explaining.nearest import Nearest, NearestSearch, nearest_normal
from noumena.density.explaining.path_integrals import integrated_gradients

__all__ = [
    "Change",
    "Contributions",
    "Nearest",
    "NearestSearch",
    "contributions",
    "nearest_normal",
    "what_would_change",
]

Method = Literal["gradients", "terms"]


@dataclass(frozen=True)
class Contributions:
    """What each column adds to the scores of rows: ``values.sum(1) + base + residual == score``.

    Attributes:
        values: shape (rows, columns), in the unit of the score; negative where a column makes a row less normal.
        base: where the sum starts, shape (rows,). With ``gradients`` the score of the row's reference; with ``terms``
            what the terms fall short of, see :func:`~noumena.density.explaining.column_terms.column_terms`.
        score: of the rows in double precision, shape (rows,).
        residual: what the values do not add up to, shape (rows,); NaN where a score is not finite.
        converged: bool, shape (rows,): whether the residual is within the tolerance asked for.
        steps: gradients taken for each row, int64, shape (rows,); 0 with ``terms``.
        reference: the rows from which the paths start, shape (rows, columns); ``None`` with ``terms``.
        method: how they were found.
    """

    values: np.ndarray
    base: np.ndarray
    score: np.ndarray
    converged: np.ndarray
    steps: np.ndarray
    reference: np.ndarray | None
    method: Method

    @property
    def residual(self) -> np.ndarray:
        """``score - base - values.sum(1)``, shape (rows,)."""
        return self.score - self.base - self.values.sum(1)

    def __len__(self) -> int:
        return len(self.values)


@torch.inference_mode(False)
def contributions(
    model: Detector,
    rows: Any,
    *,
    reference: Any = None,
    method: Method = "gradients",
    steps: int = 32,
    max_steps: int = 2048,
    tolerance: float = 1e-4,
) -> Contributions:
    r"""What each column contributes to the score of each row.

    ``gradients`` integrates the gradient of the score on the straight path from a reference row (Sundararajan, Taly &
    Yan 2017): the values add up to the row's score minus the reference's. For a Gaussian with its mean as reference
    they are :math:`-\frac12 (x_i - \mu_i)(x_i - E[x_i \mid x_{-i}]) / \mathrm{Var}[x_i \mid x_{-i}]`: how far a column
    is from its mean, times how far it is from what the other columns say it should be. A column equal to the
    reference's gets nothing.

    ``terms`` takes apart a score that is a sum over columns as it stands, without a reference; see
    :func:`~noumena.density.explaining.column_terms.column_terms`. Of a VAE that scores by reconstruction it is how
    badly each column is reconstructed, of a mixture of Gaussians the formula above with the row's own components.

    Args:
        model: a trained model.
        rows: to explain; any form that ``score_samples`` takes.
        reference: one row (columns,), or several rows: each row then starts from the nearest one that the model calls
            normal. By default the mean of each column in the training rows, which is near no row where the data lie in
            clusters: give normal rows if you have them.
        method: see above.
        steps: gradients per row to begin with, in panels of 8 Gauss-Legendre points.
        max_steps: gradients per row at most. Panels are halved where they err, until the row's error is within
            ``tolerance`` or this many were taken; scores with jumps may not get there, see ``converged``.
        tolerance: error of the sum, as a share of the score's difference from the base.

    Returns:
        Values in the unit of the score, with the base, the residual and whether it is within the tolerance.

    Raises:
        NotSupportedError: the score has no gradient or is no sum over columns, or no reference is known.
        ConfigError: an option is out of range.
        DataError: no row of the reference is normal, or the columns are not the model's.
    """
    if method not in get_args(Method):
        raise ConfigError(f"method: unknown '{method}'. {did_you_mean(method, get_args(Method))}")
    if method == "terms":
        return _terms(model, rows)
    if not 1 <= steps <= max_steps:
        raise ConfigError(f"steps: expected 1 <= steps <= max_steps, got {steps} and {max_steps}.")
    if not tolerance > 0.0:
        raise ConfigError(f"tolerance: expected a number above 0, got {tolerance}.")
    exact = Differentiable.of(model)
    stop = exact.rows(rows)
    start = _starts(model, rows, stop, reference)
    found = integrated_gradients(
        exact.score, start, stop, steps=steps, max_steps=max_steps, tolerance=tolerance, block=exact.block
    )
    parts = (found.values, found.base, found.score, found.converged, found.steps)
    return _contributions(parts, start.cpu().numpy(), "gradients")


def _contributions(parts: Sequence[Tensor], reference: np.ndarray | None, method: Method) -> Contributions:
    values, base, score, converged, steps = (part.cpu().numpy() for part in parts)
    return Contributions(values, base, score, converged, steps, reference, method)


def _starts(model: Detector, rows: Any, stop: Tensor, reference: Any) -> Tensor:
    """Where the path of each row starts, shape (rows, columns), as ``stop``."""
    if reference is None:
        if model.standardizer is None:
            raise NotSupportedError(
                "the model does not standardise, so it does not know the columns' means: give reference=, normal rows."
            )
        return model.standardizer.mean.to(stop).expand_as(stop).contiguous()
    given = reference_rows(model, reference)
    if len(given) > 1:
        given = torch.from_numpy(nearest_normal(model, rows, given).rows)
    return given.to(stop).expand_as(stop).contiguous()


def _terms(model: Detector, rows: Any) -> Contributions:
    exact = Differentiable.of(model)
    x = exact.rows(rows)
    with torch.no_grad():
        parts = [column_terms(exact.model, part) for part in x.split(exact.block)]
        values, base = (torch.cat(part) for part in zip(*parts, strict=True))
        score = exact.scores(x)
    found = (values, base, score, torch.isfinite(score), torch.zeros(len(x), dtype=torch.int64))
    return _contributions(found, None, "terms")
