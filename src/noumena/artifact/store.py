"""``save`` and ``load``: a model to a folder and back."""

import inspect
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import noumena
from noumena.artifact import hub
from noumena.artifact.card import model_card
from noumena.artifact.manifest import read_small, verify, write_manifest
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, did_you_mean
from noumena.core.model import LatentModel
from noumena.files import cannot_write, replacing_folder
from noumena.registry import model_class, model_name

# Layers are made, if only as shapes, before they can be compared with the file: a bound on how many.
_MAX_ENTRIES = 1000
# Types as safetensors names them.
_PRECISIONS = ("F32", "F64", "BF16", "F16")
_EXACT = {torch.bool: "BOOL", torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8"}


def save(
    model: LatentModel, path: str | Path, *, overwrite: bool = False, metrics: Mapping[str, float] | None = None
) -> None:
    """Write ``model`` as a folder: manifest, configuration, weights, model card.

    Args:
        model: a registered model that has weights.
        path: the folder to make; it appears whole or not at all.
        overwrite: replace an existing folder.
        metrics: numbers for the model card.

    Raises:
        ArtifactError: the model is not registered, or ``path`` exists or cannot be written.
        NotSupportedError: the model has no weights yet.
    """
    if not model.is_built:
        raise NotSupportedError("the model has no weights yet: fit it before saving it.")
    name = model_name(type(model))
    with replacing_folder(path, overwrite=overwrite) as folder:
        config = {"hyperparameters": model.hyperparameters(), "schema": model.schema}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        # Clones, because safetensors refuses tensors that share memory.
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
        try:
            save_file(tensors, folder / "model.safetensors", metadata={"model": name})
        except SafetensorError as error:
            raise cannot_write(path, OSError(str(error))) from error
        parameters = sum(parameter.numel() for parameter in model.parameters())
        card = model_card(name, model.schema, model.summary(), parameters, metrics or {})
        (folder / "card.md").write_text(card, encoding="utf-8")
        versions = {"noumena": noumena.__version__, "torch": torch.__version__, "python": platform.python_version()}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        write_manifest(folder, name, created, versions, model.data_fingerprint)


def load(path: str | Path, *, device: str | torch.device = "cpu") -> LatentModel:
    """Read a model folder. Nothing in it is executed, and nothing is allocated before it has been checked.

    Args:
        path: a model folder, a run folder that holds one as ``model/``, or ``hf://OWNER/NAME[@REVISION]``, which is
            downloaded from the Hugging Face Hub (extra ``hub``).
        device: where to put the weights.

    Returns:
        The model in evaluation mode.

    Raises:
        ArtifactError: the folder is damaged, of an unknown format or model, or its tensors are not the model's.
        ConfigError: the device is not there.
    """
    folder = hub.fetch(path) if hub.is_address(path) else model_folder(path)
    manifest = verify(folder)
    _check_device(device)
    cls = model_class(manifest.model)
    hyperparameters, schema = _read_config(folder / "config.json", cls)
    weights = folder / "model.safetensors"
    with torch.device("meta"):
        try:
            model = cls(**hyperparameters)
        except (ConfigError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ArtifactError(f"{folder / 'config.json'}: {error}") from error
    if not model.is_built:
        raise ArtifactError(f"{folder / 'config.json'}: the sizes {list(cls.sizes_from_data)} are missing.")
    _check_tensors(weights, model)
    try:
        model.load_state_dict(load_file(weights, device=str(device)), assign=True)
        model.to(device)  # buffers that are not saved were made on the processor
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{weights} is damaged: {error}. Get a fresh copy.") from error
    model.schema = schema
    model.data_fingerprint = manifest.data
    return model.eval()


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"the device '{device}' cannot be used here: {first}. Use 'cpu'.") from error


def model_folder(path: str | Path) -> Path:
    """The model folder at ``path``: itself, ``model/`` inside a run folder, or the copy of one on the Hub."""
    if hub.is_address(path):
        return hub.fetched(path)
    path = Path(path)
    inside = path / "model"
    return inside if not (path / "manifest.json").exists() and inside.is_dir() else path


def _read_config(path: Path, cls: type[LatentModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads(read_small(path))
        hyperparameters, schema = config["hyperparameters"], config["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: {error!r}. Get a fresh copy.") from error
    if not isinstance(hyperparameters, dict) or not isinstance(schema, dict):
        raise ArtifactError(f"{path}: 'hyperparameters' and 'schema' must be objects.")
    for name in config.keys() - {"hyperparameters", "schema"}:
        raise ArtifactError(f"{path}: unknown entry '{name}'; expected 'hyperparameters' and 'schema' only.")
    known = inspect.signature(cls).parameters
    for name, value in hyperparameters.items():
        if name not in known:
            raise ArtifactError(f"{path}: unknown hyperparameter '{name}'. {did_you_mean(name, known)}")
        size = len(value) if isinstance(value, list | dict | str) else 0
        if size > _MAX_ENTRIES:
            raise ArtifactError(f"{path}: hyperparameter '{name}' has {size:,} entries; a real one has a few.")
    return hyperparameters, schema


def _check_tensors(path: Path, model: LatentModel) -> None:
    """Compare names, shapes and kinds in the file's header with the model's, before reading any."""
    expected: dict[str, Tensor] = model.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            found = {
                name: (tuple(file.get_slice(name).get_shape()), file.get_slice(name).get_dtype())
                for name in file.offset_keys()
            }
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Get a fresh copy.") from error
    for name in expected.keys() - found.keys():
        raise ArtifactError(f"{path}: the tensor '{name}' is missing.")
    for name in found.keys() - expected.keys():
        raise ArtifactError(f"{path}: the tensor '{name}' is not part of this model.")
    for name, tensor in expected.items():
        shape, _ = found[name]
        if shape != tuple(tensor.shape):
            raise ArtifactError(f"{path}: '{name}' has shape {shape}, the configuration says {tuple(tensor.shape)}.")
    _check_types(path, expected, {name: dtype for name, (_, dtype) in found.items()})


def _check_types(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, str]) -> None:
    """A model trained in another precision than float32 has all of its weights in that one, never a mixture."""
    weights = [found[name] for name, tensor in expected.items() if tensor.dtype == torch.float32]
    precision = max(_PRECISIONS, key=weights.count)
    for name, tensor in expected.items():
        if tensor.dtype == torch.float32:
            accepted = (precision,)
        elif tensor.is_floating_point():
            accepted = _PRECISIONS
        else:
            accepted = (_EXACT[tensor.dtype],)
        if found[name] not in accepted:
            raise ArtifactError(f"{path}: '{name}' is of type {found[name]}, expected {' or '.join(accepted)}.")
