"""A model of conformations that is not trained: principal components, through a mirror if asked for."""

import torch

from noumena.core.posterior import DiagonalGaussian
from noumena.molecules.baselines import AlignedPCA
from noumena.molecules.geometry import superposed


class Linear:
    """Keeps what evaluation asks of a model; ``mirror`` turns everything it makes into its mirror image."""

    device = torch.device("cpu")

    def __init__(self, data, z_dim, mirror=False):
        self.molecule = data.topology
        self.pca = AlignedPCA.fit(data.xyz, z_dim)
        self.z_dim = len(self.pca.axes)
        self.sign = -1.0 if mirror else 1.0

    def as_dataset(self, data):
        return data

    def encode(self, frames):
        xyz = getattr(frames, "xyz", frames)
        z = self.pca.encode(xyz) / self.pca.spread
        return DiagonalGaussian(z, torch.full_like(z, -4.0))

    def decode(self, z):
        return self.sign * self.pca.decode(z * self.pca.spread)

    def reconstruct(self, frames):
        xyz = getattr(frames, "xyz", frames)
        return superposed(self.decode(self.encode(xyz).mean), xyz)

    def sample(self, n, generator=None, *, prior="fitted"):
        z = torch.randn(n, self.z_dim, generator=generator)
        return self.decode(z if prior == "fitted" else 2 * z)

    def interpolate(self, start, end, steps):
        first, last = self.encode(torch.stack([start, end])).mean
        return self.decode(first + torch.linspace(0, 1, steps)[:, None] * (last - first))
