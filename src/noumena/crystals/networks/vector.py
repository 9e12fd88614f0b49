"""One vector of a crystal, learned without labels from what it is made of and how its atoms sit."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.networks import mlp
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import fold, seeded
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.descriptors import SPECIES, Descriptors

_ROWS = 128  # crystals of a minibatch, and of a part that descriptors are computed of
_RATE, _WARM_UP, _DECAY = 3e-3, 0.1, 1e-3
# Shares of elements vary little: less than this and a rare element would weigh as much as oxygen.
_LEAST_SPREAD = 0.01
# Share of the greatest variance or spread that a direction is taken to have at least.
_NEGLIGIBLE = 1e-4
_LEAST = 1e-8  # and absolutely: a single crystal varies in no direction
_INITIAL, _ORDER = 1, 2  # streams of the seed


class CrystalVector(nn.Module):
    r"""A linear map of invariant descriptors to a few numbers from which a network can tell the descriptors again.

    .. math:: v = W x + b, \qquad \mathcal{L} = \tfrac1n \big( w \lVert c - \hat c(v) \rVert^2
        + \lVert s - \hat s(v) \rVert^2 \big) + \lambda\, \mathrm{KL}\big(p \,\|\, \hat p(v)\big)

    with x the shares p of the elements, statistics c of the elements' properties and statistics s of environments and
    volume (:class:`~noumena.crystals.descriptors.Descriptors`), all standardised; n numbers together. Because the
    descriptors are invariant, so is the vector: exactly, whatever has been learned.

    What is learned is a space; its axes are free. They are chosen last, in closed form: the numbers are uncorrelated
    over the training data, and distances between vectors are those between the environments that are linear in them,
    so that near crystals have like structures.
    """

    def __init__(self, size: int, *, hidden: int = 256, elements: float = 0.4, composition: float = 10.0) -> None:
        """
        Args:
            size: numbers of the vector.
            hidden: width of the network that tells the descriptors again; it is used in training only.
            elements, composition: weights of the KL divergence and of the errors of composition statistics.
        """
        super().__init__()
        self.size = size
        self.elements = elements
        self.composition = composition
        self.descriptors = Descriptors()
        self.spread = Standardizer(SPECIES)
        numbers = SPECIES + self.descriptors.size
        self.encoder = nn.Linear(numbers, size)
        self.decoder = mlp([size, hidden, numbers], "silu")

    def forward(self, batch: CrystalBatch) -> Tensor:
        """The vector of each crystal, shape (crystals, size)."""
        return self.encode(self.inputs(batch))

    def inputs(self, batch: CrystalBatch) -> Tensor:
        """Shares of elements, then standardised descriptors, shape (crystals, 119 + descriptors)."""
        return torch.cat([self.descriptors.shares(batch), self.descriptors(batch)], 1)

    def encode(self, inputs: Tensor) -> Tensor:
        """Vectors of :meth:`inputs`, shape (crystals, size)."""
        return self.encoder(torch.cat([self.spread(inputs[:, :SPECIES]), inputs[:, SPECIES:]], 1))

    def loss(self, inputs: Tensor) -> Tensor:
        """How badly :meth:`inputs` are told from the vectors, a mean over crystals."""
        found = self.decoder(self.encode(inputs))
        shares = inputs[:, :SPECIES]
        entropy = torch.xlogy(shares, shares).sum(1)
        divergence = entropy - (shares * functional.log_softmax(found[:, :SPECIES], 1)).sum(1)
        error = (found[:, SPECIES:] - inputs[:, SPECIES:]).square()
        of_composition = self.descriptors.composition_size
        weighted = self.composition * error[:, :of_composition].sum(1) + error[:, of_composition:].sum(1)
        return (weighted / error.shape[1] + self.elements * divergence).mean()

    def calibrate(self, crystals: CrystalBatch) -> Tensor:
        """Take the statistics of training crystals; returns their :meth:`inputs`."""
        parts = crystals.split(_ROWS)
        numbers = torch.cat([self.descriptors.numbers(part) for part in parts])
        shares = torch.cat([self.descriptors.shares(part) for part in parts])
        self.descriptors.calibrate(numbers)
        self.spread.fit(shares)
        self.spread.scale.add_(_LEAST_SPREAD)
        return torch.cat([shares, self.descriptors.standardised(numbers)], 1)

    def fit(self, crystals: CrystalBatch, *, epochs: int = 30, seed: int = 0) -> float:
        """Learn from the structures of ``crystals``, from new weights; the same seed gives the same vector.

        Returns:
            The mean loss of the last epoch.
        """
        device = self.encoder.weight.device
        with torch.no_grad():
            inputs = self.calibrate(crystals.to(device))
        frozen = [weight for weight in self.parameters() if not weight.requires_grad]
        self.requires_grad_(True)
        with seeded(fold(seed, _INITIAL)), torch.enable_grad():
            for layer in (self.encoder, *self.decoder):
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            loss = self._train(inputs, epochs, torch.Generator().manual_seed(fold(seed, _ORDER)))
        for weight in frozen:
            weight.requires_grad_(False).grad = None
        self._choose_axes(inputs)
        return loss

    def _train(self, inputs: Tensor, epochs: int, generator: torch.Generator) -> float:
        batches = max(1, len(inputs) // _ROWS)
        weights = [*self.encoder.parameters(), *self.decoder.parameters()]
        optimizer = torch.optim.AdamW(weights, _RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, _RATE, total_steps=max(2, epochs * batches), pct_start=_WARM_UP
        )
        total = inputs.new_zeros(())
        for _ in range(epochs):
            total = inputs.new_zeros(())
            order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
            for rows in order.tensor_split(batches):
                loss = self.loss(inputs[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach()
        return float(total) / batches

    @torch.no_grad()
    def _choose_axes(self, inputs: Tensor) -> None:
        """Turn and stretch the vector so that its metric is that of the environments; the decoder undoes it."""
        vectors = self.encode(inputs).double()
        centre = vectors.mean(0)
        values, axes = torch.linalg.eigh((vectors - centre).T @ (vectors - centre) / len(vectors))
        whiten = axes / values.clamp_min(max(_LEAST, _NEGLIGIBLE * float(values.max()))).sqrt()
        environments = inputs[:, SPECIES + self.descriptors.composition_size :].double()
        # Regression of the environments on whitened vectors: its singular values are spreads along its axes.
        slopes = ((vectors - centre) @ whiten).T @ (environments - environments.mean(0)) / len(vectors)
        turn, found, _ = torch.linalg.svd(slopes)
        spreads = functional.pad(found, (0, self.size - len(found)))
        transform = (whiten @ turn) * spreads.clamp_min(max(_LEAST, _NEGLIGIBLE * float(spreads.max())))
        first = cast("nn.Linear", self.decoder[0])
        back = torch.linalg.inv(transform)
        first.bias.copy_(first.bias + first.weight.double() @ centre)
        first.weight.copy_(first.weight.double() @ back.T)
        self.encoder.bias.copy_((self.encoder.bias - centre) @ transform)
        self.encoder.weight.copy_(transform.T @ self.encoder.weight.double())
