"""The contract every Noumena model keeps: plain PyTorch mathematics, and three doors: fit, save, load_trained."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.gradients import without_needless_gradients
from noumena.core.losses import LossTerms
from noumena.core.posterior import DiagonalGaussian
from noumena.core.seeding import Noise, fold, seeded

if TYPE_CHECKING:
    from noumena.training.history import History

_INITIALISATION = 1  # stream of the seed from which initial weights are drawn
# What is called for its result; sampling, reconstructing and scoring record no gradients in any mode.
_DOORS = ("encode", "decode", "decode_some", "embed", "predict", "imagine")


class LatentModel(nn.Module):
    """A map from data to a posterior over latents, and back.

    A subclass takes its hyperparameters as keyword arguments of ``__init__`` (JSON-able types), keeps each as an
    attribute of the same name, and makes its networks in ``_build``. Sizes that follow from the data
    (``sizes_from_data``) may be left ``None``: they are then inferred by the first ``fit``, which also initialises
    the weights from its ``seed``. A model whose sizes are all given is built at once, from torch's global generator
    like any other module. Fitting a model that is built already continues from its weights and its preprocessing.

    In evaluation mode, as ``fit`` and ``load`` leave a model, ``encode``, ``decode``, ``embed`` and the like record
    gradients by those of their inputs that require them, and none otherwise: ``model.encode(x).mean.numpy()`` works.
    For gradients by the weights outside of ``fit``, put the model in training mode (``model.train()``).
    """

    sizes_from_data: ClassVar[tuple[str, ...]] = ()
    """Names of the hyperparameters that ``fit`` infers from data."""

    least_batch: ClassVar[int] = 1
    """Samples that :meth:`loss` needs at once; more than one where it compares the samples of a batch."""

    trains_by_gradient: ClassVar[bool] = True
    """Whether ``fit`` descends the gradient of :meth:`loss`; otherwise it calls :meth:`solve` once."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _DOORS:
            if name in cls.__dict__:
                setattr(cls, name, without_needless_gradients(cls.__dict__[name]))

    def __init__(self) -> None:
        super().__init__()
        self.schema: dict[str, Any] = {}
        self.data_fingerprint: str | None = None

    # What a subclass provides

    def as_dataset(self, data: Any) -> Dataset:
        """``data`` (arrays, a path or the family's dataset) as the family's dataset."""
        raise NotImplementedError

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        """A value for each of ``sizes_from_data``."""
        raise NotImplementedError

    def _build(self) -> None:
        """Make the networks; every size is known now."""
        raise NotImplementedError

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        """Take the statistics of the training data that the model's preprocessing needs."""

    def for_training(self, dataset: Dataset) -> Dataset:
        """The dataset in the form that :meth:`loss` takes least time for; called once, after :meth:`prepare`.

        A model whose preprocessing no training step changes computes it here instead of in every batch.
        """
        return dataset

    def divide_validation(self, val: Dataset) -> tuple[Dataset, Dataset]:
        """Validation data that choose the weights, and those that :meth:`after_fit` gets; the same ones by default.

        A model that calibrates itself keeps the two apart: scores of data that chose the weights are too good.
        """
        return val, val

    def solve(self, train: Dataset, *, seed: int) -> None:
        """Fit to the training data at once, where ``trains_by_gradient`` is false; called after :meth:`prepare`."""
        raise NotImplementedError

    def after_fit(self, train: Dataset, val: Dataset | None) -> None:
        """Finish after training, on the restored best weights (thresholds, calibration, latent distribution)."""

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The posterior over latents of each sample."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Any:
        """The mean of the data given latents ``z``, in the units of the data."""
        raise NotImplementedError

    def loss(self, batch: Any, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """The training objective of a batch.

        Args:
            batch: what the family's dataset gives.
            noise: source of the posterior sample's noise; fresh noise when missing.
            beta_scale: factor of the beta schedule.
        """
        raise NotImplementedError

    # Capabilities a model may lack

    def sample(self, n: int, generator: torch.Generator | None = None) -> Any:
        """``n`` new samples in the units of the data."""
        raise NotSupportedError(f"{type(self).__name__} cannot generate; use a model with a decoder and a prior.")

    def reconstruct(self, data: Any) -> Any:
        """``data`` encoded to the posterior mean and decoded again."""
        raise NotSupportedError(f"{type(self).__name__} has no decoder; use `encode` instead.")

    def score_samples(self, data: Any) -> Any:
        """How normal each sample is; higher is more normal."""
        raise NotSupportedError(f"{type(self).__name__} has no score; use a model of the density family.")

    def embed(self, data: Any) -> Tensor:
        """One vector per sample, for search and regression, shape (samples, size): the posterior mean.

        A model whose latents are not one vector per sample says here which vector stands for it.
        """
        return self.encode(data).mean

    def evaluate(self, data: Any) -> dict[str, float]:
        """Numbers by name that say how well the model describes ``data``."""
        raise NotSupportedError(f"{type(self).__name__} measures nothing by itself; use `loss` on batches of the data.")

    # What every model has

    @property
    def is_built(self) -> bool:
        """Whether all sizes are known and the networks exist."""
        return all(getattr(self, name) is not None for name in self.sizes_from_data)

    @property
    def prior_size(self) -> int | None:
        """Latent dimensions that the term ``kl`` of the loss is a sum over, in nats; ``None`` without such a term.

        What training warns of a collapsed posterior by.
        """
        return getattr(self, "latent_dim", getattr(self, "z_dim", None))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._a_weight().device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self._a_weight().dtype

    def _a_weight(self) -> Tensor:
        weight = next(self.parameters(), None)
        if weight is None:
            raise NotSupportedError("the model has no weights yet: call fit(data), or load a saved one.")
        return weight

    def hyperparameters(self) -> dict[str, Any]:
        """The keyword arguments that make this model again, sizes from data included."""
        names = inspect.signature(type(self)).parameters
        values = {name: getattr(self, name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def summary(self) -> dict[str, Any]:
        """The hyperparameters as people read them in reports; a model says large ones in words."""
        return self.hyperparameters()

    def prepare(self, train: Dataset, *, seed: int = 0) -> None:
        """Infer sizes, initialise weights from ``seed`` and fit the preprocessing, unless that has been done.

        Raises:
            ConfigError: a size given by hand contradicts the data.
        """
        sizes = self._infer_sizes(train)
        for name, size in sizes.items():
            given = getattr(self, name)
            if given is not None and given != size:
                raise ConfigError(f"model.{name}: the data have {size}, the model was made for {given}.")
        if not self.is_built:
            for name, size in sizes.items():
                setattr(self, name, size)
            with seeded(fold(seed, _INITIALISATION)):
                self._build()
        if self.data_fingerprint is None:
            self._fit_preprocessing(train)
            self.schema = dict(train.schema)
            self.data_fingerprint = train.fingerprint()

    def fit(self, train: Any, val: Any = None, test: Any = None, **options: Any) -> "History":
        """Train on ``train``; see :func:`noumena.training.fit` for the options (max_epochs, lr, seed, run_dir, ...)."""
        from noumena.training import fit

        return fit(self, train, val, test, **options)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model as a folder that :func:`noumena.load` reads; see :func:`noumena.artifact.save`."""
        from noumena.artifact import save

        save(self, path, overwrite=overwrite)


def load_trained(path: str | Path) -> LatentModel:
    """A saved model that another one builds on; see :func:`noumena.load`.

    Args:
        path: a run folder or a model folder.
    """
    from noumena.artifact import load

    return load(path)
