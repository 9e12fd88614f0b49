import math
from itertools import product

import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.descriptors import PROPERTIES, Descriptors, element_properties
from noumena.crystals.environments import environments
from noumena.crystals.networks.vector import CrystalVector
from tests.crystals.random_cells import made, salt

CUTOFF = 5.0


@pytest.fixture(scope="module")
def fitted():
    crystals = made(24, seed=3)
    vector = CrystalVector(8, hidden=32)
    vector.fit(crystals, epochs=2, seed=1)
    return crystals, vector


def counted_by_hand(batch, number, cutoff):
    """Neighbours of each atom by a loop over cells, far enough for every cell of these tests."""
    first, last = batch.offsets[number : number + 2].tolist()
    lattice, frac = batch.lattice[number].numpy(), batch.frac_coords[first:last].numpy()
    shifts = np.array(list(product(range(-6, 7), repeat=3)))
    off = (frac[None, :, None] - frac[:, None, None] + shifts) @ lattice
    length = np.linalg.norm(off, axis=-1)
    return [np.sort(row[(row > 1e-2) & (row < cutoff)]) for row in length.reshape(len(frac), -1)]


def test_environments_hold_every_neighbour_of_skewed_cells():
    batch = made(5, seed=1)
    found = environments(batch, CUTOFF)
    for number in range(len(batch)):
        first = int(batch.offsets[number])
        for atom, expected in enumerate(counted_by_hand(batch, number, CUTOFF)):
            got = found.distance[found.centre == first + atom].sort().values.numpy()
            np.testing.assert_allclose(got, expected, atol=1e-9)


def test_environments_stay_within_their_crystal_and_point_to_the_neighbour():
    batch = made(4, seed=2)
    found = environments(batch, CUTOFF)
    assert torch.equal(batch.crystal[found.centre], batch.crystal[found.neighbour])
    off = batch.cart_coords[found.centre] + found.vector - batch.cart_coords[found.neighbour]
    cells = torch.linalg.solve(batch.lattice[batch.crystal[found.centre]].mT, off)
    torch.testing.assert_close(cells, cells.round(), atol=1e-9, rtol=0)


def test_coordination_and_volume_of_rock_salt_are_those_of_its_shells():
    numbers = Descriptors().numbers(salt())[0]
    edge, sodium, chlorine = 3.99 * math.sqrt(2.0), 1.66, 1.02

    def bonds(distance, radii):
        return 1.0 / (1.0 + math.exp(-(1.28 - distance / radii) / 0.05))

    unlike = 6 * bonds(edge / 2, sodium + chlorine)
    alike = [12 * bonds(edge / math.sqrt(2), 2 * radius) for radius in (sodium, chlorine)]
    coordination = 4 * len(PROPERTIES) + 27  # behind three sets of nine shells
    assert float(numbers[coordination]) == pytest.approx(unlike + sum(alike) / 2, abs=1e-3)
    assert float(numbers[-2]) == pytest.approx(math.log(edge**3 / 8), abs=1e-5)


def turned(batch, seed):
    matrix = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double()).Q
    return CrystalBatch(batch.atom_types, batch.frac_coords, batch.lattice @ matrix, batch.num_atoms)


def moved(batch, seed):
    shift = torch.rand(len(batch), 3, generator=torch.Generator().manual_seed(seed)).double()
    return CrystalBatch(batch.atom_types, batch.frac_coords + shift[batch.crystal], batch.lattice, batch.num_atoms)


def in_other_images(batch, seed):
    shift = torch.randint(-3, 4, batch.frac_coords.shape, generator=torch.Generator().manual_seed(seed))
    return CrystalBatch(batch.atom_types, batch.frac_coords + shift, batch.lattice, batch.num_atoms)


def reordered(batch, seed):
    order = torch.rand(len(batch.atom_types), generator=torch.Generator().manual_seed(seed)).double()
    order = (order + batch.crystal).argsort()
    return CrystalBatch(batch.atom_types[order], batch.frac_coords[order], batch.lattice, batch.num_atoms)


def doubled(batch, seed):
    """A supercell of two cells along one vector."""
    axis = seed % 3
    size = torch.ones(3, dtype=torch.float64)
    size[axis] = 2.0
    step = torch.zeros(3, dtype=torch.float64)
    step[axis] = 0.5
    parts = [
        CrystalBatch(
            one.atom_types.repeat(2),
            torch.cat([one.frac_coords / size, one.frac_coords / size + step]),
            one.lattice * size[:, None],
            one.num_atoms * 2,
        )
        for one in batch.split(1)
    ]
    return CrystalBatch.cat(parts)


