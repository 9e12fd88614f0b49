"""Training frames that the data do not have, and that are as good: mirror images and crossings of two frames."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from noumena.core.seeding import Noise
from noumena.molecules.internal import InternalCoordinates
from noumena.molecules.symmetry import mirror_permutation
from noumena.molecules.topology import Topology


class Augmentation(nn.Module):
    """Changes some of the frames of a minibatch.

    Args:
        topology: of the molecule.
        mirror: replace half of the frames by their mirror image.
        crossover: share of the frames that are crossed with another one.
        overlaps: squared overlap of atoms of each frame, shape (batch,), of frames (batch, atoms, 3).
    """

    def __init__(
        self, topology: Topology, *, mirror: bool, crossover: float, overlaps: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.mirror = mirror
        self.crossover = crossover
        self._topology = topology
        self._overlaps = overlaps
        self.internal = InternalCoordinates(topology)
        self.register_buffer("mirror_index", torch.arange(len(topology), device="cpu"))

    def fit(self, xyz: Tensor) -> None:
        """Find which atoms change places in the mirror, from frames of shape (frames, atoms, 3).

        Raises:
            ConfigError: mirror images are wanted of a molecule that is chiral.
        """
        if self.mirror:
            permutation = torch.from_numpy(mirror_permutation(self._topology, xyz.cpu()))
            cast("Tensor", self.mirror_index).copy_(permutation)

    def mirrored(self, xyz: Tensor) -> Tensor:
        """Mirror images of frames, shape (batch, atoms, 3), like atoms swapped; see :func:`mirror_permutation`."""
        return -xyz.index_select(1, cast("Tensor", self.mirror_index))

    def crossed(self, xyz: Tensor, noise: Noise | None = None) -> Tensor:
        """A share of the frames with the part beyond a random bond taken from the next frame of the minibatch.

        A crossing whose atoms overlap more than those of either frame is not made. Processes that share a minibatch
        cross frames within their own share, so that crossings, unlike all else, depend on how many there are.
        """
        bridges = self.internal.bridges
        if bridges == 0:
            return xyz
        draw = torch.randn_like(xyz[:, 0, :2]) if noise is None else noise.normal_like(xyz[:, 0, :2])
        share, place = torch.special.ndtr(draw).unbind(1)
        bond = (place * bridges).long().clamp_max(bridges - 1)
        crossed = self.internal.crossed(xyz, xyz.roll(1, 0), bond)
        overlaps = self._overlaps(xyz)
        allowed = torch.maximum(overlaps, overlaps.roll(1, 0))
        chosen = (share < self.crossover) & (self._overlaps(crossed) <= allowed)
        return torch.where(chosen[:, None, None], crossed, xyz)

    @torch.no_grad()
    def forward(self, xyz: Tensor, noise: Noise | None = None) -> Tensor:
        """Frames to train on, shape (batch, atoms, 3), in angstrom."""
        if self.mirror:
            draw = torch.randn_like(xyz[:, 0, 0]) if noise is None else noise.normal_like(xyz[:, 0, 0])
            xyz = torch.where((draw > 0)[:, None, None], self.mirrored(xyz), xyz)
        return self.crossed(xyz, noise) if self.crossover else xyz
