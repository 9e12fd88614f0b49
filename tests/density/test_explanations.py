import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.detector import Detector
from noumena.density.explaining.explained import explain
from noumena.density.explaining.plots import contribution_bars, unusual_rows
from noumena.density.explanations import contributions, nearest_normal, what_would_change
from noumena.density.flow import Flow
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from noumena.density.neighbours import Neighbours

QUICK = {"max_epochs": 3, "batch_size": 64, "lr": 5e-3, "accelerator": "cpu"}
COLUMNS = 5


def correlated_rows(n=300, seed=0):
    """Rows near a plane, each column in another unit."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(2, COLUMNS))
    rows = rng.normal(size=(n, 2)) @ mixing + 0.3 * rng.normal(size=(n, COLUMNS))
    return (rows * 10.0 ** (np.arange(COLUMNS) % 3) + np.arange(COLUMNS)).astype("float32")


def shifted_rows():
    """Normal rows, of which row i has its column i moved by six standard deviations."""
    rows = correlated_rows(COLUMNS, seed=7)
    return rows + 6.0 * np.diag(correlated_rows().std(0)).astype("float32")


class Formula(Detector):
    """A detector whose score is a formula."""

    def __init__(self, score, columns):
        super().__init__(columns, False, 0.1, 0)
        self._build()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.score = score

    def log_density(self, x):
        return self.score(x)


MODELS = {
    "importance": lambda: VAE(hidden_dims=(12,), latent_dim=2, draws=8, activation="silu"),
    "elbo": lambda: VAE(hidden_dims=(12,), latent_dim=2, scoring="elbo"),
    "fixed": lambda: VAE(hidden_dims=(12,), latent_dim=2, decoder_scale="fixed"),
    "probability": lambda: VAE(hidden_dims=(12,), latent_dim=2, scoring="reconstruction_probability", draws=8),
    "realnvp": lambda: Flow(transforms=2, hidden_dims=(12,)),
    "nsf": lambda: Flow(architecture="nsf", transforms=2, hidden_dims=(12,), bins=4),
    "gmm": lambda: GaussianMixture(components=2),
    "diag": lambda: GaussianMixture(components=3, covariance="diag"),
    "one": lambda: GaussianMixture(components=1),
    "knn": lambda: Neighbours(method="density"),
}


@pytest.fixture(scope="module")
def trained():
    """Models by name, each fitted when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            model = MODELS[name]()
            options = QUICK if model.trains_by_gradient else {}
            model.fit(correlated_rows(), correlated_rows(seed=1), **options)
            model.calibrate(correlated_rows(200, seed=2), 0.05)
            made[name] = model
        return made[name]

    return get


# Contributions


def test_of_a_linear_score_each_column_contributes_its_weight_times_its_difference():
    weights = torch.tensor([1.0, -2.0, 0.0, 3.0])
    model = Formula(lambda x: x @ weights.to(x) + 5.0, 4)
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    start = np.array([0.5, 0.5, 0.5, -1.0], dtype="float32")
    found = contributions(model, rows, reference=start)
    np.testing.assert_allclose(found.values, (rows - start) * weights.numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.base, start @ weights.numpy() + 5.0, rtol=1e-7)
    np.testing.assert_allclose(found.residual, 0.0, atol=1e-9)
    assert found.converged.all()


def test_of_a_quadratic_score_interactions_are_shared_as_the_integral_says():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(3, 3))
    matrix = matrix @ matrix.T
    model = Formula(lambda x: -0.5 * torch.einsum("bi,ij,bj->b", x, torch.from_numpy(matrix), x), 3)
    rows, start = rng.normal(size=(8, 3)), rng.normal(size=3)
    rows, start = rows.astype("float32"), start.astype("float32")
    found = contributions(model, rows, reference=start, steps=8)
    # The gradient is linear in t, so that its mean is the one at the middle.
    expected = -(rows.astype(float) - start) * (0.5 * (rows.astype(float) + start) @ matrix)
    np.testing.assert_allclose(found.values, expected, rtol=1e-9, atol=1e-12)
    assert (found.steps == 8).all()


