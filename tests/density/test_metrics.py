import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import DataError
from noumena.density.metrics import detection, mahalanobis, nearest_neighbours, roc_points

SCORES = st.lists(st.integers(-5, 5) | st.just(-np.inf) | st.just(np.nan), min_size=1, max_size=30)


def as_seen(scores):
    """Scores as the contract reads them: what is not finite is lower than everything."""
    scores = np.asarray(scores, dtype=float)
    return np.where(np.isfinite(scores), scores, -np.inf)


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_auroc_is_the_chance_that_a_normal_row_scores_above_an_anomaly_with_ties_counted_half(normal, anomalous):
    a, b = as_seen(normal)[:, None], as_seen(anomalous)[None, :]
    expected = ((a > b) + 0.5 * (a == b)).mean()
    found = detection(np.array(normal, float), np.array(anomalous, float))
    assert found["roc_auc"] == pytest.approx(expected)
    false_alarms, hits = roc_points(np.array(normal, float), np.array(anomalous, float))
    assert np.trapezoid(hits, false_alarms) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(SCORES, SCORES, st.integers(-4, 4))
def test_rates_count_scores_below_the_threshold_or_not_finite_as_anomalies(normal, anomalous, threshold):
    found = detection(np.array(normal, float), np.array(anomalous, float), threshold)
    missed = np.mean([score >= threshold for score in as_seen(anomalous)])
    kept = np.mean([score >= threshold for score in as_seen(normal)])
    assert found["true_positive_rate"] == pytest.approx(1 - missed)
    assert found["true_negative_rate"] == pytest.approx(kept)
    weights = len(normal) / (len(normal) + len(anomalous))
    assert found["accuracy"] == pytest.approx(weights * kept + (1 - weights) * (1 - missed))


def test_without_a_threshold_there_are_no_rates_and_statistics_skip_what_is_not_finite():
    found = detection(np.array([1.0, 3.0, -np.inf]), np.array([-np.inf]), float("nan"))
    assert "accuracy" not in found
    assert found["normal_score_mean"] == 2.0
    assert found["normal_score_std"] == 1.0
    assert "anomaly_score_mean" not in found


def test_an_empty_class_is_refused_in_words():
    with pytest.raises(DataError, match="0 normal rows and 2 anomalies"):
        detection(np.empty(0), np.ones(2))


def correlated(rows, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 3)) @ np.array([[1.0, 0.9, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 50.0]])


@pytest.mark.parametrize("make", [mahalanobis, nearest_neighbours])
def test_baselines_rank_broken_dependence_below_normal_rows(make):
    score = make(correlated(2000))
    normal = correlated(500, seed=1)
    # Each column alone looks normal: the second is that of another row.
    broken = normal.copy()
    broken[:, 1] = np.roll(broken[:, 1], 1)
    assert detection(score(normal), score(broken))["roc_auc"] > 0.75
    assert detection(score(normal), score(normal + np.array([0.0, 0.0, 1e6])))["roc_auc"] == 1.0


def test_mahalanobis_is_the_log_density_of_the_fitted_gaussian():
    from scipy.stats import multivariate_normal

    train, rows = correlated(200_000), correlated(50, seed=1)
    expected = multivariate_normal(train.mean(0), np.cov(train.T, bias=True)).logpdf(rows)
    np.testing.assert_allclose(mahalanobis(train)(rows), expected, rtol=2e-3)


def test_nearest_neighbours_are_those_of_a_full_search():
    train, rows = correlated(300), correlated(20, seed=1)
    scale = train.std(0)
    distances = np.linalg.norm((rows[:, None] - train[None]) / scale, axis=2)
    expected = -np.sort(distances, axis=1)[:, :10].mean(1)
    np.testing.assert_allclose(nearest_neighbours(train)(rows), expected, rtol=1e-9)


@pytest.mark.parametrize("make", [mahalanobis, nearest_neighbours])
def test_baselines_bear_constant_and_dependent_columns_few_rows_and_far_rows(make):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 2))
    train = np.column_stack([base, base.sum(1), np.full(40, 7.0), 1e9 + rng.normal(size=40)]).astype(np.float32)
    score = make(train)
    changed = train.copy()
    changed[:, 3] += 5.0
    assert np.isfinite(score(train)).all()
    assert detection(score(train), score(changed))["roc_auc"] == 1.0
    assert np.isfinite(make(train[:2])(np.full((1, 5), 3e38, dtype=np.float32))).all()


def test_searching_a_draw_of_the_training_rows_depends_on_the_seed_alone():
    train, rows = correlated(500), correlated(20, seed=1)
    first, again, other = (nearest_neighbours(train, max_rows=50, seed=seed)(rows) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
