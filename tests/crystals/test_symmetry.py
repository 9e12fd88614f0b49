import dataclasses

import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.geometry import lattice_of, wrapped
from noumena.crystals.symmetry import group_counts, kept, space_groups, symmetrised, systems, wyckoff_labels
from tests.crystals.models import crystals, real

pytest.importorskip("moyopy")


def rock_salt():
    lengths, angles = torch.full((3,), 5.64 / 2**0.5, dtype=torch.float64), torch.full((3,), 60.0, dtype=torch.float64)
    frac = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    return CrystalBatch.of(lattice_of(lengths, angles), frac, torch.tensor([11, 17]), names=["rock salt"])


def pushed(batch, distance, strain, seed=0):
    """Atoms off their places by ``distance`` angstrom (standard deviation), cells strained."""
    generator = torch.Generator().manual_seed(seed)
    push = distance * torch.randn(batch.frac_coords.shape, generator=generator, dtype=batch.dtype)
    frac = batch.frac_coords + torch.einsum("ai,aij->aj", push, torch.linalg.inv(batch.lattice)[batch.crystal])
    bend = torch.eye(3) + strain * torch.randn(batch.lattice.shape, generator=generator, dtype=batch.dtype)
    return dataclasses.replace(batch, frac_coords=frac, lattice=batch.lattice @ bend)


def test_known_structures_have_their_space_groups():
    assert space_groups(rock_salt()).tolist() == [225]
    assert wyckoff_labels(rock_salt())[0].split()[0] == "225"
    assert space_groups(crystals(5)).tolist() == [1]


def test_noise_hides_a_group_and_symmetrising_finds_it_again():
    truth = real(60, most=10).crystals
    group = space_groups(truth, 0.01)
    noisy = pushed(truth, 0.015, 0.001)
    assert (space_groups(noisy, 0.01) == group).double().mean() < 0.2
    exact, found = symmetrised(noisy)
    assert torch.equal(space_groups(exact, 0.01), found)
    assert (found == group).double().mean() > 0.8


def test_symmetrising_moves_little_keeps_the_order_and_is_done_once():
    noisy = pushed(real(40, most=10).crystals, 0.015, 0.001, seed=1)
    exact, groups = symmetrised(noisy, max_move=0.1)
    assert torch.equal(exact.atom_types, noisy.atom_types)
    assert exact.names == noisy.names
    move = torch.einsum("ai,aij->aj", wrapped(exact.frac_coords - noisy.frac_coords), exact.lattice[exact.crystal])
    assert float(move.norm(dim=1).max()) <= 0.1
    again, same = symmetrised(exact)
    assert torch.equal(same, groups)
    torch.testing.assert_close(again.frac_coords, exact.frac_coords, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(again.lattice, exact.lattice, rtol=0.0, atol=1e-6)


def test_a_crystal_without_symmetry_stays_as_it_is():
    one = crystals(7)
    found, groups = symmetrised(one)
    assert groups.tolist() == [1]
    torch.testing.assert_close(found.frac_coords, one.frac_coords)
    torch.testing.assert_close(found.lattice, one.lattice)


def test_what_is_no_crystal_has_no_group_and_harms_no_other():
    flat = dataclasses.replace(rock_salt(), lattice=torch.zeros(1, 3, 3, dtype=torch.float64), names=())
    both = CrystalBatch.cat([flat, rock_salt()])
    assert space_groups(both).tolist() == [0, 225]
    found, groups = symmetrised(both)
    assert groups.tolist() == [0, 225]
    assert torch.equal(found.lattice[0], flat.lattice[0])


def test_kept_groups_are_counted_against_the_originals():
    truth = CrystalBatch.cat([rock_salt(), rock_salt()])
    other = CrystalBatch.cat([rock_salt(), pushed(rock_salt(), 0.3, 0.05)])
    found = kept(truth, other, symprec=0.05)
    assert found.kept.tolist() == [True, False]
    assert found.share == 0.5
    with pytest.raises(DataError, match="one each"):
        kept(truth, rock_salt())


def test_groups_belong_to_their_systems():
    groups = torch.tensor([1, 2, 15, 16, 75, 143, 168, 195, 230])
    assert systems(groups).tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 6]
    assert int(group_counts(groups)[230]) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda batch: space_groups(batch, 0.0),
        lambda batch: space_groups(batch, 2.0),
        lambda batch: symmetrised(batch, ()),
        lambda batch: symmetrised(batch, max_move=0.0),
    ],
)
def test_bad_tolerances_are_refused(call):
    with pytest.raises(ConfigError):
        call(rock_salt())
