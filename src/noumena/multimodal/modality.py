"""What a modality is: its columns, their units and its physical kind; and the surface that displacements live on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, did_you_mean

Kind = Literal["vector", "pose", "wrench", "displacement"]

_POSE_COLUMNS = ("Dx", "Dy", "Dz", "Rx", "Ry", "Rz")
_WRENCH_COLUMNS = ("Fx", "Fy", "Fz", "Tx", "Ty", "Tz")
_UNITS: dict[str, tuple[str, ...]] = {
    "pose": ("mm", "mm", "mm", "rad", "rad", "rad"),
    "wrench": ("N", "N", "N", "N mm", "N mm", "N mm"),
}


@dataclass(frozen=True)
class Modality:
    """One view of a state.

    Attributes:
        name: its name, without a dot.
        columns: a name for each number.
        units: a unit for each number; "" where it has none or none is known.
        kind: ``pose`` is a displacement and a rotation vector (3 + 3 numbers), ``wrench`` a force and a torque (3 + 3),
            ``displacement`` the vectors of points in turn (x, y, z of the first, then of the second, ...), ``vector``
            anything else.
    """

    name: str
    columns: tuple[str, ...]
    units: tuple[str, ...]
    kind: Kind = "vector"

    @classmethod
    def of_size(
        cls,
        name: str,
        size: int,
        *,
        kind: str = "vector",
        columns: Sequence[str] | None = None,
        units: str | Sequence[str] | None = None,
    ) -> Self:
        """A modality of ``size`` numbers, with the usual names and units of its kind where none are given.

        Raises:
            ConfigError: an unknown kind, or names, units and size that do not go together.
        """
        if not name or "." in name or "/" in name:
            raise ConfigError(f"modality '{name}': a name is a word without '.' and '/'. Rename it.")
        if kind not in get_args(Kind):
            raise ConfigError(f"modality '{name}': unknown kind '{kind}'. {did_you_mean(kind, get_args(Kind))}")
        if kind in ("pose", "wrench") and size != 6:
            raise ConfigError(f"modality '{name}': a {kind} has 6 numbers (3 and 3), found {size}. Use kind 'vector'.")
        if kind == "displacement" and size % 3:
            raise ConfigError(
                f"modality '{name}': displacements have 3 numbers for each point, found {size}, no multiple of 3."
            )
        names = tuple(columns) if columns is not None else _names(kind, size)
        if units is None:
            units = _UNITS.get(kind, ("",) * size)
        units = (units,) * size if isinstance(units, str) else tuple(units)
        for what, entries in (("column names", names), ("units", units)):
            if len(entries) != size:
                raise ConfigError(f"modality '{name}': {len(entries)} {what} for {size} numbers. Give one for each.")
        if len(set(names)) < size:
            raise ConfigError(f"modality '{name}': column names must differ, found {list(names)[:20]}.")
        return cls(name, names, units, cast("Kind", kind))

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return len(self.columns)

    @property
    def by_position(self) -> bool:
        """Whether its columns are told by their place alone, having no names but those made up here."""
        return self.kind in ("vector", "displacement") and self.columns == _names(self.kind, self.size)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, the inverse of :meth:`from_json`; names and units that follow from kind and size are left
        out, since a surface has thousands of them.
        """
        entry: dict[str, Any] = {"name": self.name, "size": self.size, "kind": self.kind}
        if self.columns != _names(self.kind, self.size):
            entry["columns"] = list(self.columns)
        if len(set(self.units)) == 1:
            entry["units"] = self.units[0]
        elif self.units != _UNITS.get(self.kind):
            entry["units"] = list(self.units)
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """From :meth:`to_json`."""
        return cls.of_size(
            entry["name"], entry["size"], kind=entry["kind"], columns=entry.get("columns"), units=entry.get("units")
        )

    def unit_of(self, part: slice) -> str:
        """The common unit of some of its columns, "" if they differ."""
        units = set(self.units[part])
        return units.pop() if len(units) == 1 else ""


def _names(kind: str, size: int) -> tuple[str, ...]:
    if kind == "pose":
        return _POSE_COLUMNS
    if kind == "wrench":
        return _WRENCH_COLUMNS
    if kind == "displacement":
        return tuple(f"u{axis}{point}" for point in range(size // 3) for axis in "xyz")
    return tuple(f"x_{i}" for i in range(size))


def usual_order(columns: Sequence[str]) -> tuple[str, ...]:
    """The same column names, in the order of their kind if they are its usual names: files may list them otherwise."""
    for kind in get_args(Kind):
        usual = _names(kind, len(columns))
        if len(usual) == len(columns) and set(usual) == set(columns):
            return usual
    return tuple(columns)


@dataclass(frozen=True, eq=False)
class Surface:
    """The points that displacements belong to, at rest, and the triangles between them.

    Attributes:
        nodes: float32, shape (points, 3), in the unit of the displacements.
        triangles: int64, shape (triangles, 3), indices of points; may be empty.
    """

    nodes: Tensor
    triangles: Tensor

    @classmethod
    def of(cls, nodes: Any, triangles: Any = None, *, where: str = "the surface") -> Self:
        """A checked surface.

        Args:
            nodes: array, shape (points, 3).
            triangles: integer array, shape (triangles, 3), counted from 0.
            where: what it is, for messages.

        Raises:
            DataError: a wrong shape, a number that is not finite, or a triangle of a point that is not there.
        """
        points = np.asarray(nodes)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points) or points.dtype.kind not in "fiu":
            raise DataError(f"{where}: expected nodes of shape (points, 3), found {points.dtype} {points.shape}.")
        if not np.isfinite(points).all():
            raise DataError(f"{where}: node {int((~np.isfinite(points)).any(1).argmax())} is not finite.")
        corners = np.zeros((0, 3), dtype=np.int64) if triangles is None else np.asarray(triangles)
        if corners.ndim != 2 or corners.shape[1] != 3 or corners.dtype.kind not in "iu":
            raise DataError(
                f"{where}: expected integer triangles of shape (triangles, 3), found {corners.dtype} {corners.shape}."
            )
        if len(corners) and not 0 <= corners.min() <= corners.max() < len(points):
            raise DataError(
                f"{where}: triangles name the points {corners.min()} to {corners.max()}, there are 0 to "
                f"{len(points) - 1}. Count from 0."
            )
        return cls(torch.tensor(points, dtype=torch.float32), torch.tensor(corners.astype(np.int64)))
