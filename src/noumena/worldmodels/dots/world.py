"""A square in which dots walk: how they move, and how a frame shows them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, did_you_mean
from noumena.worldmodels.dots.randomness import uniform, von_mises
from noumena.worldmodels.sequences import from_values

Arrangement = Literal["single", "multiple"]

_WALKERS = {"single": 1, "multiple": 2}
_NAMES = {"single": ("dot",), "multiple": ("dot1", "dot2", "dot3")}
_LARGEST_SIZE = 1024
_LARGEST_KAPPA = 1e4


@dataclass(frozen=True)
class DotWorld:
    """What does not change from sequence to sequence.

    Positions are (x, y) in pixels, x to the right (column), y down (row); the centre of the first pixel is (0, 0). A
    dot keeps a distance of two deviations from the border.

    Attributes:
        dots: one dot; or three, of which the actions of the first are known, the second walks by itself, and the third
            stays where it is.
        channels: 1, all dots in one picture; or 3, one dot in each.
        size: height and width of a frame, in pixels.
        dot_std: deviation of the Gaussian that a dot is drawn as, in pixels.
        max_step: most pixels a dot walks in one step.
        kappa: concentration of the steps' directions about the heading of their sequence (von Mises).

    Raises:
        ConfigError: a value is out of range, or leaves the dots no room.
    """

    dots: Arrangement = "single"
    channels: int = 1
    size: int = 28
    dot_std: float = 1.3
    max_step: float = 4.0
    kappa: float = 0.2

    def __post_init__(self) -> None:
        if self.dots not in _NAMES:
            raise ConfigError(f"data.dots: unknown '{self.dots}'. {did_you_mean(self.dots, get_args(Arrangement))}")
        if self.channels not in (1, self.count):
            raise ConfigError(f"data.channels: expected 1 or {self.count} with {self.count} dots, got {self.channels}.")
        if not 1 <= self.size <= _LARGEST_SIZE:
            raise ConfigError(f"data.size: expected 1 to {_LARGEST_SIZE} pixels, got {self.size}.")
        for name in ("dot_std", "max_step"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"data.{name}: expected pixels above 0, got {getattr(self, name)}.")
        if not 0.0 <= self.kappa <= _LARGEST_KAPPA:
            raise ConfigError(f"data.kappa: expected 0 to {_LARGEST_KAPPA:g}, got {self.kappa}.")
        if self.high <= self.low:
            raise ConfigError(
                f"data.dot_std: a dot keeps {self.padding:g} px from each border, which leaves no room in frames of "
                f"{self.size} px. Take a smaller dot_std, or a larger size."
            )

    @property
    def count(self) -> int:
        """Number of dots."""
        return len(_NAMES[self.dots])

    @property
    def walkers(self) -> int:
        """How many of the dots, the first ones, walk."""
        return _WALKERS[self.dots]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dots."""
        return _NAMES[self.dots]

    @property
    def padding(self) -> float:
        """Least distance of a dot from the centres of the outermost pixels."""
        return 2 * self.dot_std

    @property
    def low(self) -> float:
        """Least coordinate of a dot."""
        return self.padding

    @property
    def high(self) -> float:
        """Largest coordinate of a dot."""
        return self.size - 1 - self.padding

    @property
    def frame(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame."""
        return self.channels, self.size, self.size

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DotWorld":
        """The world that :meth:`to_json` describes; further keys are not looked at.

        Raises:
            DataError: a value is missing.
            ConfigError: a value is out of range.
        """
        return from_values(cls, values)


def move(world: DotWorld, positions: Tensor, steps: Tensor) -> Tensor:
    """Positions after a step, each coordinate kept within the square.

    Args:
        world: the square.
        positions, steps: in pixels, shapes (..., 2) that broadcast.

    Returns:
        Shape (..., 2).
    """
    return (positions + steps).clamp_(world.low, world.high)


def profiles(world: DotWorld, positions: Tensor) -> tuple[Tensor, Tensor]:
    """A dot's brightness along x and along y, whose outer product is its picture.

    Args:
        world: size of the frames and of the dots.
        positions: in pixels, shape (..., 2).

    Returns:
        Along x and along y, each of shape (..., size), 1 at the dot's centre.
    """
    pixels = torch.arange(world.size, device=positions.device, dtype=positions.dtype)
    offsets = (pixels - positions[..., None]).mul_(math.sqrt(0.5) / world.dot_std)
    along = (offsets * offsets).neg_().exp_()
    return along[..., 0, :], along[..., 1, :]


def render(world: DotWorld, positions: Tensor, background: Tensor | None = None, *, overwrite: bool = False) -> Tensor:
    """Frames of dots, in units of the brightness at the centre of a dot.

    exp(-((x - px)^2 + (y - py)^2) / (2 std^2)) is a product of two factors, so that two rows of exponentials give the
    whole picture.

    Args:
        world: size of frames and dots, and the channels.
        positions: shape (..., dots, 2), in pixels.
        background: what the dots are drawn upon, of a shape that broadcasts to the result's.
        overwrite: draw into the background, which has the result's shape.

    Returns:
        Shape (..., channels, size, size).
    """
    x, y = profiles(world, positions)
    if world.channels < world.count:
        # All dots in one channel: (..., size, dots) times (..., dots, size).
        dots = (y.mT @ x).unsqueeze(-3)
        return dots if background is None else dots.add_(background)
    x, y = x[..., None, :], y[..., :, None]
    if background is None:
        return y * x
    return background.addcmul_(y, x) if overwrite else torch.addcmul(background, y, x)


def walk(world: DotWorld, keys: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Random walks: a start anywhere, a heading, directions about it, and lengths up to ``max_step``.

    A longer walk of the same key begins like a shorter one.

    Args:
        world: the square and its dots.
        keys: of the sequences' walks, int64, shape (batch,).
        steps: frames of a sequence; there is one action fewer.

    Returns:
        Positions, shape (batch, steps, dots, 2), and the steps that the walkers were told to take, before borders
        shortened them, shape (batch, steps - 1, walkers, 2); float32, in pixels.
    """
    dots, walkers, moves = world.count, world.walkers, steps - 1
    parts = [2 * dots, walkers, moves * walkers * 2]
    starts, headings, draws = uniform(keys, sum(parts)).split(parts, dim=1)
    place = world.low + (world.high - world.low) * starts.unflatten(1, (dots, 2))
    draws = draws.unflatten(1, (moves, walkers, 2))
    angles = 2 * math.pi * headings[:, None] + von_mises(draws[..., 0], world.kappa)
    commanded = torch.stack([angles.cos(), angles.sin()], dim=-1).mul_(world.max_step * draws[..., 1:])
    # A step from a border depends on where the step before ended: time is the one loop.
    moving = [place[:, :walkers]]
    for step in commanded.unbind(1):
        moving.append(move(world, moving[-1], step))
    path = torch.stack(moving, dim=1)
    if walkers < dots:
        path = torch.cat([path, place[:, None, walkers:].expand(-1, steps, -1, -1)], dim=2)
    return path, commanded
