"""Fitting models that have a solution, or an algorithm of their own, in place of gradient descent."""

import logging
import time
from pathlib import Path

import torch

from noumena.core.data import Dataset
from noumena.core.model import LatentModel
from noumena.core.seeding import fold, seeded
from noumena.training.history import History
from noumena.training.processes import is_main_process
from noumena.training.settings import FitSettings

log = logging.getLogger("noumena")

_AT_ONCE = 8192
_MEASURED = 20_000  # samples of a part that its loss is measured on, at most
_SOLVING, _MEASURING = 2, 3  # streams of the seed


def solve(
    model: LatentModel,
    train: Dataset,
    val: Dataset | None,
    test: Dataset | None,
    settings: FitSettings,
    folder: Path | None,
) -> History:
    """Fit a model that is not trained by gradient; the history has one entry.

    Of the settings only ``seed`` and ``accelerator`` matter: the others are about optimisers.
    """
    started = time.perf_counter()
    model.prepare(train, seed=settings.seed)
    with seeded(fold(settings.seed, _SOLVING)):
        model.solve(train, seed=settings.seed)
    stopping, calibration = (None, None) if val is None else model.divide_validation(val)
    history = History(best_epoch=0, is_main=is_main_process())
    row: dict[str, float] = {"step": 1.0}
    for name, part in (("train", train), ("val", stopping), ("test", test)):
        if part is not None:
            row |= {f"{name}_{term}": value for term, value in _measured(model, part, settings.seed).items()}
    model.eval()
    model.after_fit(train, calibration)
    history.append({**row, "seconds": time.perf_counter() - started})
    log.info("fitted  %s", "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step"))
    if folder is not None and history.is_main:
        history.write_csv(folder / "metrics.csv")
        model.save(folder / "model", overwrite=True)
    return history


@torch.no_grad()
def _measured(model: LatentModel, part: Dataset, seed: int) -> dict[str, float]:
    """The terms of the loss, means over the samples, or over some of many."""
    index = torch.arange(len(part), device=part.device)
    if len(part) > _MEASURED:
        generator = torch.Generator().manual_seed(fold(seed, _MEASURING))
        index = torch.randperm(len(part), generator=generator)[:_MEASURED].sort().values.to(part.device)
    sums: dict[str, float] = {}
    for rows in index.split(_AT_ONCE):
        terms = model.loss(part.batch(rows))
        for name, value in zip(terms.names(), terms.vector().tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + value * len(rows) / len(index)
    return sums
