"""What the models without labels are held against: the same networks trained on positions, and not trained at all."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import DataError
from noumena.core.losses import LossTerms
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import Noise
from noumena.worldmodels.model import WorldModel, spread
from noumena.worldmodels.networks.encoders import Backbone, Encoder, in_chunks, make_encoder
from noumena.worldmodels.networks.predictors import Predictor, make_predictor
from noumena.worldmodels.options import check_jepa
from noumena.worldmodels.sequences import Sequences

_STATE_SEQUENCES = 512


class Supervised(WorldModel):
    """Encoder, predictor and a linear map to the state, trained together on the state: the bound of the study.

    Only the first frame is encoded; its latent is rolled out with the actions, and the state is read from the latent
    of each step.
    """

    sizes_from_data = ("frame", "action_dim", "state_shape")

    def __init__(
        self,
        *,
        frame: Sequence[int] | None = None,
        action_dim: int | None = None,
        state_shape: Sequence[int] | None = None,
        encoder: Encoder = "menet5",
        width: int = 1,
        latent_dim: int = 128,
        backbone_mlp: Sequence[int] = (),
        predictor: Predictor = "gru",
        predictor_layers: int = 1,
        predictor_width: int = 256,
    ) -> None:
        """
        Args:
            frame, action_dim, state_shape: sizes, inferred by ``fit``; the state has shape [things, dims].
            encoder, width, latent_dim, backbone_mlp, predictor, predictor_layers, predictor_width: see
                :class:`~noumena.worldmodels.jepa.JEPA`.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(frame, action_dim)
        self.state_shape = None if state_shape is None else tuple(state_shape)
        self.encoder: Encoder = encoder
        self.width = width
        self.latent_dim = latent_dim
        self.backbone_mlp = tuple(backbone_mlp)
        self.predictor: Predictor = predictor
        self.predictor_layers = predictor_layers
        self.predictor_width = predictor_width
        check_jepa(self.hyperparameters())
        if self.is_built:
            self._build()

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        things = dataset.schema.get("state") or []
        if not things:
            raise DataError(
                "a supervised world model learns from the state of each frame, and the data have none. Name it "
                "(data.state=...), or use a model that learns without labels, such as worldmodels/jepa."
            )
        return {**super()._infer_sizes(dataset), "state_shape": (len(things), int(dataset.schema["state_dims"]))}

    def _build_networks(self, frame: tuple[int, int, int], action_dim: int) -> None:
        assert self.state_shape is not None
        network = make_encoder(self.encoder, frame, width=self.width, latent_dim=self.latent_dim)
        self.backbone = Backbone(network, self.latent_dim, self.backbone_mlp)
        size = self.backbone.latent_size
        self.dynamics = make_predictor(
            self.predictor,
            latent_size=size,
            action_dim=action_dim,
            layers=self.predictor_layers,
            width=self.predictor_width,
        )
        numbers = self.state_shape[0] * self.state_shape[1]
        self.state_scale = Standardizer(numbers)
        self.readout = nn.Linear(size, numbers)

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        super()._fit_preprocessing(dataset)
        some = spread(dataset, _STATE_SEQUENCES)
        assert some.state is not None
        self.state_scale.fit(some.state.flatten(0, 1).flatten(1))

    @property
    def latent_size(self) -> int:
        """Numbers in the state of one frame."""
        return self.backbone_mlp[-1] if self.backbone_mlp else self.latent_dim

    def start(self, frames: Tensor) -> Tensor:
        """The latent of single frames (batch, channels, height, width), shape (batch, latent)."""
        return in_chunks(self.backbone, self._standard_frames(frames))

    def rollout(self, start: Tensor, actions: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents after each action; deterministic, so that ``generator`` is not used."""
        return self.dynamics(start, self._standard_actions(actions))

    def read(self, latents: Tensor) -> Tensor:
        """The state read from latents (..., latent), shape (..., things, dims), in the units of the data."""
        assert self.state_shape is not None
        return self.state_scale.inverse(self.readout(latents)).unflatten(-1, self.state_shape)

    def loss(self, batch: Sequences, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Squared error of the state in its standard deviations: sum over its numbers, mean over time and batch."""
        if batch.state is None:
            raise DataError("a supervised world model learns from the state of each frame, and this batch has none.")
        target = self.state_scale(batch.state.flatten(2))
        error = (self.readout(self.predict(batch)) - target).square().sum(-1)
        return LossTerms(error.mean(), {"state": error.mean()})


class Random(WorldModel):
    """The networks of a JEPA as they are initialised: what training has to beat.

    Fitting takes the statistics of the data for the preprocessing and changes no weight.
    """

    def __init__(
        self,
        *,
        frame: Sequence[int] | None = None,
        action_dim: int | None = None,
        encoder: Encoder = "menet5",
        width: int = 1,
        latent_dim: int = 128,
        predictor: Predictor = "gru",
        predictor_layers: int = 1,
        predictor_width: int = 256,
    ) -> None:
        """
        Args:
            frame, action_dim, encoder, width, latent_dim, predictor, predictor_layers, predictor_width: see
                :class:`~noumena.worldmodels.jepa.JEPA`.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(frame, action_dim)
        self.encoder: Encoder = encoder
        self.width = width
        self.latent_dim = latent_dim
        self.predictor: Predictor = predictor
        self.predictor_layers = predictor_layers
        self.predictor_width = predictor_width
        check_jepa(self.hyperparameters())
        if self.is_built:
            self._build()

    def _build_networks(self, frame: tuple[int, int, int], action_dim: int) -> None:
        self.network = make_encoder(self.encoder, frame, width=self.width, latent_dim=self.latent_dim)
        self.dynamics = make_predictor(
            self.predictor,
            latent_size=self.latent_dim,
            action_dim=action_dim,
            layers=self.predictor_layers,
            width=self.predictor_width,
        )

    @property
    def latent_size(self) -> int:
        """Numbers in the state of one frame."""
        return self.latent_dim

    def start(self, frames: Tensor) -> Tensor:
        """The latent of single frames (batch, channels, height, width), shape (batch, latent)."""
        return in_chunks(self.network, self._standard_frames(frames))

    def rollout(self, start: Tensor, actions: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents after each action; deterministic, so that ``generator`` is not used."""
        return self.dynamics(start, self._standard_actions(actions))

    def loss(self, batch: Sequences, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Zero with zero gradients: there is nothing to train."""
        weights = cast("list[Tensor]", list(self.parameters()))
        return LossTerms(torch.stack([0.0 * weight.sum() for weight in weights]).sum(), {})
