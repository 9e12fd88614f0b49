"""A Noumena dataset as a LightningDataModule."""

import pytorch_lightning as pl
import torch

from noumena.core.batches import BatchLoader, batches_per_epoch
from noumena.core.data import Dataset
from noumena.core.seeding import fold

_EVALUATION = 2  # stream of the seed for validation and test draws
_EVALUATION_BATCH = 4096
_SHARE_OF_DEVICE_MEMORY = 0.25


class DataModule(pl.LightningDataModule):
    """Minibatches of in-memory datasets for any Lightning Trainer.

    Samples that fit into a quarter of the device's free memory are moved there once; larger sets stay in host memory
    and travel batch by batch.
    """

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        *,
        batch_size: int = 256,
        seed: int = 0,
        least: int = 1,
    ) -> None:
        """
        Args:
            train, val, test: the parts.
            batch_size, seed: of :class:`~noumena.training.FitSettings`.
            least: the model's ``least_batch``.
        """
        super().__init__()
        self.train, self.val, self.test = train, val, test
        self.batch_size = batch_size
        self.seed = seed
        self.least = least
        self.start = 0
        """Batches of the coming epoch that were seen before an interruption."""

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches of a whole epoch."""
        return batches_per_epoch(len(self.train), self.batch_size, least=self.least, world_size=self._world)

    def setup(self, stage: str) -> None:
        """Move the samples to the device if they fit."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        splits = [split for split in (self.train, self.val, self.test) if split is not None]
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if sum(split.nbytes for split in splits) > _SHARE_OF_DEVICE_MEMORY * free:
                return
        self.train = self.train.to(device)
        self.val = None if self.val is None else self.val.to(device)
        self.test = None if self.test is None else self.test.to(device)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled minibatches; those seen before an interruption are left out, once."""
        start, self.start = self.start, 0
        return BatchLoader(
            self.train,
            self.batch_size,
            seed=self.seed,
            shuffle=True,
            start=start,
            rank=self._rank,
            world_size=self._world,
            least=self.least,
        )

    def val_dataloader(self) -> list[BatchLoader]:
        """The validation and, where given, the test samples in order, in large batches with fixed draws."""
        splits = [split for split in (self.val, self.test) if split is not None]
        seed = fold(self.seed, _EVALUATION)
        return [
            BatchLoader(
                split,
                self._evaluation_rows(split),
                seed=seed,
                rank=self._rank,
                world_size=self._world,
                least=self.least,
            )
            for split in splits
        ]

    def _evaluation_rows(self, split: Dataset) -> int:
        """Large batches, unless a dataset says that its samples are large themselves."""
        rows: int = getattr(split, "evaluation_rows", None) or max(self.batch_size, _EVALUATION_BATCH)
        return max(rows, self.least * self._world)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1
