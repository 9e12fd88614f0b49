import logging

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.gmm import GaussianMixture
from noumena.density.mixtures import covariances_of, factors_of, fit_mixture, shrink
from noumena.density.table import Table

QUIET = {"accelerator": "cpu", "progress": False}
UNITS = np.array([1.0, 100.0, 0.01, 1.0])


def lobes(n=600, seed=0, columns=4):
    """Three correlated lobes, each column in another unit and far from 0."""
    rng = np.random.default_rng(seed)
    shape = np.random.default_rng(7)
    centres, mixing = 4.0 * shape.normal(size=(3, columns)), shape.normal(size=(3, columns, columns))
    lobe = rng.integers(0, 3, n)
    rows = centres[lobe] + np.einsum("nij,nj->ni", mixing[lobe], rng.normal(size=(n, columns)))
    return ((rows + 10.0) * np.resize(UNITS, columns)).astype("float32")


def fitted(x, val=None, **options):
    model = GaussianMixture(**options)
    model.fit(x, val, **QUIET)
    return model


@pytest.fixture(scope="module")
def trained():
    return fitted(lobes(), lobes(300, seed=1), components=3)


def mixture_of(model):
    """The model's mixture in float64, in its own units."""
    parts = (model.weights.double(), model.means.double(), covariances_of(model.factors.double()))
    return tuple(part.detach() for part in parts)


def own_units(model, x):
    if model.standardizer is None:
        return torch.from_numpy(x).double()
    return (torch.from_numpy(x).double() - model.standardizer.mean.double()) / model.standardizer.scale.double()


# The density


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("standardize", [True, False])
def test_scores_are_those_of_scikit_learn_for_the_same_mixture(covariance, standardize):
    x = lobes(1000)
    model = fitted(x, components=4, covariance=covariance, standardize=standardize)
    weights, means, covariances = mixture_of(model)
    reference = Reference(4, covariance_type=covariance)
    reference.weights_, reference.means_ = weights.numpy(), means.numpy()
    reference.precisions_cholesky_ = factors_of(covariances).numpy()
    unseen = lobes(200, seed=3)
    expected = reference.score_samples(own_units(model, unseen).numpy())
    if standardize:
        expected = expected - np.log(model.standardizer.scale.double().numpy()).sum()
    np.testing.assert_allclose(model.score_samples(unseen), expected, rtol=1e-4, atol=1e-3)


