import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.neighbours import NearestCrystals, anonymous_formula, shared_types, structure_types
from tests.crystals.random_cells import salt


def random_vectors(n, seed=0):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 5.0, 0.1, 2.0, 1.0])


def by_hand(metric, reference, query):
    reference, query = reference.double().numpy(), query.double().numpy()
    if metric == "cosine":
        a, b = query - reference.mean(0), reference - reference.mean(0)
        return 1 - (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    scale = reference.std(0) if metric == "standardised" else 1.0
    return np.linalg.norm((query[:, None] - reference[None]) / scale, axis=-1)


@pytest.mark.parametrize("metric", ["euclidean", "standardised", "cosine"])
def test_the_nearest_are_those_of_the_whole_matrix_of_distances(metric):
    reference, query = random_vectors(40), random_vectors(9, seed=1)
    found = NearestCrystals(reference, metric).query(query, 4)
    distance = by_hand(metric, reference, query)
    np.testing.assert_array_equal(found.index.numpy(), distance.argsort(1)[:, :4])
    np.testing.assert_allclose(found.distance.numpy(), np.sort(distance, 1)[:, :4], atol=1e-5)


def test_a_crystal_is_not_its_own_neighbour_when_left_out():
    vectors = random_vectors(12)
    own = torch.arange(12)
    assert torch.equal(NearestCrystals(vectors).query(vectors, 1).index[:, 0], own)
    found = NearestCrystals(vectors).query(vectors, 20, without=own).index
    assert found.shape == (12, 11)
    assert not (found == own[:, None]).any()
    some = own.clone()
    some[5:] = -1
    assert torch.equal(NearestCrystals(vectors).query(vectors, 1, without=some).index[5:, 0], own[5:])


def test_equally_near_crystals_come_by_number():
    vectors = random_vectors(3).repeat(4, 1)
    assert NearestCrystals(vectors).query(vectors[:1], 4).index.tolist() == [[0, 3, 6, 9]]


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.zeros(3), torch.tensor([[1.0], [torch.nan]])])
def test_vectors_that_are_none_are_refused(bad):
    with pytest.raises(DataError, match="neighbours"):
        NearestCrystals(bad)


def test_other_mistakes_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        NearestCrystals(torch.zeros(2, 2), "cosin")
    index = NearestCrystals(random_vectors(3))
    with pytest.raises(ConfigError, match="at least 1"):
        index.query(random_vectors(1), 0)
    with pytest.raises(DataError, match="5 numbers"):
        index.query(torch.zeros(1, 4))
    with pytest.raises(DataError, match="give one each"):
        shared_types(torch.zeros(2, 1, dtype=torch.int64), ["a"], ["a"])
    with pytest.raises(ConfigError, match="symprec"):
        structure_types(salt(), 2.0)


def supercell(batch):
    frac = torch.cat([batch.frac_coords / 2, batch.frac_coords / 2 + torch.tensor([0.0, 0.0, 0.5])])
    frac[:, :2] = torch.cat([batch.frac_coords, batch.frac_coords])[:, :2]
    lattice = batch.lattice * torch.tensor([1.0, 1.0, 2.0])[:, None]
    return CrystalBatch(batch.atom_types.repeat(2), frac, lattice, batch.num_atoms * 2)


def perovskite(a, b, x, origin=0.0):
    frac = torch.tensor([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]).double() + origin
    return CrystalBatch.of(3.9 * torch.eye(3).double(), frac, torch.tensor([a, b, x, x, x]))


def test_a_structure_type_does_not_know_elements_size_origin_or_cell():
    pytest.importorskip("moyopy")
    other = CrystalBatch(torch.tensor([12, 8]), salt().frac_coords + 0.17, salt().lattice * 0.8, salt().num_atoms)
    types = [structure_types(one)[0] for one in (salt(), other, supercell(salt()))]
    assert types == [types[0]] * 3
    assert types[0].startswith("AB 225 ")
    first = structure_types(perovskite(38, 22, 8))[0]
    # The corner and the centre change places with the origin, and with them Wyckoff's letters.
    assert structure_types(perovskite(38, 22, 8, origin=0.5)) == (first,)
    assert first != types[0]
    assert first.startswith("ABC3 221 ")


def test_an_anonymous_formula_counts_in_smallest_numbers():
    assert anonymous_formula([8, 8, 8, 26, 26]) == "A2B3"
    assert anonymous_formula([11, 17, 11, 17]) == "AB"
    assert anonymous_formula([6] * 4) == "A"


def test_shares_count_neighbours_of_the_same_type():
    index = torch.tensor([[0, 1, 2], [1, 2, 3], [0, 1, 3]])
    share = shared_types(index, ["a", "a", "b", ""], ["a", "", "c"])
    assert float(share[0]) == pytest.approx(2 / 3)
    assert torch.isnan(share[1])
    assert float(share[2]) == 0.0
