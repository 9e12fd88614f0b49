"""Randomness as a function of what it is for, never of what happened before.

Every random number of a training run is drawn from a generator seeded by (seed, epoch, batch). A run that is
killed and resumed therefore needs no saved generator state to draw the same numbers again, and neither does a run
that is spread over several processes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def fold(*parts: int) -> int:
    """Mix integers into one 63-bit seed (SplitMix64, Steele et al. 2014); order matters.

    Args:
        parts: any integers, negative ones included.
    """
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block and give the caller's states back afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``.

    Cheap enough for every step; ``torch.manual_seed`` is not, because without a GPU it records a stack trace for each
    device type it might seed later.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Noise:
    """Random draws for the rows of one minibatch.

    A row draws the same numbers whether its minibatch is computed by one process or shared among several: each
    process draws for the whole minibatch and keeps its own rows. That is what makes distributed training follow
    the single-process run.
    """

    def __init__(self, seed: int, *, start: int = 0, total: int | None = None) -> None:
        """
        Args:
            seed: seed of this minibatch's stream.
            start: position of this process's first row within the minibatch.
            total: rows of the whole minibatch; ``None`` when this process holds all of it.
        """
        self.seed = seed
        self._start = start
        self._total = total
        self._generator: torch.Generator | None = None

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of ``x``, whose first axis is the rows."""
        return self._own(torch.randn, x)

    def uniform_like(self, x: Tensor) -> Tensor:
        """Uniform noise in [0, 1) of the shape, dtype and device of ``x``, whose first axis is the rows."""
        return self._own(torch.rand, x)

    def _own(self, draw: Callable[..., Tensor], x: Tensor) -> Tensor:
        if self._generator is None or self._generator.device != x.device:
            self._generator = torch.Generator(x.device).manual_seed(self.seed)
        rows = x.shape[0] if self._total is None else self._total
        noise = draw((rows, *x.shape[1:]), generator=self._generator, dtype=x.dtype, device=x.device)
        return noise if self._total is None else noise[self._start : self._start + x.shape[0]]
