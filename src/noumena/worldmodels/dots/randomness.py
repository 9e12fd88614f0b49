"""Random numbers as a function of a key and a position: the same in every batch and on every device.

SplitMix64 (Steele et al. 2014) needs no state: number ``n`` of a stream is a hash of ``key + n * gamma``. In integers
of 64 bits that wrap around, torch computes it for millions of positions at once. Keys are made as
:func:`noumena.core.seeding.fold` makes seeds.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# The constants of SplitMix64, as signed numbers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)

# In both halves of a word: the fraction of a float32, and the float32 1.
_FRACTIONS = 0x007FFFFF_007FFFFF
_ONES = 0x3F800000_3F800000

# Words that are hashed at a time on a CPU, such that they stay in its cache.
_BLOCK = 1 << 15

# Cells of the table of a von Mises distribution. Between its entries the quantile is taken to be linear, so that the
# distribution function is off by less than one cell, 1/4096.
_CELLS = 4096
_GRID = 1 << 16


def folded(*parts: Tensor | int) -> Tensor:
    """:func:`noumena.core.seeding.fold` of integers and int64 tensors, element by element.

    Args:
        parts: at least one tensor among them; tensors broadcast.

    Returns:
        int64 of at least 0, of the broadcast shape.
    """
    state: Tensor | int = _GAMMA
    device = next(part.device for part in parts if isinstance(part, Tensor))
    for part in parts:
        term = part if isinstance(part, Tensor) else torch.tensor(_signed(part), device=device)
        state = _hashed_(term + state + _GAMMA)
    return _shifted(state, 1) if isinstance(state, Tensor) else torch.tensor(state, device=device)


def advanced(keys: Tensor, words: Tensor | int) -> Tensor:
    """Keys of the same streams, so many words further on."""
    return keys + words * _GAMMA if isinstance(words, Tensor) else keys + _signed(words * _GAMMA)


def random_words(keys: Tensor, count: int) -> Tensor:
    """The first words of some streams.

    Args:
        keys: int64, any shape (...).
        count: words of each stream.

    Returns:
        int64, shape (..., count), every bit of them random.
    """
    steps = torch.arange(1, count + 1, device=keys.device).mul_(_GAMMA)
    return _hashed_(keys[..., None] + steps)


def uniform(keys: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-23, two out of each word.

    Args:
        keys: int64, shape (...).
        count: numbers of each stream; where it is odd, the last word's second half is left out.

    Returns:
        float32, shape (..., count); the same bits on every device.
    """
    words = random_words(keys, (count + 1) // 2)
    # 23 random bits as the fraction of a float32 whose exponent is that of 1: a number in [1, 2), without conversion.
    words.bitwise_and_(_FRACTIONS).bitwise_or_(_ONES)
    return words.view(torch.float32).sub_(1)[..., :count]


def random_index(keys: Tensor, count: int, size: int) -> Tensor:
    """Random indices below ``size``: int64, shape (..., count)."""
    return _shifted(random_words(keys, count), 1) % size


def von_mises(uniforms: Tensor, kappa: float) -> Tensor:
    """Angles about zero, by the inverse of the distribution function.

    Args:
        uniforms: numbers in [0, 1), any shape.
        kappa: concentration, from 0 (all directions alike) on.

    Returns:
        Angles in [-pi, pi], float32, of the shape of ``uniforms``.
    """
    table = _von_mises_table(kappa, uniforms.device)
    place = uniforms * _CELLS
    cell = place.long()
    low = table[cell]
    return low + (place - cell) * (table[cell + 1] - low)


@lru_cache(maxsize=16)
def _von_mises_table(kappa: float, device: torch.device) -> Tensor:
    """Quantiles at 0, 1/cells, ..., 1: float32, shape (cells + 1,)."""
    angles = np.linspace(-np.pi, np.pi, _GRID + 1)
    density = np.exp(kappa * (np.cos(angles) - 1))
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    quantiles = np.interp(np.linspace(0, 1, _CELLS + 1), mass / mass[-1], angles)
    return torch.from_numpy(quantiles.astype(np.float32)).to(device)


def _hashed_(words: Tensor) -> Tensor:
    """The output function of SplitMix64, in place; ``words`` is contiguous."""
    flat = words.view(-1)
    blocks = flat.split(_BLOCK) if words.device.type == "cpu" else (flat,)
    scratch = torch.empty_like(blocks[0])
    for block in blocks:
        spare = scratch[: len(block)]
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            block.bitwise_xor_(_shifted(block, shift, spare)).mul_(factor)
        block.bitwise_xor_(_shifted(block, 31, spare))
    return words


def _shifted(words: Tensor, shift: int, out: Tensor | None = None) -> Tensor:
    """Shifted to the right with zeros coming in; torch's own shift brings in the sign."""
    return torch.bitwise_right_shift(words, shift, out=out).bitwise_and_((1 << (64 - shift)) - 1)


def _signed(number: int) -> int:
    """An integer modulo 2^64, as the signed number of the same bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
