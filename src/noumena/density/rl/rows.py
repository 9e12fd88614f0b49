"""Transitions as the rows that a model was trained on: which parts, in which order, how wide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.density.detector import Detector

Part = Literal["observation", "action", "next_observation"]

_PREFIX: Mapping[str, str] = {"observation": "obs_", "action": "action_", "next_observation": "next_obs_"}
_ROWS: Mapping[str, tuple[Part, ...]] = {
    "observation+action": ("observation", "action"),
    "next_observation+action": ("next_observation", "action"),
    "observation": ("observation",),
    "transition": ("observation", "action", "next_observation"),
}
_DEFAULT: tuple[Part, ...] = ("next_observation", "action")
# How the arguments of a call are named.
_ARGUMENTS: Mapping[str, str] = {"observation": "obs", "action": "action", "next_observation": "next_obs"}


@dataclass(frozen=True)
class Layout:
    """What a row is made of.

    Attributes:
        parts: in the order of the columns.
        widths: columns of each part; empty when the model does not know them.
        columns: of the whole row.
    """

    parts: tuple[Part, ...]
    widths: Mapping[str, int]
    columns: int

    def __str__(self) -> str:
        known = [f"{part} ({self.widths[part]})" if self.widths else part for part in self.parts]
        return f"{' + '.join(known)}, {self.columns} columns"


def layout_of(model: Detector, on: Sequence[Part] | None) -> Layout:
    """The rows of a trained model.

    Args:
        model: knows what it was trained on where that were episodes.
        on: the parts in order; by default what the model knows, else the next observation and the action.

    Raises:
        ConfigError: ``on`` is unknown, or not what the model was trained on.
    """
    if on is not None and not on:
        raise ConfigError("on=(): expected at least one part of a transition.")
    for part in on or ():
        if part not in get_args(Part):
            raise ConfigError(f"on={tuple(on or ())}: unknown '{part}'. {did_you_mean(part, get_args(Part))}")
    trained = _ROWS.get(str(model.schema.get("row")))
    if trained is not None and on is not None and tuple(on) != trained:
        raise ConfigError(
            f"on={tuple(on)}: the model was trained on {trained}, in this order. Leave `on` out, or train one with "
            "another data.row."
        )
    parts = trained or (_DEFAULT if on is None else tuple(on))
    columns = [str(name) for name in model.schema.get("columns", ())]
    widths = {part: sum(name.startswith(_PREFIX[part]) for name in columns) for part in parts}
    assert model.input_dim is not None
    if sum(widths.values()) != model.input_dim or not all(widths.values()):
        widths = {}
    return Layout(parts, widths, model.input_dim)


@dataclass(frozen=True)
class Rows:
    """Transitions as one matrix, and how to give values back as they came.

    Attributes:
        values: shape (rows, columns), floating.
        lead: leading axes of the arrays that were given.
        numpy: the type of numpy results; ``None`` for tensors.
    """

    values: Tensor
    lead: tuple[int, ...]
    numpy: np.dtype[Any] | None

    def like_input(self, found: Tensor) -> Any:
        """One value per row, float64 of shape (rows,), as an array or a tensor of the input's leading axes and type."""
        if self.numpy is None:
            return found.to(self.values.device, self.values.dtype).reshape(self.lead)
        return found.detach().cpu().numpy().astype(self.numpy).reshape(self.lead)


def joined(layout: Layout, next_obs: Any, action: Any, obs: Any) -> Rows:
    """The parts side by side in the order of the model.

    Args:
        layout: of the model.
        next_obs, action, obs: each of shape (..., width) with the same leading axes, all arrays or all tensors; or
            whole rows (..., columns) as the first alone.

    Raises:
        DataError: a part is missing or not as wide as in training, or they do not fit together.
    """
    given = {"next_observation": next_obs, "action": action, "observation": obs}
    if action is None and obs is None and next_obs is not None:
        return _rows([next_obs], ["the rows"], [layout.columns], layout)
    if missing := [part for part in layout.parts if given[part] is None]:
        raise DataError(f"the model needs {layout}; {_ARGUMENTS[missing[0]]} is missing. Pass it, or whole rows.")
    names = [_ARGUMENTS[part] for part in layout.parts]
    return _rows([given[part] for part in layout.parts], names, [layout.widths.get(p) for p in layout.parts], layout)


def _rows(arrays: Sequence[Any], names: Sequence[str], widths: Sequence[int | None], layout: Layout) -> Rows:
    are_tensors = [isinstance(array, Tensor) for array in arrays]
    if any(are_tensors) and not all(are_tensors):
        raise DataError(f"{' and '.join(names)}: expected all numpy arrays or all torch tensors, found both.")
    numpy = None if are_tensors[0] else _numpy_type(arrays)
    tensors = [_tensor(array, name) for array, name in zip(arrays, names, strict=True)]
    lead = tuple(tensors[0].shape[:-1])
    for tensor, name, width in zip(tensors, names, widths, strict=True):
        _check(tensor, name, width, lead, names[0], layout)
    if len({tensor.device for tensor in tensors}) > 1:
        found = ", ".join(f"{name} on {tensor.device}" for name, tensor in zip(names, tensors, strict=True))
        raise DataError(f"expected tensors of one device, found {found}. Move them.")
    values = torch.cat([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors], dim=-1)
    if values.shape[1] != layout.columns:
        raise DataError(f"the model needs {layout}; {' and '.join(names)} have {values.shape[1]} together.")
    return Rows(values if values.is_floating_point() else values.double(), lead, numpy)


def _check(tensor: Tensor, name: str, width: int | None, lead: tuple[int, ...], first: str, layout: Layout) -> None:
    if tensor.ndim == 0 or (width is not None and tensor.shape[-1] != width):
        raise DataError(
            f"{name}: expected shape (..., {width or 'width'}), found {tuple(tensor.shape)}. The model needs {layout}."
        )
    if tuple(tensor.shape[:-1]) != lead:
        raise DataError(
            f"{name}: expected the leading axes {lead} of {first}, found shape {tuple(tensor.shape)}. One value per "
            "transition still has an axis of its own: use x[..., None]."
        )


def _numpy_type(arrays: Sequence[Any]) -> np.dtype[Any]:
    kind = np.result_type(*(np.asarray(array).dtype for array in arrays))
    return kind if kind.kind == "f" else np.dtype(np.float64)


def _tensor(array: Any, name: str) -> Tensor:
    if isinstance(array, Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected numbers, found {values.dtype}.")
    # float64 so that a number beyond float32 is told from an infinity.
    return torch.from_numpy(np.array(values, dtype=np.float32 if values.dtype == np.float32 else np.float64))
