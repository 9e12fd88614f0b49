"""The recurrent state-space model of the study of moving dots (Sobal et al. 2022), with its faults."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.losses import LossTerms
from noumena.core.seeding import Noise
from noumena.worldmodels.networks.decoders import StudyDecoder
from noumena.worldmodels.networks.encoders import Encoder, in_chunks, make_encoder
from noumena.worldmodels.statespace.latents import Normals

_KL_FLOOR = 3.0  # nats per dimension


class Study(nn.Module):
    r"""The study's model (arXiv 2211.10831), kept for comparison; a state is h. Frames and actions are standardised.

    With :math:`h_0 = e(x_0)`, :math:`h_t = \mathrm{GRU}(h_{t-1}, \mathrm{ReLU}(W [z_{t-1}, a_{t-1}]))`, posteriors of
    :math:`[e(x_t), h_t]`, priors of :math:`h_t` and :math:`\hat z_t` drawn from the prior, the loss is

    .. math:: \frac{1}{T-1} \Big( \|d(z_0, h_0) - x_0\|^2 + \sum_{t \ge 1} \big[ \max(\mathrm{KL}(p_t \| q_t), 3) +
        \|d(\hat z_t, h_t) - x_t\|^2 \big] \Big)

    with squared errors averaged over batch and pixels, and KL over batch and dimensions.

    Faults it had and keeps: no gradient passes through the draws of z, and KL stays below the 3 nats *per dimension*
    at which it is cut off, so the heads of prior and posterior are never trained; means pass a rectifier, and
    deviations are at least softplus(0) = 0.69. What is left is an auto-encoder over time with injected noise.

    All frames are encoded and all states decoded in one pass. With batch norm in evaluation mode that equals a pass
    for each step; in training its statistics are those of all frames of the batch instead of one step's.
    """

    def __init__(
        self,
        frame: tuple[int, int, int],
        action_dim: int,
        *,
        encoder: Encoder,
        width: int,
        deter: int,
        min_var: float,
    ) -> None:
        """
        Args:
            frame, action_dim: sizes of the data.
            encoder, width: the encoder.
            deter: size of h, of z and of every hidden layer.
            min_var: added to the *standard deviations* in training, but not in roll-outs.
        """
        super().__init__()
        self.latent_size = deter
        self.min_var = min_var
        self.encoder = make_encoder(encoder, frame, width=width, latent_dim=deter)
        self.prior_mean = nn.Sequential(nn.Linear(deter, deter), nn.ReLU())
        self.prior_spread = nn.Sequential(nn.Linear(deter, deter), nn.ReLU())
        self.posterior_mean = _two_layers(2 * deter, deter)
        self.posterior_spread = _two_layers(2 * deter, deter)
        self.input = nn.Linear(deter + action_dim, deter)
        self.cell = nn.GRUCell(deter, deter)
        self.decoder = StudyDecoder(2 * deter, frame)

    def start(self, frames: Tensor) -> Tensor:
        """States h_0 (batch, latent) of single frames (batch, channels, height, width)."""
        return in_chunks(self.encoder, frames)

    def rollout(self, start: Tensor, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """States h (batch, steps, latent) after actions; z is the prior's mean without a generator."""
        h = start
        states: list[Tensor] = []
        for t in range(actions.shape[1]):
            prior = self._prior(h, extra=0.0)
            z = prior.mean if generator is None else prior.draw(_normal(h, generator))
            h = self._next(h, z, actions[:, t])
            states.append(h)
        return torch.stack(states, 1) if states else start.new_zeros(len(start), 0, self.latent_size)

    def filter(self, frames: Tensor, actions: Tensor) -> Tensor:
        """States h (batch, time, latent) with posteriors' means for z; h_t has seen frames before t, h_0 its own."""
        return self._observe(self._encodings(frames), actions, lambda posterior, _: posterior.mean)

    def decode(self, states: Tensor) -> Tensor:
        """Frames (n, channels, 28, 28) of states h (n, latent) and the mean of their priors."""
        return in_chunks(self.decoder, torch.cat([self._prior(states, extra=0.0).mean, states], -1))

    def loss(self, frames: Tensor, actions: Tensor, noise: Noise | None, beta_scale: float) -> LossTerms:
        """The loss in the class's description.

        Args:
            frames: shape (batch, time, channels, height, width).
            actions: shape (batch, time - 1, action).
            noise: source of the draws: first the posteriors' of steps 0 to T - 2, then the priors' of 1 to T - 1.
            beta_scale: factor of the KL term.
        """
        encodings = self._encodings(frames)
        like = encodings[:, 1:]
        of_posterior, of_prior = (_normal(like) if noise is None else noise.normal_like(like) for _ in range(2))
        drawn: list[Tensor] = []

        def draw(posterior: Normals, t: int) -> Tensor:
            drawn.append(posterior.draw(of_posterior[:, t]))
            return drawn[-1]

        h = self._observe(encodings, actions, draw)
        with torch.no_grad():
            foreseen = self._prior(h[:, 1:], extra=self.min_var).draw(of_prior)
        z = torch.cat([drawn[0][:, None], foreseen], 1)
        decoded = self.decoder(torch.cat([z, h], -1).flatten(0, 1))
        # The mean over frames times T / (T - 1): the study divides the sum over T frames by the steps.
        steps = actions.shape[1]
        error = (decoded - frames.flatten(0, 1)).square().mean() * ((steps + 1) / steps)
        kl = self._kl(h[:, 1:], encodings[:, 1:])
        floored = kl.clamp(min=_KL_FLOOR).mean()
        return LossTerms(error + beta_scale * floored, {"reconstruction": error, "kl": kl.mean()})

    def _encodings(self, frames: Tensor) -> Tensor:
        return in_chunks(self.encoder, frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _observe(self, encodings: Tensor, actions: Tensor, choose: Callable[[Normals, int], Tensor]) -> Tensor:
        """States h (batch, time, latent); ``choose`` gives z from a posterior and its step, outside the gradient."""
        h = encodings[:, 0]
        states = [h]
        for t in range(actions.shape[1]):
            with torch.no_grad():
                z = choose(self._posterior(h, encodings[:, t]), t)
            h = self._next(h, z, actions[:, t])
            states.append(h)
        return torch.stack(states, 1)

    def _kl(self, h: Tensor, encodings: Tensor) -> Tensor:
        """KL(prior || posterior) of each step, shape (steps), from tensors of shape (batch, steps, latent)."""

        def kl() -> Tensor:
            prior = self._prior(h, extra=self.min_var)
            return prior.kl_per_variable(self._posterior(h, encodings)).mean((0, 2))

        with torch.no_grad():
            found = kl()
        if bool((found > _KL_FLOOR).any()):
            return kl()
        # Cut off at every step, so its gradient is zero and needs no computing: all that is kept is that there is one.
        heads = (self.prior_mean, self.prior_spread, self.posterior_mean, self.posterior_spread)
        return found + sum(0.0 * weight.sum() for head in heads for weight in head.parameters())

    def _prior(self, h: Tensor, *, extra: float) -> Normals:
        return Normals(self.prior_mean(h), functional.softplus(self.prior_spread(h)) + extra)

    def _posterior(self, h: Tensor, encoding: Tensor) -> Normals:
        both = torch.cat([encoding, h], -1)
        return Normals(self.posterior_mean(both), functional.softplus(self.posterior_spread(both)) + self.min_var)

    def _next(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        return self.cell(functional.relu(self.input(torch.cat([z, action], -1))), h)


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs), nn.ReLU())


def _normal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
