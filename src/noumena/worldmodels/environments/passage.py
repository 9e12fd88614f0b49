"""A wall with an opening, as the centre of a round body sees it: collisions and shortest ways, by exact geometry."""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

# Shortest ways turn this far from the corners of the wall, in pixels, where rounding cannot make them touch it.
_CLEARANCE = 0.05


class Passage(NamedTuple):
    """A vertical wall without ends, from ``left`` to ``right``, open from ``top`` to ``bottom``.

    Its two halves are open sets: a body may touch them, also move along them. All coordinates are in pixels, x to the
    right and y down; ``top`` and ``bottom`` broadcast to the shape (...) of positions (..., 2).
    """

    left: Tensor
    right: Tensor
    top: Tensor
    bottom: Tensor

    def walk(self, start: Tensor, end: Tensor) -> Tensor:
        """Where straight ways from ``start`` to ``end``, both of shape (..., 2), end: there, or at the wall before.

        ``start`` must not be inside the wall. The end at a wall is exactly on its face, so that no rounding carries a
        body into it in many steps.
        """
        upper = _enter(start, end, (self.left, -torch.inf), (self.right, self.top))
        lower = _enter(start, end, (self.left, self.bottom), (self.right, torch.inf))
        first = torch.minimum(upper.share, lower.share)
        along_x = torch.where(upper.share <= lower.share, upper.along_x, lower.along_x)
        x_face = torch.where(end[..., 0] > start[..., 0], self.left, self.right)
        # Moving down one meets the lower half, moving up the upper one.
        y_face = torch.where(end[..., 1] > start[..., 1], self.bottom, self.top)
        met = start + first.clamp(max=1)[..., None] * (end - start)
        faces = torch.stack([x_face, y_face], dim=-1)
        is_face = torch.stack([along_x, ~along_x], dim=-1)
        return torch.where((first <= 1)[..., None], torch.where(is_face, faces, met), end)

    def is_free(self, start: Tensor, end: Tensor) -> Tensor:
        """Whether the straight way between points (..., 2) meets no wall, bool, shape (...)."""
        return (self.walk(start, end) == end).all(dim=-1)

    def next_corner(self, start: Tensor, goal: Tensor) -> Tensor:
        """The farthest point of the shortest way from ``start`` to ``goal`` that can be reached straight.

        Args:
            start, goal: shape (..., 2), not inside the wall.

        Returns:
            The goal itself, or a place near the corner of the wall where the way turns; shape (..., 2).
        """
        entry, leave = self._crossing(start, goal)
        target = torch.where(self.is_free(start, leave)[..., None], leave, entry)
        return torch.where(self.is_free(start, goal)[..., None], goal, target)

    def _crossing(self, start: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Where the shortest way enters and leaves the opening, each of shape (..., 2).

        A shortest way bends only at the edges of the opening, at its entry, at its end, or both. All such ways are
        measured: at each place it passes at an edge, or straight between its neighbours, clamped to the opening.
        """
        top, bottom = self.top + _CLEARANCE, self.bottom - _CLEARANCE
        rightwards = goal[..., 0] > start[..., 0]
        least, most = torch.minimum(start[..., 0], goal[..., 0]), torch.maximum(start[..., 0], goal[..., 0])
        # Whoever is inside the opening already enters it where they are.
        x_in = torch.where(rightwards, self.left, self.right).clamp(least, most)
        x_out = torch.where(rightwards, self.right, self.left).clamp(least, most)

        def place(x: Tensor, y: Tensor) -> Tensor:
            return torch.stack([x, torch.minimum(torch.maximum(y, top), bottom).expand_as(x)], dim=-1)

        direct = place(x_in, _height(start, goal, x_in)), place(x_out, _height(start, goal, x_out))
        ways = [direct]
        for edge in (top, bottom):
            ways.append((turn := place(x_in, edge), place(x_out, _height(turn, goal, x_out))))
            ways.append((place(x_in, _height(start, turn := place(x_out, edge), x_in)), turn))
        ways += [(place(x_in, first), place(x_out, second)) for first, second in product((top, bottom), repeat=2)]
        entries, ends = (torch.stack(points) for points in zip(*ways, strict=True))  # (way, ..., 2)
        length = (entries - start).norm(dim=-1) + (ends - entries).norm(dim=-1) + (goal - ends).norm(dim=-1)
        best = length.argmin(dim=0)[None, ..., None].expand(1, *start.shape)
        return entries.gather(0, best)[0], ends.gather(0, best)[0]


class _Entry(NamedTuple):
    """How far along segments a box is entered, as a share (infinite: never), and whether through an x face."""

    share: Tensor
    along_x: Tensor


def _enter(
    start: Tensor, end: Tensor, low: tuple[Tensor, Tensor | float], high: tuple[Tensor, Tensor | float]
) -> _Entry:
    """When segments enter an open box, by intersecting the intervals in which they are between its faces."""
    (x_in, x_out), (y_in, y_out) = (
        _between(start[..., axis], end[..., axis], low[axis], high[axis]) for axis in (0, 1)
    )
    enter, leave = torch.maximum(x_in, y_in), torch.minimum(x_out, y_out)
    meets = (enter < leave) & (enter >= 0) & (enter <= 1) & (leave > 0)
    return _Entry(enter.where(meets, torch.inf), x_in >= y_in)


def _between(start: Tensor, end: Tensor, low: Tensor | float, high: Tensor | float) -> tuple[Tensor, Tensor]:
    """The shares of the way from ``start`` to ``end`` at which it comes between two faces and leaves again."""
    way = end - start
    still = way == 0
    inside = (start > low) & (start < high)
    safe = way.where(~still, 1.0)
    first, second = (low - start) / safe, (high - start) / safe
    # One who stands still is between the faces always, or never.
    come = torch.where(still, torch.where(inside, -torch.inf, torch.inf), torch.minimum(first, second))
    go = torch.where(still, torch.where(inside, torch.inf, -torch.inf), torch.maximum(first, second))
    return come, go


def _height(start: Tensor, end: Tensor, x: Tensor) -> Tensor:
    """The y at which the line between points (..., 2) passes ``x`` (...)."""
    way = end - start
    share = ((x - start[..., 0]) / way[..., 0].where(way[..., 0] != 0, 1.0)).clamp(0, 1)
    return start[..., 1] + share * way[..., 1]
