"""The message-passing encoder: invariant features of conformations from scalar and vector channels of atoms."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ConfigError
from noumena.molecules.fixed import register_fixed
from noumena.molecules.networks.graph import (
    ExponentialNormalBasis,
    cosine_cutoff,
    gather,
    neighbours,
    spherical_harmonics,
)
from noumena.molecules.networks.heads import ResidualMLP
from noumena.molecules.symmetry import topological_classes
from noumena.molecules.topology import Topology

Symmetry = Literal["SE3", "E3"]

_LEAST_SPREAD = 0.25
"""Angstrom: a distance that varies less over the data is standardised as if it varied by this much.

Bonds then still vary by 0.4 standard units, and rounding in float32 (1e-6 angstrom) by 1e-5.
"""
_LEAST_CHANNEL = 0.05
"""Pooled channels, of order 1, that vary less over the data are standardised as if they varied by this much."""
_CALIBRATION_FRAMES, _CALIBRATION_BATCH = 1024, 128


class Geometry(NamedTuple):
    """What the layers see of a batch of conformations.

    Attributes:
        direction: spherical harmonics of the edges, shape (batch, atoms, neighbours, components).
        envelope: cutoff function, 0 where there is no edge, shape (batch, atoms, neighbours).
        radial: radial basis and standardised distance, both within the envelope, shape
            (batch, atoms, neighbours, rbf + 1).
    """

    direction: Tensor
    envelope: Tensor
    radial: Tensor


class ViSNetEncoder(nn.Module):
    """ViSNet (Wang et al. 2024, Nature Communications 15:313) on the fixed graph of one molecule.

    Atoms carry scalars and vectors, edges scalars. Angles and torsions enter at run time, in linear cost, as inner
    products of vectors of an atom and of their rejections from an edge (eqs. 4-8 there). Different from the paper, for
    conformations of one molecule: the graph is fixed (all pairs within three bonds and some further ones, switched off
    smoothly at the cutoff); the embeddings know classes of exchangeable atoms and kinds of edges, of which also the
    distances standardised over the data are given, because a bond varies by 0.04 angstrom only; and atoms are
    averaged within their classes before the readout, because over all atoms the differences between conformations
    average away. The averages are standardised over the data (data-dependent initialisation, Salimans & Kingma 2016).

    Features do not change under rotation, translation and exchange of exchangeable atoms. With ``symmetry="SE3"`` they
    tell mirror images apart, by normalised triple products of vectors; with ``"E3"`` they cannot.

    Args:
        topology: of the molecule.
        width: scalar channels.
        vectors: vector channels.
        layers: rounds of messages.
        heads: of the attention; divides ``width``.
        rbf: radial basis functions.
        cutoff: in angstrom.
        lmax: highest degree of spherical harmonics.
        neighbours: edges of each atom, those within three bonds first.
        pool: channels of each class of atoms that are pooled.
        features: number of features.
        blocks: residual blocks of the readout.
        symmetry: ``SE3`` tells mirror images apart, ``E3`` does not.

    Raises:
        ConfigError: an option out of its range.
    """

    neighbour_index: Tensor
    mask: Tensor
    kind: Tensor
    atom_class: Tensor
    class_size: Tensor
    distance_mean: Tensor
    distance_std: Tensor

    def __init__(
        self,
        topology: Topology,
        *,
        width: int = 32,
        vectors: int = 8,
        layers: int = 2,
        heads: int = 4,
        rbf: int = 16,
        cutoff: float = 12.0,
        lmax: Literal[1, 2] = 1,
        neighbours: int = 12,
        pool: int = 16,
        features: int = 256,
        blocks: int = 2,
        symmetry: Symmetry = "SE3",
    ) -> None:
        super().__init__()
        _check(
            width=width,
            vectors=vectors,
            layers=layers,
            heads=heads,
            rbf=rbf,
            pool=pool,
            features=features,
            blocks=blocks,
        )
        if width % heads:
            raise ConfigError(f"heads: {heads} do not divide the width {width}. Choose a divisor of {width}.")
        if not cutoff > 0:
            raise ConfigError(f"cutoff: expected a distance above 0 angstrom, got {cutoff}.")
        if lmax not in (1, 2):
            raise ConfigError(f"lmax: expected 1 or 2, got {lmax}.")
        if symmetry not in ("SE3", "E3"):
            raise ConfigError(f"symmetry: expected 'SE3' or 'E3', got '{symmetry}'.")
        self.cutoff, self.lmax, self.features = cutoff, lmax, features
        classes = self._register_graph(topology, neighbours)
        self.basis = ExponentialNormalBasis(rbf, cutoff)
        kinds = len(self.distance_mean)
        self.embed_atom = nn.Embedding(classes, width)
        self.embed_edge = nn.Embedding(kinds, width)
        self.embed_radial = nn.Linear(rbf + 1, width)
        self.layers = nn.ModuleList(
            Layer(width, vectors, heads, first=number == 0, mirror=symmetry == "E3") for number in range(layers)
        )
        self.to_pool = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, pool))
        self.standardise = Standardise(classes * pool)
        self.apply(_keep_variance)
        nn.init.normal_(self.embed_atom.weight, std=0.1)
        self.readout = ResidualMLP(classes * pool, features, blocks, norm=True)

    def _register_graph(self, topology: Topology, count: int) -> int:
        """Buffers of the graph; the number of classes."""
        graph = neighbours(topology, count)
        classes = topological_classes(topology)
        for name, values in (
            ("neighbour_index", graph.index),
            ("mask", graph.mask),
            ("kind", graph.kind),
            ("atom_class", classes),
            ("class_size", np.bincount(classes).astype(np.float32)),
        ):
            register_fixed(self, name, values)
        self.register_buffer("distance_mean", torch.zeros(graph.kinds))
        self.register_buffer("distance_std", torch.ones(graph.kinds))
        return int(classes.max()) + 1

    def forward(self, xyz: Tensor) -> Tensor:
        """Invariant features, shape (batch, features), of coordinates in angstrom, shape (batch, atoms, 3)."""
        return self.readout(self.standardise(self.pooled(xyz)))

    def pooled(self, xyz: Tensor) -> Tensor:
        """Channels averaged over the atoms of each class, shape (batch, classes * pool)."""
        geometry = self._geometry(xyz)
        # The length of a tensor would fix the batch size of an exported graph; its shape does not.
        scalars = self.embed_atom(self.atom_class).expand(xyz.shape[0], -1, -1)
        edges = self.embed_edge(self.kind) + self.embed_radial(geometry.radial)
        vectors = None
        for layer in self.layers:
            scalars, vectors, edges = layer(scalars, vectors, edges, geometry, self.neighbour_index)
        atoms = self.to_pool(scalars)
        sums = atoms.new_zeros(atoms.shape[0], len(self.class_size), atoms.shape[-1])
        sums = sums.index_add(1, self.atom_class, atoms)
        return (sums / self.class_size[:, None]).flatten(1)

    def _distances(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors to the neighbours and distances, (batch, atoms, neighbours, 3) and without the last axis."""
        # Bonds vary by some hundredths of an angstrom, so that rounding would be amplified by what follows.
        xyz = xyz if xyz.device.type == "mps" else xyz.double()
        vectors = gather(xyz, self.neighbour_index) - xyz[:, :, None]
        distance = vectors.square().sum(-1).clamp_min(1e-8).sqrt()
        return (vectors / distance[..., None]).to(self.distance_mean.dtype), distance

    def _geometry(self, xyz: Tensor) -> Geometry:
        unit, distance = self._distances(xyz)
        deviation = (distance - self.distance_mean[self.kind]) / self.distance_std[self.kind]
        distance, deviation = distance.to(unit), deviation.to(unit)
        envelope = cosine_cutoff(distance, self.cutoff) * self.mask
        radial = torch.cat([self.basis(distance), _softly_bounded(deviation)[..., None]], -1) * envelope[..., None]
        return Geometry(spherical_harmonics(unit, self.lmax), envelope, radial)

    @torch.no_grad()
    def calibrate(self, xyz: Tensor) -> None:
        """Take the statistics of training frames, shape (frames, atoms, 3), once before training.

        Distances are standardised by the kind of their edge, pooled channels one by one.
        """
        # Evenly spaced frames; as many as are needed for a spread to a few per cent.
        parts = xyz[:: math.ceil(len(xyz) / _CALIBRATION_FRAMES)].split(_CALIBRATION_BATCH)
        distance = torch.cat([self._distances(part)[1] for part in parts]).to(self.distance_mean)
        self.distance_mean.copy_(self._mean_by_kind(distance.mean(0)))
        variance = (distance - self.distance_mean[self.kind]).square().mean(0)
        self.distance_std.copy_(self._mean_by_kind(variance).sqrt().clamp_min(_LEAST_SPREAD))
        self.standardise.calibrate(torch.cat([self.pooled(part) for part in parts]))

    def _mean_by_kind(self, values: Tensor) -> Tensor:
        """Mean of values of edges, shape (atoms, neighbours), over the edges of each kind, shape (kinds,)."""
        kind = self.kind.flatten()
        count = torch.zeros_like(self.distance_mean).index_add(0, kind, torch.ones_like(values).flatten())
        return torch.zeros_like(self.distance_mean).index_add(0, kind, values.flatten()) / count.clamp_min(1)