def test_kinks_of_a_score_are_found_and_a_jump_is_reported_as_not_converged():
    rows = np.array([[3.0, 1.0]], dtype="float32")
    start = np.zeros(2, dtype="float32")
    kinked = Formula(lambda x: -(x[:, 0] - 0.1).clamp(min=0).mul(40) - (x[:, 1] - 0.777).abs(), 2)
    found = contributions(kinked, rows, reference=start)
    assert found.converged.all()
    np.testing.assert_allclose(found.values.sum(), found.score - found.base, rtol=1e-4)
    np.testing.assert_allclose(found.values[0], [-116.0, 0.554], rtol=2e-3, atol=2e-2)
    jump = Formula(lambda x: -x[:, 0] - 5.0 * (x[:, 1] > 0.5), 2)
    found = contributions(jump, rows, reference=start)
    assert not found.converged.any()
    np.testing.assert_allclose(found.residual, -5.0, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_contributions_of_every_model_add_up_to_its_score(trained, name):
    model = trained(name)
    rows = np.concatenate([shifted_rows(), correlated_rows(3, seed=5)])
    found = contributions(model, rows, reference=correlated_rows())
    np.testing.assert_allclose(found.score, model.score_samples(rows), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.base, model.score_samples(found.reference), rtol=1e-4, atol=1e-3)
    assert found.converged.all()
    difference = found.score - found.base
    scale = np.maximum(np.abs(difference), 0.01 * np.abs(found.values).sum(1))
    assert (np.abs(found.values.sum(1) - difference) <= 1.01e-4 * scale).all()


@pytest.mark.parametrize("name", ["importance", "realnvp", "gmm", "one"])
def test_a_shifted_column_gets_the_largest_share(trained, name):
    found = contributions(trained(name), shifted_rows(), reference=correlated_rows())
    assert (found.values.argmin(1) == np.arange(COLUMNS)).sum() >= COLUMNS - 1


def test_permuted_columns_have_permuted_contributions():
    order = np.array([3, 0, 4, 1, 2])
    rows = shifted_rows()
    found = []
    for places in (np.arange(COLUMNS), order):
        model = GaussianMixture(components=1, shrinkage=0.0)
        model.fit(correlated_rows()[:, places])
        found.append(contributions(model, rows[:, places]).values)
    np.testing.assert_allclose(found[0][:, order], found[1], rtol=1e-3, atol=1e-3)


def test_of_a_gaussian_a_contribution_is_the_deviation_times_the_surprise_given_the_other_columns(trained):
    model = trained("one")
    rows = shifted_rows()
    mean = (model.means[0] * model.standardizer.scale + model.standardizer.mean).double().numpy()
    scale = model.standardizer.scale.double().numpy()
    precision = (model.factors[0] @ model.factors[0].T).double().numpy() / np.outer(scale, scale)
    covariance = np.linalg.inv(precision)
    expected = np.empty(rows.shape)
    for i in range(COLUMNS):
        others = np.delete(np.arange(COLUMNS), i)
        weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, i])
        variance = covariance[i, i] - covariance[i, others] @ weights
        conditional = mean[i] + (rows - mean)[:, others] @ weights
        expected[:, i] = -0.5 * (rows[:, i] - mean[i]) * (rows[:, i] - conditional) / variance
    for found in (contributions(model, rows, method="terms"), contributions(model, rows, reference=mean)):
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fixed", "probability", "gmm", "diag"])
def test_terms_and_their_base_are_the_score(trained, name):
    model = trained(name)
    rows = shifted_rows()
    found = contributions(model, rows, method="terms")
    np.testing.assert_allclose(found.values.sum(1) + found.base, model.score_samples(rows), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.residual, 0.0, atol=1e-8)


def test_a_column_that_leaves_its_constant_is_to_blame():
    rows = correlated_rows()
    rows[:, 2] = 4.0
    model = VAE(hidden_dims=(8,), latent_dim=2, scoring="reconstruction")
    model.fit(rows, **QUICK)
    odd = rows[:1].copy()
    odd[0, 2] = 5.0
    for method in ("terms", "gradients"):
        found = contributions(model, odd, method=method)
        assert found.values.argmin() == 2
        np.testing.assert_allclose(found.values.sum(1) + found.base, model.score_samples(odd), rtol=1e-3)


