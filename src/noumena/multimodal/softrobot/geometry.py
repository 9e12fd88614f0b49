"""The structured hexahedral mesh of a hollow cylinder and its closed surface."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noumena.multimodal.softrobot.settings import SoftRobot

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Corners of a hexahedron as steps (through the wall, around, along the axis), in the order of scikit-fem's ElementHex1.
_CORNERS = ((1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))


@dataclass(frozen=True)
class CylinderMesh:
    """Nodes are numbered through the wall first, then around, then along the axis.

    Attributes:
        nodes: positions at rest in mm, shape (nodes, 3).
        cells: nodes of each hexahedron, in the corner order of scikit-fem, shape (elements, 8).
        surface: the nodes on the surface, ascending, shape (surface,).
        quads: faces of the surface as positions in ``surface``, seen from outside counter-clockwise, shape (quads, 4).
        triangles: each quad cut in two, first the halves 0-1-2 of all, then the halves 0-2-3, shape (2 quads, 3).
        bottom, top: the nodes of the clamped and of the moved ring, shape (ring,).
    """

    nodes: Array
    cells: Index
    surface: Index
    quads: Index
    triangles: Index
    bottom: Index
    top: Index


def cylinder_mesh(robot: SoftRobot) -> CylinderMesh:
    """The mesh of ``robot``: straight-edged hexahedra, so the circles are polygons of ``turns`` sides."""
    radius = np.linspace(robot.inner_radius, robot.outer_radius, robot.layers + 1)
    angle = np.arange(robot.turns) * 2 * np.pi / robot.turns
    height = np.linspace(0, robot.height, robot.levels + 1)
    z, a, r = np.meshgrid(height, angle, radius, indexing="ij")
    nodes = np.stack([r * np.cos(a), r * np.sin(a), z], -1).reshape(-1, 3)
    faces = _surface_quads(robot)
    surface = np.unique(faces)
    quads = np.searchsorted(surface, faces)
    ring = robot.turns * (robot.layers + 1)
    return CylinderMesh(
        nodes=nodes,
        cells=_hexahedra(robot),
        surface=surface,
        quads=quads,
        triangles=np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]),
        bottom=np.arange(ring),
        top=np.arange(ring) + ring * robot.levels,
    )


def _node(robot: SoftRobot, wall: Index | int, turn: Index, level: Index | int) -> Index:
    return (level * robot.turns + turn % robot.turns) * (robot.layers + 1) + wall


def _hexahedra(robot: SoftRobot) -> Index:
    levels, turns, layers = map(np.arange, (robot.levels, robot.turns, robot.layers))
    k, j, i = (axis.ravel() for axis in np.meshgrid(levels, turns, layers, indexing="ij"))
    return np.stack([_node(robot, i + a, j + b, k + c) for a, b, c in _CORNERS], -1)


def _surface_quads(robot: SoftRobot) -> Index:
    """Node numbers of the outer and inner faces in turn, level by level, then of the top and bottom faces in turn."""
    k, j = (axis.ravel() for axis in np.meshgrid(np.arange(robot.levels), np.arange(robot.turns), indexing="ij"))

    def wall(i: int, first: Index, second: Index) -> Index:
        ends = [(first, k), (second, k), (second, k + 1), (first, k + 1)]
        return np.stack([_node(robot, i, turn, level) for turn, level in ends], -1)

    sides = np.stack([wall(robot.layers, j, j + 1), wall(0, j + 1, j)], 1).reshape(-1, 4)
    j, i = (axis.ravel() for axis in np.meshgrid(np.arange(robot.turns), np.arange(robot.layers), indexing="ij"))
    around = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
    top = np.stack([_node(robot, layer, turn, robot.levels) for layer, turn in around], -1)
    bottom = np.stack([_node(robot, layer, turn, 0) for layer, turn in around[::-1]], -1)
    return np.concatenate([sides, np.stack([top, bottom], 1).reshape(-1, 4)])
