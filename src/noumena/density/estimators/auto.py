"""Several detectors fitted to the same rows: one estimator that needs no choice between them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from noumena.core.errors import ArtifactError, ConfigError, DataError, did_you_mean
from noumena.core.seeding import fold
from noumena.density.calibration import sorted_scores
from noumena.density.estimators.base import DensityEstimator
from noumena.density.estimators.flow import FlowDetector
from noumena.density.estimators.folds import Folds, halves
from noumena.density.estimators.gmm import GMMDetector
from noumena.density.estimators.knn import KNNDetector
from noumena.density.estimators.single import SingleDetector
from noumena.density.estimators.tails import Tail
from noumena.density.estimators.vae import VAEDetector
from noumena.density.table import Table

Rule = Literal["average", "likelihood"]
Member = str | SingleDetector

_NAMES = ("knn", "gmm", "vae", "flow")
_MEMBERS = "members"
_HALVES = 5  # stream of the seed


class AutoDetector(DensityEstimator):
    r"""Outliers by the family together, or by that density of it which the data choose.

    All members are fitted to the same rows, after which a rule makes one score:

    - ``average`` puts the members on one scale, the logarithm of the chance that a normal row scores as low, and
      averages them (Fisher's combination, 1932): first the densities, which all estimate the same, then their mean
      and that of the distances to neighbours, which see what no smooth density follows; so the two views weigh the
      same however many members take either. :math:`\hat p_m` is the distribution function of the member's scores of
      the validation rows, with a generalised Pareto tail (:class:`~noumena.density.estimators.tails.Tail`), so that
      far rows keep their order. A member that takes a row for normal can only raise the score so far, one that finds
      it very strange lowers it without bound.
    - ``likelihood`` scores by the density with the highest mean log-likelihood of the validation rows, in nats in the
      units of the data. Distances to neighbours are no density and are not compared.

    p-values and thresholds come from the calibration rows, which neither the members nor the rule have seen, so they
    hold for both rules.

    Attributes:
        members_: the fitted estimators by name; each can be used on its own.
        likelihoods_: mean log-likelihood of the validation rows by each density, in nats.
        best_: the name of the density with the highest one; None without a density.
        tails_: the distribution functions by member.
    """

    members_: dict[str, SingleDetector]
    likelihoods_: dict[str, float]
    best_: str | None
    tails_: dict[str, Tail]

    def __init__(
        self,
        *,
        members: tuple[Member, ...] = _NAMES,
        rule: Rule = "average",
        max_epochs: int = 100,
        batch_size: int = 256,
        lr: float = 1e-3,
        patience: int | None = 15,
        contamination: float | str = "auto",
        anomaly_fraction: float = 0.05,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.15,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        """
        Args:
            members: names among ``knn``, ``gmm``, ``vae`` and ``flow``, or estimators, whose own parameters are kept
                except for folds, thresholds and seed.
            rule: see above.
            max_epochs, batch_size, lr, patience: of the members given by name, see :class:`VAEDetector`.
            contamination: share of the rows of ``X`` that ``predict`` calls outliers, in (0, 0.5]; ``auto`` takes the
                threshold that calls the share ``anomaly_fraction`` of the calibration rows so.
            anomaly_fraction: see ``contamination``.
            validation_fraction: share of ``X`` that chooses weights and the density, and puts members on one scale.
            calibration_fraction: share of ``X`` that calibrates thresholds and p-values.
            device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the best there is; of the members given by name.
            random_state: an integer for the same result each time.
        """
        self.members = members
        self.rule: Rule = rule
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.patience = patience
        self.contamination = contamination
        self.anomaly_fraction = anomaly_fraction
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.device = device
        self.random_state = random_state

    # Members

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.rule not in get_args(Rule):
            raise ConfigError(f"rule: unknown '{self.rule}'. {did_you_mean(str(self.rule), get_args(Rule))}")
        if isinstance(self.members, str) or not self.members:
            raise ConfigError(f"members: expected a tuple of at least one member, got {self.members!r}.")
        members = self._named_members()
        for member in members.values():
            member._check_parameters()
        if self.rule == "likelihood" and all(one._make_model().score_unit != "nats" for one in members.values()):
            raise ConfigError("members: rule='likelihood' compares densities; add 'gmm', 'vae' or 'flow'.")

    def _named_members(self) -> dict[str, SingleDetector]:
        """Estimators not fitted, by names that differ."""
        found: dict[str, SingleDetector] = {}
        seen: Counter[str] = Counter()
        for member in self.members:
            name = member if isinstance(member, str) else _name_of(member)
            seen[name] += 1
            key = name if seen[name] == 1 else f"{name}_{seen[name]}"
            found[key] = self._made(member) if isinstance(member, str) else cast(SingleDetector, clone(member))
        return found

    def _made(self, name: str) -> SingleDetector:
        if name == "knn":
            return KNNDetector(device=self.device)
        if name == "gmm":
            return GMMDetector(device=self.device)
        if name not in _NAMES:
            raise ConfigError(f"members: unknown '{name}'. {did_you_mean(name, _NAMES)}")
        kind = VAEDetector if name == "vae" else FlowDetector
        return kind(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            patience=self.patience,
            device=self.device,
        )

    def _start(self) -> dict[str, SingleDetector]:
        """Members that know the columns and the thresholds of this estimator."""
        members = self._named_members()
        for member in members.values():
            member.set_params(
                contamination="auto",
                anomaly_fraction=self.anomaly_fraction,
                calibration_fraction=self.calibration_fraction,
            )
            member.n_features_in_ = self.n_features_in_
            if hasattr(self, "feature_names_in_"):
                member.feature_names_in_ = self.feature_names_in_
        return members

    # Fitting

    def _fit_folds(self, folds: Folds, seed: int) -> None:
        self.members_ = self._start()
        for number, member in enumerate(self.members_.values()):
            member._fit_folds(folds, fold(seed, number))
        calibration = folds.train if folds.calibration is None else folds.calibration
        self._combine(calibration if folds.validation is None else folds.validation, calibration)

    def _continue(self, train: Table, calibration: Table, seed: int) -> None:
        if not hasattr(self, "members_"):
            self.members_ = self._start()
        for number, member in enumerate(self.members_.values()):
            member._continue(train, calibration, fold(seed, number))
        self._combine(*halves(calibration, fold(seed, _HALVES)))

    def _combine(self, validation: Table, calibration: Table) -> None:
        """Put the members on one scale by the validation rows, and calibrate the rule."""
        for member in self.members_.values():
            member.offset_ = float(member.model_.threshold)
        scores = {name: member.model_.score_samples(validation) for name, member in self.members_.items()}
        self.tails_ = {name: Tail.fit(found) for name, found in scores.items()}
        densities = [name for name, member in self.members_.items() if member.model_.score_unit == "nats"]
        self.likelihoods_ = {name: float(scores[name].mean()) for name in densities}
        self.best_ = max(densities, key=lambda name: self.likelihoods_[name]) if densities else None
        self.calibration_ = sorted_scores(self._score(calibration.rows.numpy()))

    # Use

    def _score(self, rows: np.ndarray) -> np.ndarray:
        if self.rule == "likelihood":
            return self._best._score(rows)
        views: dict[bool, list[np.ndarray]] = {}
        for name, member in self.members_.items():
            is_density = member.model_.score_unit == "nats"
            views.setdefault(is_density, []).append(self.tails_[name](member._score(rows)))
        return np.mean([np.mean(parts, axis=0) for parts in views.values()], axis=0)

    @property
    def _best(self) -> SingleDetector:
        if self.best_ is None:
            raise ConfigError("members: none is a density; add 'gmm', 'vae' or 'flow'.")
        return self.members_[self.best_]

    @property
    def _calibration_scores(self) -> np.ndarray:
        return self.calibration_

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """New rows drawn from the density ``best_``, float64, shape (n_samples, columns), in the units of the data."""
        check_is_fitted(self, "offset_")
        return self._best.sample(n_samples, check_random_state(random_state))

    # Files

    def _write_state(self, folder: Path) -> dict[str, Any]:
        for name, member in self.members_.items():
            member.save(folder / _MEMBERS / name)
        return {
            "members": list(self.members_),
            "likelihoods": {name: _finite_or_none(value) for name, value in self.likelihoods_.items()},
            "best": self.best_,
            "tails": {name: tail.as_dict() for name, tail in self.tails_.items()},
            "calibration": [_finite_or_none(score) for score in self.calibration_.tolist()],
        }

    def _read_state(self, folder: Path, state: Mapping[str, Any]) -> None:
        where = str(folder)
        members = self._named_members()
        if state.get("members") != list(members):
            raise ArtifactError(f"{where}: expected the members {list(members)}, found {state.get('members')}.")
        self.members_ = {name: type(one).load(folder / _MEMBERS / name) for name, one in members.items()}
        self.best_ = state.get("best")
        try:
            self.likelihoods_ = {name: _number(value) for name, value in state["likelihoods"].items()}
            self.tails_ = {name: Tail.from_dict(state["tails"][name]) for name in members}
            self.calibration_ = sorted_scores(np.array([_number(score) for score in state["calibration"]]))
        except (AttributeError, DataError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{where}: likelihoods, tails or calibration scores are damaged ({error}).") from error
        if self.best_ is not None and self.best_ not in members:
            raise ArtifactError(f"{where}: 'best' is {self.best_!r}, which is no member. Save the estimator again.")


def _name_of(member: Any) -> str:
    if not isinstance(member, SingleDetector):
        raise ConfigError(
            f"members: expected names among {', '.join(_NAMES)} or estimators of this family, got {member!r}."
        )
    return type(member).__name__.removesuffix("Detector").lower()


def _finite_or_none(value: float) -> float | None:
    """JSON has no infinity; the only one among scores is ``-inf``."""
    return value if np.isfinite(value) else None


def _number(value: Any) -> float:
    return -np.inf if value is None else float(value)
