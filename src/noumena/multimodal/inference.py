"""Inference of modalities from others with a trained model, its calibration, and how much of them it explains."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from noumena.multimodal.metrics import pooled_r2
from noumena.multimodal.objective import subset_index, subsets
from noumena.multimodal.observations import Batch, Observations

if TYPE_CHECKING:
    from noumena.multimodal.model import MVAE

_ROWS_AT_A_TIME = 16384


class Prediction(NamedTuple):
    """An inferred modality in physical units: mean and standard deviation, float32, shape (rows, size)."""

    mean: np.ndarray
    std: np.ndarray


def chunks(data: Observations) -> Iterator[Batch]:
    """All rows, a bounded number at a time."""
    for start in range(0, len(data), _ROWS_AT_A_TIME):
        yield data.batch(torch.arange(start, min(len(data), start + _ROWS_AT_A_TIME), device=data.device))


def infer(model: "MVAE", batch: Batch, targets: Sequence[str] | None) -> dict[str, Prediction]:
    """See :meth:`MVAE.infer`; ``batch`` has what is observed."""
    present = model.present_in(batch)
    if targets is None:
        absent = [name for name, there in zip(model.names, present.any(0).tolist(), strict=True) if not there]
        targets = absent or model.names
    model.check_names(targets)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in targets}
    for start in range(0, len(batch), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        z = model.encode(Batch(batch.values[rows], present[rows])).mean
        subset = subset_index(present[rows])
        for name, mean in model.decode_some(z, targets).items():
            std = model.calibration.std(subset, model.names.index(name), model.slices[name], z)
            found[name].append((mean, std))
    return {name: Prediction(*(_array(part) for part in zip(*parts, strict=True))) for name, parts in found.items()}


def calibrate(model: "MVAE", data: Observations) -> None:
    """See :meth:`MVAE.calibrate`."""
    for number, members in enumerate(subsets(len(model.names)).tolist()):
        inputs = [name for name, member in zip(model.names, members, strict=True) if member]
        rows = data.subset(data.has(*inputs))
        if not len(rows):
            continue
        z = model.encode(model.restricted(rows.whole().to(model.device), inputs)).mean
        for target, (name, inferred) in enumerate(model.decode(z).items()):
            part, has = model.slices[name], rows.has(name).to(z.device)
            errors = inferred - rows.values[:, part].to(inferred)
            model.calibration.fit(number, target, part, z[has], errors[has])


def explained(model: "MVAE", data: Observations) -> dict[str, float]:
    """See :meth:`MVAE.evaluate`."""
    found: dict[str, float] = {}
    for label, inputs in {**{name: [name] for name in model.names}, "all": list(model.names)}.items():
        rows = data.subset(data.has(*inputs))
        if not len(rows):
            continue
        inferred = model.infer(rows, model.names, observed=inputs)
        for name in model.names:
            has = rows.has(name)
            if int(has.sum()) > 1:
                truth = _array([rows[name][has]])
                found[f"r2/{label}->{name}"] = pooled_r2(truth, inferred[name].mean[has.cpu().numpy()])
    return found


def _array(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().numpy()
