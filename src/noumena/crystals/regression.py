"""A property of a crystal from its frozen vector, by a small network."""

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.evaluation import Evaluation, Picture, Table
from noumena.core.losses import LossTerms
from noumena.core.posterior import PointMass
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import Noise, fold
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.boosting import CompositionBoosting
from noumena.crystals.dataset import Crystals
from noumena.crystals.frozen import OnAutoencoder
from noumena.crystals.networks.committee import Committee
from noumena.crystals.vectors import VectorBatch, Vectors
from noumena.style import BLUE, INK, new_figure, style

log = logging.getLogger(__name__)

# Standard deviations below which errors count by their square: far below what can be reached, so that the mean
# absolute error is what is minimised, with a gradient that fades at the end.
_SMOOTH = 0.05
_LIMIT = 8.0  # standard deviations that a number of an unusual crystal's vector may be off


class PropertyHead(OnAutoencoder):
    r"""A property from the vectors of a trained ``crystals/vae``, whose weights stay as they are.

    .. math:: \hat y = \bar y + \sigma_y \, \tfrac1M \sum_m h_m\big((v - \bar v) / \sigma_v\big), \qquad
        \mathcal{L} = \tfrac1M \sum_m \mathrm{huber}_{0.05}\big(h_m,\, (y - \bar y) / \sigma_y\big)

    Means and spreads of the training data are buffers; crystals whose property is not known are left out.
    """

    def __init__(
        self,
        *,
        autoencoder: str | None = None,
        autoencoder_config: Mapping[str, Any] | None = None,
        target: str = "formation_energy_per_atom",
        width: int = 384,
        depth: int = 2,
        members: int = 4,
        dropout: float = 0.0,
    ) -> None:
        """
        Args:
            autoencoder, autoencoder_config: see :class:`~noumena.crystals.frozen.OnAutoencoder`.
            target: name of the property in the data.
            width, depth: of the hidden layers.
            members: networks whose mean is the answer.
            dropout: share of the hidden units that training leaves out.

        Raises:
            ConfigError: a value is out of range.
        """
        super().__init__(autoencoder=autoencoder, autoencoder_config=autoencoder_config)
        self.target = target
        self.width = width
        self.depth = depth
        self.members = members
        self.dropout = dropout
        for name in ("width", "depth", "members"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: expected at least 1, got {getattr(self, name)}.")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"model.dropout: expected from 0 to below 1, got {dropout}.")
        # The vectors of the last data set, so that preprocessing and training share them.
        self._last: list[Vectors] = []
        if self.is_built:
            self._build()

    def _build(self) -> None:
        super()._build()
        vae = cast("Any", self.vae)
        # Without a network for it the vector is the mean latent of the atoms and, where there is one, that of the cell.
        size = int(vae.vector_dim or vae.latent_dim * (1 + vae.is_periodic))
        self.scale = Standardizer(size)
        self.target_scale = Standardizer(1)
        self.head = Committee(size, self.width, self.depth, self.members, self.dropout)

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        found = self._vectors(dataset).data
        self.scale.fit(found.vectors)
        self.target_scale.fit(found.target[:, None])

    def for_training(self, dataset: Dataset) -> Dataset:
        """The vectors of the crystals whose property is known, computed once for all epochs.

        Raises:
            DataError: the data have no such property, or no crystal has a value.
        """
        found = self._vectors(dataset)
        self._last.clear()
        return found

    def _vectors(self, dataset: Dataset) -> Vectors:
        if isinstance(dataset, Vectors):
            return dataset
        crystals = cast("Crystals", dataset)
        if not self._last or self._last[0].source is not crystals:
            known = known_rows(crystals, self.target)
            some = crystals if bool(known.all()) else crystals.subset(known.nonzero()[:, 0])
            target = some.properties[self.target].to(self.device, self.dtype)
            self._last[:] = [Vectors(VectorBatch(self._of(some), target), crystals)]
        return self._last[0]

    @torch.no_grad()
    def _of(self, data: Any) -> Tensor:
        return self.vector(data).to(self.device, self.dtype)

    def encode(self, batch: Any) -> PointMass:
        """The autoencoder's vectors, certain; ``batch`` is crystals or a :class:`VectorBatch`."""
        self.check_built()
        return PointMass(batch.vectors if isinstance(batch, VectorBatch) else self._of(batch))

    def decode(
        self,
        z: Tensor,
        num_atoms: Tensor | None = None,
        *,
        types: Tensor | None = None,
        composition: Any = None,
    ) -> CrystalBatch:
        """Vectors hold no crystal.

        Raises:
            NotSupportedError: always.
        """
        raise NotSupportedError("a crystal's vector cannot be decoded; use the latents of model.vae and its decode.")

    def loss(self, batch: Any, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Huber's loss of the members in standard deviations; ``mae`` is that of their mean, in the property's unit."""
        del noise, beta_scale
        rows = batch if isinstance(batch, VectorBatch) else self._batch(batch)
        answers = self._answers(rows.vectors)
        truth = self.target_scale(rows.target[:, None])[:, 0]
        total = functional.smooth_l1_loss(answers, truth.expand_as(answers), beta=_SMOOTH)
        mae = (answers.mean(0) - truth).abs().mean() * self.target_scale.scale[0]
        return LossTerms(total, {"mae": mae})

    def _batch(self, data: Any) -> VectorBatch:
        return self._vectors(self.as_dataset(data)).data

    def _answers(self, vectors: Tensor) -> Tensor:
        """Of each member in standard deviations, shape (members, crystals)."""
        return self.head(self.scale(vectors).clamp(-_LIMIT, _LIMIT))

    @torch.no_grad()
    def predict(self, data: Any) -> Tensor:
        """The property of each crystal in the unit of the data, shape (crystals,).

        Args:
            data: crystals in any form that the autoencoder takes, or a :class:`VectorBatch`.
        """
        return self.predict_with_spread(data)[0]

    @torch.no_grad()
    def predict_with_spread(self, data: Any) -> tuple[Tensor, Tensor]:
        """:meth:`predict`, and the standard deviation of the members: large where the data say little."""
        answers = self._answers(self.encode(data).mean)
        scale = self.target_scale.scale[0]
        return answers.mean(0) * scale + self.target_scale.mean[0], answers.std(0, correction=0) * scale

    def evaluate(self, data: Any) -> dict[str, float]:
        """``mae``, ``rmse`` in the unit of the property and ``r2``, over the crystals whose property is known."""
        rows = self._batch(data)
        self._last.clear()
        return errors_of(self.predict(rows), rows.target)


def known_rows(crystals: Crystals, target: str) -> Tensor:
    """Which crystals have a value of the property, bool, shape (crystals,); a log line counts those without.

    Raises:
        DataError: the data have no such property, or no crystal has a value.
    """
    if target not in crystals.properties:
        raise DataError(
            f"the data have no property '{target}'. {did_you_mean(target, crystals.properties)} Name it as "
            "model.target, and read it with data.properties."
        )
    known = torch.isfinite(crystals.properties[target])
    if not bool(known.any()):
        raise DataError(f"property '{target}': none of the {len(known):,} crystals has a value. Name another one.")
    if missing := int((~known).sum()):
        log.info("property '%s': %s of %s crystals have no value and are left out", target, missing, len(known))
    return known


def errors_of(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean absolute and root mean square error in the unit of the property, and the share of variance explained."""
    off = (found - truth).double()
    variance = (truth.double() - truth.double().mean()).square().mean()
    square = off.square().mean()
    return {"mae": float(off.abs().mean()), "rmse": float(square.sqrt()), "r2": float(1.0 - square / variance)}


def evaluate_property(
    model: PropertyHead, splits: Splits, *, baselines: bool = True, resamples: int = 1000, seed: int = 0
) -> Evaluation:
    """Measure a property head on crystals it was not trained on, beside gradient boosting on composition columns.

    Args:
        model: a trained one.
        splits: the data it was trained on. The test split is evaluated, else val, else train.
        baselines: fit :class:`~noumena.crystals.boosting.CompositionBoosting` to the training crystals, and take the
            mean of their property.
        resamples: of the held-out crystals, with replacement, that the intervals come from.
        seed: of the resamples and of the boosting.

    Returns:
        ``mae``, ``rmse`` in the unit of the property and ``r2``, with ``<name>_low`` and ``<name>_high`` (95 % of the
        resamples); the same after ``boosting_`` and ``mean_``; ``boosting_better``, the share of resamples in which
        boosting has the lower mean absolute error; ``crystals``, ``left_out`` and ``train_crystals``. A table, and a
        picture of predicted against true values.

    Raises:
        DataError: no crystal of the split has a value.
        ConfigError: no resamples.
    """
    if resamples < 1:
        raise ConfigError(f"evaluate.resamples: expected at least 1, got {resamples}.")
    parts = (("test", splits.test), ("val", splits.val), ("train", splits.train))
    name, held = next((name, cast("Crystals", model.as_dataset(part))) for name, part in parts if part is not None)
    known, truth = _known(held, model.target)
    train, train_truth = _known(cast("Crystals", model.as_dataset(splits.train)), model.target)
    found = {"": model.predict(known).cpu().double()}
    if baselines:
        found["boosting_"] = CompositionBoosting(seed=seed).fit(train.crystals, train_truth).predict(known.crystals)
        found["mean_"] = train_truth.mean().expand(len(truth))
    rows = torch.randint(len(truth), (resamples, len(truth)), generator=torch.Generator().manual_seed(fold(seed)))
    metrics = {"crystals": float(len(truth)), "left_out": float(len(held) - len(truth))}
    metrics["train_crystals"] = float(len(train_truth))
    for prefix, values in found.items():
        metrics |= {f"{prefix}{key}": value for key, value in _with_intervals(values, truth, rows).items()}
    if "boosting_" in found:
        own, other = ((found[key] - truth).abs()[rows].mean(1) for key in ("", "boosting_"))
        metrics["boosting_better"] = float((other < own).double().mean())
    unit = held.units.get(model.target, "")
    table = _error_table(metrics, [key for key in _METHODS if key in found], model.target, unit, name)
    return Evaluation(metrics, (table,), (_parity(found[""], truth, model.target, unit),))


_METHODS = {"": "head on the vector", "boosting_": "boosting on composition", "mean_": "mean of the training crystals"}


def _known(crystals: Crystals, target: str) -> tuple[Crystals, Tensor]:
    """The crystals whose property is known, and it, float64, both on the CPU."""
    chosen = crystals.to("cpu").subset(known_rows(crystals, target).cpu().nonzero()[:, 0])
    return chosen, chosen.properties[target].double()


def _with_intervals(found: Tensor, truth: Tensor, rows: Tensor) -> dict[str, float]:
    """:func:`errors_of`, and 2.5 and 97.5 % quantiles over ``rows`` (resamples, crystals)."""
    off, centred = (found - truth)[rows], truth[rows] - truth[rows].mean(1, keepdim=True)
    square = off.square().mean(1)
    draws = {"mae": off.abs().mean(1), "rmse": square.sqrt(), "r2": 1.0 - square / centred.square().mean(1)}
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    quantiles = {key: values.quantile(ends).tolist() for key, values in draws.items()}
    low = {f"{key}_low": values[0] for key, values in quantiles.items()}
    return {**errors_of(found, truth), **low, **{f"{key}_high": values[1] for key, values in quantiles.items()}}


def _error_table(metrics: Mapping[str, float], prefixes: list[str], target: str, unit: str, split: str) -> Table:
    def cell(key: str) -> str:
        return f"{metrics[key]:.4f} ({metrics[f'{key}_low']:.4f} to {metrics[f'{key}_high']:.4f})"

    rows = [[_METHODS[prefix], *(cell(f"{prefix}{key}") for key in ("mae", "rmse", "r2"))] for prefix in prefixes]
    left_out = int(metrics["left_out"])
    caption = (
        f"{int(metrics['crystals']):,} crystals of {split}, trained on {int(metrics['train_crystals']):,}; in brackets "
        f"95 % of resamples of the crystals. {left_out} crystals without a value are left out."
    )
    in_unit = f" ({unit})" if unit else ""
    return Table(f"Errors of {target}", ("method", f"MAE{in_unit}", f"RMSE{in_unit}", "R²"), rows, caption)


def _parity(found: Tensor, truth: Tensor, target: str, unit: str) -> Picture:
    """Predicted against true values, a dot each."""
    ends = [float(min(found.min(), truth.min())), float(max(found.max(), truth.max()))]
    label = f"{target} ({unit})" if unit else target
    with style():
        figure = new_figure(4.2, 4.0)
        axis = figure.subplots()
        axis.plot(ends, ends, color=INK, linewidth=0.8)
        axis.scatter(truth.numpy(), found.numpy(), s=6, color=BLUE, alpha=0.4, linewidths=0)
        axis.set(xlabel=f"{label}, true", ylabel=f"{label}, predicted", aspect="equal")
    return Picture("property_parity", f"Predicted and true {target}", figure, "A dot for each crystal; line: equal.")
