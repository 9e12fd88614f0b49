"""The arithmetic of Gaussian mixtures: densities, expectation maximisation, and how many components data bear.

A mixture is given by ``weights`` (components,), ``means`` (components, columns) and covariances, or the factors of
their inverses: upper triangular matrices P with ``C^-1 = P P^T``, shape (components, columns, columns), or inverse
standard deviations, shape (components, columns), where the covariances are diagonal.
"""

import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from noumena.core.errors import DataError
from noumena.core.splits import split_groups, split_rows

log = logging.getLogger("noumena")

Covariance = Literal["full", "diag"]

LEAST_VARIANCE = 1e-6
"""Added to the variances, as a share of each column's own, so that a component on equal rows keeps a density."""

SHRINKAGES = (0.0, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 1.0)
"""Shares of the correlations to take away, among which held-out rows choose."""

MOST_COMPONENTS = 32
FEWEST_ROWS = 10
"""Rows below which nothing can be held out."""

_ROUNDS = 200
# To choose the number of components a mixture need not have come to rest, nor have seen every row.
_ROUNDS_TO_CHOOSE = 50
_ROWS_TO_CHOOSE = 25_000
_HELD_OUT = 0.2
_FEWEST_GROUPS = 8
# Rows of a component: twice as many as columns for a covariance that can be inverted.
_ROWS_PER_COLUMN = 2
# Held-out rows scored at once.
_BLOCK = 4096
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture, float64 on the processor.

    Attributes:
        weights, means: shapes (components,) and (components, columns).
        covariances: shape (components, columns, columns), or (components, columns) with the variances alone.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def shrunk(self, share: float) -> "Mixture":
        """The same with a share of the correlations taken away."""
        return Mixture(self.weights, self.means, shrink(self.covariances, share))


def component_log_densities(x: Tensor, weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """``log w_k + log N(x | m_k, C_k)`` of rows ``x`` (batch, columns), shape (batch, components)."""
    columns = x.shape[-1]
    if factors.ndim == 2:
        z = (x[:, None] - means) * factors
        log_det = factors.log().sum(-1)
        squared = z.square().sum(-1)
    else:
        # Zero columns up to a multiple of 16: products of such widths round a row alike wherever it stands.
        padded = pad(factors, (0, -columns % 16))
        squared = ((x - means[:, None]) @ padded).square().sum(-1).T  # (components, batch) to (batch, components)
        log_det = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return weights.log() + log_det - 0.5 * (squared + columns * _LOG_2PI)


def factors_of(covariances: Tensor) -> Tensor:
    """Factors of the inverses; see the head of the module.

    Raises:
        DataError: a covariance is so near to singular that rounding decides.
    """
    if covariances.ndim == 2:
        return covariances.rsqrt()
    lower, failed = torch.linalg.cholesky_ex(covariances)
    if bool(failed.any()):
        raise DataError("a covariance of the mixture cannot be inverted; raise model.shrinkage, or leave it to fit.")
    identity = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False).mT


def covariances_of(factors: Tensor) -> Tensor:
    """The inverse of :func:`factors_of`."""
    if factors.ndim == 2:
        return factors.square().reciprocal()
    identity = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    upper = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=True)
    return upper.mT @ upper


def shrink(covariances: Tensor, share: float) -> Tensor:
    """``(1 - share) S + share diag(S)``: the variances stay (Schäfer & Strimmer 2005, target D)."""
    if covariances.ndim == 2:
        return covariances
    return (1.0 - share) * covariances + torch.diag_embed(share * covariances.diagonal(dim1=-2, dim2=-1))


