"""The message-passing decoder: coordinates from a latent vector, refined by equivariant layers."""

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ConfigError
from noumena.molecules.baselines import aligned_to, mean_structure
from noumena.molecules.fixed import register_fixed
from noumena.molecules.internal import ancestors, spanning_tree
from noumena.molecules.networks.graph import gather, neighbours
from noumena.molecules.networks.heads import ResidualMLP
from noumena.molecules.topology import Topology

_LEAST_SPREAD = 0.01
"""Angstrom: a distance that varies less over the data is standardised as if it varied by this much."""
_CALIBRATION_FRAMES = 2048
_FIRST_OUTPUTS = 0.1
"""Weights of the outputs before training, as a part of their usual size."""


class EGNNDecoder(nn.Module):
    """E(n)-equivariant message passing (Satorras et al. 2021, eqs. 3-6) from start coordinates that the latent gives.

    The latent gives every atom its scalars and every bond of a spanning tree its vector; the vectors add up to start
    coordinates. Layers then move atoms along the lines to their neighbours. At the end the tree's bonds are given
    lengths that the last scalars predict, their directions kept. The start coordinates make handedness
    expressible, which distances and equivariant layers alone do not: layers commute with the mirror.

    Deterministic. Edges: all pairs within three bonds and some further ones; every atom and edge has its own
    embedding, so that exchangeable atoms too have their own coordinates.

    Args:
        topology: of the molecule.
        z_dim: number of latents.
        width: scalar channels of atoms and messages.
        layers: equivariant layers.
        trunk: width of the network that reads the latent.
        blocks: its residual blocks.
        neighbours: edges of each atom, those within three bonds first.

    Raises:
        ConfigError: an option out of its range.
    """

    neighbour_index: Tensor
    mask: Tensor
    order: Tensor
    parent: Tensor
    slot: Tensor
    jumps: Tensor
    distance_mean: Tensor
    distance_std: Tensor
    bond_mean: Tensor
    bond_std: Tensor
    start: Tensor
    spread: Tensor

    def __init__(
        self,
        topology: Topology,
        z_dim: int,
        *,
        width: int = 32,
        layers: int = 2,
        trunk: int = 256,
        blocks: int = 2,
        neighbours: int = 12,
    ) -> None:
        super().__init__()
        sizes = {"z_dim": z_dim, "width": width, "layers": layers, "trunk": trunk, "blocks": blocks}
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}.")
        self._register_graph(topology, neighbours)
        atoms, bonds = len(topology), len(self.order)
        self.width = width
        self.trunk = ResidualMLP(z_dim, trunk, blocks, norm=True)
        self.to_bonds = nn.Linear(trunk, 3 * bonds)
        self.to_atoms = nn.Linear(trunk, atoms * width)
        self.layers = nn.ModuleList(Layer(width, self.neighbour_index.numel()) for _ in range(layers))
        self.to_length = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))
        self.direct_length = nn.Linear(z_dim, bonds)
        with torch.no_grad():
            # Small: the noise of latents that nothing has trained yet would otherwise be an error, which the encoder
            # first removes by giving every conformation the same code.
            for last in (self.to_bonds, cast("nn.Linear", self.to_length[-1]), self.direct_length):
                last.weight.mul_(_FIRST_OUTPUTS)

    def _register_graph(self, topology: Topology, count: int) -> None:
        graph, tree = neighbours(topology, count), spanning_tree(topology)
        order = np.asarray(tree.order[1:], dtype=np.int64)
        bonds, single = len(order), np.float32
        # The number of each atom's tree bond; the root has none.
        slot = np.full(len(topology), bonds, dtype=np.int64)
        slot[order] = np.arange(bonds)
        parent = np.asarray(tree.parent, dtype=np.int64)
        for name, values in (
            ("neighbour_index", graph.index),
            ("mask", graph.mask),
            ("order", order),
            ("parent", parent[order]),
            ("slot", slot),
            ("jumps", ancestors(parent)),
        ):
            register_fixed(self, name, values)
        for name, values in (
            ("distance_mean", np.ones(graph.index.shape, dtype=single)),
            ("distance_std", np.ones(graph.index.shape, dtype=single)),
            ("bond_mean", np.full(bonds, 1.5, dtype=single)),
            ("bond_std", np.full(bonds, 0.05, dtype=single)),
            # A straight chain until calibrated.
            ("start", np.tile(np.asarray([1.5, 0, 0], dtype=single), (bonds, 1))),
            ("spread", np.ones((bonds, 1), dtype=single)),
        ):
            self.register_buffer(name, torch.as_tensor(values))

    def forward(self, z: Tensor) -> Tensor:
        """Coordinates in angstrom, shape (batch, atoms, 3), centroids at the origin, of latents (batch, z_dim)."""
        hidden = self.trunk(z)
        vectors = self.start + self.spread * self.to_bonds(hidden).unflatten(-1, (-1, 3))
        scalars = self.to_atoms(hidden).unflatten(-1, (-1, self.width))
        xyz = self._chain(vectors)
        for layer in self.layers:
            scalars, xyz = layer(scalars, xyz, self)
        return self._with_lengths(xyz, scalars, z)

    def _chain(self, vectors: Tensor) -> Tensor:
        """Atoms at the sums of bond vectors (batch, bonds, 3) along the tree, centred: (batch, atoms, 3)."""
        # The root's own vector is the zero that follows the last bond.
        xyz = nn.functional.pad(vectors, (0, 0, 0, 1)).index_select(1, self.slot)
        for jump in self.jumps:  # pointer jumping (Hillis & Steele 1986): log2(depth) steps
            xyz = xyz + xyz.index_select(1, jump)
        return xyz - xyz.mean(1, keepdim=True)

    def _with_lengths(self, xyz: Tensor, scalars: Tensor, z: Tensor) -> Tensor:
        """The same directions of the tree's bonds, with lengths that the latent gives."""
        vectors = xyz.index_select(1, self.order) - xyz.index_select(1, self.parent)
        ends = torch.cat([scalars.index_select(1, self.order), scalars.index_select(1, self.parent)], -1)
        # Linear in the latent, as thermal bond lengths nearly are, and what the atoms' surroundings add to it.
        deviation = self.direct_length(z) + self.to_length(ends)[..., 0]
        lengths = self.bond_mean + self.bond_std * deviation
        norm = (vectors.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        return self._chain(vectors / norm * lengths[..., None])

    @torch.no_grad()
    def calibrate(self, xyz: Tensor) -> None:
        """Take the statistics of training frames, shape (frames, atoms, 3), once before training.

        Means and spreads of edges and bonds, and the mean structure's bond vectors as start.
        """
        xyz = xyz[:: math.ceil(len(xyz) / _CALIBRATION_FRAMES)]
        aligned = aligned_to(xyz, mean_structure(xyz))
        vectors = aligned[:, self.order] - aligned[:, self.parent]
        self.start.copy_(vectors.mean(0))
        self.spread.copy_(vectors.var(0, correction=0).sum(-1, keepdim=True).div(3).sqrt().clamp_min(_LEAST_SPREAD))
        lengths = vectors.square().sum(-1).sqrt()
        self.bond_mean.copy_(lengths.mean(0))
        self.bond_std.copy_(lengths.std(0, correction=0).clamp_min(1e-3))
        distance = (gather(xyz, self.neighbour_index) - xyz[:, :, None]).square().sum(-1).sqrt()
        self.distance_mean.copy_(distance.mean(0))
        self.distance_std.copy_(distance.std(0, correction=0).clamp_min(_LEAST_SPREAD))


class Layer(nn.Module):
    """One equivariant layer: messages of scalars and distance, then coordinates and scalars."""

    def __init__(self, width: int, edges: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.edge = nn.Parameter(torch.randn(edges, width))
        self.distance = nn.Linear(2, width, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.move = nn.Linear(width, 1, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        # Small first moves leave the start coordinates, which are near the data, where they are.
        nn.init.normal_(self.move.weight, std=0.1 / math.sqrt(width))

    def forward(self, scalars: Tensor, xyz: Tensor, graph: EGNNDecoder) -> tuple[Tensor, Tensor]:
        """New scalars (batch, atoms, width) and coordinates (batch, atoms, 3)."""
        index, mask = graph.neighbour_index, graph.mask
        count = index.shape[1]
        normed = self.norm(scalars)
        away = xyz[:, :, None] - gather(xyz, index)
        distance = (away.square().sum(-1) + 1e-6).sqrt()
        # The standardised distance stands for the squared one of eq. 3: of order 1 for bonds and for far pairs alike.
        deviation = (distance - graph.distance_mean) / graph.distance_std
        known = torch.stack([4 * torch.tanh(deviation / 4), torch.tanh(deviation / 20)], -1)
        edge = self.edge.unflatten(0, (-1, count))
        messages = self.receiver(normed)[:, :, None] + gather(self.sender(normed), index) + edge + self.distance(known)
        messages = self.message(messages) * mask[..., None]
        # Eq. 4 with the difference divided by the distance + 1 angstrom, so that far neighbours do not dominate.
        direction = away / (distance + 1)[..., None]
        moves = torch.matmul(self.move(messages).transpose(-1, -2), direction)[:, :, 0]
        xyz = xyz + moves * (graph.distance_std.mean() / math.sqrt(count))
        update = self.update(torch.cat([normed, messages.sum(2) / math.sqrt(count)], -1))
        return scalars + update, xyz