def test_what_cannot_be_explained_is_refused_in_words(trained):
    rows = correlated_rows(3)
    with pytest.raises(NotSupportedError, match="no gradient"):
        contributions(VAE(input_dim=COLUMNS, scoring="original"), rows)
    with pytest.raises(NotSupportedError, match="method='gradients'"):
        contributions(trained("importance"), rows, method="terms")
    with pytest.raises(NotSupportedError, match="reference="):
        contributions(VAE(input_dim=COLUMNS, standardize=False), rows)
    with pytest.raises(ConfigError, match="gradients"):
        contributions(trained("gmm"), rows, method="gradient")
    with pytest.raises(ConfigError, match="max_steps"):
        contributions(trained("gmm"), rows, steps=100, max_steps=10)
    with pytest.raises(DataError, match="columns"):
        contributions(trained("gmm"), rows[:, :2])


# The nearest normal row


def test_the_nearest_normal_row_is_that_of_an_exhaustive_search(trained):
    model = trained("gmm")
    reference = np.concatenate([correlated_rows(), shifted_rows()])
    rows = shifted_rows()
    found = nearest_normal(model, rows, reference)
    scale = model.standardizer.scale.double().numpy()
    apart = np.sqrt((((rows[:, None].astype(float) - reference) / scale) ** 2).sum(-1))
    apart[:, model.predict_anomaly(reference)] = np.inf
    np.testing.assert_array_equal(found.index, apart.argmin(1))
    np.testing.assert_allclose(found.distance, apart.min(1), rtol=1e-6)
    np.testing.assert_array_equal(found.rows, reference[found.index])
    assert not model.predict_anomaly(found.rows).any()


def test_without_a_normal_row_or_a_threshold_there_is_no_nearest(trained):
    with pytest.raises(DataError, match="none of its 5 rows normal"):
        nearest_normal(trained("gmm"), correlated_rows(2), shifted_rows())
    with pytest.raises(NotSupportedError, match="threshold"):
        nearest_normal(VAE(input_dim=COLUMNS), correlated_rows(2), correlated_rows())


# What would have to change


@pytest.mark.parametrize(
    ("name", "space"),
    [("importance", "latent"), ("importance", "data"), ("nsf", "latent"), ("gmm", None), ("knn", None)],
)
def test_changed_rows_are_normal_and_nearer_than_the_nearest_normal_row(trained, name, space):
    model = trained(name)
    rows = shifted_rows()
    assert model.predict_anomaly(rows).all()
    found = what_would_change(model, rows, space=space, reference=correlated_rows())
    assert found.reached.all()
    assert not model.predict_anomaly(found.rows).any()
    np.testing.assert_allclose(found.score, model.score_samples(found.rows), rtol=1e-6)
    np.testing.assert_allclose(found.rows - found.change, rows, rtol=1e-4, atol=1e-4)
    assert (found.distance <= nearest_normal(model, rows, correlated_rows()).distance + 1e-6).all()


