"""Losses and their schedules.

One convention holds for the KL term: it is summed over latent dimensions and averaged over posteriors, of which a
sample has one (density, molecules, multimodal), a crystal one for each atom and one for its cell, a sequence one for
each frame. Two options that reproduce an original average over latent dimensions as well: ``fusion="align"`` of
multimodal and ``variant="study"`` of world models.

What the KL is weighed against is the family's own, and each model's ``loss`` says in which unit: nats (density,
multimodal), square angstrom (molecules), weighted errors of the decoder's parts (crystals), squared pixels (world
models). The same ``beta`` therefore asks for different things in different families.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.core.posterior import DiagonalGaussian

BetaScheduleKind = Literal["constant", "warmup", "cyclic"]


@dataclass(frozen=True)
class LossTerms:
    """A loss and the terms it is made of; loggers, histories and tests all read these names.

    Attributes:
        total: what is minimised, a scalar.
        parts: the unweighted terms by name, scalars in nats or in the unit the model documents.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def names(self) -> tuple[str, ...]:
        """``loss`` and the names of the parts, in the order of :meth:`vector`."""
        return ("loss", *self.parts)

    def vector(self) -> Tensor:
        """All terms in one detached tensor, shape (1 + parts,): one transfer to the host instead of many."""
        return torch.stack([self.total.detach(), *(part.detach() for part in self.parts.values())])


def kl_loss(posterior: DiagonalGaussian, free_bits: float = 0.0) -> Tensor:
    """Mean KL divergence to the standard normal, with an optional floor per latent dimension.

    Args:
        posterior: over latents of shape (batch, latent).
        free_bits: nats per latent dimension below which the batch mean is not pushed (Kingma et al. 2016,
            section C.8); 0 gives the plain KL.

    Returns:
        Scalar in nats: sum over latent dimensions of the mean over the batch.
    """
    per_dimension = posterior.kl_per_dimension()
    if free_bits > 0.0:
        return per_dimension.mean(0).clamp(min=free_bits).sum()
    return per_dimension.sum(-1).mean()


@dataclass(frozen=True)
class BetaSchedule:
    """Factor in [0, 1] that multiplies a model's ``beta`` during training.

    Attributes:
        kind: ``constant`` is 1; ``warmup`` rises linearly from 0 to 1 within ``period`` steps and stays
            (Bowman et al. 2016); ``cyclic`` repeats every ``period`` steps a linear rise over the first half and
            1 over the second (Fu et al. 2019, with R = 0.5).
        period: steps of the rise or of one cycle.
    """

    kind: BetaScheduleKind = "constant"
    period: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "warmup", "cyclic"):
            raise ConfigError(f"beta_schedule: expected constant, warmup or cyclic, got {self.kind!r}.")
        if self.period < 1:
            raise ConfigError(f"the period of a beta schedule is at least one step, got {self.period}.")

    def __call__(self, step: int) -> float:
        """The factor at an optimiser step, counted from 0."""
        if self.kind == "constant":
            return 1.0
        if self.kind == "warmup":
            return min(1.0, step / self.period)
        return min(1.0, 2.0 * (step % self.period) / self.period)
