"""Latents of many sequences, computed once: of imagined futures and of the true frames."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.data import Dataset, FreshDataset
from noumena.core.errors import DataError
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.sequences import Sequences, joined

# Frames that go through the networks at a time.
_FRAMES = 2048


@dataclass(frozen=True)
class Latents:
    """What probes and diagnostics look at, on the CPU.

    Attributes:
        predicted: latent of the first frame, then those of the open-loop roll-out, shape (batch, time, latent).
        encoded: latents of all true frames, each by itself, same shape; ``None`` where they were not asked for.
        actions: shape (batch, time - 1, action).
        state: shape (batch, time, things, dims), or ``None``.
        shown: the first few sequences themselves, for pictures.
    """

    predicted: Tensor
    encoded: Tensor | None
    actions: Tensor
    state: Tensor | None
    shown: Sequences

    def __len__(self) -> int:
        return len(self.predicted)


def draw(dataset: Dataset, count: int, *, epoch: int, part: tuple[float, float] = (0.0, 1.0)) -> Iterator[Sequences]:
    """Sequences of a dataset, some at a time.

    Args:
        dataset: a stored one gives at most what it has, evenly spread; one that makes its sequences gives ``count``.
        count: sequences.
        epoch: first epoch of which fresh sequences are drawn.
        part: share of a stored dataset to draw from, as where it begins and ends; fresh ones are all alike.
    """
    size = max(1, _FRAMES // int(dataset.schema["steps"]))
    if not isinstance(dataset, FreshDataset):
        first, last = (round(end * len(dataset)) for end in part)
        chosen = min(count, last - first)
        index = first + torch.linspace(0, last - first - 1, chosen, dtype=torch.float64).round().long()
        yield from (dataset.batch(some.to(dataset.device)) for some in index.split(size) if len(some))
        return
    while count > 0:
        fresh = dataset.at_epoch(epoch)
        index = torch.arange(min(count, len(fresh)))
        yield from (fresh.batch(some.to(fresh.device)) for some in index.split(size))
        count, epoch = count - len(index), epoch + 1


@torch.no_grad()
def latents(model: WorldModel, sequences: Iterator[Sequences], *, encode: bool = True, shown: int = 0) -> Latents:
    """Imagined and encoded latents of sequences, computed some at a time.

    Args:
        model: in evaluation mode.
        sequences: as :func:`draw` gives them.
        encode: also encode all true frames.
        shown: sequences to keep for pictures.

    Raises:
        DataError: there is no sequence, or a latent is not finite.
    """
    predicted: list[Tensor] = []
    encoded: list[Tensor] = []
    actions: list[Tensor] = []
    states: list[Tensor] = []
    kept: list[Sequences] = []
    for batch in sequences:
        there = batch.to(model.device)
        predicted.append(model.predict(there).cpu())
        if encode:
            encoded.append(model.encode(there).mean.cpu())
        actions.append(batch.actions.cpu())
        if batch.state is not None:
            states.append(batch.state.cpu())
        if sum(map(len, kept)) < shown:
            kept.append(batch[: shown - sum(map(len, kept))].to("cpu"))
        if not predicted[-1].isfinite().all():
            raise DataError("the model's latents are not finite: its training diverged. Lower fit.lr and fit it again.")
    if not predicted:
        raise DataError("there is no sequence to evaluate the model on.")
    return Latents(
        torch.cat(predicted),
        torch.cat(encoded) if encode else None,
        torch.cat(actions),
        torch.cat(states) if states else None,
        joined(kept) if kept else _none(actions[0], model),
    )


def _none(actions: Tensor, model: WorldModel) -> Sequences:
    """No sequence of the right shape."""
    assert model.frame is not None
    return Sequences(torch.zeros(0, actions.shape[1] + 1, *model.frame), actions[:0])
