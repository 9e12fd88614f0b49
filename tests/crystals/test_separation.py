import math

import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import COVALENT_RADII
from noumena.crystals.environments import environments
from noumena.crystals.geometry import lattice_of
from noumena.crystals.separation import LEAST, separated


def some_crystals(n=30, seed=0, *, edge=4.0, dtype=torch.float64):
    """Random elements in random places of skewed cells, many of them on each other."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (n,), generator=generator)
    atoms = int(sizes.sum())
    lengths = edge * (1.0 + torch.rand(n, 3, generator=generator, dtype=torch.float64))
    angles = 75.0 + 30.0 * torch.rand(n, 3, generator=generator, dtype=torch.float64)
    return CrystalBatch(
        torch.randint(1, 90, (atoms,), generator=generator),
        torch.rand(atoms, 3, generator=generator, dtype=torch.float64).to(dtype),
        lattice_of(lengths, angles).to(dtype),
        sizes,
    )


def worst(crystals):
    """The smallest distance of each crystal, as a share of the sum of both radii; infinite without neighbours."""
    exact = crystals.to("cpu", torch.float64)
    pairs = environments(exact, 6.0)
    radii = torch.tensor(COVALENT_RADII, dtype=torch.float64)[exact.atom_types]
    share = pairs.distance / (radii[pairs.centre] + radii[pairs.neighbour])
    found = torch.full((len(crystals),), math.inf, dtype=torch.float64)
    return found.scatter_reduce(0, exact.crystal[pairs.centre], share, "amin")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_atoms_are_too_near_afterwards(dtype):
    crystals = some_crystals(60, dtype=dtype)
    found = separated(crystals)
    assert (worst(crystals) < LEAST).sum() > 20
    assert (worst(found.crystals) >= LEAST).all()
    assert found.crystals.frac_coords.dtype == dtype
    assert torch.equal(found.crystals.atom_types, crystals.atom_types)
    assert not separated(found.crystals).moved.any()


def test_crystals_whose_atoms_keep_their_distance_stay_exactly_as_they_are():
    crystals = some_crystals(40, seed=1, edge=6.0)
    found = separated(crystals)
    apart = worst(crystals) >= LEAST
    assert torch.equal(found.moved, ~apart)
    assert apart.any()
    for number in apart.nonzero()[:, 0]:
        one = torch.tensor([int(number)])
        before, after = crystals.select(one), found.crystals.select(one)
        assert torch.equal(before.frac_coords, after.frac_coords)
        assert torch.equal(before.lattice, after.lattice)
    assert (found.shift[apart] == 0.0).all()
    assert (found.strain[apart] == 0.0).all()


def test_two_atoms_move_by_the_same_along_their_line():
    lattice = 12.0 * torch.eye(3, dtype=torch.float64)[None]
    frac = torch.tensor([[0.5, 0.5, 0.45], [0.5, 0.5, 0.55]], dtype=torch.float64)  # 1.2 angstrom, of copper
    crystals = CrystalBatch(torch.tensor([29, 29]), frac, lattice, torch.tensor([2]))
    found = separated(crystals)
    least = LEAST * 2.0 * COVALENT_RADII[29]
    middle = found.crystals.frac_coords.mean(0)
    torch.testing.assert_close(middle, torch.full((3,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(found.crystals.frac_coords[:, :2], frac[:, :2])
    gap = 12.0 * float(found.crystals.frac_coords[1, 2] - found.crystals.frac_coords[0, 2])
    assert least <= gap <= 1.05 * least
    assert float(found.strain) == 0.0
    assert float(found.shift) == pytest.approx((gap - 1.2) / 2.0, rel=1e-6)


def test_an_atom_too_near_to_its_own_image_needs_a_longer_cell():
    crystals = CrystalBatch(
        torch.tensor([55]),
        torch.zeros(1, 3, dtype=torch.float64),
        2.0 * torch.eye(3, dtype=torch.float64)[None],
        torch.tensor([1]),
    )
    found = separated(crystals)
    edge = float(found.crystals.lattice[0, 0, 0])
    assert edge == pytest.approx(LEAST * 2.0 * COVALENT_RADII[55], rel=2e-3)
    assert float(found.strain) == pytest.approx(edge / 2.0 - 1.0)
    torch.testing.assert_close(found.crystals.lattice / edge, torch.eye(3, dtype=torch.float64)[None])


def test_it_does_not_depend_on_the_others_or_on_the_orientation():
    crystals = some_crystals(12, seed=3)
    together = separated(crystals).crystals
    for number in (0, 5, 11):
        one = torch.tensor([number])
        alone = separated(crystals.select(one)).crystals
        torch.testing.assert_close(alone.frac_coords, together.select(one).frac_coords)
        torch.testing.assert_close(alone.lattice, together.select(one).lattice)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    turned = CrystalBatch(crystals.atom_types, crystals.frac_coords, crystals.lattice @ turn, crystals.num_atoms)
    found = separated(turned).crystals
    torch.testing.assert_close(found.lattice, together.lattice @ turn)
    off = found.frac_coords - together.frac_coords
    assert float((off - off.round()).abs().max()) < 1e-6


def test_what_is_no_cell_is_left_as_it_is():
    crystals = some_crystals(3, seed=2)
    crystals.lattice[1] = float("nan")
    found = separated(crystals)
    assert not found.moved[1]
    assert torch.isnan(found.crystals.lattice[1]).all()


@pytest.mark.parametrize("least", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_out_of_range_is_refused(least):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        separated(some_crystals(2), least)