class Layer(nn.Module):
    """Vector-scalar message passing with runtime geometry, one round.

    Args:
        width: scalar channels.
        vectors: vector channels.
        heads: of the attention.
        first: the vectors are still zero.
        mirror: leave out the pseudoscalars.
    """

    def __init__(self, width: int, vectors: int, heads: int, *, first: bool, mirror: bool) -> None:
        super().__init__()
        self.heads, self.mirror = heads, mirror
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.edge_key_value = nn.Linear(width, 2 * width)
        self.to_vectors = nn.Linear(width, vectors if first else 2 * vectors)
        self.update = nn.Linear(width, width)
        self.dot = nn.Linear(vectors, 2 * vectors, bias=False)
        self.dot_gate = nn.Linear(width, vectors)
        self.from_dot = nn.Linear(vectors, width)
        if not mirror:
            self.triple = nn.Linear(vectors, 3 * vectors, bias=False)
            self.from_triple = nn.Linear(vectors, width, bias=False)
        if not first:
            self.sides = nn.Linear(vectors, 2 * vectors, bias=False)
            self.side_gate = nn.Linear(width, vectors)
            self.from_sides = nn.Linear(vectors, width)

    def forward(
        self, scalars: Tensor, vectors: Tensor | None, edges: Tensor, geometry: Geometry, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New scalars (batch, atoms, width), vectors (batch, atoms, components, vectors) and edges."""
        around = None
        if vectors is not None:
            own, other = self.sides(vectors).chunk(2, -1)
            gathered = gather(torch.cat([vectors, other], -1), index)
            around, other = gathered.chunk(2, -1)
            edges = edges + self._torsion_scalars(own, other, edges, geometry.direction)
        messages = self._messages(scalars, edges, geometry.envelope, index)
        scale = 1 / math.sqrt(index.shape[1])
        moved = self._vector_messages(messages, around, geometry.direction) * scale
        vectors = moved if vectors is None else vectors + moved
        update = self.update(nn.functional.silu(messages.sum(2) * scale))
        return scalars + update + self._vector_scalars(scalars + update, vectors), vectors, edges

    def _torsion_scalars(self, own: Tensor, other: Tensor, edges: Tensor, direction: Tensor) -> Tensor:
        """Inner products of rejections from the edge of vectors at its two ends (ViSNet, eq. 7): of a torsion."""
        along = torch.matmul(direction, own)  # (batch, atoms, neighbours, vectors)
        rejected = own[:, :, None] - along[..., None, :] * direction[..., None]
        # The second rejection is implied: the first is already normal to the edge.
        inner = (rejected * other).sum(-2)
        return self.from_sides(inner * nn.functional.silu(self.side_gate(edges)))

    def _messages(self, scalars: Tensor, edges: Tensor, envelope: Tensor, index: Tensor) -> Tensor:
        """Scalar messages, shape (batch, atoms, neighbours, width), that fade at the cutoff."""
        normed = self.norm(scalars)
        key, value = gather(self.key_value(normed), index).chunk(2, -1)
        edge_key, edge_value = nn.functional.silu(self.edge_key_value(edges)).chunk(2, -1)
        product = self.query(normed)[:, :, None] * key * edge_key
        product = product.unflatten(-1, (self.heads, -1))
        attention = nn.functional.silu(product.sum(-1) / math.sqrt(product.shape[-1])) * envelope[..., None]
        return ((value * edge_value).unflatten(-1, (self.heads, -1)) * attention[..., None]).flatten(-2)

    def _vector_messages(self, messages: Tensor, around: Tensor | None, direction: Tensor) -> Tensor:
        """Sums over neighbours of their vectors and of directions, each with its weights."""
        weights = self.to_vectors(messages)
        if around is None:
            return torch.matmul(direction.transpose(-1, -2), weights)
        weights, own = weights.chunk(2, -1)
        return torch.matmul(direction.transpose(-1, -2), weights) + (around * own[..., None, :]).sum(2)

    def _vector_scalars(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """Inner products of an atom's vectors, of angles (ViSNet, eq. 6), and triple products, of handedness."""
        first, second = self.dot(vectors).chunk(2, -1)
        found = self.from_dot((first * second).sum(-2) * self.dot_gate(scalars))
        if self.mirror:
            return found
        return found + self.from_triple(triple_products(self.triple(vectors[..., :3, :])))


def triple_products(vectors: Tensor) -> Tensor:
    """Pseudoscalars (a x b) . c of vectors of length about 1; their sign changes in the mirror.

    Args:
        vectors: a, b and c side by side, shape (..., 3, 3 * channels).

    Returns:
        Shape (..., channels), between -1 and 1; 0 where a vector vanishes.
    """
    unit = vectors / (vectors.square().sum(-2, keepdim=True) + 1e-2).sqrt()
    a, b, c = unit.chunk(3, -1)
    return (torch.linalg.cross(a, b, dim=-2) * c).sum(-2)


class Standardise(nn.Module):
    """Shift and scale to zero mean and unit variance over the data, as the data were at calibration."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(np.zeros(size, dtype=np.float32)))
        self.register_buffer("std", torch.as_tensor(np.ones(size, dtype=np.float32)))

    def forward(self, values: Tensor) -> Tensor:
        """Same shape, (batch, size)."""
        return (values - self.mean) / self.std

    def calibrate(self, values: Tensor) -> None:
        """Take mean and spread of ``values``, shape (frames, size)."""
        self.mean.copy_(values.mean(0))
        std = values.std(0, correction=0)
        # What hardly varies is noise, of rounding at the last, and must not be blown up.
        self.std.copy_(std.clamp_min(max(0.5 * float(std.median()), _LEAST_CHANNEL)))


def _keep_variance(module: nn.Module) -> None:
    """Weights that keep the variance of a layer's inputs (Glorot & Bengio 2010).

    With torch's own, a third of that, messages and so the differences between conformations are 0.001 of what the
    embeddings contribute to an atom's scalars.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        with torch.no_grad():
            for bias in (p for name, p in module.named_parameters() if name == "bias"):
                bias.zero_()


def _softly_bounded(values: Tensor) -> Tensor:
    """About the value up to 2 or so, at most 4 in size."""
    return 4 * torch.tanh(values / 4)


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}.")
