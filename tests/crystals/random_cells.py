"""Crystals made for the tests of files and data."""

import torch

from noumena.crystals.batch import CrystalBatch

ELEMENTS = (11, 17, 26, 8, 3, 79)


def made(count=6, seed=0, most=7, names=True):
    """Crystals of random skewed cells, random sites and differing sizes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, most + 1, (count,), generator=generator)
    atoms = int(sizes.sum())
    lattice = 4.0 * torch.eye(3, dtype=torch.float64) + torch.randn(count, 3, 3, generator=generator).double() * 0.6
    frac = torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
    types = torch.tensor(ELEMENTS)[torch.randint(0, len(ELEMENTS), (atoms,), generator=generator)]
    return CrystalBatch.of(lattice, frac, types, sizes, [f"mp-{seed}{i}" for i in range(count)] if names else [])


def salt(names=(), count=1, length=3.99):
    """Primitive cells of rock salt."""
    lattice = (length / 2**0.5) * torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    frac = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    return CrystalBatch.of(
        lattice.repeat(count, 1, 1),
        frac.repeat(count, 1),
        torch.tensor([11, 17] * count),
        torch.tensor([2] * count),
        names,
    )
