"""World models without training, whose latents are known by construction, and data in memory for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.sequences import Sequences

SIZE = 12


@dataclass(frozen=True)
class Held:
    """Sequences in memory."""

    sequences: Sequences
    schema: dict[str, Any]

    def __len__(self):
        return len(self.sequences)

    @property
    def device(self):
        return self.sequences.frames.device

    def batch(self, index):
        return self.sequences[index]

    def to(self, device):
        return Held(self.sequences.to(device), self.schema)

    @property
    def nbytes(self):
        return self.sequences.frames.nbytes

    def fingerprint(self):
        return "sha256:none"


def walks(n, steps=6, seed=0, background=0.0):
    """A bright pixel that walks (exactly what its actions say) over a background of its sequence."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randint(-1, 2, (n, steps - 1, 2), generator=generator).float()
    path = torch.cat([torch.zeros(n, 1, 2), actions.cumsum(1)], dim=1)
    room = SIZE - 1 - (path.amax(1) - path.amin(1))
    start = (torch.rand(n, 2, generator=generator) * (room + 1)).floor() - path.amin(1)
    position = (path + start[:, None]).long()
    frames = torch.zeros(n, steps, 1, SIZE, SIZE)
    rows, times = torch.arange(n)[:, None], torch.arange(steps)[None]
    frames[rows, times, 0, position[..., 1], position[..., 0]] = 1.0
    frames += background * torch.rand(n, 1, 1, SIZE, SIZE, generator=generator)
    return Sequences(frames, actions, position.float()[:, :, None])


def schema(steps=6, *, labelled=True, **more):
    return {
        "kind": "dots",
        "frame": [1, SIZE, SIZE],
        "steps": steps,
        "actions": ["dx", "dy"],
        "state": ["dot"] if labelled else [],
        "state_dims": 2,
        "state_unit": "px",
        **more,
    }


def held(n, steps=6, seed=0, background=0.0, *, labelled=True):
    found = walks(n, steps, seed, background)
    if not labelled:
        found = Sequences(found.frames, found.actions)
    return Held(found, schema(steps, labelled=labelled))


class Reader(WorldModel):
    """Latents by a fixed map of the frame: where its brightest pixel is ("position"), or fixed random projections of
    the frame ("random"); roll-outs add the actions to the first two numbers."""

    def __init__(self, *, frame=None, action_dim=None, looks="position", numbers=2):
        super().__init__(frame, action_dim)
        self.looks = looks
        self.numbers = numbers
        if self.is_built:
            self._build()

    def _build_networks(self, frame, action_dim):
        self.mixing = nn.Linear(frame[1] * frame[2], self.numbers)

    @property
    def latent_size(self):
        return self.numbers

    def start(self, frames):
        if self.looks == "random":
            return self.mixing(frames.flatten(1))
        best = frames.flatten(1).argmax(1)
        place = torch.stack([best % SIZE, best // SIZE], dim=1).float()
        return torch.cat([place, self.mixing.weight.new_zeros(len(best), self.numbers - 2)], dim=1)

    def rollout(self, start: Tensor, actions: Tensor, *, generator=None):
        moved = start[:, None, :2] + actions.cumsum(1)
        return torch.cat([moved, start[:, None, 2:].expand(-1, actions.shape[1], -1)], dim=-1)