def skewed(batch, seed):
    """Other vectors of the same lattice."""
    change = torch.eye(3, dtype=torch.float64)
    change[seed % 3, (seed + 1) % 3] = 1.0
    frac = batch.frac_coords @ torch.linalg.inv(change)
    return CrystalBatch(batch.atom_types, frac, change @ batch.lattice, batch.num_atoms)


@pytest.mark.parametrize("change", [turned, moved, in_other_images, reordered, doubled, skewed])
@pytest.mark.parametrize("seed", [0, 1])
def test_descriptors_and_vector_do_not_depend_on_how_a_crystal_is_written(fitted, change, seed):
    crystals, vector = fitted
    other = change(crystals, seed)
    with torch.no_grad():
        torch.testing.assert_close(vector.descriptors(other), vector.descriptors(crystals), atol=2e-3, rtol=0)
        torch.testing.assert_close(vector.descriptors.shares(other), vector.descriptors.shares(crystals))
        spread = vector(crystals).std(0)
        torch.testing.assert_close(vector(other) / spread, vector(crystals) / spread, atol=2e-3, rtol=0)


def test_descriptors_tell_elements_and_distances_apart(fitted):
    _, vector = fitted
    near, far = salt(), salt(length=4.2)
    swapped = CrystalBatch(torch.tensor([3, 17]), near.frac_coords, near.lattice, near.num_atoms)
    with torch.no_grad():
        numbers = [vector.descriptors(one) for one in (near, far, swapped)]
    assert (numbers[0] - numbers[1]).abs().max() > 0.1
    assert (numbers[0] - numbers[2]).abs().max() > 0.1


def test_a_crystal_does_not_depend_on_its_batch(fitted):
    crystals, vector = fitted
    with torch.no_grad():
        together = vector(crystals)
        alone = torch.cat([vector(one) for one in crystals.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-4 * float(together.std()), rtol=1e-4)


def test_a_cell_without_volume_is_refused():
    flat = salt()
    flat.lattice[0, 2] = flat.lattice[0, 1]
    with pytest.raises((DataError, torch.linalg.LinAlgError)):
        Descriptors().numbers(flat)


def test_properties_of_elements_are_finite_and_known():
    table = element_properties()
    iron = dict(zip(PROPERTIES, table[26].tolist(), strict=True))
    assert torch.isfinite(table).all()
    assert (iron["period"], iron["group"], iron["s"], iron["p"], iron["d"], iron["f"]) == (4, 8, 2, 0, 6, 0)
    assert iron["electronegativity"] == pytest.approx(1.83)
    assert iron["melting point"] == pytest.approx(1811)
    tellurium = dict(zip(PROPERTIES, table[52].tolist(), strict=True))
    assert [tellurium[shell] for shell in "spdf"] == [2, 4, 0, 0]
    gadolinium = dict(zip(PROPERTIES, table[64].tolist(), strict=True))
    assert gadolinium["f"] >= 7


def test_the_same_seed_learns_the_same_vector(fitted):
    crystals, vector = fitted
    again, other = CrystalVector(8, hidden=32), CrystalVector(8, hidden=32)
    again.fit(crystals, epochs=2, seed=1)
    other.fit(crystals, epochs=2, seed=2)
    with torch.no_grad():
        assert torch.equal(again(crystals), vector(crystals))
        assert not torch.allclose(other(crystals), vector(crystals))


def test_learning_leaves_the_global_generator_alone():
    vector = CrystalVector(4, hidden=8)
    before = torch.get_rng_state()
    vector.fit(made(6), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_vector_can_be_learned_and_stays_frozen():
    vector = CrystalVector(4, hidden=8).requires_grad_(False)
    before = vector.encoder.weight.clone()
    vector.fit(made(6), epochs=1)
    assert not torch.equal(vector.encoder.weight, before)
    assert not any(weight.requires_grad for weight in vector.parameters())


def test_choosing_axes_decorrelates_the_vector_and_keeps_what_it_tells():
    crystals = made(80, seed=4)
    vector = CrystalVector(6, hidden=16)
    inputs = vector.calibrate(crystals)
    with torch.no_grad():
        before = vector.loss(inputs)
        vector._choose_axes(inputs)
        after = vector.loss(inputs)
        covariance = torch.cov(vector.encode(inputs).T)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    spread = covariance.diagonal().sqrt()
    correlation = covariance / spread / spread[:, None]
    torch.testing.assert_close(correlation, torch.eye(6), atol=2e-2, rtol=0)
    assert (spread.diff() <= 1e-6).all()


def test_learning_lowers_the_loss():
    crystals = made(60, seed=5)
    torch.manual_seed(0)
    vector = CrystalVector(16, hidden=32)
    with torch.no_grad():
        untrained = float(vector.loss(vector.calibrate(crystals)))
    vector.fit(crystals, epochs=60)
    with torch.no_grad():
        assert float(vector.loss(vector.inputs(crystals))) < 0.7 * untrained