def test_the_change_of_a_gaussian_is_the_nearest_point_of_the_ellipsoid():
    # Independent columns of unit variance: towards the mean, as far as the threshold's sphere.
    model = Formula(lambda x: -0.5 * x.square().sum(-1), 3)
    model.threshold.fill_(-2.0)
    rows = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, -10.0], [0.1, 0.2, 0.3]], dtype="float32")
    found = what_would_change(model, rows)
    np.testing.assert_allclose(found.distance, [3.0, 8.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(found.rows[0], [1.2, 1.6, 0.0], atol=1e-3)
    np.testing.assert_array_equal(found.rows[2], rows[2])
    kept = what_would_change(model, rows[:1], keep=[0])
    assert kept.rows[0, 0] == 3.0
    assert not kept.reached[0]  # the first column alone is beyond the sphere
    np.testing.assert_allclose(kept.score, -4.5, atol=1e-3)


@pytest.mark.parametrize("space", ["data", "latent"])
def test_kept_columns_stay_to_the_last_bit(trained, space):
    rows = shifted_rows()[:1]
    found = what_would_change(trained("realnvp"), rows, keep=["x_1", 3], space=space)
    np.testing.assert_array_equal(found.rows[:, [1, 3]], rows[:, [1, 3]])
    np.testing.assert_array_equal(found.change[:, [1, 3]], 0.0)
    assert found.reached == (trained("realnvp").score_samples(found.rows) >= found.target)


def test_a_p_value_can_be_the_target(trained):
    model = trained("gmm")
    found = what_would_change(model, shifted_rows(), target_p=0.3)
    assert found.reached.all()
    p = model.p_value(found.rows)
    assert (p >= 0.3).all()
    assert (p <= 0.32).all()
    lower = model.calibration[model.calibration < found.target].numpy()
    assert (model.p_value_of(lower) < 0.3).all()  # no lower target would do


def test_impossible_wishes_are_refused_in_words(trained):
    rows = shifted_rows()
    with pytest.raises(ConfigError, match="every column"):
        what_would_change(trained("gmm"), rows, keep=range(COLUMNS))
    with pytest.raises(ConfigError, match="no column 'weight'"):
        what_would_change(trained("gmm"), rows, keep=["weight"])
    with pytest.raises(ConfigError, match="target_p"):
        what_would_change(trained("gmm"), rows, target_p=1.5)
    with pytest.raises(NotSupportedError, match="space='data'"):
        what_would_change(trained("gmm"), rows, space="latent")
    with pytest.raises(NotSupportedError, match="threshold"):
        what_would_change(VAE(input_dim=COLUMNS), rows)


# Pictures and tables


def test_the_picture_has_a_bar_per_column_and_one_for_the_others(trained):
    explanation = explain(trained("gmm"), shifted_rows()[:2], reference=correlated_rows(), numbers=[11, 42])
    picture = contribution_bars(explanation, most=4)
    FigureCanvasAgg(picture.figure).draw()
    for i, axis in enumerate(picture.figure.axes):
        lengths = np.array([bar.get_width() for bar in axis.patches])
        assert len(lengths) == 4
        np.testing.assert_allclose(lengths.sum(), explanation.contributions.values[i].sum(), rtol=1e-9)
        labels = [label.get_text() for label in axis.get_yticklabels()]
        assert labels[-1] == "2 other columns"
        assert labels[0].startswith(f"x_{np.abs(explanation.contributions.values[i]).argmax()} = ")
        assert f"row {[11, 42][i]}: " in axis.get_title(loc="left")


def test_the_table_says_row_by_row_what_is_wrong(trained):
    model = trained("gmm")
    rows = np.concatenate([shifted_rows()[:1], correlated_rows()[:1]])
    explanation = explain(model, rows, reference=correlated_rows())
    first, second = explanation.table().rows
    assert first[3].startswith("x_0 -")
    assert "sd away" in first[4]
    assert "sd in all" in first[5]
    assert second[4].startswith("0 (0 sd")  # a normal row of the reference is its own nearest
    assert second[5] == "is normal"
    found = explanation.as_columns()
    total = sum(found[f"contribution.x_{i}"] for i in range(COLUMNS)) + found["base"] + found["residual"]
    np.testing.assert_allclose(total, model.score_samples(rows), rtol=1e-5)


def test_reports_explain_the_three_lowest_of_the_held_out_rows(trained):
    model = trained("fixed")
    rows = torch.from_numpy(np.concatenate([correlated_rows(50, seed=3), shifted_rows()]))
    ((table, picture),) = unusual_rows(model, rows, torch.from_numpy(correlated_rows()), seed=0)
    expected = np.argsort(model.score_samples(rows), kind="stable")[:3]
    assert [line[0] for line in table.rows] == [str(number) for number in expected]
    assert len([axis for axis in picture.figure.axes if axis.patches]) == 3
    assert unusual_rows(VAE(input_dim=COLUMNS, scoring="original"), rows, rows, seed=0) == []


def test_rows_that_are_all_normal_stay_as_they_are(trained):
    model = trained("importance")
    rows = correlated_rows()
    rows = rows[~model.predict_anomaly(rows)][:3]
    found = what_would_change(model, rows)
    np.testing.assert_array_equal(found.rows, rows)
    assert found.reached.all()
