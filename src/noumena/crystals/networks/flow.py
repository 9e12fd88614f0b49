"""The velocity field that carries noise to the latents of a crystal of given elements."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.networks import mlp
from noumena.crystals.networks.packing import Packing
from noumena.crystals.networks.transformer import Attention

_WAVES = 32


class ConditionedLayer(nn.Module):
    """A transformer layer whose normalisations are shifted and scaled, and whose additions are gated, by a condition.

    Gates start at zero: at first a layer changes nothing (adaLN-Zero, Peebles & Xie 2023).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, crystal: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
        """
        Args:
            x: packed tokens, shape (tokens, width).
            condition: shape (crystals, width).
            crystal: which crystal each token is of, shape (tokens,).
            blocks: see :attr:`Packing.blocks`.
        """
        parts = self.modulation(condition)[crystal].chunk(6, -1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts
        size = x.shape[-1:]
        x = x + gate_a * self.self_attn(functional.layer_norm(x, size) * (1.0 + scale_a) + shift_a, blocks)
        hidden = functional.gelu(
            self.linear1(functional.layer_norm(x, size) * (1.0 + scale_f) + shift_f), approximate="tanh"
        )
        return x + gate_f * self.linear2(hidden)


class Velocity(nn.Module):
    """Transformer over the tokens of each crystal, told time and elements; equivariant to the order of atoms."""

    def __init__(self, latent_dim: int, species: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.latents = nn.Linear(latent_dim, width)
        self.types = nn.Embedding(species, width)
        self.cell_token = nn.Parameter(0.02 * torch.randn(width))
        self.condition = mlp([2 * _WAVES + 2, width, width], "silu")
        self.layers = nn.ModuleList([ConditionedLayer(width, heads) for _ in range(layers)])
        self.out_modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, latent_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("frequencies", torch.logspace(0.0, 2.0, _WAVES) * math.pi)

    def forward(self, z: Tensor, time: Tensor, types: Tensor, packing: Packing) -> Tensor:
        """
        Args:
            z: latents on their way, atoms then cells, shape (tokens, latent).
            time: from 0 (noise) to 1 (latents), shape (crystals,).
            types: atomic numbers, shape (atoms,); 0 where the element is not told.
            packing: of the crystals.

        Returns:
            Velocity of ``z``, shape (tokens, latent).
        """
        phase = time[:, None] * cast("Tensor", self.frequencies)
        count = packing.num_atoms.to(z)
        known = torch.cat([phase.sin(), phase.cos(), (count.log() - 2.0)[:, None], (count / 20.0 - 0.5)[:, None]], 1)
        condition = functional.silu(self.condition(known))
        kind = torch.cat([self.types(types), self.cell_token.expand(len(z) - len(types), -1)])
        x = (self.latents(z) + kind)[packing.source]
        crystal = packing.crystal[packing.source]
        for layer in self.layers:
            x = layer(x, condition, crystal, packing.blocks)
        shift, scale = self.out_modulation(condition)[crystal].chunk(2, -1)
        return self.out(functional.layer_norm(x, x.shape[-1:]) * (1.0 + scale) + shift)[packing.place]
