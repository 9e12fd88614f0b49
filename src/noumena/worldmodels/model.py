"""What every model of video and actions shares: standardised inputs, latents of frames, and roll-outs of latents."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.model import LatentModel
from noumena.core.posterior import DiagonalGaussian, PointMass
from noumena.core.preprocessing import Standardizer
from noumena.worldmodels.sequences import Sequences

# Sequences whose pixels and actions give the statistics of the preprocessing.
_STATISTICS_SEQUENCES = 512


class WorldModel(LatentModel):
    """A latent state of each frame, and a model of how actions change it.

    A subclass keeps its further hyperparameters as attributes, makes its networks in ``_build_networks``, and provides
    :meth:`start`, :meth:`rollout` and :meth:`loss`.
    """

    sizes_from_data = ("frame", "action_dim")

    def __init__(self, frame: Sequence[int] | None, action_dim: int | None) -> None:
        super().__init__()
        self.frame = None if frame is None else tuple(frame)
        self.action_dim = action_dim
        if self.frame is not None and (len(self.frame) != 3 or min(self.frame) < 1):
            raise ConfigError(f"model.frame: expected [channels, height, width], got {list(self.frame)}.")
        if action_dim is not None and action_dim < 1:
            raise ConfigError(f"model.action_dim: expected at least 1, got {action_dim}.")

    # What a subclass provides

    def _build_networks(self, frame: tuple[int, int, int], action_dim: int) -> None:
        """Make the networks."""
        raise NotImplementedError

    @property
    def latent_size(self) -> int:
        """Numbers in the state of one frame."""
        raise NotImplementedError

    @property
    def constant_size(self) -> int:
        """Numbers at the end of a state that no action changes: of no account for how far a goal is."""
        return 0

    def start(self, frames: Tensor) -> Tensor:
        """The state that a roll-out begins with, from single frames.

        Args:
            frames: shape (batch, channels, height, width), in the units of the data.

        Returns:
            Shape (batch, latent).
        """
        raise NotImplementedError

    def rollout(self, start: Tensor, actions: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """States after each of some actions, without looking at any further frame.

        Args:
            start: shape (batch, latent), from :meth:`start` or the last state of another roll-out.
            actions: shape (batch, steps, action), in the units of the data.
            generator: source of the draws of a stochastic model; its mean or mode when missing.

        Returns:
            Shape (batch, steps, latent).
        """
        raise NotImplementedError

    # What every world model has

    def encode(self, batch: Sequences | Tensor) -> DiagonalGaussian:
        """The latent of each frame by itself.

        Args:
            batch: sequences, or frames of shape (..., channels, height, width).

        Returns:
            A posterior whose mean has shape (batch, time, latent), or (..., latent).
        """
        frames = batch.frames if isinstance(batch, Sequences) else batch
        self._check_frames(frames)
        latent = self.start(frames.flatten(0, -4))
        return PointMass(latent.unflatten(0, frames.shape[:-3]))

    def predict(self, batch: Sequences, *, generator: torch.Generator | None = None) -> Tensor:
        """States of an imagined future: that of the first frame, then those of an open-loop roll-out.

        Returns:
            Shape (batch, time, latent); only the first frame and the actions were looked at.
        """
        start = self.start(batch.frames[:, 0])
        return torch.cat([start[:, None], self.rollout(start, batch.actions, generator=generator)], dim=1)

    def as_dataset(self, data: Any) -> Dataset:
        """``data`` as a dataset of sequences: itself, :class:`Sequences`, or the path of an episodes file or folder.

        Raises:
            DataError: sequences of other frames or actions than the model's.
        """
        from noumena.worldmodels.episodes.data import as_dataset

        dataset = as_dataset(data, self.schema or None)
        self._check_sizes(dataset)
        return dataset

    def _check_sizes(self, dataset: Dataset) -> None:
        for name, found in self._infer_sizes(dataset).items():
            known = getattr(self, name)
            if known is not None and known != found:
                raise DataError(f"the data have {name} {found}, the model was made for {known}.")

    def _check_frames(self, frames: Tensor) -> None:
        if self.frame is None:
            raise NotSupportedError("the model has no weights yet: call fit(data), or load a saved one.")
        if frames.ndim < 4 or tuple(frames.shape[-3:]) != self.frame:
            sizes = ", ".join(map(str, self.frame))
            raise DataError(f"frames: expected shape (..., {sizes}), got {tuple(frames.shape)}.")

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        schema = dataset.schema
        return {"frame": tuple(schema["frame"]), "action_dim": len(schema["actions"])}

    def _build(self) -> None:
        assert self.frame is not None
        assert self.action_dim is not None
        self.pixels = Standardizer(self.frame[0])
        self.action_scale = Standardizer(self.action_dim)
        self._build_networks(cast("tuple[int, int, int]", self.frame), self.action_dim)

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        """Mean and deviation of each channel and of each component of the actions."""
        some = spread(dataset, _STATISTICS_SEQUENCES)
        self.pixels.fit(some.frames.transpose(2, -1).reshape(-1, some.frames.shape[2]).float())
        self.action_scale.fit(some.actions.flatten(0, 1))

    def _standard_frames(self, frames: Tensor) -> Tensor:
        """Frames of shape (..., channels, height, width) in the scale the networks take."""
        self._check_frames(frames)
        mean, scale = (x[:, None, None] for x in (self.pixels.mean, self.pixels.scale))
        return (frames.to(mean.dtype) - mean) / scale

    def _standard_actions(self, actions: Tensor) -> Tensor:
        if actions.shape[-1] != self.action_dim:
            raise DataError(f"actions: expected shape (..., {self.action_dim}), got {tuple(actions.shape)}.")
        return self.action_scale(actions.to(self.action_scale.mean.dtype))


def spread(dataset: Dataset, most: int) -> Sequences:
    """At most so many sequences of a dataset, evenly spread over it."""
    count = min(len(dataset), most)
    index = torch.linspace(0, len(dataset) - 1, count, dtype=torch.float64).round().long()
    return cast("Sequences", dataset.batch(index.to(dataset.device)))