def test_scores_are_those_of_a_mixture_of_torch_in_the_units_of_the_data(trained):
    weights, means, covariances = mixture_of(trained)
    scale, shift = trained.standardizer.scale.double(), trained.standardizer.mean.double()
    components = MultivariateNormal(means * scale + shift, scale[:, None] * covariances * scale)
    expected = MixtureSameFamily(Categorical(weights), components).log_prob(torch.from_numpy(lobes(200, 3)).double())
    np.testing.assert_allclose(trained.score_samples(lobes(200, 3)), expected.numpy(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_the_density_of_one_column_integrates_to_one(covariance):
    x = np.concatenate([lobes(400, columns=1), lobes(400, columns=1) + 30.0])
    model = fitted(x, covariance=covariance)
    grid = np.linspace(x.min() - 30.0, x.max() + 30.0, 20_001)
    assert np.trapezoid(np.exp(model.score_samples(grid[:, None])), grid) == pytest.approx(1.0, abs=1e-3)


def test_a_fit_without_standardising_has_the_same_density():
    x, unseen = lobes(500), lobes(100, seed=3)
    scores = [fitted(x, components=2, standardize=s).score_samples(unseen) for s in (True, False)]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=5e-2)


def test_units_of_the_data_move_the_score_by_their_logarithm():
    x, unseen = lobes(500), lobes(100, seed=3)
    one = fitted(x, components=2).score_samples(unseen)
    other = fitted(x * np.float32(1000), components=2).score_samples(unseen * np.float32(1000))
    np.testing.assert_allclose(one - 4 * np.log(1000.0), other, rtol=1e-3, atol=2e-2)


def test_the_gradient_is_that_of_finite_differences(trained):
    model = GaussianMixture(**trained.hyperparameters())
    model.load_state_dict(trained.state_dict())
    model = model.double()
    x = torch.from_numpy(lobes(5, seed=3)).double()
    units = torch.from_numpy(UNITS)  # one size of step for all columns
    assert torch.autograd.gradcheck(lambda u: model.log_density(u * units), ((x / units).requires_grad_(),))


def test_the_loss_is_the_mean_negative_score(trained):
    x = torch.from_numpy(lobes(300, seed=3))
    assert float(trained.loss(x).total) == pytest.approx(-trained.score_samples(x).mean(), rel=1e-5)
    assert trained.evaluate(x)["loss"] == pytest.approx(-trained.evaluate(x)["score_mean"], rel=1e-5)
    assert trained.score_unit == "nats"


@pytest.mark.parametrize("columns", [1, 3, 14])
def test_the_score_of_a_row_does_not_depend_on_its_batch(columns):
    x = lobes(1100, columns=columns)
    model = fitted(x, components=3)
    together = model.score_samples(x)
    for rows in (np.arange(700), np.array([5]), np.arange(1099, 400, -3)):
        assert np.array_equal(model.score_samples(x[rows]), together[rows])


# Fitting


def test_the_number_of_components_is_found():
    rng = np.random.default_rng(0)
    centres = 20.0 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    x = (centres[rng.integers(0, 4, 800)] + rng.normal(size=(800, 2))).astype("float32")
    model = fitted(x)
    assert model.components == 4
    means = model.standardizer.inverse(model.means).numpy()
    assert np.abs(means[:, None] - centres).sum(-1).min(0).max() < 0.5
    assert fitted(rng.normal(size=(2000, 2)).astype("float32")).components == 1


def test_the_same_seed_gives_the_same_mixture():
    one, again = (fitted(lobes(300), lobes(100, 1)) for _ in range(2))
    assert one.hyperparameters() == again.hyperparameters()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True))


def test_correlations_of_few_rows_are_taken_away_and_those_of_many_kept():
    rng = np.random.default_rng(0)
    assert fitted(rng.normal(size=(30, 20)).astype("float32")).shrinkage > 0.1
    assert fitted(lobes(2000), components=3).shrinkage <= 1e-3


def test_shrinking_keeps_variances_and_stays_invertible_where_rows_are_fewer_than_columns():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 5, 12)))
    covariance = rows.mT @ rows / 5
    found = shrink(covariance, 0.2)
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), covariance.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(found[0, 0, 1], 0.8 * covariance[0, 0, 1])
    torch.testing.assert_close(covariances_of(factors_of(found)), found)


