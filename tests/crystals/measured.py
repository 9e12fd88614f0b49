"""Crystals that the tests of measures work on: some of the package's own sample, and perturbed ones."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

import noumena.crystals
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.data import read_crystals

SAMPLE = Path(noumena.crystals.__file__).parent / "samples" / "mp20.parquet"


@cache
def sample() -> CrystalBatch:
    """All crystals of the shipped sample."""
    return replace(read_crystals(SAMPLE).crystals, names=())


def first(n: int, start: int = 0) -> CrystalBatch:
    return sample().select(torch.arange(start, start + n))


def perturbed(crystals: CrystalBatch, sites: float, strain: float, seed: int = 0) -> CrystalBatch:
    """Sites moved by normal noise of ``sites`` angstrom along each cell vector, cells strained."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(crystals.frac_coords.shape, generator=generator, dtype=torch.float64)
    bend = torch.randn(crystals.lattice.shape, generator=generator, dtype=torch.float64)
    return replace(
        crystals,
        frac_coords=crystals.frac_coords + sites * noise / crystals.lengths[crystals.crystal],
        lattice=crystals.lattice @ (torch.eye(3, dtype=torch.float64) + strain * bend),
    )


def described_otherwise(crystals: CrystalBatch, seed: int = 0) -> CrystalBatch:
    """The same crystals in skewed cells, turned, from another origin, atoms in other images and another order."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(len(crystals)):
        one = crystals.select(torch.tensor([i]))
        skew = torch.eye(3, dtype=torch.float64)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            step = torch.eye(3, dtype=torch.float64)
            step[a, b] = int(rng.integers(-1, 2))
            skew = step @ skew
        turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(3, 3))))[0]
        turn = turn * torch.linalg.det(turn).sign()
        order = torch.from_numpy(rng.permutation(len(one.atom_types)))
        frac = one.frac_coords @ torch.linalg.inv(skew) + torch.from_numpy(rng.random(3))
        frac = frac + torch.from_numpy(rng.integers(-1, 2, frac.shape).astype(np.float64))
        parts.append(CrystalBatch(one.atom_types[order], frac[order], skew @ one.lattice @ turn, one.num_atoms))
    return CrystalBatch.cat(parts)


def cubic(numbers: list[int], frac: list[list[float]], edge: float) -> CrystalBatch:
    lattice = edge * torch.eye(3, dtype=torch.float64)
    return CrystalBatch.of(lattice, torch.tensor(frac, dtype=torch.float64), torch.tensor(numbers))
