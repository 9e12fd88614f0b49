"""Actions of a point in the plane: a displacement in pixels, x to the right and y down."""

import math

import torch
from torch import Tensor


def shortened(actions: Tensor, longest: float) -> Tensor:
    """Actions of shape (..., 2), those longer than ``longest`` shortened to it in their direction."""
    length = actions.norm(dim=-1, keepdim=True)
    return torch.where(length > longest, actions * (longest / length), actions)


def random_displacements(n: int, longest: float, generator: torch.Generator) -> Tensor:
    """Independent displacements, heading uniform and length uniform in [0, longest): shape (n, 2), float32.

    They are drawn on the generator's device.
    """
    heading, length = torch.rand(2, n, generator=generator, device=generator.device)
    heading = 2 * math.pi * heading
    return longest * length[:, None] * torch.stack([heading.cos(), heading.sin()], dim=-1)


def towards(positions: Tensor, goals: Tensor, longest: float) -> Tensor:
    """The displacement from positions to goals, both of shape (..., 2), at most ``longest`` long."""
    return shortened(goals - positions, longest)
