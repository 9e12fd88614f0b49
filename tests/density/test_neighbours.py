import copy
import logging
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.special import gammaln

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.metrics import nearest_neighbours
from noumena.density.neighbours import Neighbours

QUIET = {"accelerator": "cpu", "progress": False}
METHODS = ("mean", "kth", "density")


def cloud(n=400, seed=0, columns=3):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, columns)) * 10.0 ** (np.arange(columns) % 3) + 5.0).astype("float32")


def fitted(x, val=None, **options):
    model = Neighbours(**options)
    model.fit(x, val, **QUIET)
    return model


@pytest.fixture(scope="module", params=METHODS)
def trained(request):
    return fitted(cloud(), cloud(200, seed=1), method=request.param, neighbours=5)


def sorted_distances(x, train, k):
    """Distances to the nearest training rows in standard deviations, by comparing all pairs in float64."""
    std = train.astype("float64").std(0)
    pairs = (x[:, None].astype("float64") - train[None]) / std
    return np.sort(np.sqrt((pairs**2).sum(-1)), axis=1)[:, :k]


# The score


def test_scores_are_those_of_their_formulas():
    train, x = cloud(), cloud(100, seed=2)
    distances = sorted_distances(x, train, 5)
    np.testing.assert_allclose(fitted(train, neighbours=5).score_samples(x), -distances.mean(1), rtol=1e-5)
    np.testing.assert_allclose(fitted(train, neighbours=5, method="kth").score_samples(x), -distances[:, -1], rtol=1e-5)
    radius, std = distances[:, -1], train.astype("float64").std(0)
    log_volume = 1.5 * math.log(math.pi) - gammaln(2.5) + 3.0 * np.log(radius) + np.log(std).sum()
    expected = math.log(5 / 400) - log_volume
    found = fitted(train, neighbours=5, method="density").score_samples(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_the_default_is_the_baseline_of_the_evaluation():
    train, x = cloud(), cloud(100, seed=2)
    np.testing.assert_allclose(fitted(train).score_samples(x), nearest_neighbours(train)(x), rtol=1e-5)


def test_the_density_of_many_rows_is_that_they_were_drawn_from():
    rng = np.random.default_rng(0)
    x = (7.0 * rng.normal(size=(4000, 2))).astype("float32")
    model = fitted(x, method="density", neighbours=100)
    inner = (7.0 * rng.uniform(-1.0, 1.0, size=(300, 2))).astype("float32")
    expected = -0.5 * (inner / 7.0) ** 2 - np.log(7.0 * np.sqrt(2.0 * np.pi))
    assert np.abs(model.score_samples(inner) - expected.sum(1)).mean() < 0.12
    assert model.score_unit == "nats"
    assert fitted(x).score_unit == "negative distance"


def test_the_tree_and_the_comparison_with_every_row_agree(trained):
    x = torch.from_numpy(cloud(200, seed=2))
    by_tree = trained.score_samples(x)
    compared = copy.deepcopy(trained)
    compared._nearest = compared._nearest_by_comparison
    np.testing.assert_allclose(compared.score_samples(x), by_tree, rtol=1e-5)


def test_the_score_of_a_row_does_not_depend_on_its_batch(trained):
    x = cloud(5000, seed=2)
    together = trained.score_samples(x)
    for rows in (np.arange(700), np.array([4999]), np.arange(4000, 100, -3)):
        assert np.array_equal(trained.score_samples(x[rows]), together[rows])


def test_the_gradient_is_that_of_finite_differences(trained):
    model = copy.deepcopy(trained).double()
    units = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    start = (torch.from_numpy(cloud(4, seed=2)).double() / units).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: model.log_density(u * units), (start,))


def test_the_loss_is_the_mean_negative_score(trained):
    x = cloud(100, seed=2)
    found = trained.evaluate(x)
    assert found["loss"] == pytest.approx(-trained.score_samples(x).mean(), rel=1e-5)


def test_a_training_row_finds_itself():
    x = cloud()
    assert (fitted(x, neighbours=1).score_samples(x) == 0.0).all()


# The reference rows


def test_more_rows_than_max_rows_are_drawn_by_the_seed_and_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO, "noumena"):
        models = [fitted_with_seed(seed) for seed in (0, 0, 1)]
    assert "50 of 400 rows" in caplog.text
    assert [model.reference_rows for model in models] == [50, 50, 50]
    assert torch.equal(models[0].reference, models[1].reference)
    assert not torch.equal(models[0].reference, models[2].reference)


def fitted_with_seed(seed):
    model = Neighbours(max_rows=50)
    model.fit(cloud(), seed=seed, **QUIET)
    return model


def test_further_rows_join_until_the_reservoir_is_full_and_then_replace_others():
    model = Neighbours(neighbours=1, max_rows=100, standardize=False)
    parts = np.split(np.arange(200, dtype="float32")[:, None] / 8.0, 5)
    model.partial_solve(parts[0])
    model.partial_solve(parts[1])
    assert model.reference_rows == 80
    assert model.score_samples(parts[1]).max() == 0.0
    for part in parts[2:]:
        model.partial_solve(part)
    assert model.reference_rows == 100
    assert float(model.seen) == 200.0
    assert len(model.reference.unique()) == 100
    assert set(model.reference.flatten().tolist()) <= set(np.concatenate(parts).flatten().tolist())


