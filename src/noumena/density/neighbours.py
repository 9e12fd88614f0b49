"""Distances to the nearest training rows as scores, and the density they estimate."""

import logging
import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, NotSupportedError, did_you_mean
from noumena.core.losses import LossTerms
from noumena.core.seeding import Noise, fold
from noumena.density.detector import Detector, ScoreUnit
from noumena.density.table import as_table

log = logging.getLogger("noumena")

Method = Literal["mean", "kth", "density"]

# As a share of the columns' standard deviation: nearer than this, float32 cannot tell rows apart.
_LEAST_DISTANCE = 1e-6
# What a column that never varied deviates counts this much more, as if its standard deviation were the least one that
# the VAE has: a row where it has changed is an anomaly.
_WEIGHT_OF_CONSTANTS = math.exp(6.0)
# A row is no further than this from the mean, in standard deviations: squares stay within float32.
_FAR = 1e10
# Numbers in memory at once: distances to all reference rows, or differences to the nearest ones.
_MOST_NUMBERS = 1 << 24
_SUBSET, _RESERVOIR = range(2)  # streams of the seed


class Neighbours(Detector):
    r"""Distances to the nearest reference rows, as scores.

    Of the Euclidean distances :math:`r_1 \le \dots \le r_k` to the nearest reference rows, ``mean`` is minus the mean
    of the distances, ``kth`` is :math:`-r_k` (Ramaswamy, Rastogi & Shim 2000), both in standard deviations of the
    columns where ``standardize`` is on. ``density`` is the logarithm of

    .. math:: p(x) = \frac{k}{n\, V_d\, r_k^d}

    (Loftsgaarden & Quesenberry 1965) in nats in the units of the data, with ``n`` reference rows and the volume
    :math:`V_d` of the unit ball in the ``d`` columns that vary. It is no density to draw from, since its tails have no
    finite integral.

    Every row is scored as a new one: a row that is itself a reference row finds itself at distance 0, so the scores of
    training rows say little. Distances below 1e-6 standard deviations count as that in the density, which stays finite
    on rows that occur more than ``k`` times. A standardised column that never varied in training counts 400 times its
    deviation, so that a row where it has changed is far.

    Weights: ``reference`` (reference rows, columns), in the model's units, not trained by gradient.
    """

    trains_by_gradient = False
    reference: Tensor
    centre: Tensor
    unit: Tensor
    varying: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        input_dim: int | None = None,
        neighbours: int = 10,
        method: Method = "mean",
        max_rows: int = 20_000,
        reference_rows: int = 0,
        standardize: bool = True,
        anomaly_fraction: float = 0.01,
        calibration_rows: int = 0,
    ) -> None:
        """
        Args:
            input_dim: columns of a row; inferred by ``fit`` when missing.
            neighbours: how many; all reference rows where there are fewer.
            method: see above.
            max_rows: keep at most this many reference rows, drawn by the seed; the log says so.
            reference_rows: rows that the model holds; set by ``fit``.
            standardize: map columns to zero mean and unit variance inside the model.
            anomaly_fraction: share of normal rows that the threshold set by ``fit`` calls anomalies.
            calibration_rows: scores that the model holds for p-values; set by ``fit`` and ``calibrate``.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(input_dim, standardize, anomaly_fraction, calibration_rows)
        self.neighbours = neighbours
        self.method: Method = method
        self.max_rows = max_rows
        self.reference_rows = reference_rows
        self._index: tuple[Any, Any] | None = None
        for name, least in (("neighbours", 1), ("max_rows", 1), ("reference_rows", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"model.{name}: expected at least {least}, got {getattr(self, name)}.")
        if method not in get_args(Method):
            raise ConfigError(f"model.method: unknown '{method}'. {did_you_mean(str(method), get_args(Method))}")
        if self.is_built:
            self._build()

    def _build(self) -> None:
        super()._build()
        assert self.input_dim is not None
        self.reference = nn.Parameter(torch.zeros(self.reference_rows, self.input_dim), requires_grad=False)
        self.register_buffer("centre", torch.zeros(self.input_dim))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("varying", torch.tensor(self.input_dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def __getstate__(self) -> dict[str, Any]:
        """Without the search index, which is made again from the rows."""
        return {**self.__dict__, "_index": None}

    # Fitting

    @torch.no_grad()
    def solve(self, train: Dataset, *, seed: int) -> None:
        """Keep the training rows, or as many of them as ``max_rows``, as reference rows."""
        rows = as_table(train).rows
        seen = len(rows)
        if seen > self.max_rows:
            log.info("neighbours: %d of %d rows are the reference, see model.max_rows.", self.max_rows, seen)
            generator = torch.Generator().manual_seed(fold(seed, _SUBSET))
            rows = rows[torch.randperm(seen, generator=generator)[: self.max_rows].sort().values.to(rows.device)]
        self._keep(self._standardized(rows.to(self.device)), seen)

    @torch.no_grad()
    def partial_solve(self, train: Any, seed: int = 0) -> None:
        """Learn from further rows; the first ones fit the model as :meth:`solve` does.

        The reference rows stay a random sample of all rows so far, each with the same chance (reservoir sampling,
        Vitter 1985, algorithm R). The standardiser stays. Calibrate again afterwards: the old scores are no longer
        the model's.

        Args:
            train: rows of any kind, see :func:`~noumena.density.table.as_table`.
            seed: of the choice of rows.

        Raises:
            DataError: not a table of finite numbers, or of another width.
        """
        table = self.as_dataset(train)
        if not self.is_built or float(self.seen) == 0.0:
            self.prepare(table, seed=seed)
            self.solve(table, seed=seed)
            return
        rows, seen = self._standardized(self._tensor(table)), int(self.seen)
        room = max(0, self.max_rows - len(self.reference))
        rows, late = rows[:room], rows[room:]
        reference = torch.cat([self.reference, rows])
        first = seen + len(rows)
        # The row that is number t, from 0, takes a random place among t + 1, if that is one of the reservoir's.
        numbers = np.arange(first, first + len(late))
        place = np.random.default_rng(fold(seed, _RESERVOIR, seen)).integers(0, numbers + 1)
        source = np.full(len(reference), -1)
        kept = place < self.max_rows
        np.maximum.at(source, place[kept], np.flatnonzero(kept))  # of several rows for one place the last
        taken = torch.from_numpy(np.flatnonzero(source >= 0)).to(self.device)
        reference[taken] = late[torch.from_numpy(source[source >= 0]).to(self.device)]
        self._keep(reference, first + len(late))

    def _keep(self, reference: Tensor, seen: int) -> None:
        """Take rows in the model's units as reference."""
        self.reference = nn.Parameter(reference.to(self.device, self.dtype), requires_grad=False)
        self.reference_rows = len(reference)
        wide = reference.double()
        variances = (wide - wide[0]).var(0, correction=0)
        varies = variances > 0
        self.centre.copy_(wide[0] + (wide - wide[0]).mean(0))
        self.unit.copy_(variances[varies].mean().sqrt() if bool(varies.any()) else torch.ones(()))
        self.varying.fill_(max(1, int(varies.sum())))
        self.seen.fill_(seen)

    # Use

    def _standardized(self, x: Tensor) -> Tensor:
        z = super()._standardized(x)
        return z if self._constant is None else torch.where(self._constant, _WEIGHT_OF_CONSTANTS * z, z)

    @property
    def score_unit(self) -> ScoreUnit:
        """What :meth:`score_samples` counts."""
        return "nats" if self.method == "density" else "negative distance"

    def log_density(self, x: Tensor) -> Tensor:
        """The score of rows ``x`` (batch, columns), shape (batch,), see ``method``; differentiable almost everywhere.

        Rows further than 1e10 standard deviations score as those at that distance.

        Raises:
            NotSupportedError: there are no reference rows yet.
        """
        distances = self._distances(self._within_reach(x))
        if self.method == "mean":
            return -distances.mean(-1)
        furthest = distances.amax(-1)
        return self._log_density_of(furthest) if self.method == "density" else -furthest

    def _log_density_of(self, distance: Tensor) -> Tensor:
        d = int(self.varying)
        log_volume = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1.0)
        share = math.log(self._count / len(self.reference))
        return share - log_volume - d * distance.clamp(min=_LEAST_DISTANCE * self.unit).log() + self._log_det

    def score_samples(self, data: Any) -> np.ndarray:
        """How normal each row is, see :meth:`~noumena.density.detector.Detector.score_samples`.

        Each row is compared on its own, so blocks need no padding here.
        """
        rows = self._tensor(data)
        with torch.inference_mode():
            return self.log_density(rows).double().cpu().numpy()

    def loss(self, batch: Tensor, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Minus the mean score of rows (batch, columns)."""
        return LossTerms(-self.log_density(batch).mean())

    @property
    def _count(self) -> int:
        return min(self.neighbours, len(self.reference))

    def _within_reach(self, x: Tensor) -> Tensor:
        """Rows in the model's units, those beyond all measure drawn in: their squares would not be numbers."""
        if not len(self.reference):
            raise NotSupportedError("the model has no reference rows yet: call fit(data), or load a fitted one.")
        reach = _FAR * self.unit
        return torch.clamp(self._standardized(x), self.centre - reach, self.centre + reach)

    def _distances(self, x: Tensor) -> Tensor:
        """Distances of rows in the model's units to their nearest reference rows, in no order: (batch, neighbours).

        The search says which rows are the nearest, whatever its own rounding; the distances are taken anew.
        """
        rows_at_once = max(1, _MOST_NUMBERS // (self._count * x.shape[1]))
        parts: list[Tensor] = []
        for part in x.split(rows_at_once):
            near = self.reference[self._nearest(part.detach())]  # (part, neighbours, columns)
            parts.append(torch.linalg.vector_norm(part[:, None] - near, dim=-1))
        return torch.cat(parts)

    def _nearest(self, x: Tensor) -> Tensor:
        """Numbers of the nearest reference rows, int64 (batch, neighbours)."""
        if x.device.type != "cpu":
            return self._nearest_by_comparison(x)
        found = self._search_index().kneighbors(x.double().numpy(), self._count, return_distance=False)
        return torch.from_numpy(found)

    def _nearest_by_comparison(self, x: Tensor) -> Tensor:
        """The same by comparing with every reference row, on any device."""
        rows_at_once = max(1, _MOST_NUMBERS // len(self.reference))
        parts = [
            # Distances by way of a product would lose the digits of near rows.
            torch.cdist(part, self.reference, compute_mode="donot_use_mm_for_euclid_dist")
            .topk(self._count, largest=False, sorted=False)
            .indices
            for part in x.split(rows_at_once)
        ]
        return torch.cat(parts)

    def _search_index(self) -> Any:
        """scikit-learn's index of the reference rows, made at its first use and whenever the rows have changed."""
        rows = self.reference
        state = (rows.data_ptr(), 0 if rows.is_inference() else rows._version, rows.shape, rows.dtype)
        if self._index is None or self._index[0] != state:
            from sklearn.neighbors import NearestNeighbors

            self._index = (state, NearestNeighbors().fit(rows.detach().double().numpy()))
        return self._index[1]
