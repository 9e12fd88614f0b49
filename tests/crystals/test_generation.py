import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.fingerprints import composition_features, nearest, structure_features
from noumena.crystals.generation_metrics import (
    coverage,
    density_of,
    distribution_distances,
    generation,
    unique_and_novel,
    wasserstein,
)
from tests.crystals.measured import cubic, described_otherwise, first, perturbed

pytest.importorskip("pymatgen.core")


def test_a_crystal_in_another_description_is_neither_unique_nor_novel():
    train, some = first(20), first(6, start=30)
    samples = CrystalBatch.cat(
        [some, described_otherwise(some.select(torch.tensor([1, 3]))), described_otherwise(train)]
    )
    unique, novel, failures = unique_and_novel(samples, train, workers=0)
    assert failures == 0
    assert unique[:6].all()
    assert not unique[6:8].any()
    assert novel[:8].all()
    assert not novel[8:].any()


def test_the_same_formula_in_another_structure_is_unique_and_novel():
    salt = cubic([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.0)
    line = replace(salt, lattice=torch.diag(torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64))[None])
    unique, novel, _ = unique_and_novel(CrystalBatch.cat([line, salt]), salt, workers=0)
    assert unique.tolist() == [True, True]
    assert novel.tolist() == [True, False]


def test_of_many_crystals_of_one_formula_the_nearest_are_compared(monkeypatch):
    monkeypatch.setattr("noumena.crystals.generation_metrics.MOST_COMPARED", 3)
    edges = torch.linspace(1.0, 2.0, 12, dtype=torch.float64)
    cells = [cubic([14, 14], [[0, 0, 0], [0.25 * float(e), 0.25, 0.25]], 5.0) for e in edges]
    train = CrystalBatch.cat(cells)
    _, novel, _ = unique_and_novel(described_otherwise(train), train, workers=0)
    assert not novel.any()


def test_what_is_no_cell_is_not_unique_and_not_novel():
    samples = first(3)
    broken = replace(samples, lattice=samples.lattice * torch.tensor([1.0, torch.nan, 1.0])[:, None, None])
    unique, novel, _ = unique_and_novel(broken, first(2, start=10), workers=0)
    assert unique.tolist() == novel.tolist() == [True, False, True]


def test_samples_that_are_the_data_cover_them_and_have_their_distributions():
    data = first(40)
    values = coverage(described_otherwise(data), data) | distribution_distances(described_otherwise(data), data)
    assert values["coverage_recall"] == values["coverage_precision"] == 1.0
    for name in ("density", "volume", "elements", "atoms", "nearest"):
        assert values[f"w1_{name}"] == pytest.approx(0.0, abs=1e-6)


def test_one_repeated_sample_has_precision_without_recall():
    data = first(40)
    values = coverage(data.select(torch.zeros(40, dtype=torch.int64)), data)
    assert values["coverage_precision"] == 1.0
    assert values["coverage_recall"] < 0.5


def test_features_do_not_depend_on_the_description():
    crystals = first(20)
    other = described_otherwise(crystals)
    torch.testing.assert_close(structure_features(other), structure_features(crystals), atol=1e-8, rtol=0)
    torch.testing.assert_close(composition_features(other), composition_features(crystals))


def test_structure_features_have_no_scale_and_a_mean_density_of_one():
    crystals = first(10)
    larger = replace(crystals, lattice=1.7 * crystals.lattice)
    torch.testing.assert_close(structure_features(larger), structure_features(crystals), atol=1e-8, rtol=0)
    assert structure_features(crystals)[:, -16:].mean() == pytest.approx(1.0, abs=0.05)


def test_structure_features_are_a_sum_over_all_neighbours():
    one = cubic([29], [[0, 0, 0]], 3.0)
    steps = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lengths = np.linalg.norm(steps, axis=1)
    lengths = lengths[lengths > 0]
    grid = np.arange(1, 49) / 16.0
    bumps = np.exp(-0.5 * ((grid - lengths[:, None]) / 0.08) ** 2) / (0.08 * math.sqrt(2 * math.pi))
    expected = bumps.sum(0) / (4 * np.pi * grid**2)
    np.testing.assert_allclose(structure_features(one)[0].numpy(), expected, atol=2e-3, rtol=2e-3)


def test_the_nearest_composition_is_the_chemically_similar_one():
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    known = CrystalBatch.cat([cubic([19, 17], sites, 4.0), cubic([26, 8], sites, 4.0), cubic([29, 79], sites, 4.0)])
    asked = CrystalBatch.cat([cubic([11, 17], sites, 4.0), cubic([27, 8], sites, 4.0), cubic([29, 47], sites, 4.0)])
    assert nearest(composition_features(asked), composition_features(known))[1].tolist() == [0, 1, 2]


def test_density_is_in_grams_per_cubic_centimetre():
    copper = cubic([29] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], 3.615)
    assert float(density_of(copper)) == pytest.approx(8.93, abs=0.02)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (50, 70), (40, 40)])
def test_wasserstein_distance_is_scipys(n, m):
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(n)
    first_set, second_set = torch.randn(n, generator=generator), 2 * torch.randn(m, generator=generator) + 1
    expected = stats.wasserstein_distance(first_set.double().numpy(), second_set.double().numpy())
    assert wasserstein(first_set, second_set) == pytest.approx(expected)
    with_nan = torch.cat([first_set, torch.tensor([math.nan])])
    assert wasserstein(with_nan, second_set) == pytest.approx(expected)


def test_values_of_samples_are_shares_of_all_samples():
    pytest.importorskip("smact")
    train, held = first(40), first(20, start=60)
    samples = CrystalBatch.cat([perturbed(held.select(torch.arange(8)), 0.01, 0.0), train.select(torch.arange(2))])
    found = generation(samples, train, held, workers=0)
    assert found.values["novel"] == pytest.approx(float(found.novel.double().mean()))
    assert found.values["valid_unique_novel"] <= found.values["unique_novel"] <= found.values["unique"] == 1.0
    assert found.values["cells"] == found.values["valid_structure"] == 1.0
    assert found.values["novel"] == pytest.approx(0.8)
    assert all(isinstance(value, float) for value in found.values.values())


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="no samples"):
        generation(first(1).select(torch.zeros(0, dtype=torch.int64)), first(2), first(2))