def fit_mixture(
    rows: Tensor,
    components: int,
    covariance: Covariance,
    *,
    seed: int,
    start: Mixture | None = None,
    rounds: int = _ROUNDS,
) -> Mixture:
    """Expectation maximisation by scikit-learn, from k-means (k-means++ start) or from ``start``.

    Args:
        rows: float64, shape (rows, columns), each column of about unit variance.
        components: how many; at most as many as rows.
        covariance: ``full``, or ``diag`` for variances alone.
        seed: of the start.
        start: a mixture of as many components.
        rounds: at most.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    first: dict[str, Any] = {}
    if start is not None:
        factors = factors_of(start.covariances)
        precisions = factors.square() if covariance == "diag" else factors @ factors.mT
        first = {
            "weights_init": (start.weights / start.weights.sum()).numpy(),
            "means_init": start.means.numpy(),
            "precisions_init": precisions.numpy(),
        }
    mixture: Any = GaussianMixture(
        components,
        covariance_type=covariance,
        reg_covar=LEAST_VARIANCE,
        max_iter=rounds,
        random_state=seed % 2**32,
        **first,
    )
    with warnings.catch_warnings():
        # Fewer distinct rows than components leave some of these without rows and with the weight 0.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(rows.numpy())
    if not mixture.converged_ and rounds == _ROUNDS:
        log.info("mixture of %d: not converged after %d rounds.", components, rounds)
    return Mixture(*(torch.from_numpy(part) for part in (mixture.weights_, mixture.means_, mixture.covariances_)))


def most_components(rows: int, columns: int, covariance: Covariance) -> int:
    """The largest number of components that is tried: each has 10 rows, and two for each column of a covariance."""
    least = FEWEST_ROWS if covariance == "diag" else max(FEWEST_ROWS, _ROWS_PER_COLUMN * columns)
    return max(1, min(MOST_COMPONENTS, rows // least))


def choose(
    rows: Tensor,
    groups: Tensor | None,
    components: int | None,
    covariance: Covariance,
    shrinkage: float | None,
    *,
    seed: int,
) -> tuple[Mixture, float]:
    """The mixture whose number of components and shrinkage give held-out rows the highest mean log-likelihood.

    Of at most 25,000 rows a fifth is held out, whole groups where there are 8 or more. The number of components is
    doubled, from 1, until two doublings gain no more than one standard error of the gain.

    Args:
        rows: float64, shape (rows, columns), each column of about unit variance; 10 rows or more.
        groups: int64, shape (rows,), the group of each row, if there are any.
        components, shrinkage: where given, the only ones that are tried.
        covariance: see :func:`fit_mixture`.
        seed: of the division and of the starts.

    Returns:
        The mixture, fitted to the rows that were not held out and not shrunk, and the shrinkage.
    """
    if len(rows) > _ROWS_TO_CHOOSE:
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:_ROWS_TO_CHOOSE]
        rows, groups = rows[drawn], None if groups is None else groups[drawn]
    parts = _divide(len(rows), groups, seed)
    fitted, held = rows[parts["train"]], rows[parts["val"]]
    cap = most_components(len(fitted), rows.shape[1], covariance)
    counts = [2**power for power in range(cap.bit_length())] if components is None else [components]
    shares = (0.0,) if covariance == "diag" else SHRINKAGES if shrinkage is None else (shrinkage,)
    chosen: tuple[Tensor, float, Mixture] | None = None
    for count in counts:
        mixture = fit_mixture(fitted, count, covariance, seed=seed, rounds=_ROUNDS_TO_CHOOSE)
        likelihoods = [_log_likelihoods(held, mixture.shrunk(share)) for share in shares]
        best = max(range(len(shares)), key=lambda number: float(likelihoods[number].mean()))
        mean = float(likelihoods[best].mean())
        log.info("mixture of %d: %.4g nats per held-out row, shrinkage %g.", count, mean, shares[best])
        if chosen is None or _is_gain(likelihoods[best] - chosen[0]):
            chosen = (likelihoods[best], shares[best], mixture)
        elif count >= 4 * len(chosen[2].weights):
            break
    assert chosen is not None
    return chosen[2], chosen[1]


def _is_gain(gains: Tensor) -> bool:
    """Whether the mean of gains (rows,) is above its standard error."""
    return bool(gains.mean() > gains.std(correction=0) / math.sqrt(len(gains)))


def _divide(n: int, groups: Tensor | None, seed: int) -> dict[str, Tensor]:
    shares: dict[str, Any] = {"val_fraction": _HELD_OUT, "test_fraction": 0.0, "seed": seed, "where": "training rows"}
    if groups is not None and len(groups.unique()) >= _FEWEST_GROUPS:
        parts = split_groups(groups, what="groups", remedy="", **shares)
        if len(parts["val"]) <= len(parts["train"]):  # one group may hold most of the rows
            return parts
    return split_rows(n, shuffle=True, **shares)


def _log_likelihoods(rows: Tensor, mixture: Mixture) -> Tensor:
    """Log-density of each row, shape (rows,)."""
    try:
        factors = factors_of(mixture.covariances)
    except DataError:
        return rows.new_full((len(rows),), -math.inf)
    parts = [
        component_log_densities(part, mixture.weights, mixture.means, factors).logsumexp(-1)
        for part in rows.split(_BLOCK)
    ]
    return torch.cat(parts)
