"""The stochastic part of a recurrent state: groups of classes, or normal variables."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.seeding import Noise

LatentKind = Literal["categorical", "gaussian"]


@dataclass(frozen=True)
class Categories:
    """Independent groups, each one of some classes; z is their one-hot vectors in a row.

    Attributes:
        log_p: logarithms of the probabilities, shape (..., groups, classes).
    """

    log_p: Tensor

    @property
    def mean(self) -> Tensor:
        """The probabilities, shape (..., groups * classes)."""
        return self.log_p.exp().flatten(-2)

    def draw(self, noise: Tensor) -> Tensor:
        """One-hot samples with the gradient of the probabilities (straight-through, Bengio et al. 2013).

        Args:
            noise: uniform in [0, 1), shape (..., groups); the cumulated probabilities are inverted at it.
        """
        p = self.log_p.exp()
        passed = p.detach().cumsum(-1)[..., :-1] <= noise[..., None]
        one_hot = functional.one_hot(passed.sum(-1), p.shape[-1]).to(p.dtype)
        return (one_hot + p - p.detach()).flatten(-2)

    def kl(self, other: "Categories") -> Tensor:
        """KL(self || other) in nats, summed over groups, shape (...)."""
        return (self.log_p.exp() * (self.log_p - other.log_p)).sum((-2, -1))

    def detach(self) -> "Categories":
        """The same without gradient."""
        return Categories(self.log_p.detach())


@dataclass(frozen=True)
class Normals:
    """Independent normal variables.

    Attributes:
        mean, std: shape (..., variables).
    """

    mean: Tensor
    std: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """Reparameterised samples from standard normal ``noise`` of shape (..., variables)."""
        return self.mean + self.std * noise

    def kl_per_variable(self, other: "Normals") -> Tensor:
        """KL(self || other) of each variable in nats, shape (..., variables)."""
        ratio = (self.std / other.std).square()
        return 0.5 * (ratio + ((self.mean - other.mean) / other.std).square() - 1.0 - ratio.log())

    def kl(self, other: "Normals") -> Tensor:
        """KL(self || other) in nats, summed over variables, shape (...)."""
        return self.kl_per_variable(other).sum(-1)

    def detach(self) -> "Normals":
        """The same without gradient."""
        return Normals(self.mean.detach(), self.std.detach())


@dataclass(frozen=True)
class Latent:
    """What kind of stochastic part a state has.

    Attributes:
        kind: ``categorical`` or ``gaussian``.
        variables: groups of classes, or normal variables.
        classes: of each group.
        unimix: share of the uniform distribution in each group, which keeps KL and gradients finite (Hafner et al.
            2023).
        min_std: smallest standard deviation of a normal variable.
    """

    kind: LatentKind
    variables: int
    classes: int
    unimix: float
    min_std: float

    @property
    def size(self) -> int:
        """Numbers in z."""
        return self.variables * (self.classes if self.kind == "categorical" else 1)

    @property
    def parameters(self) -> int:
        """Numbers that a network gives to describe a distribution over z."""
        return self.variables * (self.classes if self.kind == "categorical" else 2)

    def categories(self, raw: Tensor) -> Categories:
        """Groups of classes from logits of shape (..., parameters), mixed with the uniform distribution."""
        p = raw.unflatten(-1, (self.variables, self.classes)).softmax(-1)
        return Categories(((1.0 - self.unimix) * p + self.unimix / self.classes).log())

    def normals(self, raw: Tensor) -> Normals:
        """Normal variables from ``raw``, shape (..., parameters); a deviation of 1 where it is zero."""
        mean, spread = raw.chunk(2, -1)
        unit = math.log(math.expm1(1.0 - self.min_std))
        return Normals(mean, functional.softplus(spread + unit) + self.min_std)

    def belief(self, raw: Tensor) -> Categories | Normals:
        """The distribution that ``raw`` describes, shape (..., parameters)."""
        return self.categories(raw) if self.kind == "categorical" else self.normals(raw)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) of what two tensors of shape (..., parameters) describe, in nats, shape (...)."""
        if self.kind == "categorical":
            return self.categories(p).kl(self.categories(q))
        return self.normals(p).kl(self.normals(q))

    def draws(self, rows: Tensor, noise: Noise | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Numbers for :meth:`Categories.draw` or :meth:`Normals.draw` from ``noise``, else from ``generator``.

        Args:
            rows: any tensor whose shape (batch, ...), dtype and device the draws take.

        Returns:
            Shape (batch, ..., variables).
        """
        like = rows[..., None].expand(*rows.shape, self.variables)
        uniform = self.kind == "categorical"
        if noise is not None:
            return noise.uniform_like(like) if uniform else noise.normal_like(like)
        draw = torch.rand if uniform else torch.randn
        return draw(like.shape, generator=generator, dtype=like.dtype, device=like.device)
