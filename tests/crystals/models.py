"""Small models and crystals that the tests of models share."""

import dataclasses

import torch

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.data import read_crystals
from noumena.crystals.model import CrystalVAE

SMALL = {"width": 32, "encoder_layers": 2, "decoder_layers": 2, "heads": 4, "max_atoms": 20}
ORIGINAL = {**SMALL, "representation": "original", "species": 100, "corruption": 0.0, "vector_dim": 0}


def small(seed=0, **options):
    """A model whose weights no symmetry can hide in: none is zero."""
    torch.manual_seed(seed)
    return CrystalVAE(**{**SMALL, **options})


def crystals(*sizes, dtype=torch.float64, first=0):
    """Crystals without symmetry, of these numbers of atoms and up to three elements each."""
    generator = torch.Generator().manual_seed(first)
    atoms, count = sum(sizes), len(sizes)
    crystal = torch.repeat_interleave(torch.arange(count), torch.tensor(sizes))
    elements = torch.randint(1, 90, (count, 3), generator=generator)
    types = elements[crystal, torch.randint(3, (atoms,), generator=generator)]
    lattice = 0.6 * torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    lattice = (lattice + 3.0 * torch.eye(3)) * (torch.tensor(sizes) ** (1 / 3))[:, None, None]
    frac = torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
    names = [f"crystal {number}" for number in range(count)]
    return CrystalBatch.of(lattice, frac, types, torch.tensor(sizes), names).to(dtype=dtype)


def real(count, most=20):
    """The first crystals of the shipped sample with at most so many atoms, as a dataset."""
    data = read_crystals("sample:mp20")
    chosen = (data.crystals.num_atoms <= most).nonzero()[:count, 0]
    return data.subset(chosen)


def changed(batch, **values):
    return dataclasses.replace(batch, **values)
