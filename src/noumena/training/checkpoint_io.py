"""Checkpoints as safetensors: tensors in the body, everything else as JSON in the header. Nothing is unpickled."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from noumena.core.errors import ArtifactError
from noumena.files import cannot_write, replacing

_FORMAT = "noumena-checkpoint-1"


class SafeCheckpointIO(CheckpointIO):
    """Writes Lightning's checkpoint dictionary to one safetensors file, beside and then renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all.

        Raises:
            ArtifactError: the place cannot be written; the previous file is untouched.
        """
        tensors: dict[str, Tensor] = {}
        tree = json.dumps(_pack(checkpoint, tensors))
        with replacing(path) as beside:
            try:
                metadata = {"format": _FORMAT, "tree": tree, "sha256": _digest(tree, tensors)}
                save_file(tensors, beside, metadata=metadata)
            except SafetensorError as error:
                raise cannot_write(path, OSError(str(error))) from error

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read what :meth:`save_checkpoint` wrote, onto the CPU.

        Raises:
            ArtifactError: the file is missing, damaged or of another kind.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ArtifactError(f"{path} is not a checkpoint of this version (expected {_FORMAT}).")
                tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
                if metadata["sha256"] != _digest(metadata["tree"], tensors):
                    raise ValueError("its content does not match its hash")
                return _unpack(json.loads(metadata["tree"]), tensors)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ArtifactError(f"cannot read the checkpoint {path}: {error}. Start the run anew.") from error

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy, because safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"t": name}
    if isinstance(value, dict):
        return {"d": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"l" if isinstance(value, list) else "u": [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArtifactError(f"a checkpoint holds tensors, numbers, strings and containers of them, not {type(value)}.")


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    """Hash of everything a checkpoint holds; a CPU takes a second per gigabyte."""
    digest = hashlib.sha256(tree.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "t":
        return tensors[content]
    if kind == "d":
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "l" else tuple(items)
