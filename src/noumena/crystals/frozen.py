"""Models that stand on a trained autoencoder and keep its weights as they are: the prior, the property head."""

from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError
from noumena.core.model import LatentModel, load_trained
from noumena.core.posterior import DiagonalGaussian
from noumena.crystals.batch import CrystalBatch


class OnAutoencoder(LatentModel):
    """A model of the latents of a trained ``crystals/vae``, which it holds as ``vae``, frozen.

    The autoencoder is read once, by the first ``fit``. Its hyperparameters and its weights are saved with the model,
    which needs no other folder from then on. A subclass calls ``super()._build()`` first in its own ``_build``, and
    calls :meth:`check_built` where it uses ``self.vae``.
    """

    sizes_from_data = ("autoencoder_config",)

    vae: LatentModel

    def __init__(self, *, autoencoder: str | None, autoencoder_config: Mapping[str, Any] | None) -> None:
        """
        Args:
            autoencoder: run folder or model folder of a trained ``crystals/vae``. Only the first ``fit`` reads it.
            autoencoder_config: hyperparameters of that model; inferred by ``fit``.
        """
        super().__init__()
        self.autoencoder = autoencoder
        self.autoencoder_config = None if autoencoder_config is None else dict(autoencoder_config)
        # A list hides a model that is read but not part of this one yet from the register of submodules.
        self._read: list[LatentModel] = []

    def summary(self) -> dict[str, Any]:
        """The hyperparameters, those of the autoencoder without the empty ones."""
        found = self.hyperparameters()
        config = cast("dict[str, Any]", found["autoencoder_config"] or {})
        return {**found, "autoencoder_config": {name: value for name, value in config.items() if value is not None}}

    def check_built(self) -> None:
        """Refuse to work before there is an autoencoder.

        Raises:
            ConfigError: the model was neither fitted nor loaded.
        """
        if not self.is_built:
            raise ConfigError(
                f"{type(self).__name__} has no autoencoder yet: call fit(data), or load a trained model with "
                "noumena.load."
            )

    def trained_autoencoder(self) -> LatentModel:
        """The autoencoder this model holds, or the one it is to be built on, read once.

        Raises:
            ConfigError: no path was given, or there is another model at it.
            ArtifactError: the folder is damaged or no model.
        """
        if self.is_built:
            return self.vae
        if not self._read:
            self._read.append(_read_autoencoder(self.autoencoder))
        return self._read[0]

    def as_dataset(self, data: Any) -> Dataset:
        """``data`` as the autoencoder takes it."""
        return self.trained_autoencoder().as_dataset(data)

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        del dataset
        if self.autoencoder_config is not None:
            return {"autoencoder_config": self.autoencoder_config}
        return {"autoencoder_config": self.trained_autoencoder().hyperparameters()}

    def _build(self) -> None:
        self.vae = self._read.pop() if self._read else autoencoder_class()(**(self.autoencoder_config or {}))
        self.vae.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As in torch; the autoencoder stays in evaluation mode."""
        super().train(mode)
        if self.is_built:
            self.vae.eval()
        return self

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The weights that training changes."""
        return [weight for weight in self.parameters() if weight.requires_grad]

    # What the autoencoder does

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The autoencoder's posterior over latents."""
        self.check_built()
        return self.vae.encode(batch)

    def decode(
        self,
        z: Tensor,
        num_atoms: Tensor | None = None,
        *,
        types: Tensor | None = None,
        composition: Any = None,
    ) -> CrystalBatch:
        """Crystals of latents ``z``; see the autoencoder."""
        self.check_built()
        return cast("Any", self.vae).decode(z, num_atoms, types=types, composition=composition)

    def reconstruct(
        self, data: Any, generator: torch.Generator | None = None, *, symmetrise: bool = False
    ) -> CrystalBatch:
        """``data`` encoded and decoded again, from the posterior mean or from a sample of it; see the autoencoder."""
        self.check_built()
        return cast("Any", self.vae).reconstruct(data, generator=generator, symmetrise=symmetrise)

    def vector(self, batch: Any) -> Tensor:
        """The autoencoder's invariant vector of each crystal, shape (crystals, vector_dim)."""
        self.check_built()
        return cast("Any", self.vae).vector(batch)

    def embed(self, data: Any) -> Tensor:
        """:meth:`vector`."""
        return self.vector(data)


def autoencoder_class() -> type[LatentModel]:
    """The class of ``crystals/vae``, imported when it is needed: the family's model modules know each other."""
    from noumena.crystals.model import CrystalVAE

    return cast("type[LatentModel]", CrystalVAE)


def _read_autoencoder(path: str | None) -> LatentModel:
    if path is None:
        raise ConfigError(
            "model.autoencoder is missing: give the run folder or the model folder of a trained crystals/vae, as in "
            "model.autoencoder=runs/crystals-mp20."
        )
    found = load_trained(path)
    if not isinstance(found, autoencoder_class()):
        raise ConfigError(
            f"model.autoencoder: {path} holds a {type(found).__name__}; expected a crystals/vae "
            f"({autoencoder_class().__name__}). Give the folder of one."
        )
    return found
