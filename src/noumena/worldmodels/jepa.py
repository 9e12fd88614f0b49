"""Joint-embedding predictive architectures: latents that predict each other, with nothing decoded."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.data import Dataset
from noumena.core.errors import DataError
from noumena.core.losses import LossTerms
from noumena.core.seeding import Noise, fold
from noumena.worldmodels.augmentation import THRESHOLD, find_background, swap_backgrounds
from noumena.worldmodels.model import WorldModel, spread
from noumena.worldmodels.networks.encoders import Backbone, Encoder, in_chunks, make_encoder, normed_mlp
from noumena.worldmodels.networks.predictors import Predictor, make_predictor
from noumena.worldmodels.objectives.contrastive import nt_xent
from noumena.worldmodels.objectives.inverse import InverseDynamics, InverseInput
from noumena.worldmodels.objectives.sigreg import random_directions, sigreg
from noumena.worldmodels.objectives.vicreg import covariance_loss, variance_loss, without_sequence_mean
from noumena.worldmodels.options import check_jepa
from noumena.worldmodels.sequences import Sequences

Objective = Literal["vicreg", "simclr", "idm", "sigreg"]
Negatives = Literal["across", "within", "both"]
Swap = Literal["auto", "always", "never"]

# Sequences that say whether there is a fixed background, and how it drifts.
_BACKGROUND_SEQUENCES = 256
# Streams of a minibatch's seed.
_STEPS, _DIRECTIONS = 1, 2


class JEPA(WorldModel):
    """An encoder of frames and a predictor of latents after actions, trained to agree (Sobal et al. 2022).

    The latent of the first frame is rolled out with the actions; the result is held against the encodings of the
    later frames. Gradients flow into both; the objective keeps them from collapsing to a constant:

    - ``vicreg``: squared error, variance and covariance at each time step (Bardes et al. 2022);
    - ``simclr``: InfoNCE with negatives across sequences, within them, or both (Chen et al. 2020);
    - ``sigreg``: squared error, and latents distributed as a standard normal (Balestriero & LeCun 2025);
    - ``idm``: only the action between two states is predicted, from the rolled-out state and the next encoding.

    Any objective may be joined with inverse dynamics (``idm``), with the background swap of the input (``swap``; see
    :mod:`~noumena.worldmodels.augmentation`), and with latents that hold what is constant in an episode
    (``episode_dim``); ``vicreg`` and ``sigreg`` also with variance and covariance of what is left without each
    sequence's mean (``std_time``, ``cov_time``).

    Objectives and batch norm compare the sequences of a batch; of several processes, each compares those of its own
    share, so that their losses are not quite those of one process.
    """

    least_batch = 2

    def __init__(
        self,
        *,
        frame: Sequence[int] | None = None,
        action_dim: int | None = None,
        objective: Objective = "vicreg",
        encoder: Encoder = "menet5",
        width: int = 1,
        latent_dim: int = 128,
        backbone_mlp: Sequence[int] = (),
        projector: Sequence[int] = (),
        predictor: Predictor = "gru",
        predictor_layers: int = 1,
        predictor_width: int = 256,
        sim: float = 10.0,
        sim_start: float | None = None,
        std: float = 10.0,
        cov: float = 1.0,
        skip_first: bool = True,
        std_time: float = 0.0,
        cov_time: float = 0.0,
        idm: float = 0.0,
        idm_input: InverseInput = "pair",
        sigreg: float = 0.05,
        sigreg_directions: int = 256,
        temperature: float = 0.1,
        normalize: bool = True,
        negatives: Negatives = "across",
        swap: Swap = "never",
        targets: int | None = None,
        episode_dim: int = 0,
    ) -> None:
        """
        Args:
            frame, action_dim: channels, height, width; numbers of an action. Inferred by ``fit``.
            objective: see the class.
            encoder, width, latent_dim: see :func:`~noumena.worldmodels.networks.encoders.make_encoder`.
            backbone_mlp: widths of further layers behind the encoder; the last one is the size of the latent.
            projector: widths of layers between latents and the terms against collapse (and all of ``simclr``).
            predictor, predictor_layers, predictor_width: see
                :func:`~noumena.worldmodels.networks.predictors.make_predictor`.
            sim, std, cov: weights of squared error, variance and covariance; ``sigreg`` takes ``sim`` of these.
            sim_start: weight of the squared error at the beginning, from which it moves to ``sim`` by the beta schedule
                (``fit.beta_schedule=warmup``); ``sim`` throughout when missing. A small one lets latents spread first,
                a large one in the end makes imagined latents and encoded ones alike.
            skip_first: leave the first frame out of variance and covariance.
            std_time, cov_time: weights of variance and covariance after each sequence's mean is taken away.
            idm: weight of the squared error of the action, in standard deviations; 1 for objective ``idm`` alone.
            idm_input: both latents, or their difference.
            sigreg: weight of SIGReg.
            sigreg_directions: random directions per step.
            temperature, normalize, negatives: of InfoNCE.
            swap: exchange backgrounds between sequences in training: always, never, or where the training data have a
                fixed background (``auto``).
            targets: later frames encoded per step, drawn at random for each minibatch; all when missing. Neighbouring
                frames hold much the same, so that fewer of more sequences teach more in the same time.
            episode_dim: further latents, from an encoder of their own, that are trained to be the same in all frames
                of a sequence and different between sequences, on frames whose backgrounds are not exchanged.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(frame, action_dim)
        self.objective: Objective = objective
        self.encoder: Encoder = encoder
        self.width = width
        self.latent_dim = latent_dim
        self.backbone_mlp = tuple(backbone_mlp)
        self.projector = tuple(projector)
        self.predictor: Predictor = predictor
        self.predictor_layers = predictor_layers
        self.predictor_width = predictor_width
        self.sim = sim
        self.sim_start = sim_start
        self.std = std
        self.cov = cov
        self.skip_first = skip_first
        self.std_time = std_time
        self.cov_time = cov_time
        self.idm = idm
        self.idm_input: InverseInput = idm_input
        self.sigreg = sigreg
        self.sigreg_directions = sigreg_directions
        self.temperature = temperature
        self.normalize = normalize
        self.negatives: Negatives = negatives
        self.swap: Swap = swap
        self.targets = targets
        self.episode_dim = episode_dim
        check_jepa(self.hyperparameters())
        if self.is_built:
            self._build()

    # Networks

    def _build_networks(self, frame: tuple[int, int, int], action_dim: int) -> None:
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
        self.projection = normed_mlp([size, *self.projector])
        if self.idm > 0.0:
            self.inverse = InverseDynamics(size, action_dim, self.idm_input)
        if self.episode_dim > 0:
            self.episode_encoder = make_encoder(self.encoder, frame, width=1, latent_dim=self.episode_dim)
        self.register_buffer("background", torch.zeros(()))
        self.register_buffer("drift", torch.zeros(2))
        self.register_buffer("quantile", torch.full((), 0.5))

    background: Tensor
    drift: Tensor
    quantile: Tensor

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        super()._fit_preprocessing(dataset)
        if self.swap != "never":
            found = find_background(
                self._standard_frames(spread(dataset, _BACKGROUND_SEQUENCES).frames.to(self.device))
            )
            self.background.fill_(found.share)
            self.drift.copy_(found.drift)
            self.quantile.fill_(found.quantile)

    @property
    def swaps(self) -> bool:
        """Whether backgrounds are exchanged in training."""
        return self.swap == "always" or (self.swap == "auto" and float(self.background) >= THRESHOLD)

    @property
    def latent_size(self) -> int:
        """Numbers in the state of one frame, those that are constant in an episode last."""
        return (self.backbone_mlp[-1] if self.backbone_mlp else self.latent_dim) + self.episode_dim

    @property
    def constant_size(self) -> int:
        """Numbers at the end of a state that are constant in an episode."""
        return self.episode_dim

    # States

    def start(self, frames: Tensor) -> Tensor:
        """The latent of single frames (batch, channels, height, width), shape (batch, latent)."""
        frames = self._standard_frames(frames)
        state = in_chunks(self.backbone, frames)
        if self.episode_dim == 0:
            return state
        return torch.cat([state, in_chunks(self.episode_encoder, frames)], dim=-1)

    def rollout(self, start: Tensor, actions: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents after each action; deterministic, so that ``generator`` is not used.

        Args:
            start: from :meth:`start`, shape (batch, latent).
            actions: shape (batch, steps, action), in the units of the data.
        """
        actions = self._standard_actions(actions)
        if self.episode_dim == 0:
            return self.dynamics(start, actions)
        moving, constant = start.split([start.shape[-1] - self.episode_dim, self.episode_dim], dim=-1)
        kept = constant[:, None].expand(-1, actions.shape[1], -1)
        return torch.cat([self.dynamics(moving, actions), kept], dim=-1)

    # Objective

    def loss(self, batch: Sequences, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """The objective of a batch.

        Args:
            batch: sequences.
            noise: source of the draws: exchanged backgrounds, target frames, directions.
            beta_scale: how far the weight of the squared error has moved from ``sim_start`` to ``sim``.

        Returns:
            Parts by name, without their weights.

        Raises:
            DataError: a single sequence, which there is nothing to compare with; frames or actions of another shape.
        """
        if len(batch) < self.least_batch:
            raise DataError(f"the objective compares the sequences of a batch; got {len(batch)}, needs 2 at least.")
        noise = noise or Noise(int(torch.randint(1 << 62, ()).item()))
        raw = self._standard_frames(batch.frames)
        frames = self._exchanged(raw, noise) if self.swaps else raw
        steps = self._target_steps(batch.steps, noise)
        seen = torch.cat([frames[:, :1], frames[:, steps]], dim=1)
        # One pass for all time steps: batch norm sees all of them, as in the study.
        encoded = self.backbone(seen.flatten(0, 1)).unflatten(0, seen.shape[:2]).transpose(0, 1)
        rolled = self.dynamics(encoded[0], self._standard_actions(batch.actions))
        predicted = rolled[:, steps - 1].transpose(0, 1)
        parts, weights = self._terms(encoded, predicted, noise)
        if "sim" in weights and self.sim_start is not None:
            weights["sim"] = self.sim_start + beta_scale * (self.sim - self.sim_start)
        if self.idm > 0.0:
            parts["idm"], weights["idm"] = self._inverse_loss(encoded, rolled, steps, batch), self.idm
        if self.episode_dim > 0:
            parts["episode"], weights["episode"] = self._episode_loss(raw, noise), 1.0
        total = sum((weights[name] * parts[name] for name in weights), start=raw.new_zeros(()))
        return LossTerms(total, parts)

    def _exchanged(self, frames: Tensor, noise: Noise) -> Tensor:
        rows = len(frames)
        donors = (noise.uniform_like(frames[:, :, 0, 0, 0]) * rows).long().clamp(max=rows - 1)
        return swap_backgrounds(frames, donors, self.drift, float(self.quantile))

    def _target_steps(self, steps: int, noise: Noise) -> Tensor:
        """Later time steps that are encoded, in order; the same for all rows of a minibatch."""
        if self.targets is None or self.targets >= steps - 1:
            return torch.arange(1, steps, device=self.device)
        generator = torch.Generator().manual_seed(fold(noise.seed, _STEPS))
        chosen = torch.randperm(steps - 1, generator=generator)[: self.targets].sort().values
        return (chosen + 1).to(self.device)

    def _terms(self, encoded: Tensor, predicted: Tensor, noise: Noise) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Parts and weights of the objective, of latents (time, batch, latent) and their predictions without t = 0."""
        if self.objective == "idm":
            return {}, {}
        if self.objective == "simclr":
            return {"nce": self._contrast(encoded[1:], predicted)}, {"nce": 1.0}
        parts = {"sim": functional.mse_loss(predicted, encoded[1:])}
        weights = {"sim": self.sim}
        projected = self.projection(encoded.flatten(0, 1)).unflatten(0, encoded.shape[:2])
        regularised = projected[1:] if self.skip_first else projected
        if self.objective == "sigreg":
            generator = torch.Generator().manual_seed(fold(noise.seed, _DIRECTIONS))
            directions = random_directions(self.sigreg_directions, regularised.shape[-1], generator, regularised)
            parts["sigreg"], weights["sigreg"] = sigreg(regularised, directions), self.sigreg
        else:
            parts |= {"std": variance_loss(regularised), "cov": covariance_loss(regularised)}
            weights |= {"std": self.std, "cov": self.cov}
        if self.std_time > 0.0 or self.cov_time > 0.0:
            moving = without_sequence_mean(projected)
            parts |= {"std_time": variance_loss(moving), "cov_time": covariance_loss(moving)}
            weights |= {"std_time": self.std_time, "cov_time": self.cov_time}
        return parts, weights

    def _contrast(self, target: Tensor, predicted: Tensor) -> Tensor:
        options: dict[str, Any] = {"temperature": self.temperature, "normalize": self.normalize}
        shape = target.shape[:2]
        both = [self.projection(x.flatten(0, 1)).unflatten(0, shape) for x in (predicted, target)]
        across = nt_xent(*both, **options) if self.negatives != "within" else None
        # What a sequence's latents have in common would make all of them alike, and the gradient vanish.
        moving = [(x - x.mean(0)).transpose(0, 1) for x in both]
        within = nt_xent(*moving, **options) if self.negatives != "across" else None
        chosen = [term for term in (across, within) if term is not None]
        return torch.stack(chosen).sum()

    def _inverse_loss(self, encoded: Tensor, rolled: Tensor, steps: Tensor, batch: Sequences) -> Tensor:
        """Mean squared error of the action that leads to each encoded frame, from the rolled-out state before it."""
        before = torch.cat([encoded[:1], rolled.transpose(0, 1)[:-1]])[steps - 1]
        actions = self._standard_actions(batch.actions)[:, steps - 1].transpose(0, 1)
        return functional.mse_loss(self.inverse(before, encoded[1:]), actions)

    def _episode_loss(self, frames: Tensor, noise: Noise) -> Tensor:
        """VICReg between the first and a random later frame of each sequence."""
        later = (noise.uniform_like(frames[:, 0, 0, 0, 0]) * (frames.shape[1] - 1)).long() + 1
        later = later.clamp(max=frames.shape[1] - 1)
        pair = torch.stack([frames[:, 0], frames[torch.arange(len(frames), device=frames.device), later]])
        constant = self.episode_encoder(pair.flatten(0, 1)).unflatten(0, pair.shape[:2])
        similar = functional.mse_loss(constant[0], constant[1])
        return self.sim * similar + self.std * variance_loss(constant) + self.cov * covariance_loss(constant)

    def summary(self) -> dict[str, Any]:
        """The hyperparameters, and what the data said about their backgrounds."""
        found = {"background share": round(float(self.background), 3), "swaps backgrounds": self.swaps}
        return {**self.hyperparameters(), **(found if self.is_built and self.swap == "auto" else {})}
