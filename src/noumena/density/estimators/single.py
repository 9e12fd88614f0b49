"""Estimators of one model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from noumena.core.data import Dataset
from noumena.core.errors import ArtifactError
from noumena.core.model import load_trained
from noumena.density.detector import Detector
from noumena.density.estimators.base import DensityEstimator
from noumena.density.estimators.folds import Folds
from noumena.density.table import Table

_MODEL = "model"
_ROWS_ENCODED = 8192


class SingleDetector(DensityEstimator):
    """Base of the estimators that fit one model of the family.

    Attributes:
        model_: the fitted :class:`~noumena.density.detector.Detector`; everything else a model can do is there.
        history_: what was measured while training, see :func:`noumena.training.fit`.
    """

    model_: Detector
    history_: Any

    def _make_model(self) -> Detector:
        """The model of the parameters, not fitted."""
        raise NotImplementedError

    def _fit_options(self) -> dict[str, Any]:
        """Options of the training besides seed and device."""
        return {}

    def _fit_folds(self, folds: Folds, seed: int) -> None:
        model = self._make_model()
        with _all_choose_weights(model):
            self.history_ = self._train(model, folds.train, folds.validation, seed, **self._fit_options())
        self.model_ = model.to(self._torch_device)
        self._calibrate(folds.train if folds.calibration is None else folds.calibration)

    def _continue(self, train: Table, calibration: Table, seed: int) -> None:
        if not hasattr(self, "model_"):
            self.model_ = self._make_model()
        self._go_on(train, seed)
        self.model_.to(self._torch_device)
        self._calibrate(calibration)

    def _go_on(self, train: Table, seed: int) -> None:
        """Fit ``model_`` to further rows: one pass over them."""
        options = {**self._fit_options(), "max_epochs": 1, "lr_schedule": "constant"}
        self.history_ = self._train(self.model_, train, None, seed, **options)

    def _train(self, model: Detector, train: Table, validation: Table | None, seed: int, **options: Any) -> Any:
        return model.fit(train, validation, seed=seed, accelerator=self._accelerator, progress=False, **options)

    def _calibrate(self, table: Table) -> None:
        self.model_.calibrate(table, self.anomaly_fraction)

    def _take_offset(self) -> None:
        self.model_.threshold.fill_(self.offset_)

    def _score(self, rows: np.ndarray) -> np.ndarray:
        return self.model_.score_samples(rows)

    @property
    def _calibration_scores(self) -> np.ndarray:
        return self.model_.calibration.cpu().numpy()

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """New rows drawn from the fitted density, float64 of shape (n_samples, columns), in the units of the data.

        Raises:
            NotSupportedError: the model is no density.
        """
        check_is_fitted(self, "offset_")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        generator = torch.Generator(self.model_.device).manual_seed(seed)
        return self.model_.sample(n_samples, generator, noise=True).cpu().numpy().astype(np.float64)

    def _write_state(self, folder: Path) -> dict[str, Any]:
        self.model_.save(folder / _MODEL)
        return {}

    def _read_state(self, folder: Path, state: Mapping[str, Any]) -> None:
        model = load_trained(folder / _MODEL)
        expected = type(self._make_model())
        if not isinstance(model, expected):
            raise ArtifactError(
                f"{folder / _MODEL}: expected a {expected.__name__} for {type(self).__name__}, found a "
                f"{type(model).__name__}."
            )
        if model.input_dim != self.n_features_in_:
            raise ArtifactError(
                f"{folder}: the estimator takes {self.n_features_in_} columns, its model {model.input_dim}. Save again."
            )
        self.model_ = model.to(self._torch_device)


class LatentDetector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SingleDetector):
    """An estimator whose model has latents."""

    def transform(self, X: Any) -> np.ndarray:
        """The posterior mean of the latents of each row, float64, shape (rows, latent)."""
        rows = torch.from_numpy(self._checked(X).copy())
        with torch.inference_mode():
            blocks = [self.model_.encode(part).mean.double().cpu() for part in rows.split(_ROWS_ENCODED)]
        return torch.cat(blocks).numpy()

    @property
    def _n_features_out(self) -> int:
        return int(getattr(self.model_, "latent_dim", self.n_features_in_))


@contextmanager
def _all_choose_weights(model: Detector) -> Iterator[None]:
    """Within, all validation rows choose the weights: the estimator has a calibration fold of its own."""

    def divide(val: Dataset) -> tuple[Dataset, None]:
        return val, None

    vars(model)["divide_validation"] = divide
    try:
        yield
    finally:
        del vars(model)["divide_validation"]