def test_the_reservoir_is_a_fair_sample():
    kept = []
    for seed in range(60):
        model = Neighbours(max_rows=20, standardize=False)
        for part in np.arange(100, dtype="float32").reshape(4, 25, 1):
            model.partial_solve(part, seed)
        kept.append(model.reference.flatten().numpy())
    early = (np.concatenate(kept) < 50).mean()
    assert early == pytest.approx(0.5, abs=0.06)  # 1200 draws: three standard deviations are 0.043


def test_the_index_follows_the_rows():
    x = cloud()
    model = fitted(x)
    before = model.score_samples(x)
    other = fitted(cloud(seed=9))
    other.score_samples(x)
    other.load_state_dict(model.state_dict())
    assert np.array_equal(other.score_samples(x), before)
    assert np.allclose(model.double().score_samples(x), before, rtol=1e-5, atol=1e-6)


def test_a_copy_carries_no_index(trained):
    x = cloud(20, seed=2)
    scores = trained.score_samples(x)
    assert trained._index is not None
    for twin in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert twin._index is None
        assert np.array_equal(twin.score_samples(x), scores)


def test_a_saved_model_keeps_everything_to_the_bit(trained, tmp_path):
    x = cloud(100, seed=2)
    trained.save(tmp_path / "model")
    loaded = noumena.load(tmp_path / "model")
    assert isinstance(loaded, Neighbours)
    assert loaded.hyperparameters() == trained.hyperparameters()
    assert np.array_equal(loaded.score_samples(x), trained.score_samples(x))
    assert np.array_equal(loaded.p_value(x), trained.p_value(x))


# Small and odd data


@pytest.mark.parametrize("far", [1e3, 1e10, 1e20, 1e38, 1e308])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("standardize", [False, True])
def test_a_far_row_is_an_anomaly_and_its_score_and_gradient_are_numbers(far, everywhere, method, standardize):
    model = fitted(cloud(100), cloud(50, 1), method=method, standardize=standardize)
    row = cloud(1).astype("float64")
    row[0, slice(None) if everywhere else 2] = -far
    assert model.predict(row).tolist() == [-1]
    assert np.isfinite(model.score_samples(row)).all()
    x = torch.from_numpy(row.clip(-3e38, 3e38)).float().requires_grad_()
    model.log_density(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_refused(trained, bad):
    with pytest.raises(DataError):
        trained.score_samples([[bad, 1.0, 1.0]])
    with pytest.raises(DataError):
        trained.partial_solve([[bad, 1.0, 1.0]])
    with pytest.raises(DataError):
        fitted(np.array([[bad, 1.0], [1.0, 2.0]]))


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_occur_more_often_than_neighbours_are_asked_for_have_a_finite_score(method):
    x = np.repeat(cloud(10), 30, axis=0)
    model = fitted(x, x, method=method)
    assert np.isfinite(model.score_samples(x)).all()
    assert model.predict(x[:1] + 0.5 * x.std(0)).tolist() == [-1]
    start = torch.from_numpy(x[:1]).requires_grad_()
    model.log_density(start).sum().backward()
    assert start.grad.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "columns"), [(1, 1), (1, 3), (3, 2), (8, 300)])
def test_fewer_rows_than_neighbours_are_enough(method, n, columns):
    x = cloud(n, columns=columns)
    model = fitted(x, method=method)
    assert np.isfinite(model.score_samples(x)).all()
    assert model.score_samples(x).min() > model.score_samples(x + 1e4).max()


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_column_that_changed_makes_an_anomaly_and_costs_nothing_else(method):
    x = cloud(300)
    with_constant = np.column_stack([x, np.full(len(x), 1234.5, dtype="float32")])
    model = fitted(with_constant, with_constant, method=method)
    np.testing.assert_allclose(
        model.score_samples(with_constant), fitted(x, method=method).score_samples(x), rtol=1e-5, atol=1e-6
    )
    changed = with_constant + np.array([0.0, 0.0, 0.0, 1.0], dtype="float32")
    assert (model.predict(changed) == -1).all()


@pytest.mark.parametrize("method", METHODS)
def test_only_constant_columns_are_told_from_everything_else(method):
    x = np.full((50, 2), 3.0, dtype="float32")
    assert fitted(x, x, method=method).predict([[3.0, 3.0], [3.0, 3.5]]).tolist() == [1, -1]


@pytest.mark.parametrize("dtype", ["int16", "int64", "uint8", "bool", "float64"])
def test_rows_of_any_number_type_are_taken(dtype):
    x = np.random.default_rng(0).integers(0, 2, size=(60, 3)).astype(dtype)
    expected = fitted(x.astype("float32")).score_samples(x.astype("float32"))
    assert np.array_equal(fitted(x).score_samples(x), expected)


# What it does not do


def test_what_it_cannot_do_is_refused_with_the_alternative(trained):
    with pytest.raises(NotSupportedError, match="density/gmm"):
        trained.sample(3)
    with pytest.raises(NotSupportedError, match="no latents"):
        trained.encode(torch.zeros(1, 3))
    with pytest.raises(NotSupportedError, match="no reference rows"):
        Neighbours(input_dim=3).score_samples(cloud(2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_dim", 0),
        ("neighbours", 0),
        ("method", "median"),
        ("max_rows", 0),
        ("reference_rows", -1),
        ("anomaly_fraction", 1.0),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=rf"model\.{name}"):
        Neighbours(**{name: value})
