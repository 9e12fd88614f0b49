"""Recurrent state-space models: latent dynamics learned by reconstructing frames."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.losses import LossTerms
from noumena.core.posterior import DiagonalGaussian, PointMass
from noumena.core.seeding import Noise
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.networks.encoders import Encoder
from noumena.worldmodels.sequences import Sequences
from noumena.worldmodels.statespace.dreamer import Balance, Dreamer
from noumena.worldmodels.statespace.latents import Latent, LatentKind
from noumena.worldmodels.statespace.study import Study

Variant = Literal["dreamer", "study"]

# What the study's model has no use for: its sizes are all `deter`, its weights fixed.
_DREAMER_ONLY = (
    "hidden", "latent", "variables", "classes", "decoder_width", "free_nats", "kl_dyn", "kl_rep", "unimix",
)  # fmt: skip
# Smallest sizes. There is a largest too: layers are made before a saved model can be compared with its file.
_SIZES = {"width": 1, "deter": 1, "hidden": 1, "variables": 1, "classes": 2, "decoder_width": 1}
_MOST = 1 << 14


class RSSM(WorldModel):
    r"""Recurrent state-space model (Hafner et al. 2019, arXiv 1811.04551): a state that reconstructs its frame.

    ``dreamer``, the default, has the state s = [h, z] of DreamerV3 (Hafner et al. 2023, arXiv 2301.04104): h is
    deterministic, a GRU of past states and actions; z is stochastic, and seen either from the frame (posterior q) or
    foreseen from h alone (prior p). With sg for "no gradient" and KL summed over z, the loss is

    .. math:: \mathcal{L} = \|d(h_t, z_t) - x_t\|^2 + \beta_{dyn} \max(1, \mathrm{KL}(\mathrm{sg}(q) \| p))
        + \beta_{rep} \max(1, \mathrm{KL}(q \| \mathrm{sg}(p))), \qquad z_t \sim q(z_t \mid h_t, x_t)

    averaged over batch and time. Pixels are standardised per channel, in place of DreamerV3's symlog.

    ``study`` is the model of Sobal et al. 2022 as it was published, faults included; see
    :class:`~noumena.worldmodels.statespace.study.Study`. Its state is h.
    """

    def __init__(
        self,
        *,
        frame: Sequence[int] | None = None,
        action_dim: int | None = None,
        variant: Variant = "dreamer",
        encoder: Encoder = "menet5",
        width: int = 1,
        deter: int = 256,
        hidden: int = 256,
        latent: LatentKind = "categorical",
        variables: int = 32,
        classes: int = 16,
        decoder_width: int = 16,
        free_nats: float = 1.0,
        kl_dyn: float = 0.5,
        kl_rep: float = 0.1,
        unimix: float = 0.01,
        min_var: float = 0.1,
    ) -> None:
        """
        Args:
            frame: channels, height and width; inferred by ``fit`` when missing.
            action_dim: numbers of an action; inferred by ``fit`` when missing.
            variant: ``dreamer`` or ``study``, see the class. The study's best: ``width=2, deter=512``.
            encoder: network of single frames, see :func:`~noumena.worldmodels.networks.encoders.make_encoder`.
            width: of the encoder.
            deter: size of h; with ``study`` also of everything else.
            hidden: hidden units (``dreamer`` only, like what follows up to ``unimix``).
            latent: z as groups of classes (``categorical``) or normal variables (``gaussian``).
            variables: groups or normal variables.
            classes: of each group.
            decoder_width: channels of the decoder's grids.
            free_nats: KL of a step, in nats, below which it is not pushed.
            kl_dyn, kl_rep: weights of the KL that trains the prior, and of the one that trains the posterior.
            unimix: share of the uniform distribution in every group of classes.
            min_var: smallest standard deviation of normal variables. With ``study``: what it adds to standard
                deviations in training, under its own name for it.

        Raises:
            ConfigError: an option is out of range, or not for this variant.
        """
        super().__init__(frame, action_dim)
        self.variant: Variant = variant
        self.encoder: Encoder = encoder
        self.width = width
        self.deter = deter
        self.hidden = hidden
        self.latent: LatentKind = latent
        self.variables = variables
        self.classes = classes
        self.decoder_width = decoder_width
        self.free_nats = free_nats
        self.kl_dyn = kl_dyn
        self.kl_rep = kl_rep
        self.unimix = unimix
        self.min_var = min_var
        _check_options(self.hyperparameters())
        if self.is_built:
            self._build()

    def _build_networks(self, frame: tuple[int, int, int], action_dim: int) -> None:
        if self.variant == "study":
            self.network: Dreamer | Study = Study(
                frame, action_dim, encoder=self.encoder, width=self.width, deter=self.deter, min_var=self.min_var
            )
            return
        self.network = Dreamer(
            frame,
            action_dim,
            encoder=self.encoder,
            width=self.width,
            deter=self.deter,
            hidden=self.hidden,
            latent=self._latent,
            decoder_width=self.decoder_width,
            balance=Balance(self.free_nats, self.kl_dyn, self.kl_rep),
        )

    @property
    def _latent(self) -> Latent:
        return Latent(self.latent, self.variables, self.classes, self.unimix, self.min_var)

    @property
    def latent_size(self) -> int:
        """Numbers in the state of one frame: h and z, or h alone with ``study``."""
        return self.deter if self.variant == "study" else self.deter + self._latent.size

    def start(self, frames: Tensor) -> Tensor:
        """The state of single frames: the learned h_0 and the posterior's mean for z.

        With ``study``: h_0, the encoding of the frame.

        Args:
            frames: shape (batch, channels, height, width), in the units of the data.

        Returns:
            Shape (batch, latent).
        """
        return self.network.start(self._standard_frames(frames))

    def rollout(self, start: Tensor, actions: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """States after each of some actions, from the prior alone.

        Args:
            start: shape (batch, latent).
            actions: shape (batch, steps, action), in the units of the data.
            generator: source of the draws of z. Without it z is the prior's mean, the probabilities of classes: what
                is uncertain stays so, and the states are differentiable in the actions.

        Returns:
            Shape (batch, steps, latent).
        """
        return self.network.rollout(start, self._standard_actions(actions), generator)

    def encode(self, batch: Sequences | Tensor) -> DiagonalGaussian:
        """States of frames: filtered through sequences, or of each frame by itself.

        Args:
            batch: sequences, whose states have seen all frames and actions up to their own; or frames of shape
                (..., channels, height, width), each taken as a first one.

        Returns:
            A posterior whose mean has shape (batch, time, latent), or (..., latent). With ``study`` the state h_t of
            a sequence has seen the frames *before* t, and h_0 that of t = 0.
        """
        if not isinstance(batch, Sequences):
            return super().encode(batch)
        return PointMass(
            self.network.filter(self._standard_frames(batch.frames), self._standard_actions(batch.actions))
        )

    def decode(self, z: Tensor) -> Tensor:
        """Frames of states.

        Args:
            z: shape (..., latent).

        Returns:
            Shape (..., channels, height, width), in the units of the data.
        """
        if z.shape[-1] != self.latent_size:
            raise DataError(f"states: expected {self.latent_size} numbers on the last axis, got {tuple(z.shape)}.")
        frames = self.network.decode(z.reshape(-1, self.latent_size))
        mean, scale = (x[:, None, None] for x in (self.pixels.mean, self.pixels.scale))
        return (frames * scale + mean).unflatten(0, z.shape[:-1])

    def reconstruct(self, data: Sequences | Tensor) -> Tensor:
        """Frames decoded from their own states, in the shape of the frames; see :meth:`encode`."""
        return self.decode(self.encode(data).mean)

    def imagine(self, batch: Sequences, *, generator: torch.Generator | None = None) -> Tensor:
        """The film that the first frame and the actions lead to, shape (batch, time, channels, height, width)."""
        return self.decode(self.predict(batch, generator=generator))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Any:
        """Not without a first frame and actions.

        Raises:
            NotSupportedError: always; it names :meth:`imagine`.
        """
        raise NotSupportedError("an RSSM imagines frames from a first one and actions: use imagine(sequences).")

    def loss(self, batch: Sequences, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """The objective of the class's description, ``reconstruction`` in squared standardised pixels, ``kl`` in nats.

        With ``dreamer`` both are summed over a frame and over z, with ``study`` averaged as it does.

        Raises:
            DataError: sequences of one frame, or frames of another shape.
        """
        if batch.steps < 2:
            raise DataError("frames: an RSSM learns from sequences of at least 2 frames, got 1.")
        frames, actions = self._standard_frames(batch.frames), self._standard_actions(batch.actions)
        return self.network.loss(frames, actions, noise, beta_scale)


def _check_options(options: dict[str, Any]) -> None:
    for name, choices in (("variant", get_args(Variant)), ("latent", get_args(LatentKind))):
        if options[name] not in choices:
            raise ConfigError(f"model.{name}: unknown '{options[name]}'. {did_you_mean(str(options[name]), choices)}")
    for name, least in _SIZES.items():
        if not least <= options[name] <= _MOST:
            raise ConfigError(f"model.{name}: expected {least} to {_MOST}, got {options[name]}.")
    for name in ("free_nats", "kl_dyn", "kl_rep"):
        if not 0.0 <= options[name] < float("inf"):
            raise ConfigError(f"model.{name}: expected a finite number of at least 0, got {options[name]}.")
    for name in ("unimix", "min_var"):
        if not 0.0 <= options[name] < 1.0:
            raise ConfigError(f"model.{name}: expected a number from 0 to below 1, got {options[name]}.")
    if options["variant"] == "study":
        defaults = inspect.signature(RSSM).parameters
        given = [name for name in _DREAMER_ONLY if options[name] != defaults[name].default]
        if given:
            raise ConfigError(f"model.{given[0]}: the variant 'study' has no such option; use variant 'dreamer'.")
