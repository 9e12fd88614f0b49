"""What a user may choose about the soft robot: body, material, mesh and the poses to visit."""

import math
from dataclasses import dataclass
from typing import Any

from noumena.core.errors import ConfigError

POSE_COLUMNS = ("Dx", "Dy", "Dz", "Rx", "Ry", "Rz")
POSE_UNITS = ("mm", "mm", "mm", "rad", "rad", "rad")

Pose = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class SoftRobot:
    """A hollow cylinder along z: bottom ring clamped at z = 0, top ring a rigid body that a pose moves.

    A pose is the displacement in mm and the rotation vector in rad of the top about its reference point
    (0, 0, height).

    Attributes:
        outer_radius, inner_radius, height: of the body at rest, in mm.
        shear_modulus, bulk_modulus: of the Neo-Hookean material, in MPa.
        turns, layers, levels: hexahedra around, through the wall and along the axis.
        pose_low, pose_high: the range of poses (Dx, Dy, Dz in mm, Rx, Ry, Rz in rad). The rest pose, 0, lies in it.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    outer_radius: float = 20.0
    inner_radius: float = 13.0
    height: float = 40.0
    shear_modulus: float = 0.1
    bulk_modulus: float = 5.0
    turns: int = 24
    layers: int = 2
    levels: int = 12
    pose_low: Pose = (-8.0, -8.0, -6.0, -0.3, -0.3, -0.3)
    pose_high: Pose = (8.0, 8.0, 3.0, 0.3, 0.3, 0.3)

    def __post_init__(self) -> None:
        for name in ("outer_radius", "inner_radius", "height", "shear_modulus", "bulk_modulus"):
            _check_positive(name, getattr(self, name))
        if self.inner_radius >= self.outer_radius:
            raise ConfigError(
                f"inner_radius={self.inner_radius}: expected less than outer_radius={self.outer_radius} (mm); "
                "the wall lies between them."
            )
        check_whole_number("turns", self.turns, 3)
        check_whole_number("layers", self.layers, 1)
        # With one level every node belongs to the clamped bottom or to the rigid top.
        check_whole_number("levels", self.levels, 2)
        self._check_poses()

    def _check_poses(self) -> None:
        for name in ("pose_low", "pose_high"):
            pose: Any = getattr(self, name)
            if not isinstance(pose, (tuple, list)) or len(pose) != len(POSE_COLUMNS) or not all(map(_is_finite, pose)):
                raise ConfigError(f"{name}={pose!r}: expected six finite numbers, {', '.join(POSE_COLUMNS)}.")
            object.__setattr__(self, name, tuple(map(float, pose)))
        for column, low, high in zip(POSE_COLUMNS, self.pose_low, self.pose_high, strict=True):
            if not (low <= 0 <= high and low < high):
                raise ConfigError(
                    f"pose range of {column}: expected low <= 0 <= high and low < high, because every load path "
                    f"starts at rest, got {low} and {high}."
                )
            if column.startswith("R") and max(-low, high) >= math.pi:
                raise ConfigError(f"pose range of {column}: expected angles below pi (rad), got {low} and {high}.")
        if self.pose_low[2] <= -self.height:
            raise ConfigError(
                f"pose range of Dz: expected more than -height={-self.height} (mm), got {self.pose_low[2]}; "
                "the top would pass through the base."
            )


def check_whole_number(name: str, value: Any, smallest: int) -> None:
    """Refuse anything but an integer of at least ``smallest``.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigError(f"{name}={value!r}: expected a whole number of at least {smallest}.")


def _check_positive(name: str, value: Any) -> None:
    if not _is_finite(value) or value <= 0:
        unit = "MPa" if name.endswith("modulus") else "mm"
        raise ConfigError(f"{name}={value!r}: expected a positive finite number ({unit}).")


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
