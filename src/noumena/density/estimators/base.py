"""What the estimators have in common: scikit-learn's contract for outlier detectors, over the models of the family."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.seeding import fold
from noumena.density.calibration import check_rate, p_values, threshold_of
from noumena.density.estimators.folds import Folds, Reservoir, as_named_table, divide, halves
from noumena.density.table import Table

log = logging.getLogger("noumena")

_DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "gpu", "mps": "mps"}
_LARGEST_SEED = 2**31 - 1
# Streams of the seed.
_DIVISION, _TRAINING, _CONTINUATION, _RESERVOIR = 1, 2, 3, 4


class DensityEstimator(OutlierMixin, BaseEstimator):
    """Base of the estimators: folds, scores, thresholds and p-values; a subclass fits models.

    Attributes:
        offset_: the score below which a row is an outlier.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    contamination: float | str
    anomaly_fraction: float
    calibration_fraction: float
    random_state: Any
    device: str

    offset_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    # What a subclass provides

    def _fit_folds(self, folds: Folds, seed: int) -> None:
        """Fit from scratch to ``folds.train`` and calibrate."""
        raise NotImplementedError

    def _continue(self, train: Table, calibration: Table, seed: int) -> None:
        """Fit to further rows, from scratch at the first call, and calibrate anew."""
        raise NotImplementedError

    def _score(self, rows: np.ndarray) -> np.ndarray:
        """Scores, float64 of shape (rows,), of checked rows (rows, columns)."""
        raise NotImplementedError

    @property
    def _calibration_scores(self) -> np.ndarray:
        """Scores of the calibration rows, ascending."""
        raise NotImplementedError

    def _write_state(self, folder: Path) -> dict[str, Any]:
        """Write what was fitted; what is small enough for JSON is returned."""
        raise NotImplementedError

    def _read_state(self, folder: Path, state: Mapping[str, Any]) -> None:
        """The reverse."""
        raise NotImplementedError

    @property
    def _validation_share(self) -> float:
        return float(getattr(self, "validation_fraction", 0.0))

    # Fitting

    def fit(self, X: Any, y: Any = None, X_val: Any = None, groups: Any = None) -> Self:
        """Fit to rows ``X`` (rows, columns) and calibrate on a part of them that is kept apart.

        Args:
            X: at least 2 rows, normal ones for the most part. Of 10 or more, shares choose the weights
                (``validation_fraction``) and calibrate (``calibration_fraction``); of fewer all train and calibrate,
                which makes p-values too low.
            y: not used.
            X_val: normal rows kept apart already: half of them choose the weights, half calibrate, and all of ``X``
                trains.
            groups: the group (trajectory, patient, machine) of each row, shape (rows,): folds are of whole groups.

        Raises:
            ValueError: ``X`` is no table of finite numbers.
            ConfigError: a parameter is out of range.
            DataError: a number is beyond float32, or there are too few groups.
        """
        rows = self._validated(X, reset=True, least=2)
        self._check_parameters()
        seed = self._seed()
        folds = self._folds(rows, X_val, groups, fold(seed, _DIVISION))
        self._fit_folds(folds, fold(seed, _TRAINING))
        held = _rows_of(folds.calibration, self.n_features_in_)
        self._held = Reservoir.empty(self.n_features_in_).add(held, fold(seed, _RESERVOIR))
        self._n_continued = 0
        self.offset_ = self._offset(rows)
        self._take_offset()
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on fitting with further rows; the statistics that standardise columns stay those of the first call.

        Of each call's rows the share ``calibration_fraction`` is kept apart; up to 10,000 of these, drawn evenly from
        all calls, calibrate the model after each. With a ``contamination`` that is a number, the offset is that
        quantile of theirs.

        Args:
            X: shape (rows, columns); at least 2 rows in the first call, which should be like the rest.
            y: not used.
        """
        first = not hasattr(self, "offset_")
        rows = self._validated(X, reset=first, least=2 if first else 1)
        self._check_parameters()
        if first or not hasattr(self, "_held"):
            self._held = Reservoir.empty(self.n_features_in_)
            self._n_continued = 0
        seed = fold(self._seed(), _CONTINUATION, self._n_continued)
        table = self._table(rows)
        apart = np.random.default_rng(seed).random(len(rows)) < self.calibration_fraction
        if len(rows) - apart.sum() < (2 if first else 1):
            apart[:] = False
        self._held = self._held.add(rows[apart], fold(seed, _RESERVOIR))
        train = table.subset(torch.from_numpy(np.flatnonzero(~apart)))
        self._continue(train, self._table(self._held.rows) if len(self._held.rows) else train, fold(seed, _TRAINING))
        self._n_continued += 1
        self.offset_ = self._offset(None)
        self._take_offset()
        return self

    def _folds(self, rows: np.ndarray, X_val: Any, groups: Any, seed: int) -> Folds:
        table = self._table(rows)
        if X_val is not None:
            given = self._validated(X_val)
            if not self._validation_share:
                return Folds(table, None, self._table(given))
            return Folds(table, *halves(self._table(given), seed))
        folds = divide(
            table, validation=self._validation_share, calibration=self.calibration_fraction, groups=groups, seed=seed
        )
        if folds.calibration is None:
            log.warning("%s: too few rows to spare any: training rows calibrate, p-values come out too low.", self)
        return folds

    def _table(self, rows: np.ndarray) -> Table:
        return as_named_table(rows, getattr(self, "feature_names_in_", None))

    def _offset(self, rows: np.ndarray | None) -> float:
        """The score below which a row is an outlier, see ``contamination``; always finite."""
        scores = self._calibration_scores
        finite = scores[np.isfinite(scores)]
        if isinstance(self.contamination, str):
            return max(threshold_of(scores, self.anomaly_fraction), float(finite.min()))
        if rows is not None:
            scores = self._score(rows)
            finite = scores[np.isfinite(scores)]
        # Far rows rank below every other, and -inf would spoil the interpolation between neighbours.
        return float(np.quantile(np.where(np.isfinite(scores), scores, finite.min()), self.contamination))

    def _take_offset(self) -> None:
        """Tell the model of the offset."""

    def _check_parameters(self) -> None:
        check_rate("anomaly_fraction", self.anomaly_fraction)
        if self.device not in _DEVICES:
            raise ConfigError(f"device: unknown '{self.device}'. {did_you_mean(str(self.device), _DEVICES)}")
        if not 0.0 <= self.calibration_fraction < 1.0:
            raise ConfigError(f"calibration_fraction: expected a share in [0, 1), got {self.calibration_fraction}.")
        contamination = self.contamination
        if contamination == "auto":
            return
        if isinstance(contamination, str | bool) or not 0.0 < contamination <= 0.5:
            raise ConfigError(f"contamination: expected 'auto' or a share in (0, 0.5], got {contamination!r}.")

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(_LARGEST_SEED))

    # Use

    def score_samples(self, X: Any) -> np.ndarray:
        """How normal each row is, float64 of shape (rows,); higher is more normal.

        A row's score does not depend on the others. ``-inf`` for rows too far away to tell how far.
        """
        return self._score(self._checked(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples(X) - offset_``: negative for outliers. float64, shape (rows,)."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """+1 for inliers and -1 for outliers, int64, shape (rows,)."""
        scores = self.score_samples(X)
        return np.where((scores - self.offset_ >= 0.0) & np.isfinite(scores), 1, -1)

    def p_value(self, X: Any) -> np.ndarray:
        """The chance of a normal row to score as low or lower: float64, shape (rows,), in (0, 1].

        Split-conformal: exact for rows exchangeable with the calibration rows (Bates et al. 2023, eq. 2).
        """
        return p_values(self.score_samples(X), self._calibration_scores)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`score_samples`, by which ``GridSearchCV`` compares; ``y`` is not used."""
        return float(self.score_samples(X).mean())

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "offset_")
        return self._validated(X)

    def _validated(self, X: Any, *, reset: bool = False, least: int = 1) -> np.ndarray:
        """Rows that scikit-learn finds in order; with ``reset`` their columns are those to expect from now on."""
        rows = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=least)
        return cast(np.ndarray, rows)

    # Files

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted estimator as a folder: ``estimator.json`` and its models; nothing is pickled.

        The rows that :meth:`partial_fit` keeps to calibrate on are not written.

        Raises:
            ArtifactError: ``path`` exists (and is not to be overwritten) or cannot be written.
            ConfigError: a parameter is no plain value.
        """
        from noumena.density.estimators.storage import save

        check_is_fitted(self, "offset_")
        save(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; nothing in the folder is executed.

        Raises:
            ArtifactError: the folder is damaged or holds another estimator.
        """
        from noumena.density.estimators.storage import load

        return load(cls, Path(path))

    # Devices

    @property
    def _accelerator(self) -> str:
        return _DEVICES[self.device]

    @property
    def _torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _rows_of(table: Table | None, columns: int) -> np.ndarray:
    """The rows of a fold, none of one that is not there."""
    return np.empty((0, columns), dtype=np.float32) if table is None else table.rows.numpy()
