"""The probe of the study: a linear map without bias, trained by Adam."""

import math
from collections.abc import Iterable, Iterator
from typing import Self

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.core.seeding import fold, seeded
from noumena.worldmodels.probing.readout import Readout, check_pairs

_WEIGHTS, _ORDER = range(2)  # streams of the seed


class SGDProbe(Readout):
    """Linear probe without bias, shared over all steps, trained on the mean over steps and things of the squared
    Euclidean error in normalised units: (state - centre) / unit.

    The study (arXiv 2211.10831) trains it for 30 epochs of 10,000 fresh sequences with Adam at 1e-3; its units are the
    middle of the square that a dot can reach, and the deviation of a uniform distribution over it, side / sqrt(12).
    """

    @classmethod
    def fit(
        cls,
        features: Tensor,
        targets: Tensor,
        *,
        epochs: int = 30,
        batch_size: int = 128,
        lr: float = 1e-3,
        centre: float | None = None,
        unit: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit to given sequences, in a new order each epoch.

        Args:
            features: latents, shape (batch, time, latent).
            targets: state, shape (batch, time, things, dims).
            epochs: passes over the sequences.
            batch_size: sequences of a step.
            lr: learning rate of Adam.
            centre, unit: of the normalised state; by default mean and deviation of each component of ``targets``.
            seed: of the initial weights and of the order.

        Raises:
            ConfigError: an option out of range.
            DataError: shapes that do not fit each other, or values that are not finite.
        """
        if epochs < 1 or batch_size < 1:
            raise ConfigError(f"expected epochs and batch_size of at least 1, got {epochs} and {batch_size}.")
        check_pairs(features, targets)
        flat = targets.flatten(0, 1).flatten(1)  # (rows, things * dims)
        middle = flat.mean(0) if centre is None else torch.full_like(flat[0], centre)
        width = flat.std(0).clamp_min(1e-12) if unit is None else torch.full_like(flat[0], unit)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for epoch in range(epochs):
                generator = torch.Generator().manual_seed(fold(seed, _ORDER, epoch))
                order = torch.randperm(len(features), generator=generator).to(features.device)
                for index in order.split(batch_size):
                    yield features[index], targets[index]

        return cls.fit_fresh(batches(), centre=middle, unit=width, lr=lr, seed=seed)

    @classmethod
    def fit_fresh(
        cls,
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        centre: Tensor,
        unit: Tensor,
        lr: float = 1e-3,
        seed: int = 0,
    ) -> Self:
        """Fit to batches as they come, such as new sequences at each step.

        Args:
            batches: features (batch, time, latent) and targets (batch, time, things, dims) of each step.
            centre, unit: of the normalised state, shape (things * dims,) or a scalar tensor.
            lr: learning rate of Adam.
            seed: of the initial weights.

        Raises:
            ConfigError: no batch, or a unit or learning rate that is not positive.
            DataError: shapes that do not fit each other, or values that are not finite.
        """
        if not lr > 0 or not bool((unit > 0).all()):
            raise ConfigError(f"expected lr and unit above 0, got {lr} and {unit.tolist()}.")
        weight: Tensor | None = None
        optimizer: torch.optim.Optimizer | None = None
        things = dims = 0
        for features, targets in batches:
            check_pairs(features, targets)
            if weight is None or optimizer is None:
                things, dims = targets.shape[2:]
                weight = _initial(features.shape[2], things * dims, seed).to(features).requires_grad_()
                optimizer = torch.optim.Adam([weight], lr=lr)
            wanted = (targets.flatten(2) - centre) / unit
            with torch.enable_grad():
                # Squared Euclidean error of a thing: the sum over its dims, which come last.
                square = (features.detach() @ weight - wanted).square().unflatten(-1, (things, dims)).sum(-1)
                optimizer.zero_grad()
                square.mean().backward()
            optimizer.step()
        if weight is None:
            raise ConfigError("a probe needs at least one batch.")
        fitted = weight.detach()
        size = fitted.new_zeros(len(fitted))
        offset = centre.to(fitted).expand(things * dims).clone()
        return cls(size, size + 1, fitted * unit.to(fitted), offset, things, dims)


def _initial(latent: int, outputs: int, seed: int) -> Tensor:
    """Uniform in +-1/sqrt(latent), torch's own for a linear layer; shape (latent, outputs)."""
    bound = 1 / math.sqrt(latent)
    with seeded(fold(seed, _WEIGHTS)):
        return torch.empty(latent, outputs).uniform_(-bound, bound)
