"""Mixtures of Gaussians as density models."""

import logging
from typing import Any, get_args

import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.core.losses import LossTerms
from noumena.core.seeding import Noise, fold
from noumena.density.detector import Detector
from noumena.density.mixtures import (
    FEWEST_ROWS,
    LEAST_VARIANCE,
    Covariance,
    Mixture,
    choose,
    component_log_densities,
    covariances_of,
    factors_of,
    fit_mixture,
    shrink,
)
from noumena.density.table import Table, as_table

log = logging.getLogger("noumena")

# A column that never varied gets this standard deviation in its own unit: the least one that the VAE has.
_LOG_SCALE_OF_CONSTANTS = -6.0
# A row is no further than this from the mean, in standard deviations of a column: squares stay within float32.
_FAR = 1e10
_ROWS_AT_ONCE = 8192
_SUBSET, _EM = range(2)  # streams of the seed


class GaussianMixture(Detector):
    r"""A mixture of Gaussians, fitted by expectation maximisation.

    .. math:: p(x) = \sum_k w_k\, \mathcal{N}(x;\, m_k, C_k), \qquad C_k = (1 - a)\, S_k + a\, \mathrm{diag}(S_k)

    (Dempster, Laird & Rubin 1977) with the covariances ``S`` of the components, of which the share ``a`` of the
    correlations is taken away (Schäfer & Strimmer 2005, target D): that makes covariances of fewer rows than columns
    invertible. The score is the log-density, in nats. New rows can be learnt as they come, see :meth:`partial_solve`.

    Weights, none of them trained by gradient: ``weights`` (components,); ``means`` (components, columns); ``factors``,
    upper triangular P with ``C^-1 = P P^T``, (components, columns, columns), or with ``covariance="diag"`` inverse
    standard deviations, (components, columns).
    """

    trains_by_gradient = False
    weights: Tensor
    means: Tensor
    factors: Tensor
    least_variance: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        input_dim: int | None = None,
        components: int | None = None,
        covariance: Covariance = "full",
        shrinkage: float | None = None,
        max_rows: int = 100_000,
        standardize: bool = True,
        anomaly_fraction: float = 0.01,
        calibration_rows: int = 0,
    ) -> None:
        """
        Args:
            input_dim: columns of a row; inferred by ``fit`` when missing.
            components: how many Gaussians. When missing, ``fit`` chooses among 1, 2, 4, ... 32 by the likelihood of
                training rows that it holds out, as long as a component gets 10 rows (full covariances: two for each
                column if that is more), and keeps the number here.
            covariance: ``full``, or ``diag`` for components whose columns are independent.
            shrinkage: share of the correlations to take away, from 0 to 1. When missing, ``fit`` chooses it in the
                same way, and keeps it here.
            max_rows: fit to at most this many rows, drawn by the seed; the log says so.
            standardize: map columns to zero mean and unit variance inside the model. The fit is the same up to
                rounding without it.
            anomaly_fraction: share of normal rows that the threshold set by ``fit`` calls anomalies.
            calibration_rows: scores that the model holds for p-values; set by ``fit`` and ``calibrate``.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(input_dim, standardize, anomaly_fraction, calibration_rows)
        self.components = components
        self.covariance: Covariance = covariance
        self.shrinkage = shrinkage
        self.max_rows = max_rows
        if components is not None and components < 1:
            raise ConfigError(f"model.components: expected a positive integer or null, got {components}.")
        if covariance not in get_args(Covariance):
            raise ConfigError(
                f"model.covariance: unknown '{covariance}'. {did_you_mean(str(covariance), get_args(Covariance))}"
            )
        if shrinkage is not None and not 0.0 <= shrinkage <= 1.0:
            raise ConfigError(f"model.shrinkage: expected a share from 0 to 1 or null, got {shrinkage}.")
        if max_rows < 2:
            raise ConfigError(f"model.max_rows: expected at least 2, got {max_rows}.")
        if self.is_built:
            self._build()

    def _build(self) -> None:
        super()._build()
        assert self.input_dim is not None
        count, columns = self.components or 1, self.input_dim
        full = self.covariance == "full"
        factors = torch.eye(columns).repeat(count, 1, 1) if full else torch.ones(count, columns)
        self.weights = nn.Parameter(torch.full((count,), 1.0 / count), requires_grad=False)
        self.means = nn.Parameter(torch.zeros(count, columns), requires_grad=False)
        self.factors = nn.Parameter(factors, requires_grad=False)
        self.register_buffer("least_variance", torch.full((columns,), LEAST_VARIANCE))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def _keep(self, weights: Tensor, means: Tensor, factors: Tensor) -> None:
        """Take the numbers of a mixture in the model's units, where the old ones are and in their precision."""
        for name, value in (("weights", weights), ("means", means), ("factors", factors)):
            setattr(self, name, nn.Parameter(value.to(self.device, self.dtype), requires_grad=False))

    # Fitting

    @torch.no_grad()
    def solve(self, train: Dataset, *, seed: int) -> None:
        """Fit to the training rows from scratch.

        Raises:
            DataError: a single row, which has no spread.
            ConfigError: more ``components`` than half the rows.
        """
        table = self._drawn(as_table(train), seed)
        self._check_enough(len(table))
        rows = self._in_own_units(table.rows)
        mean, scale, varies = _moments(rows)
        unit = ((rows - mean) / scale)[:, varies]
        groups = None if table.groups is None else table.groups.cpu()
        mixture = self._fitted(unit, groups, fold(seed, _EM))
        self.components = len(mixture.weights)
        self._keep_mixture(mixture, mean, scale, varies)
        self.seen.fill_(len(rows))

    def _drawn(self, table: Table, seed: int) -> Table:
        if len(table) <= self.max_rows:
            return table
        log.info("mixture: fitted to %d of %d rows, see model.max_rows.", self.max_rows, len(table))
        generator = torch.Generator().manual_seed(fold(seed, _SUBSET))
        return table.subset(torch.randperm(len(table), generator=generator)[: self.max_rows].sort().values)

    def _check_enough(self, rows: int) -> None:
        if rows < 2:
            raise DataError(f"a mixture of Gaussians needs at least 2 rows to know their spread, found {rows}.")
        if self.components is not None and rows < 2 * self.components:
            raise ConfigError(
                f"model.components: {self.components} components need {2 * self.components} rows, found {rows}. "
                "Use fewer, or null to let the rows decide."
            )

    def _in_own_units(self, rows: Tensor) -> Tensor:
        """Rows as :meth:`log_density` sees them, in float64 on the processor."""
        rows = rows.cpu().double()
        if self.standardizer is None:
            return rows
        return (rows - self.standardizer.mean.cpu().double()) / self.standardizer.scale.cpu().double()

    def _fitted(self, rows: Tensor, groups: Tensor | None, seed: int) -> Mixture:
        """The mixture of rows in units of their standard deviation; sets ``shrinkage``."""
        n, columns = rows.shape
        if columns == 0:  # nothing varies
            return Mixture(rows.new_ones(1), rows.new_zeros(1, 0), self._no_covariances(rows))
        start = None
        chosen = self.shrinkage
        if n < FEWEST_ROWS:
            chosen = (1.0 if chosen is None else chosen) if self.covariance == "full" else 0.0
        elif self.components is None or chosen is None:
            start, chosen = choose(rows, groups, self.components, self.covariance, chosen, seed=seed)
        assert chosen is not None
        self.shrinkage = chosen
        count = len(start.weights) if start is not None else self.components or 1
        return fit_mixture(rows, count, self.covariance, seed=seed, start=start).shrunk(chosen)

    def _no_covariances(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(1, 0, 0) if self.covariance == "full" else rows.new_zeros(1, 0)

    def _keep_mixture(self, mixture: Mixture, mean: Tensor, scale: Tensor, varies: Tensor) -> None:
        """Take the mixture of the columns that vary into the model's units; the others get a spike."""
        count, columns = len(mixture.weights), len(mean)
        means = mean.repeat(count, 1)
        means[:, varies] += mixture.means * scale[varies]
        spike = torch.full((columns,), -_LOG_SCALE_OF_CONSTANTS, dtype=mean.dtype).exp()
        found = factors_of(mixture.covariances)
        if self.covariance == "full":
            factors = torch.diag_embed(spike.repeat(count, 1))
            index = varies.nonzero().flatten()
            factors[:, index[:, None], index] = found / scale[varies][:, None]
        else:
            factors = spike.repeat(count, 1)
            factors[:, varies] = found / scale[varies]
        least = torch.where(varies, LEAST_VARIANCE * scale.square(), spike.square().reciprocal())
        self.least_variance = least.to(self.device, self.dtype)
        self._keep(mixture.weights, means, factors)

    @torch.no_grad()
    def partial_solve(self, train: Any, seed: int = 0) -> None:
        r"""Learn from further rows; the first ones fit the model as :meth:`solve` does.

        One step of online expectation maximisation (Cappé & Moulines 2009, eq. 10): with the means :math:`s` of the
        rows' sufficient statistics, :math:`s \leftarrow (1 - \gamma)\, s + \gamma\, s_{new}`, where :math:`\gamma` is
        the share of the new rows in all rows so far, so that every row weighs the same. The number of components, the
        shrinkage and the standardiser stay. Calibrate again afterwards: the old scores are no longer the model's.

        Args:
            train: rows of any kind, see :func:`~noumena.density.table.as_table`.
            seed: of the first fit.

        Raises:
            DataError: not a table of finite numbers, or of another width.
        """
        table = self.as_dataset(train)
        if not self.is_built or float(self.seen) == 0.0:
            self.prepare(table, seed=seed)
            self.solve(table, seed=seed)
            return
        x = self._in_own_units(self._tensor(table))
        self._step(x, len(x) / (float(self.seen) + len(x)))
        self.seen += len(x)

    def _step(self, x: Tensor, gamma: float) -> None:
        """Move the sufficient statistics by ``gamma`` towards those of rows ``x``, float64 (rows, columns)."""
        weights, means, factors = (part.cpu().double() for part in (self.weights, self.means, self.factors))
        shares = component_log_densities(x, weights, means, factors).softmax(-1)
        covariances, least = covariances_of(factors), self.least_variance.cpu().double()
        old, new = (1.0 - gamma) * weights, gamma * shares.mean(0)
        alive = old + new > torch.finfo(x.dtype).tiny
        total = torch.where(alive, old + new, 1.0)
        moved = (old[:, None] * means + gamma * (shares.T @ x) / len(x)) / total[:, None]
        moved = torch.where(alive[:, None], moved, means)
        for k in alive.nonzero().flatten().tolist():
            centred = x - moved[k]
            spread = self._second_moment(centred, shares[:, k] * (gamma / len(x)))
            apart = self._second_moment((means[k] - moved[k])[None], old[k : k + 1])
            added = shrink((spread + apart)[None], self.shrinkage or 0.0)[0]
            floor = new[k] * least
            added += floor if self.covariance == "diag" else floor.diag()
            covariances[k] = (old[k] * covariances[k] + added) / total[k]
        total = torch.where(alive, total, 0.0)
        self._keep(total / total.sum(), moved, factors_of(covariances))

    def _second_moment(self, centred: Tensor, share: Tensor) -> Tensor:
        """``sum_n share_n c_n c_n^T`` of rows c, or its diagonal."""
        weighted = share[:, None] * centred
        return (weighted * centred).sum(0) if self.covariance == "diag" else weighted.T @ centred

    # Use

    def _within_reach(self, x: Tensor) -> Tensor:
        """Rows in the model's units, those beyond all measure drawn in: their squares would not be numbers."""
        centre = self.weights @ self.means
        reach = (_FAR / LEAST_VARIANCE**0.5) * self.least_variance.sqrt()
        return torch.clamp(self._standardized(x), centre - reach, centre + reach)

    def log_density(self, x: Tensor) -> Tensor:
        """Log-density of rows ``x`` (batch, columns) in nats in the units of the data, shape (batch,); differentiable.

        Rows further than 1e10 standard deviations score as those at that distance.
        """
        joint = component_log_densities(self._within_reach(x), self.weights, self.means, self.factors)
        return joint.logsumexp(-1) + self._log_det

    def responsibilities(self, data: Any) -> Tensor:
        """The chance of each component to have made each row: (rows, components)."""
        x = self._within_reach(self._tensor(data))
        return component_log_densities(x, self.weights, self.means, self.factors).softmax(-1)

    def loss(self, batch: Tensor, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Mean negative log-density of rows (batch, columns) in nats in the units of the data."""
        parts = [self.log_density(part) for part in batch.split(_ROWS_AT_ONCE)]
        return LossTerms(-torch.cat(parts).mean())

    @torch.inference_mode()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: bool = False) -> Tensor:
        """``n`` draws from the density, (n, columns), in the units of the data.

        Args:
            n: number of rows.
            generator: source of randomness; torch's global one when missing.
            noise: of no effect here, where every row is a draw.
        """
        if n < 0:
            raise ConfigError(f"n: expected a number of rows of at least 0, got {n}.")
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=self.device)
        limits = self.weights.double().cumsum(0)
        component = torch.bucketize(uniform * limits[-1], limits[:-1], right=True)
        noises = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.dtype, device=self.device)
        rows = torch.empty_like(noises)
        for k, factor in enumerate(self.factors):
            mine = component == k
            z = noises[mine]
            if factor.ndim == 1:
                rows[mine] = self.means[k] + z / factor
            else:
                rows[mine] = self.means[k] + torch.linalg.solve_triangular(factor, z, upper=True, left=False)
        return rows if self.standardizer is None else self.standardizer.inverse(rows)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of each column, the latter 1 where a column never varies, and which ones vary."""
    # The first row as provisional mean keeps the digits of columns like 1e9 + small.
    centred = rows - rows[0]
    mean = centred.mean(0)
    std = (centred - mean).square().mean(0).sqrt()
    varies = (centred != 0).any(0) & (std > 0)
    return torch.where(varies, mean + rows[0], rows[0]), torch.where(varies, std, 1.0), varies
