"""Point groups about the z axis, and how their elements act on poses, wrenches and displacement fields."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.modality import Kind

# A node of the surface and the image of another one are the same if they are nearer than this share of its extent.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PointGroup:
    """The group C_n or C_nv of a body whose axis is z, with x-z as a mirror plane.

    A soft robot that is symmetric under an element g answers the moved pose with the moved wrench and shape. Rotation
    vectors and torques are axial: they take the determinant of g with them.

    Attributes:
        order: rotations of the group, n.
        mirror: whether reflections belong to it.
    """

    order: int
    mirror: bool

    @classmethod
    def parse(cls, name: str) -> Self:
        """From the Schoenflies symbol: ``C24v`` has 24 rotations and 24 reflections, ``C4`` four rotations.

        Raises:
            ConfigError: another symbol.
        """
        found = re.fullmatch(r"C([1-9]\d{0,2})(v?)", name)
        if found is None:
            raise ConfigError(
                f"model.symmetry: expected a group about the z axis such as C4, C24v or C1v, got {name!r}."
            )
        return cls(int(found[1]), bool(found[2]))

    @cached_property
    def elements(self) -> Tensor:
        """Matrices of the elements, the identity first, float64, shape (elements, 3, 3)."""
        angle = 2.0 * torch.pi * torch.arange(self.order, dtype=torch.float64) / self.order
        turns = torch.zeros(self.order, 3, 3, dtype=torch.float64)
        turns[:, 0, 0], turns[:, 0, 1] = angle.cos(), -angle.sin()
        turns[:, 1, 0], turns[:, 1, 1] = angle.sin(), angle.cos()
        turns[:, 2, 2] = 1.0
        if not self.mirror:
            return turns
        reflection = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
        return torch.cat([turns, turns @ reflection])

    def on_six(self) -> Tensor:
        """Action on poses and wrenches: blocks g and det(g) g, float64, shape (elements, 6, 6)."""
        matrices = torch.zeros(len(self.elements), 6, 6, dtype=torch.float64)
        matrices[:, :3, :3] = self.elements
        matrices[:, 3:, 3:] = self.elements * torch.linalg.det(self.elements)[:, None, None]
        return matrices

    def on_nodes(self, nodes: Tensor) -> Tensor:
        """For each element, the node that moves to each node: int64, shape (elements, nodes).

        Args:
            nodes: shape (nodes, 3).

        Raises:
            DataError: an element maps a node to where there is none.
        """
        points = nodes.double()
        extent = float((points.amax(0) - points.amin(0)).norm())
        sources = []
        for element in self.elements:
            distance, source = torch.cdist(points @ element, points).min(1)  # rows: g^-1 applied to each node
            if float(distance.max()) > _TOLERANCE * extent:
                worst = int(distance.argmax())
                raise DataError(
                    f"the surface has not the symmetry asked for: node {worst} at {points[worst].tolist()} comes from "
                    f"a place {float(distance.max()):.3g} away from any node. Use a smaller group, or symmetry=null."
                )
            sources.append(source)
        return torch.stack(sources)


class Action:
    """How each element of a group acts on one modality's columns, written as rows: ``x -> act(i, x)``."""

    def __init__(self, group: PointGroup, kind: Kind, nodes: Tensor | None) -> None:
        """
        Args:
            group: the point group.
            kind: of the modality; a ``vector`` does not change.
            nodes: of the surface, for displacements, shape (nodes, 3).

        Raises:
            ConfigError: displacements without a surface.
        """
        self.kind = kind
        self.elements = group.elements
        self.six = group.on_six()
        if kind == "displacement":
            if nodes is None:
                raise ConfigError("model.symmetry: displacements need the surface they belong to; give data.mesh.")
            self.sources = group.on_nodes(nodes)

    def __call__(self, i: int, x: Tensor) -> Tensor:
        """Element ``i`` applied to rows ``x``, shape (rows, columns)."""
        if self.kind == "vector":
            return x
        if self.kind == "displacement":
            vectors = x.view(len(x), -1, 3)[:, self.sources[i]]
            return (vectors @ self.elements[i].T.to(x)).flatten(1)
        return x @ self.six[i].T.to(x)

    def average_of_mean(self, mean: Tensor) -> Tensor:
        """Mean of the images of a vector, shape (columns,), under all elements."""
        return torch.stack([self(i, mean[None])[0] for i in range(len(self.elements))]).mean(0)

    def average_of_moment(self, moment: Tensor, order: int) -> Tensor:
        """Mean of ``G moment G^T`` over all elements, shape (columns, columns).

        The group is walked through along a chain of subgroups: for C24v by 6 products instead of 48.
        """
        if self.kind == "vector":
            return moment
        steps = order
        for prime in _prime_factors(order):
            # So far averaged over rotations by multiples of 2 pi / (order / steps): add the cosets in between.
            steps //= prime
            moment = torch.stack([self._conjugate(k * steps, moment) for k in range(prime)]).mean(0)
        if len(self.elements) > order:
            moment = 0.5 * (moment + self._conjugate(order, moment))
        return moment

    def _conjugate(self, i: int, moment: Tensor) -> Tensor:
        return self(i, self(i, moment).T).T


def _prime_factors(n: int) -> list[int]:
    found, divisor = [], 2
    while n > 1:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1
    return found
