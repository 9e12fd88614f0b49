"""Noise that is a function of what it is for: the same row gets the same draws, in any batch and on any device."""

import math
from functools import lru_cache

import torch
from torch import Tensor

_SEED = 20_260_101
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # the cached tensor serves gradients as well, whoever asked first
def normal_nodes(count: int, size: int) -> Tensor:
    """``count`` standard normal vectors that cover the space evenly, float64, shape (count, size).

    Scrambled Sobol points through the inverse of the normal distribution function: as common random numbers of all
    rows they give integrals of less variance than independent draws (Owen 1998).
    """
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=_SEED)
    points = engine.draw(count, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(1e-9, 1.0 - 1e-9))


def row_noise(rows: Tensor, size: int) -> Tensor:
    """Standard normal noise that each row draws by its own content, shape (rows, size).

    The bits of a row are mixed into one 64-bit state, from which a counter makes uniform numbers (SplitMix64, Steele
    et al. 2014) and those normal ones (Box & Muller 1958).

    Args:
        rows: shape (rows, columns), float32.
        size: draws per row.
    """
    bits = rows.detach().to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    place = torch.arange(1, rows.shape[1] + 1, device=rows.device) * _GOLDEN
    state = _mixed(_mixed(bits + place).sum(-1, keepdim=True) + _SEED)
    counter = torch.arange(1, 2 * size + 1, device=rows.device) * _GOLDEN
    # 53 bits give a uniform number; a half added keeps it off 0.
    uniform = ((_mixed(state + counter) >> 11 & (1 << 53) - 1).double() + 0.5) / 2.0**53
    radius = torch.sqrt(-2.0 * torch.log(uniform[:, :size]))
    return (radius * torch.cos(2.0 * math.pi * uniform[:, size:])).to(rows.dtype)


def _mixed(state: Tensor) -> Tensor:
    state = (state ^ _shifted(state, 30)) * _MIX_1
    state = (state ^ _shifted(state, 27)) * _MIX_2
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own copies the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
