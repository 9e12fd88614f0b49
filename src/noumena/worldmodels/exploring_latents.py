"""Latents for the explorer's page: of the frames that are mapped, and of training frames to compare with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.exploring import evenly
from noumena.worldmodels.exploring_films import Light, state_names
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.probing.ridge import RidgeProbe
from noumena.worldmodels.rssm import RSSM

# Frames that go through the networks at a time, and training frames to find the nearest among.
_FRAMES = 2048
_TRAINING_FRAMES = 4000
_COLOURING_NUMBERS = 12


@dataclass(frozen=True)
class Survey:
    """Latents of the frames of some sequences, on the CPU.

    Attributes:
        sequences: their numbers in the data set, shape (sequences,).
        latents: float32, shape (sequences, time, latent).
        drift: distance of the latent that was imagined from the first frame and the actions to the encoded one, shape
            (sequences, time).
        error: root mean square error of decoded frames, shape (sequences, time); ``None`` where nothing is decoded.
        actions: shape (sequences, time - 1, action).
        state: shape (sequences, time, things, dims), or ``None``.
        light: darkest and brightest value of all frames.
    """

    sequences: np.ndarray
    latents: Tensor
    drift: Tensor
    error: Tensor | None
    actions: Tensor
    state: Tensor | None
    light: Light

    def colours(self, schema: Mapping[str, Any], kept: int) -> dict[str, np.ndarray]:
        """What the first ``kept`` frames of each sequence can be coloured by, each of shape (sequences * kept,)."""
        count = len(self.sequences)
        found: dict[str, np.ndarray] = {}
        if self.state is not None:
            names = state_names(schema, self.state.shape[-1])[:_COLOURING_NUMBERS]
            flat = self.state.flatten(2)
            found |= {name: flat[:, :kept, k].flatten().numpy() for k, name in enumerate(names)}
        found["step"] = np.tile(np.arange(kept), count)
        found["sequence"] = np.repeat(self.sequences, kept)
        # Nothing led to a first frame.
        before = torch.cat([torch.zeros_like(self.actions[:, :1]), self.actions], 1)[:, :kept]
        for k, name in enumerate(schema["actions"][:_COLOURING_NUMBERS]):
            found[f"{name} of the action before"] = before[..., k].flatten().float().numpy()
        found["distance of the imagined latent"] = self.drift[:, :kept].flatten().numpy()
        if self.error is not None:
            found["error of the decoded frame"] = self.error[:, :kept].flatten().numpy()
        return found


@torch.inference_mode()
def survey(model: WorldModel, data: Dataset, frames: int) -> Survey:
    """Latents of sequences that are evenly spread over a data set.

    Args:
        model: in evaluation mode.
        data: sequences.
        frames: how many to look at, at most, in whole sequences; at least one sequence.
    """
    steps = int(data.schema["steps"])
    chosen = evenly(len(data), max(1, frames // steps))
    parts: dict[str, list[Tensor]] = {name: [] for name in ("latents", "drift", "error", "actions", "state")}
    low, high = float("inf"), -float("inf")
    for some in torch.from_numpy(chosen).split(max(1, _FRAMES // steps)):
        batch = data.batch(some.to(data.device))
        there = batch.to(model.device)
        latents = model.encode(there).mean
        parts["latents"].append(latents.float().cpu())
        parts["drift"].append((model.predict(there) - latents).norm(dim=-1).float().cpu())
        parts["actions"].append(batch.actions.cpu())
        if isinstance(model, RSSM):
            wrong = model.decode(latents) - there.frames
            parts["error"].append(wrong.square().mean((2, 3, 4)).sqrt().float().cpu())
        if batch.state is not None:
            parts["state"].append(batch.state.float().cpu())
        low, high = min(low, float(batch.frames.min())), max(high, float(batch.frames.max()))
    joined = {name: torch.cat(found) if found else None for name, found in parts.items()}
    latents, drift, actions = joined["latents"], joined["drift"], joined["actions"]
    assert latents is not None
    assert drift is not None
    assert actions is not None
    return Survey(chosen, latents, drift, joined["error"], actions, joined["state"], Light(low, high))


class Training:
    """Training frames with their latents: what stands in for a decoder where there is none, and what reads states.

    The nearest is found in the part of the latent that actions change.
    """

    def __init__(self, model: WorldModel, data: Dataset) -> None:
        self._data = data
        found = survey(model, data, _TRAINING_FRAMES)
        self._moving = model.latent_size - model.constant_size
        self._steps = found.latents.shape[1]
        self._sequences = found.sequences
        self._latents = found.latents.flatten(0, 1)[:, : self._moving]
        self.probe = None if found.state is None else RidgeProbe.fit(found.latents, found.state)

    def __len__(self) -> int:
        return len(self._latents)

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The training frames whose latents are nearest to ``latents`` (n, latent), and how far these are.

        Returns:
            Frames (n, channels, height, width) and distances (n,).
        """
        distance, place = torch.cdist(latents[:, : self._moving], self._latents).min(1)
        sequence, member = np.unique(self._sequences[place.numpy() // self._steps], return_inverse=True)
        frames = self._data.batch(torch.from_numpy(sequence).to(self._data.device)).frames.cpu()
        return frames[torch.from_numpy(member), place % self._steps], distance


def on_simplex(points: Tensor) -> Tensor:
    """The nearest probabilities to each vector, shape (..., classes); probabilities stay what they are.

    Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions" (ICML), figure 1.
    """
    order = points.sort(-1, descending=True).values
    count = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device)
    level = (order.cumsum(-1) - 1.0) / count
    kept = (order > level).sum(-1, keepdim=True)
    return (points - level.gather(-1, kept - 1)).clamp_min(0.0)


def axes_of(latents: Tensor, most: int, least_share: float) -> tuple[Tensor, Tensor]:
    """The mean of latents (n, latent) and the directions in which they vary most, shape (axes, latent).

    Args:
        latents: float32.
        most: axes at most.
        least_share: of the variance, below which an axis is left out.
    """
    wide = latents.double()
    mean = wide.mean(0)
    centred = wide - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(wide))
    values, axes = values.flip(0), vectors.flip(1).T
    # The sign of an eigenvector is the solver's whim; its largest entry is made positive.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    # Latents of a size of 10 that do not vary have a variance of rounding errors.
    least = max(least_share * float(values.sum()), 1e-10 * float(wide.square().sum(1).mean()))
    return mean.float(), axes[:most][values[:most] > least].float()
