"""Frames as they are stored, and as a data set holds them: channels first, perhaps smaller, perhaps grey."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.errors import ConfigError, DataError
from noumena.readers.checks import check_dtype

Channels = Literal["first", "last", "none"]
# Numbers of channels by which an axis is taken for theirs: grey, two layers, RGB, RGBA.
_USUAL_CHANNELS = (1, 2, 3, 4)
# Luma of ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Pictures:
    """How stored frames become those of the data set.

    Attributes:
        channels: where the stored frames have the axis of channels.
        stored: shape of a stored frame.
        gray: whether colours are averaged to their luma.
        size: height and width to bring frames to.
    """

    channels: Channels
    stored: tuple[int, ...]
    gray: bool
    size: tuple[int, int]

    @property
    def frame(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame of the data set."""
        return (1 if self.gray else _channels_first(self.stored, self.channels)[0], *self.size)

    def __call__(self, block: np.ndarray) -> Tensor:
        """Stored frames (n, ...) as a tensor (n, channels, height, width): uint8 stays uint8, floats become float32."""
        whole = np.ascontiguousarray(block, np.uint8 if block.dtype == np.uint8 else np.float32)
        plain = torch.from_numpy(whole if whole.flags.writeable else whole.copy())
        frames = plain.reshape(len(plain), *self.stored)
        if self.channels == "none":
            frames = frames[:, None]
        elif self.channels == "last":
            frames = frames.permute(0, 3, 1, 2)
        changed = frames
        if self.gray and frames.shape[1] != 1:
            changed = torch.einsum("nchw,c->nhw", changed[:, :3].float(), torch.tensor(_LUMA))[:, None]
        if self.size != tuple(frames.shape[2:]):
            changed = functional.interpolate(changed.float(), self.size, mode="bilinear", antialias=True)
        if changed.dtype != plain.dtype:
            changed = changed.round().clamp(0, 255).to(plain.dtype)
        return changed.contiguous()


def pictures_of(
    stored: tuple[int, ...],
    dtype: np.dtype,
    where: str,
    *,
    channels: Channels | None,
    size: int | Sequence[int] | None,
    gray: bool,
) -> Pictures:
    """How to read frames of a shape and type.

    Args:
        stored: shape of one frame as stored.
        dtype: its type: uint8 or float.
        where: the array, for messages.
        channels: which axis of a stored frame is that of the channels; ``None`` where its length tells.
        size: side of a square, or height and width; ``None`` keeps those of the frames.
        gray: make colours grey.

    Raises:
        ConfigError: an option is out of range or does not fit the frames.
        DataError: the frames are no pictures, of another type, or it cannot be told where their channels are.
    """
    check_dtype(dtype, where)
    if dtype != np.uint8 and dtype.kind != "f":
        raise DataError(f"{where}: expected frames of type uint8 (0 to 255) or float, found {dtype}. Convert them.")
    axis = _axis(stored, where, channels)
    count, height, width = _channels_first(stored, axis)
    if gray and count not in (1, 3, 4):
        raise ConfigError(f"data.gray: {where} has {count} channels, which are no colours. Leave out gray.")
    if min(count, height, width) < 1:
        raise DataError(f"{where}: frames of shape {stored} hold no pixels. Check how they were made.")
    return Pictures(axis, stored, gray, _sides(size) or (height, width))


def _axis(stored: tuple[int, ...], where: str, said: Channels | None) -> Channels:
    if said is not None:
        if said not in get_args(Channels) or len(stored) != (2 if said == "none" else 3):
            raise ConfigError(
                f"data.channels={said!r}: {where} has frames of shape {stored}. Expected 'first' or 'last' for three "
                "axes, 'none' for two."
            )
        return said
    if len(stored) == 2:
        return "none"
    if len(stored) != 3:
        raise DataError(
            f"{where}: expected frames of shape (height, width), (height, width, channels) or (channels, height, "
            f"width), found {stored}. Reshape them or name another array with frames=..."
        )
    first, last = stored[0] in _USUAL_CHANNELS, stored[2] in _USUAL_CHANNELS
    if first == last:
        found = "both the first and the last axis could be" if first else "neither the first nor the last axis can be"
        raise DataError(
            f"{where}: in a frame of shape {stored}, {found} that of 1 to 4 channels. Say channels='first' or 'last', "
            "or give grey frames an axis of one channel."
        )
    return "first" if first else "last"


def _channels_first(stored: tuple[int, ...], axis: Channels) -> tuple[int, int, int]:
    if axis == "none":
        return (1, stored[0], stored[1])
    return (stored[0], stored[1], stored[2]) if axis == "first" else (stored[2], stored[0], stored[1])


def _sides(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(f"data.size: expected pixels of a side, or [height, width], got {size}.")
    return sides[0], sides[1]
