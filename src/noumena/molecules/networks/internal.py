"""The decoder that predicts internal coordinates and builds the molecule from them."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from noumena.molecules.internal import InternalCoordinates
from noumena.molecules.networks.heads import ResidualMLP
from noumena.molecules.topology import Topology

# Every output stays within this many standard deviations of its mean; of a turn that varies by more than a quarter
# radian that is any direction.
_BOUND = 4.0
# Turns that vary more than this, in radians, are free directions.
_FREE = 2.0
_STIFF = 1e-3
_CHUNK = 1024


class InternalDecoder(nn.Module):
    """From latents to torsions, azimuths, angles and bond lengths, and from these to coordinates.

    Every output is a deviation from the mean of the training data in units of its spread, so that a molecule keeps its
    bonds and its local hands whatever the latents say: lengths and angles are bounded, and stiff azimuths cannot turn
    to the other side of their centre.
    """

    def __init__(self, topology: Topology, z_dim: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.internal = InternalCoordinates(topology)
        bonds, turns = len(topology) - 1, self.internal.turns
        self.network = ResidualMLP(z_dim, width, blocks)
        self.lengths = nn.Linear(width, 2 * bonds)
        self.turns = nn.Linear(width, 2 * turns)
        with torch.no_grad():
            self.lengths.weight.mul_(0.1)
            self.turns.weight.mul_(0.1)
        self.register_buffer("length_mean", torch.ones(bonds, 2))
        self.register_buffer("length_std", torch.zeros(bonds, 2))
        self.register_buffer("turn_mean", torch.zeros(2, turns))
        self.register_buffer("turn_spread", torch.ones(turns))

    def calibrate(self, xyz: Tensor) -> None:
        """Take means and spreads over training frames ``xyz``, shape (frames, atoms, 3)."""
        found = [self.internal(part.double()) for part in xyz.split(_CHUNK)]
        lengths, turns = torch.cat([part[0] for part in found]), torch.cat([part[1] for part in found])
        self._statistic("length_mean").copy_(lengths.mean(0))
        self._statistic("length_std").copy_(lengths.std(0, correction=0))
        cos, sin = torch.cos(turns).mean(0), torch.sin(turns).mean(0)
        # Mardia & Jupp 2000, section 2.3: the circular standard deviation from the mean resultant length.
        resultant = torch.hypot(cos, sin).clamp(math.exp(-0.5 * _FREE**2), 1.0 - 1e-12)
        self._statistic("turn_spread").copy_((-2.0 * resultant.log()).sqrt().clamp(_STIFF, _FREE))
        mean = torch.atan2(sin, cos)
        self._statistic("turn_mean").copy_(torch.stack([torch.cos(mean), torch.sin(mean)]))

    def _statistic(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def coordinates(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths, and cosines and sines of the turns, as :meth:`InternalCoordinates.build` takes them."""
        h = self.network(z)
        deviation = _bounded(self.lengths(h)).unflatten(1, (-1, 2))
        lengths = self._statistic("length_mean") + self._statistic("length_std") * deviation
        turn = _bounded(self.turns(h)).unflatten(1, (2, -1)) * self._statistic("turn_spread")
        along, across = turn.unbind(1)
        along = 1.0 + along
        norm = (along.square() + across.square()).clamp_min(1e-12).rsqrt()
        along, across = along * norm, across * norm
        cos, sin = self._statistic("turn_mean")
        return lengths, cos * along - sin * across, sin * along + cos * across

    def forward(self, z: Tensor) -> Tensor:
        """Coordinates in angstrom, shape (batch, atoms, 3), of latents, shape (batch, latent)."""
        return self.internal.build(*self.coordinates(z))


def _bounded(x: Tensor) -> Tensor:
    return _BOUND * torch.tanh(x / _BOUND)
