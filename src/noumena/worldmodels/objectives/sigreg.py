"""SIGReg: latents as a standard normal, tested along random directions (Balestriero & LeCun 2025, LeJEPA)."""

import torch
from torch import Tensor

_KNOTS = 17
_LAST = 3.0


def sigreg(latents: Tensor, directions: Tensor) -> Tensor:
    """Distance of the characteristic function along each direction from that of N(0, 1), after Epps & Pulley 1983.

    Args:
        latents: shape (..., batch, latent).
        directions: unit vectors as rows, shape (directions, latent).

    Returns:
        Scalar: ``batch * integral of ((mean cos tu - exp(-t^2/2))^2 + (mean sin tu)^2) exp(-t^2/2) dt`` over t in
        [0, 3] by the trapezoidal rule with 17 knots; mean over directions and leading axes.
    """
    t = torch.linspace(0.0, _LAST, _KNOTS, dtype=latents.dtype, device=latents.device)
    weight = torch.exp(-0.5 * t.square())
    angle = (latents @ directions.mT).unsqueeze(-1) * t  # (..., batch, directions, knots)
    distance = (angle.cos().mean(-3) - weight).square() + angle.sin().mean(-3).square()
    return latents.shape[-2] * torch.trapezoid(distance * weight, t, dim=-1).mean()


def random_directions(count: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """``count`` unit vectors of ``size`` numbers, uniform on the sphere, shape (count, size)."""
    drawn = torch.randn(count, size, generator=generator, dtype=like.dtype).to(like.device)
    return drawn / drawn.norm(dim=-1, keepdim=True)
