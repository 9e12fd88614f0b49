"""What training and evaluation know of data: a dataset that gives batches by index, and its splits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Dataset(Protocol):
    """Samples held in memory as tensors; a batch is one index selection, never a loop over rows."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """JSON-able description of what one sample is (columns, layout, units); stored with the model."""
        ...

    def __len__(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        ...

    def batch(self, index: Tensor) -> Any:
        """The samples at ``index`` (int64, shape (batch,), on :attr:`device`) in the form the family's models take."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same samples on ``device``; itself when they are there already."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory the tensors take, in bytes."""
        ...

    def fingerprint(self) -> str:
        """A hash of the content (``sha256:...``), stored with the model."""
        ...


@runtime_checkable
class FreshDataset(Dataset, Protocol):
    """Samples that are made when they are asked for, new ones in each epoch."""

    def at_epoch(self, epoch: int) -> Dataset:
        """The samples of an epoch, a function of the dataset's seed and ``epoch``; those of epoch 0 are its own."""
        ...


@dataclass(frozen=True)
class Splits:
    """The parts of one data set, and how they were made.

    Attributes:
        train, val, test: disjoint datasets; ``val`` and ``test`` may be missing.
        extra: further named datasets that are used in evaluation only (anomalies, out-of-distribution levels).
        about: JSON-able facts for reports: source, rows per split, rule of the split, anything left out and why.
    """

    train: Dataset
    val: Dataset | None = None
    test: Dataset | None = None
    extra: Mapping[str, Dataset] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def held_out(self) -> tuple[str, Dataset]:
        """Name and data of the part that training saw least of: test, else val, else train itself."""
        parts = (("test", self.test), ("val", self.val), ("train", self.train))
        return next((name, part) for name, part in parts if part is not None)
