import pytest
import torch

from noumena.crystals.baselines import Lookup, untrained
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import counts_of
from noumena.crystals.matching import match
from noumena.crystals.model import CrystalVAE
from tests.crystals.measured import cubic, described_otherwise, first

ROCK = [[0, 0, 0], [0.5, 0.5, 0.5]]
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def test_a_known_composition_gives_the_known_crystal():
    pytest.importorskip("pymatgen.core")
    train = first(30)
    queries = described_otherwise(train.select(torch.tensor([2, 7])))
    found = Lookup.fit(train).predict(queries)
    assert torch.equal(counts_of(found), counts_of(queries))
    assert match(queries, found, workers=0, criteria=("field",)).matched["field"].tolist() == [True, True]


def test_elements_take_the_sites_of_those_with_as_many_atoms():
    train = CrystalBatch.cat([cubic([56, 22, 8, 8, 8], PEROVSKITE, 4.0), cubic([11, 17], ROCK, 5.0)])
    query = cubic([8, 8, 8, 40, 38], PEROVSKITE[::-1], 9.0)
    found = Lookup.fit(train).predict(query)
    # Strontium is less electronegative than zirconium, as barium is less than titanium.
    assert found.atom_types.tolist() == [38, 40, 8, 8, 8]
    torch.testing.assert_close(found.lattice, train.lattice[:1])


def test_without_a_crystal_of_these_numbers_the_nearest_composition_is_given_as_it_is():
    train = CrystalBatch.cat([cubic([11, 17], ROCK, 5.0), cubic([29, 30], ROCK, 3.0)])
    found = Lookup.fit(train).predict(cubic([19, 17, 17], [*ROCK, [0.5, 0.5, 0.0]], 5.0))
    assert found.atom_types.tolist() == [11, 17]


def test_untrained_networks_have_new_weights_and_the_old_statistics():
    data = first(20)
    model = CrystalVAE(width=16, heads=2, encoder_layers=1, decoder_layers=1, latent_dim=2)
    model.prepare(model.as_dataset(data), seed=1)
    fresh = untrained(model, seed=5)
    for (name, old), (_, new) in zip(model.named_buffers(), fresh.named_buffers(), strict=True):
        assert torch.equal(old, new), name
    assert any(not torch.equal(old, new) for old, new in zip(model.parameters(), fresh.parameters(), strict=True))
    again = untrained(model, seed=5)
    assert all(torch.equal(one, other) for one, other in zip(fresh.parameters(), again.parameters(), strict=True))
