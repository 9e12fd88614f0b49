"""What comes from the page is judged here before anything else sees it: a bad value gets a message, never a traceback.

The page is a program in a browser, and anyone with access to the machine can send other values than it would.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

from noumena.core.errors import ConfigError, DataError
from noumena.core.exploring import Explorer, Points

MAX_SAMPLES = 24
MAX_STEPS = 50
MAX_SEED = 2**31 - 1
MAX_SLIDERS = 16
LONGEST_TEXT = 200


def whole_number(value: Any, low: int, high: int, what: str) -> int:
    """``value`` as an int of ``low`` to ``high``.

    Raises:
        ConfigError: it is something else.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != value
        or value in (math.inf, -math.inf)
    ):
        raise ConfigError(f"{what}: expected a whole number from {low:,} to {high:,}, got {_shown(value)}.")
    if value != int(value) or not low <= value <= high:
        raise ConfigError(f"{what}: expected a whole number from {low:,} to {high:,}, got {_shown(value)}.")
    return int(value)


def position(value: Any, points: Points, what: str = "point") -> int:
    """``value`` as the position of a point.

    Raises:
        ConfigError: there is no such point.
    """
    return whole_number(value, 0, len(points.names) - 1, what)


def slider_positions(value: Any, bounds: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """``value`` as one number per slider, inside its bounds.

    Raises:
        ConfigError: too few, too many, no numbers, not finite, or out of bounds.
    """
    if not isinstance(value, list | tuple) or len(value) != len(bounds):
        raise ConfigError(f"sliders: expected {len(bounds)} numbers, got {_shown(value)}.")
    for number, (low, high) in zip(value, bounds, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ConfigError(f"sliders: expected finite numbers, got {_shown(number)}.")
        slack = 1e-6 * (high - low)  # a slider's own rounding
        if not low - slack <= number <= high + slack:
            raise ConfigError(f"sliders: expected {low:.6g} to {high:.6g}, got {_shown(number)}.")
    return tuple(float(number) for number in value)


def one_of(value: Any, known: Collection[str], what: str) -> str:
    """``value`` as one of ``known``.

    Raises:
        ConfigError: it is none of them.
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{what}: expected one of {', '.join(known) or 'none'}, got {_shown(value)}.")
    return value


def text(value: Any, what: str) -> str:
    """``value`` as a short text.

    Raises:
        ConfigError: it is none, or a long one.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ConfigError(f"{what}: expected a text of at most {LONGEST_TEXT} characters, got {_shown(value)}.")
    return value.strip()


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


def check_explorer(explorer: Explorer) -> None:
    """Whether a family's explorer keeps its contract, so far as the page relies on it.

    Raises:
        DataError: there is nothing to show, or latents are not finite.
        ConfigError: names, colours or sliders contradict each other: a fault of the family.
    """
    import numpy as np

    points = explorer.points
    if points.vectors.ndim != 2 or not len(points.vectors):
        raise DataError(f"there are no points to show: their vectors have shape {points.vectors.shape}.")
    lost = int((~np.isfinite(points.vectors).all(1)).sum())
    if lost:
        raise DataError(
            f"the latents of {lost:,} of {len(points.vectors):,} samples are not finite numbers, so there is no map of "
            "them. The model has diverged or the data are not the model's: try `noumena verify` and `noumena evaluate`."
        )
    n = len(points.vectors)
    lengths = {"names": len(points.names)} | {f"colour '{name}'": len(c) for name, c in points.colours.items()}
    for name, length in lengths.items():
        if length != n:
            raise ConfigError(f"the family's explorer has {n:,} points and {length:,} of {name}.")
    if len(explorer.sliders) > MAX_SLIDERS:
        raise ConfigError(f"the family's explorer has {len(explorer.sliders)} sliders; {MAX_SLIDERS} at most.")
    for slider in explorer.sliders:
        if not (math.isfinite(slider.low) and math.isfinite(slider.high) and slider.low < slider.high):
            raise ConfigError(
                f"the family's explorer: slider '{slider.name}' goes from {slider.low} to {slider.high}; expected "
                "finite numbers, the lower one first."
            )
