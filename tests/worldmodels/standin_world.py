"""A model whose latent is the true position and whose dynamics are the world's own: planning without training."""

import torch

from noumena.worldmodels.model import WorldModel


class Exact(WorldModel):
    """Reads the position off the light of the first channel, and moves it as the world does."""

    def __init__(self, world):
        super().__init__(world.frame, 2)
        self.world = world
        self._build()

    def _build_networks(self, frame, action_dim):
        self.one = torch.nn.Parameter(torch.ones(1))

    @property
    def latent_size(self):
        return 2

    def start(self, frames):
        # The logarithm of a Gaussian is a parabola: its vertex, from the brightest pixel and its neighbours.
        light = frames[:, 0].double().clamp(min=1e-30).log()
        width = light.shape[-1]
        peak = light.flatten(1).argmax(1)
        y, x = (peak // width).clamp(1, width - 2), (peak % width).clamp(1, width - 2)
        rows = torch.arange(len(light))
        here = light[rows, y, x]
        left, right, up, down = (light[rows, y + j, x + i] for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1)))
        shift = [(a - b) / (2 * (a - 2 * here + b)) for a, b in ((left, right), (up, down))]
        return torch.stack([x + shift[0], y + shift[1]], -1).to(self.one.dtype)

    def rollout(self, start, actions, *, generator=None):
        found = []
        for step in actions.unbind(1):
            start = self.world.move(start, step)
            found.append(start)
        return torch.stack(found, 1)


class PositionReadout:
    """The position of the one thing in a latent that is the position."""

    def __call__(self, latents):
        return latents[..., None, :]


class Adding(WorldModel):
    """The latent is the sum of the actions."""

    def __init__(self):
        super().__init__((1, 8, 8), 2)

    def rollout(self, start, actions, *, generator=None):
        return start[:, None] + actions.cumsum(1)
