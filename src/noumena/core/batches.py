"""Minibatches of in-memory data: index selections whose order is a function of (seed, epoch)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from noumena.core.data import Dataset, FreshDataset
from noumena.core.errors import ConfigError, DataError
from noumena.core.seeding import Noise, fold


class Minibatch:
    """One process's share of one minibatch.

    No dataclass, because Lightning takes those apart to convert their tensors, noise generator and all.

    Attributes:
        data: the samples, in the form the model takes.
        size: samples in this share.
        weight: factor on the share's mean loss that makes the average over processes the mean over the whole
            minibatch; 1 when there is one process.
        noise: the minibatch's random draws.
    """

    __slots__ = ("data", "noise", "size", "weight")

    def __init__(self, data: Any, size: int, weight: float, noise: Noise) -> None:
        self.data = data
        self.size = size
        self.weight = weight
        self.noise = noise

    def to(self, device: torch.device) -> "Minibatch":
        """The same on ``device``."""
        return Minibatch(self.data.to(device, non_blocking=True), self.size, self.weight, self.noise)


class Order:
    """The order of the samples in each epoch, a function of (seed, epoch) alone.

    Lightning calls ``set_epoch`` on a loader's ``sampler`` before each epoch; this is that sampler.
    """

    def __init__(self, n: int, *, seed: int, shuffle: bool) -> None:
        self.n = n
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def indices(self) -> Tensor:
        """Sample indices of the epoch, int64 on the CPU, shape (n,)."""
        if not self.shuffle:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(fold(self.seed, self.epoch)))


def batches_per_epoch(samples: int, batch_size: int, *, least: int = 1, world_size: int = 1) -> int:
    """Minibatches of an epoch; the arguments are those of :class:`BatchLoader`."""
    whole, rest = divmod(samples, batch_size)
    needed = least * world_size if least > 1 else 1
    return max(whole + (rest >= needed), min(samples, 1))


class BatchLoader:
    """Iterates over a dataset by index selections, shared among processes, resumable at any batch.

    No worker processes and no per-row work: a batch is one gather from tensors that are in memory already.
    ``sampler`` and ``batch_sampler`` are the attributes by which Lightning knows a loader.
    """

    batch_sampler = None

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        least: int = 1,
    ) -> None:
        """
        Args:
            dataset: in-memory samples.
            batch_size: samples per minibatch over all processes; the last one of an epoch may be smaller.
            seed: of the order and of every minibatch's noise.
            shuffle: a new order each epoch; otherwise the order of the data and the same noise each epoch, so
                that losses of different epochs are compared on the same draws.
            start: batches of the epoch to leave out, because they were seen before an interruption.
            rank, world_size: this process among those that share each minibatch.
            least: samples that each process needs of a minibatch for a loss. Fewer than that at the end of an epoch
                join the minibatch before.

        Raises:
            ConfigError: ``batch_size`` is below 1, or below ``least`` for each process.
            DataError: so is the number of samples, where ``least`` is above 1.
        """
        if batch_size < max(1, least * world_size):
            raise ConfigError(f"fit.batch_size: expected at least {max(1, least * world_size)}, got {batch_size}.")
        if least > 1 and len(dataset) < least * world_size:
            raise DataError(
                f"the model's loss compares the samples of a minibatch and needs {least * world_size} at least; a part "
                f"of the data has {len(dataset)}. Give more data, or leave the part out."
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self.least = least
        self.sampler = Order(len(dataset), seed=seed, shuffle=shuffle)

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start

    @property
    def batches_per_epoch(self) -> int:
        """Minibatches of a whole epoch."""
        return batches_per_epoch(len(self.dataset), self.batch_size, least=self.least, world_size=self.world_size)

    def __iter__(self) -> Iterator[Minibatch]:
        epoch = self.sampler.epoch if self.sampler.shuffle else 0
        dataset = self.dataset.at_epoch(epoch) if isinstance(self.dataset, FreshDataset) else self.dataset
        # The whole order travels to the data once, not batch by batch.
        order = self.sampler.indices().to(dataset.device)
        for position in range(self.start, self.batches_per_epoch):
            end = len(order) if position + 1 == self.batches_per_epoch else (position + 1) * self.batch_size
            yield self._share(dataset, order[position * self.batch_size : end], fold(self.seed, epoch, position))

    def _share(self, dataset: Dataset, index: Tensor, seed: int) -> Minibatch:
        total = len(index)
        if self.world_size == 1:
            return Minibatch(dataset.batch(index), total, 1.0, Noise(seed))
        first = total * self.rank // self.world_size
        last = total * (self.rank + 1) // self.world_size
        size = last - first
        # A minibatch with fewer samples than processes leaves some without any: they compute one of weight 0,
        # because every process must take part in the gradient exchange.
        own = index[first:last] if size else index[:1]
        noise = Noise(seed, start=first if size else 0, total=total)
        return Minibatch(dataset.batch(own), size, size * self.world_size / total, noise)
