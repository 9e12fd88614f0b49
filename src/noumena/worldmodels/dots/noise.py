"""Noise over the frames: drawn pixel by pixel or cut from photographs, fixed within a sequence or new in each frame."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.worldmodels.dots.randomness import advanced, folded, random_index, uniform
from noumena.worldmodels.dots.world import DotWorld, render

Kind = Literal["uniform", "structured"]

# What the streams of a sequence's random numbers are for.
WALK, FIXED, CHANGING = range(3)

_LARGEST_LEVEL = 1e6


@dataclass(frozen=True)
class Overlays:
    """The noise of a world. Levels are in units of the brightness of a dot's centre.

    Attributes:
        kind: ``uniform``, each pixel between 0 and the level; or ``structured``, grey photographs, black 0 and white
            the level.
        fixed: level of the overlay that a sequence keeps for all its frames.
        changing: level of the overlay that each frame has anew.
        drift: pixels per frame, along x and y, by which the fixed overlay has rolled on cyclically; frame ``i`` is
            rolled by ``i * drift``, cut off to whole pixels.

    Raises:
        ConfigError: a value is out of range.
    """

    kind: Kind = "uniform"
    fixed: float = 0.0
    changing: float = 0.0
    drift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"data.noise: unknown '{self.kind}'. {did_you_mean(str(self.kind), get_args(Kind))}")
        for name in ("fixed", "changing"):
            if not 0.0 <= getattr(self, name) <= _LARGEST_LEVEL:
                raise ConfigError(
                    f"data.{name}: expected a level from 0 to {_LARGEST_LEVEL:g}, got {getattr(self, name)}."
                )

    @property
    def needs_images(self) -> bool:
        """Whether any of it is cut from photographs."""
        return self.kind == "structured" and (self.fixed > 0 or self.changing > 0)

    def to_json(self) -> dict[str, Any]:
        """The attributes by the names of the options."""
        return {"noise": self.kind, "fixed": self.fixed, "changing": self.changing, "drift": list(self.drift)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Overlays":
        """The overlays that :meth:`to_json` describes; further keys are not looked at.

        Raises:
            DataError: a value is missing.
            ConfigError: a value is out of range.
        """
        if missing := [name for name in ("noise", "fixed", "changing", "drift") if name not in values]:
            raise DataError(f"world: expected the noise's values; missing: {', '.join(missing)}.")
        return cls(values["noise"], values["fixed"], values["changing"], both_axes(values["drift"]))


def both_axes(drift: float | Sequence[float]) -> tuple[float, float]:
    """A drift along x, or along x and y.

    Raises:
        ConfigError: it is neither one finite number nor two.
    """
    values = [drift, 0.0] if isinstance(drift, int | float) else list(drift)
    if len(values) != 2 or not all(math.isfinite(value) for value in values):
        raise ConfigError(f"data.drift: expected pixels per frame along x, or [along x, along y], got {drift}.")
    return float(values[0]), float(values[1])


@dataclass(frozen=True)
class Scene:
    """A world and its noise: makes the frames of dots at given positions.

    Attributes:
        world: the square and its dots.
        overlays: the noise.
        images: grey photographs, uint8, shape (images, size * size); none where no noise is made of them.
    """

    world: DotWorld
    overlays: Overlays
    images: Tensor | None = None

    def __post_init__(self) -> None:
        if self.overlays.needs_images and self.images is None:
            raise ConfigError("data.noise: structured noise needs images. Give their source as data.images.")

    def to(self, device: torch.device | str) -> "Scene":
        """The same, its photographs on ``device``."""
        return self if self.images is None else replace(self, images=self.images.to(device))

    def frames(self, positions: Tensor, keys: Tensor, *, first: int | Tensor = 0) -> Tensor:
        """Frames with noise.

        Each dot has overlays of its own, in its channel or, where all dots share one, summed. The frame of a time step
        is the same whether it is asked for by itself or with others.

        Args:
            positions: shape (batch, time, dots, 2), float32, in pixels.
            keys: of the sequences, int64, shape (batch,); whose noise is a function of them and of the time step.
            first: time step of the first frame; one for all or int64 of shape (batch,).

        Returns:
            float32, shape (batch, time, channels, size, size), in units of the brightness of a dot's centre.
        """
        background = self._background(keys, positions.shape[1], first)
        overwrite = background is not None and background.shape[1] == positions.shape[1]
        return render(self.world, positions, background, overwrite=overwrite)

    def _background(self, keys: Tensor, steps: int, first: int | Tensor) -> Tensor | None:
        """All noise, shape (batch, time or 1, channels, size, size); an overlay of level 0 is never computed."""
        fixed, changing = self.overlays.fixed, self.overlays.changing
        total = None
        if changing > 0:
            total = self._in_channels(self._draw(folded(keys, CHANGING), steps, first, changing))
        if fixed > 0:
            overlay = self._in_channels(self._draw(folded(keys, FIXED), 1, 0, fixed))
            if any(self.overlays.drift):
                overlay = rolled(overlay, self.overlays.drift, steps, first)
            total = overlay if total is None else total.add_(overlay)
        return total

    def _draw(self, keys: Tensor, steps: int, first: int | Tensor, level: float) -> Tensor:
        """Overlays of shape (batch, steps, dots, size, size), those of time ``first`` and of the steps after it."""
        dots, size = self.world.count, self.world.size
        if self.overlays.kind == "structured":
            assert self.images is not None
            index = random_index(advanced(keys, first * dots), steps * dots, len(self.images))
            overlay = self.images.index_select(0, index.flatten()).float().mul_(level / 255)
            return overlay.view(len(keys), steps, dots, size, size)
        pixels = dots * size * size
        # Two pixels from a word; an odd frame leaves half a word out, so that each begins with a word of its own.
        even = pixels + pixels % 2
        overlay = uniform(advanced(keys, first * (even // 2)), steps * even).mul_(level)
        return overlay.view(len(keys), steps, even)[..., :pixels].unflatten(2, (dots, size, size))

    def _in_channels(self, overlays: Tensor) -> Tensor:
        return overlays.sum(2, keepdim=True) if self.world.channels < self.world.count else overlays


def rolled(overlay: Tensor, drift: tuple[float, float], steps: int, first: int | Tensor) -> Tensor:
    """A picture that moves on from frame to frame and comes in again on the other side.

    Args:
        overlay: shape (batch, 1, channels, height, width).
        drift: pixels per frame, along x and y.
        steps: frames.
        first: time step of the first frame; one for all or of shape (batch,).

    Returns:
        Shape (batch, steps, channels, height, width).
    """
    batch, _, channels, height, width = overlay.shape
    start = first.cpu() if isinstance(first, Tensor) else torch.tensor([first])
    times = (start[:, None] + torch.arange(steps)).double()  # (batch or 1, steps)
    shifts = torch.stack([times * drift[0], times * drift[1]]).long()  # cut off towards zero
    along_x, along_y = shifts.to(overlay.device).expand(2, batch, steps)[..., None].unbind()
    columns = (torch.arange(width, device=overlay.device) - along_x) % width  # (batch, steps, width)
    rows = (torch.arange(height, device=overlay.device) - along_y) % height
    index = (rows[..., None] * width + columns[..., None, :]).view(batch, steps, 1, height * width)
    flat = overlay.flatten(3).expand(batch, steps, channels, height * width)
    return flat.gather(3, index.expand(batch, steps, channels, height * width)).unflatten(3, (height, width))
