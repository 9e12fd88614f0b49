"""When a model's doors record gradients: in training, and where an input asks for them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_DEPTH = 3  # a dataset, the batch in it, the tensors in that


def asks_for_gradients(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a tensor requires gradients, or one among the values of a mapping, a list, a tuple or an object's
    attributes (those of a batch, or of a dataset that holds one).
    """
    if isinstance(value, Tensor):
        return value.requires_grad
    if depth == 0 or isinstance(value, nn.Module | str | bytes):
        return False
    if isinstance(value, list | tuple):
        # Not further down: such a list may hold a million names or structures.
        return any(isinstance(entry, Tensor) and entry.requires_grad for entry in cast("Sequence[Any]", value))
    return any(asks_for_gradients(entry, depth - 1) for entry in _held(value))


def _held(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from cast("Mapping[Any, Any]", value).values()
        return
    yield from getattr(value, "__dict__", {}).values()
    slots = getattr(type(value), "__slots__", ())
    yield from (getattr(value, name, None) for name in ([slots] if isinstance(slots, str) else slots))


def without_needless_gradients(door: Callable[..., Any]) -> Callable[..., Any]:
    """A model's method that, in evaluation mode, records gradients only if an argument asks for them.

    Results are then plain numbers (``.numpy()`` works, nothing is kept for a backward pass), unless the caller
    differentiates by an input. In training mode the method is as it was, so that weights get their gradients.
    """

    @functools.wraps(door)
    def called(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        recording = torch.is_grad_enabled() and not model.training
        if not recording or any(map(asks_for_gradients, (*args, *kwargs.values()))):
            return door(model, *args, **kwargs)
        with torch.no_grad():
            return door(model, *args, **kwargs)

    return called