def test_whole_groups_are_held_out_to_choose():
    """Each group is a narrow cluster: held out at random its rows would call for a component of their own."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(np.repeat(rng.normal(size=(12, 2)), 30, axis=0) + 0.01 * rng.normal(size=(360, 2))).float()
    groups = torch.arange(12).repeat_interleave(30)
    by_groups = fitted(Table(rows, ("a", "b"), groups=groups))
    at_random = fitted(Table(rows, ("a", "b")))
    assert by_groups.components <= 2 < 8 <= at_random.components


def test_more_rows_than_max_rows_are_drawn_and_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO, "noumena"):
        model = fitted(lobes(500), max_rows=200, components=2)
    assert "200 of 500 rows" in caplog.text
    assert float(model.seen) == 200.0


def test_a_mixture_does_not_get_worse_by_its_start():
    rows = torch.from_numpy(lobes(400)).double()
    rows = (rows - rows.mean(0)) / rows.std(0)
    first = fit_mixture(rows, 3, "full", seed=0)
    again = fit_mixture(rows, 3, "full", seed=1, start=first)
    torch.testing.assert_close(again.means, first.means, atol=0.05, rtol=0.0)


# Further rows


def test_further_rows_are_learnt():
    near, far = lobes(400), lobes(400, seed=5) + np.float32(3.0) * UNITS.astype("float32")
    model = GaussianMixture(components=3)
    model.partial_solve(near)
    before = model.score_samples(far).mean()
    for part in np.split(far, 8):
        model.partial_solve(part)
    assert float(model.seen) == 800.0
    assert model.score_samples(far).mean() > before + 1.0
    assert float(model.weights.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_one_gaussian_learnt_in_parts_is_the_one_of_all_rows(covariance):
    x = lobes(600)
    model = GaussianMixture(components=1, covariance=covariance, shrinkage=0.0)
    for part in np.split(x, 6):
        model.partial_solve(part)
    scale = model.standardizer.scale.numpy()
    mean = model.means[0].numpy() * scale + model.standardizer.mean.numpy()
    found = covariances_of(model.factors.double())[0].numpy()
    expected = np.cov(x.T.astype("float64"), bias=True) / np.outer(scale, scale)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found, expected if covariance == "full" else np.diag(expected), rtol=1e-3, atol=1e-3)


def test_further_rows_of_another_width_or_not_finite_are_refused(trained):
    with pytest.raises(DataError):
        trained.partial_solve(lobes(10, columns=3))
    with pytest.raises(DataError, match="NaN"):
        trained.partial_solve(np.full((3, 4), np.nan))


# Small and odd data


@pytest.mark.parametrize("far", [1e3, 1e10, 1e20, 1e38, 1e308])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_far_row_is_an_anomaly_and_its_score_and_gradient_are_numbers(far, everywhere, standardize):
    model = fitted(lobes(300), lobes(100, 1), components=2, standardize=standardize)
    row = lobes(1).astype("float64")
    row[0, slice(None) if everywhere else 1] = -far
    assert model.predict(row).tolist() == [-1]
    assert np.isfinite(model.score_samples(row)).all()
    x = torch.from_numpy(row.clip(-3e38, 3e38)).float().requires_grad_()
    model.log_density(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_refused(trained, bad):
    with pytest.raises(DataError):
        trained.score_samples([[bad, 1.0, 1.0, 1.0]])
    with pytest.raises(DataError):
        fitted(np.array([[bad, 1.0], [1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("n", [2, 3, 9, 10, 25])
@pytest.mark.parametrize("columns", [1, 4, 60])
def test_few_rows_are_enough(n, columns):
    x = lobes(n, columns=columns)
    model = fitted(x)
    assert np.isfinite(model.score_samples(x)).all()
    assert (model.score_samples(x) > model.score_samples(x + 100.0 * x.std(0)).max()).all()


def test_more_columns_than_most_tables_have_are_enough():
    x = np.random.default_rng(0).normal(size=(120, 400)).astype("float32")
    model = fitted(x[:100], x[100:])
    assert model.components == 1
    assert model.score_samples(x[100:]).min() > model.score_samples(3.0 * x[100:]).max()


@pytest.mark.parametrize("standardize", [False, True])
def test_a_constant_column_that_changed_makes_an_anomaly(standardize):
    x = lobes(300)
    x[:, 1], x[:, 3] = 1234.5, 0.0
    model = fitted(x, x[:150], standardize=standardize)
    normal = x[np.argsort(model.score_samples(x))[-20:]]
    changed = normal + np.array([0.0, 1.0, 0.0, 0.0], dtype="float32")
    assert (model.predict(normal) == 1).all()
    assert (model.predict(changed) == -1).all()
    if standardize:
        assert (model.sample(20, torch.Generator().manual_seed(0))[:, 1] == 1234.5).all()


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_only_constant_columns_are_told_from_everything_else(covariance):
    x = np.full((50, 2), 3.0, dtype="float32")
    model = fitted(x, x, covariance=covariance)
    assert model.predict([[3.0, 3.0], [3.0, 3.5]]).tolist() == [1, -1]


def test_repeated_rows_have_a_finite_score():
    x = np.repeat(lobes(6), 40, axis=0)
    for components in (None, 8):
        model = fitted(x, x, components=components)
        assert np.isfinite(model.score_samples(x)).all()
        assert model.predict(x.mean(0, keepdims=True) + x.std(0)).tolist() == [-1]


@pytest.mark.parametrize("dtype", ["int16", "int64", "uint8", "bool", "float64"])
def test_rows_of_any_number_type_are_taken(dtype):
    x = np.random.default_rng(0).integers(0, 2, size=(60, 3)).astype(dtype)
    expected = fitted(x.astype("float32")).score_samples(x.astype("float32"))
    assert np.array_equal(fitted(x).score_samples(x), expected)


def test_what_has_no_spread_or_too_few_rows_is_refused():
    with pytest.raises(DataError, match="at least 2 rows"):
        fitted(lobes(1))
    with pytest.raises(ConfigError, match=r"model\.components.*16 rows"):
        fitted(lobes(15), components=8)


# Use


def test_samples_are_a_function_of_the_generator_and_have_the_moments_of_the_data(trained):
    x = lobes(3000)
    first, again = (trained.sample(3000, torch.Generator().manual_seed(3)).numpy() for _ in range(2))
    assert np.array_equal(first, again)
    np.testing.assert_allclose((first.mean(0) - x.mean(0)) / x.std(0), 0.0, atol=0.15)
    np.testing.assert_allclose(np.corrcoef(first.T), np.corrcoef(x.T), atol=0.12)
    np.testing.assert_allclose(first.std(0), x.std(0), rtol=0.1)
    assert trained.score_samples(first).mean() == pytest.approx(trained.score_samples(x).mean(), abs=0.2)


def test_no_samples_are_an_empty_table_and_a_negative_number_is_refused(trained):
    assert trained.sample(0).shape == (0, 4)
    with pytest.raises(ConfigError):
        trained.sample(-1)


@pytest.mark.parametrize("options", [{}, {"components": 2, "covariance": "diag"}, {"standardize": False}])
def test_a_saved_model_keeps_everything_to_the_bit(options, tmp_path):
    x = lobes(200, seed=4)
    model = fitted(lobes(300), lobes(150, 1), **options)
    model.save(tmp_path / "model")
    loaded = noumena.load(tmp_path / "model")
    assert isinstance(loaded, GaussianMixture)
    assert loaded.hyperparameters() == model.hyperparameters()
    assert np.array_equal(loaded.score_samples(x), model.score_samples(x))
    assert np.array_equal(loaded.p_value(x), model.p_value(x))
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    assert torch.equal(loaded.sample(9, next(generators)), model.sample(9, next(generators)))
    loaded.partial_solve(x)
    model.partial_solve(x)
    assert np.array_equal(loaded.score_samples(x), model.score_samples(x))


def test_p_values_of_normal_rows_are_uniform(trained):
    p = trained.p_value(lobes(2000, seed=11))
    assert p.min() > 0.0
    assert (p < 0.1).mean() == pytest.approx(0.1, abs=0.07)


def test_responsibilities_are_chances_and_there_are_no_latents(trained):
    torch.testing.assert_close(trained.responsibilities(lobes(20)).sum(1), torch.ones(20))
    with pytest.raises(NotSupportedError, match="no latents"):
        trained.encode(torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_dim", 0),
        ("components", 0),
        ("covariance", "spherical"),
        ("shrinkage", -0.1),
        ("shrinkage", 1.1),
        ("shrinkage", float("nan")),
        ("max_rows", 1),
        ("anomaly_fraction", 0.0),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=rf"model\.{name}"):
        GaussianMixture(**{name: value})
