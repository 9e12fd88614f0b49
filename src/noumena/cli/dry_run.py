"""``noumena fit --dry-run``: everything but the training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def dry_run(
    recipe: str, files: Sequence[Path], overrides: Sequence[str], *, study: Path | None = None
) -> dict[str, Any]:
    """Check a configuration and, where a path is given, its data.

    Returns:
        Facts to print: recipe, model, rows per split, shapes, parameters, an estimate of memory.

    Raises:
        ConfigError, DataError: what ``fit`` would raise before training.
    """
    from noumena.config import compose
    from noumena.experiment import make_model, open_data, with_absolute_paths
    from noumena.training import FitSettings

    config = with_absolute_paths(compose(recipe, files, overrides, study=study, require_data=False))
    facts: dict[str, Any] = {"recipe": config.recipe, "model": config.model_name, "configuration": "valid"}
    if study is not None:
        facts["study"] = config.description
    if _lacks_path(config):
        return {**facts, "data": "not checked: give data.path=FILE"}
    splits = open_data(config)
    model = make_model(config)
    settings = FitSettings(**config.fit)
    model.prepare(splits.train, seed=settings.seed)
    parts = {"train": splits.train, "val": splits.val, "test": splits.test, **splits.extra}
    rows = {name: len(part) for name, part in parts.items() if part is not None}
    facts["samples"] = ", ".join(f"{name} {n:,}" for name, n in rows.items())
    data_bytes = sum(part.nbytes for part in parts.values() if part is not None)
    if not model.trains_by_gradient:
        memory = f"about {data_bytes / 2**20:,.0f} MiB for data, besides the model and the libraries"
        return {**facts, "training": "solved at once, without epochs", "memory": memory}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    batch, saved = _one_batch(model, splits.train, settings.batch_size)
    # Weights, gradients and the optimiser's two moments; the data; what one batch keeps for its gradient.
    memory = 4 * parameters * model.dtype.itemsize + data_bytes + saved
    return {
        **facts,
        "batch": batch,
        "parameters": f"{parameters:,}",
        "memory": f"about {memory / 2**20:,.0f} MiB for data and training, besides the libraries",
    }


def _lacks_path(config: Any) -> bool:
    from noumena.config.schema import configurable
    from noumena.registry import family, resolve

    reader = resolve(family(config.family).data[config.data["kind"]])
    path = configurable(reader).get("path")
    return path is not None and path.default is path.empty and "path" not in config.data


def _one_batch(model: Any, train: Any, batch_size: int) -> tuple[str, int]:
    import torch

    from noumena.core.batches import BatchLoader

    loader = BatchLoader(train, batch_size, least=model.least_batch)
    batch = next(iter(loader))
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(batch.data, noise=batch.noise)
    shape = tuple(batch.data.shape) if hasattr(batch.data, "shape") else batch.size
    return f"{shape} of {loader.batches_per_epoch} per epoch", sum(saved.values())
