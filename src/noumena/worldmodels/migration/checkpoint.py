"""Checkpoints of the study's code: read without running any of it, and named as this library names its layers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor

from noumena.core.errors import ArtifactError

# The one function that the optimiser's state names.
_FUNCTION = "lars.exclude_bias_and_norm"
_CONVOLUTIONS, _NORMS = (0, 3, 6), (2, 5, 8)
_AFFINE = ("weight", "bias")
_NORM = (*_AFFINE, "running_mean", "running_var", "num_batches_tracked")
_GRU = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_HEAD = "action_predictor.model"
_GRID = 9  # 3 x 3 values per channel are left of 28 x 28 pixels
_FIRST_CHANNELS = 16
_ACTION = 2
_TAKEN = "VICReg, SimCLR and IDM with the encoder menet5 and the predictor rnn or id are taken over."


def _inert(*_: object) -> None:
    """Stands where the checkpoint names a function; nothing calls it, and it does nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint, whose names and shapes have been looked at.

    Attributes:
        path: where it was.
        tensors: by the study's names, float32 or, for counters, int64.
        encoder: what stands before the names of the encoder's layers.
        mlp, projector: names of the layers behind the encoder and of the projector's, in order.
        layers: of the GRU; 0 without one.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    encoder: str
    mlp: tuple[str, ...]
    projector: tuple[str, ...]
    layers: int

    @property
    def channels(self) -> int:
        """Channels of a frame."""
        return self.tensors[f"{self.encoder}layer1.0.weight"].shape[1]

    @property
    def action_dim(self) -> int:
        """Numbers of an action; those of a dot where no layer takes any."""
        return self.tensors["predictor.rnn.weight_ih_l0"].shape[1] if self.layers else _ACTION

    @property
    def has_inverse(self) -> bool:
        """Whether there is a head that reads actions."""
        return any(name.startswith(f"{_HEAD}.") for name in self.tensors)

    def sizes(self) -> dict[str, Any]:
        """Hyperparameters that the tensors tell."""
        weight = self.tensors[f"{self.encoder}layer1.0.weight"]
        return {
            "encoder": "menet5",
            "width": weight.shape[0] // _FIRST_CHANNELS,
            "latent_dim": self.tensors[f"{self.encoder}fc.weight"].shape[0],
            "backbone_mlp": self._widths(self.mlp),
            "projector": self._widths(self.projector),
            "predictor": "gru" if self.layers else "none",
            **({"predictor_layers": self.layers} if self.layers else {}),
        }

    def _widths(self, layers: tuple[str, ...]) -> list[int]:
        return [self.tensors[f"{layer}.weight"].shape[0] for layer in layers[::2]]

    def networks(self, *, with_inverse: bool) -> dict[str, Tensor]:
        """The tensors by the names of :class:`~noumena.worldmodels.jepa.JEPA`."""
        ours = {f"{self.encoder}fc": "backbone.encoder.head"}
        ours |= {f"{self.encoder}layer1.{i}": f"backbone.encoder.convolutions.{i}" for i in (*_CONVOLUTIONS, *_NORMS)}
        # Here a rectifier, which has no tensors, stands behind each pair of linear layer and batch norm.
        for layers, name in ((self.mlp, "backbone.mlp"), (self.projector, "projection")):
            ours |= {layer: f"{name}.{i // 2 * 3 + i % 2}" for i, layer in enumerate(layers)}
        if with_inverse:
            ours[_HEAD] = "inverse.linear"
        ours["predictor.rnn"] = "dynamics.rnn"
        parts = {name: name.rpartition(".") for name in self.tensors}
        return {
            f"{ours[layer]}.{part}": self.tensors[name] for name, (layer, _, part) in parts.items() if layer in ours
        }


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of the model in a checkpoint.

    Raises:
        ArtifactError: no such file, no checkpoint of the study, or one that names other code.
    """
    tensors = _tensors(path)
    first = [name for name in tensors if re.fullmatch(r"backbone\.(\d+\.)?layer1\.0\.weight", name)]
    if len(first) != 1:
        raise ArtifactError(
            f"{path}: expected the encoder menet5 of the study (backbone.layer1.0.weight), found {_some(tensors)}. "
            f"{_TAKEN}"
        )
    encoder = first[0].removesuffix("layer1.0.weight")
    own = {name for name in tensors if name.startswith((f"{encoder}layer1.", f"{encoder}fc."))}
    rest = [name for name in tensors if name not in own]
    layers = sum(bool(re.fullmatch(r"predictor\.rnn\.weight_ih_l\d+", name)) for name in tensors)
    found = Checkpoint(
        path,
        tensors,
        encoder,
        _layers(name for name in rest if name.startswith("backbone.")),
        _layers(name for name in rest if name.startswith("projector.")),
        layers,
    )
    _check_names(found)
    _check_shapes(found)
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        found = "is a folder; name the .ckpt file in it" if path.is_dir() else "there is no such file; check the path"
        raise ArtifactError(f"{path}: {found}.")
    with torch.serialization.safe_globals([(_inert, _FUNCTION)]):
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if named:
                raise ArtifactError(
                    f"{path}: names {', '.join(sorted(map(str, named)))}, code that a checkpoint of the study does not "
                    "name. It was not loaded; take it only from whom you trust, and save its model_state_dict alone."
                )
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError) as error:
            first = str(error).partition("\n")[0]
            raise ArtifactError(f"{path}: is no checkpoint of PyTorch, or damaged: {first}") from error
    state: Any = cast("Mapping[str, Any]", found).get("model_state_dict") if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping):
        raise ArtifactError(f"{path}: expected model_state_dict and optimizer_state_dict, as the study's code writes.")
    tensors = cast("Mapping[Any, Any]", state)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ArtifactError(f"{path}: '{name}' is no tensor, but a {type(tensor).__name__}.")
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: '{name}' is not finite throughout. The training had diverged.")
    # A prefix of distributed training says nothing.
    return {
        str(name).removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _layers(names: Iterable[str]) -> tuple[str, ...]:
    """Names of layers in the order of their tensors."""
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _check_names(found: Checkpoint) -> None:
    """Every tensor is known and every layer has all of its own."""
    expected = {f"{found.encoder}layer1.{i}.{part}" for i in _CONVOLUTIONS for part in _AFFINE}
    expected |= {f"{found.encoder}layer1.{i}.{part}" for i in _NORMS for part in _NORM}
    expected |= {f"{found.encoder}fc.{part}" for part in _AFFINE}
    if found.has_inverse:
        expected |= {f"{_HEAD}.{part}" for part in _AFFINE}
    expected |= {f"predictor.rnn.{part}_l{i}" for i in range(found.layers) for part in _GRU}
    for layers in (found.mlp, found.projector):
        for i, layer in enumerate(layers):
            last = i == len(layers) - 1
            parts = _NORM if i % 2 else ("weight",) if last else _AFFINE
            expected |= {f"{layer}.{part}" for part in parts}
    missing, further = sorted(expected - found.tensors.keys()), sorted(found.tensors.keys() - expected)
    if missing or further:
        wrong = f"'{missing[0]}' is missing" if missing else f"'{further[0]}' is unknown"
        raise ArtifactError(f"{found.path}: {wrong}. {_TAKEN}")


def _check_shapes(found: Checkpoint) -> None:
    """Shapes agree with each other and with frames of 28 x 28 pixels."""
    one = found.tensors[f"{found.encoder}layer1.0.weight"]
    head = found.tensors[f"{found.encoder}fc.weight"]
    if one.ndim != 4 or head.ndim != 2 or one.shape[0] % _FIRST_CHANNELS or one.shape[0] == 0:
        raise ArtifactError(f"{found.path}: the encoder's weights have shapes {_shape(one)} and {_shape(head)}.")
    if head.shape[1] != 2 * one.shape[0] * _GRID:
        raise ArtifactError(
            f"{found.path}: the encoder's last layer takes {head.shape[1]} values, expected {2 * one.shape[0] * _GRID} "
            "for frames of 28 x 28 pixels."
        )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _some(tensors: Mapping[str, Tensor]) -> str:
    names = list(tensors)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "no tensors"
