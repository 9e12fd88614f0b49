"""The recurrent state-space model of DreamerV3 (Hafner et al. 2023, arXiv 2301.04104)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.losses import LossTerms
from noumena.core.seeding import Noise
from noumena.worldmodels.networks.decoders import GridDecoder
from noumena.worldmodels.networks.encoders import Encoder, in_chunks, make_encoder
from noumena.worldmodels.statespace.latents import Latent


@dataclass(frozen=True)
class Balance:
    """Weights of the KL terms (Hafner et al. 2023, eq. 4 and 5).

    Attributes:
        free_nats: KL, summed over z, below which it is not pushed.
        dyn: weight of KL(sg(posterior) || prior), which trains the prior.
        rep: weight of KL(posterior || sg(prior)), which makes states predictable.
    """

    free_nats: float
    dyn: float
    rep: float


class Head(nn.Module):
    """Layer norm, SiLU and a linear layer: from hidden units to the parameters of a distribution."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (..., hidden) to (..., outputs)."""
        return self.out(functional.silu(self.norm(hidden)))


class NormedGRU(nn.Module):
    """A GRU cell with one layer norm over its three gates (the cell of DreamerV2 and V3)."""

    def __init__(self, inputs: int, state: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + state, 3 * state, bias=False)
        self.norm = nn.LayerNorm(3 * state)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state (batch, state) from input (batch, inputs) and state."""
        reset, candidate, update = self.norm(self.gates(torch.cat([x, h], -1))).chunk(3, -1)
        # One is subtracted so that an untrained cell rather keeps its state (DreamerV2's code).
        return h + (update - 1.0).sigmoid() * (torch.tanh(reset.sigmoid() * candidate) - h)


class Dreamer(nn.Module):
    r"""Recurrent state-space model; a state is s = [h, z], all frames and actions here are standardised.

    .. math:: h_t = \mathrm{GRU}(h_{t-1}, z_{t-1}, a_{t-1}), \quad z_t \sim q(z_t \mid h_t, x_t), \quad
        \hat z_t \sim p(\hat z_t \mid h_t), \quad \hat x_t = d(h_t, z_t)

    (Hafner et al. 2023, eq. 3); h_0 is learned. Only the cell, the posterior of h and the draw of z go step by step:
    frames are encoded, priors computed and states decoded for all steps at once.
    """

    def __init__(
        self,
        frame: tuple[int, int, int],
        action_dim: int,
        *,
        encoder: Encoder,
        width: int,
        deter: int,
        hidden: int,
        latent: Latent,
        decoder_width: int,
        balance: Balance,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.balance = balance
        self.deter = deter
        self.latent_size = deter + latent.size
        self.encoder = make_encoder(encoder, frame, width=width, latent_dim=hidden)
        self.first = nn.Parameter(torch.zeros(deter))
        # A linear layer of [z, a], and one of [h, encoding] below, in two parts: a's and the encoding's are computed
        # for all steps at once. The encoder ends linearly, so its output is that part itself.
        self.from_z = nn.Linear(latent.size, hidden, bias=False)
        self.from_action = nn.Linear(action_dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.cell = NormedGRU(hidden, deter)
        self.posterior_from_h = nn.Linear(deter, hidden, bias=False)
        self.posterior = Head(hidden, latent.parameters)
        self.prior_from_h = nn.Linear(deter, hidden)
        self.prior = Head(hidden, latent.parameters)
        self.decoder = GridDecoder(self.latent_size, frame, width=decoder_width)

    def start(self, frames: Tensor) -> Tensor:
        """States (batch, latent) of single frames (batch, channels, height, width)."""
        h = self._first(len(frames))
        raw = self._posterior(h, in_chunks(self.encoder, frames))
        return torch.cat([h, self.latent.belief(raw).mean], -1)

    def rollout(self, start: Tensor, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """States (batch, steps, latent) after actions (batch, steps, action), from the prior alone.

        Without a generator z is the prior's mean; of classes, their probabilities. Unlike the most probable class it
        keeps what is uncertain, and it is differentiable in the actions.
        """
        h, z = start.split([self.deter, self.latent.size], -1)
        inputs = self.from_action(actions)
        draws = None if generator is None else self.latent.draws(actions[..., 0], generator=generator)
        states: list[Tensor] = []
        for t in range(actions.shape[1]):
            h = self._next(h, z, inputs[:, t])
            belief = self.latent.belief(self.prior(self.prior_from_h(h)))
            z = belief.mean if draws is None else belief.draw(draws[:, t])
            states.append(torch.cat([h, z], -1))
        return torch.stack(states, 1) if states else start.new_zeros(len(start), 0, self.latent_size)

    def filter(self, frames: Tensor, actions: Tensor) -> Tensor:
        """States (batch, time, latent) that have seen the frames up to their own; z is the posterior's mean."""
        states, _ = self._observe(frames, actions, None)
        return states

    def decode(self, states: Tensor) -> Tensor:
        """Frames (n, channels, height, width) of states (n, latent)."""
        return in_chunks(self.decoder, states)

    def loss(self, frames: Tensor, actions: Tensor, noise: Noise | None, beta_scale: float) -> LossTerms:
        """Squared error summed over a frame, and KL summed over z; both are means over batch and time.

        Args:
            frames: shape (batch, time, channels, height, width).
            actions: shape (batch, time - 1, action).
            noise: source of the draws of z.
            beta_scale: factor of both KL terms.
        """
        draws = self.latent.draws(frames[:, :, 0, 0, 0], noise)
        states, posterior = self._observe(frames, actions, draws)
        prior = self.prior(self.prior_from_h(states[..., : self.deter]))
        decoded = self.decoder(states.flatten(0, 1))
        error = (decoded - frames.flatten(0, 1)).square().sum((1, 2, 3)).mean()
        dyn = self.latent.kl(posterior.detach(), prior)
        rep = self.latent.kl(posterior, prior.detach())
        weigh = self.balance
        floored = weigh.dyn * dyn.clamp(min=weigh.free_nats) + weigh.rep * rep.clamp(min=weigh.free_nats)
        return LossTerms(error + beta_scale * floored.mean(), {"reconstruction": error, "kl": dyn.mean()})

    def _observe(self, frames: Tensor, actions: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """States, and parameters of their posteriors; z is drawn, or the mean without ``draws``."""
        batch, time = frames.shape[:2]
        encodings = in_chunks(self.encoder, frames.flatten(0, 1)).unflatten(0, (batch, time))
        inputs = self.from_action(actions)
        h = self._first(batch)
        states: list[Tensor] = []
        posteriors: list[Tensor] = []
        for t in range(time):
            raw = self._posterior(h, encodings[:, t])
            belief = self.latent.belief(raw)
            z = belief.mean if draws is None else belief.draw(draws[:, t])
            states.append(torch.cat([h, z], -1))
            posteriors.append(raw)
            if t + 1 < time:
                h = self._next(h, z, inputs[:, t])
        return torch.stack(states, 1), torch.stack(posteriors, 1)

    def _first(self, batch: int) -> Tensor:
        return torch.tanh(self.first).expand(batch, -1)

    def _posterior(self, h: Tensor, encoding: Tensor) -> Tensor:
        return self.posterior(self.posterior_from_h(h) + encoding)

    def _next(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        return self.cell(functional.silu(self.norm(self.from_z(z) + action)), h)
