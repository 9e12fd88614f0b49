"""A pre-norm transformer over sets of different sizes, packed."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.crystals.networks.packing import Packing

Activation = Literal["gelu-tanh", "gelu"]
"""Of the feed-forward networks: GELU in its approximation by a hyperbolic tangent, or exactly (Hendrycks & Gimpel)."""


class Attention(nn.Module):
    """Multi-head attention of each crystal's tokens to each other (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
        """
        Args:
            x: packed tokens, shape (tokens, width).
            blocks: crystals of equal size, see :attr:`Packing.blocks`.
        """
        tokens, width = x.shape
        projected = self.in_proj(x)
        found: list[Tensor] = []
        # One kernel for each size that occurs, of which there are few; `split` gives its gradient back in one piece.
        for part, (count, size) in zip(projected.split([c * n for c, n in blocks]), blocks, strict=True):
            # (count, size, 3, heads, channels) -> 3 of (count, heads, size, channels)
            q, k, v = part.view(count, size, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            found.append(out.transpose(1, 2).reshape(count * size, width))
        return self.out_proj(torch.cat(found).view(tokens, width))


class Layer(nn.Module):
    """Attention and a feed-forward network, each on normalised tokens and added to them (Xiong et al. 2020)."""

    def __init__(
        self, width: int, heads: int, feedforward: int, *, causal: bool = False, activation: Activation = "gelu-tanh"
    ) -> None:
        super().__init__()
        self.approximate = "tanh" if activation == "gelu-tanh" else "none"
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)

    def forward(self, x: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
        """One layer on packed tokens, shape (tokens, width)."""
        x = x + self.self_attn(self.norm1(x), blocks)
        return x + self.linear2(functional.gelu(self.linear1(self.norm2(x)), approximate=self.approximate))


class PackedTransformer(nn.Module):
    """Pre-norm transformer whose tokens see those of their own crystal only; equivariant to their order.

    With ``causal`` each token sees itself and those before it in its crystal, and order matters.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        *,
        causal: bool = False,
        activation: Activation = "gelu-tanh",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [Layer(width, heads, feedforward, causal=causal, activation=activation) for _ in range(layers)]
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """
        Args:
            x: tokens in the order of the batch, shape (tokens, width).
            packing: of the batch.

        Returns:
            Shape (tokens, width), in the order of the batch.
        """
        x = x[packing.source]
        for layer in self.layers:
            x = layer(x, packing.blocks)
        return self.norm(x)[packing.place]
