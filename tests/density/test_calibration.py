import logging

import numpy as np
import pytest
import torch
from scipy import stats

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.calibration import (
    calibration_fold,
    p_values,
    p_values_by_group,
    rate_interval,
    reaches,
    same_distribution,
    sorted_scores,
    threshold_of,
)
from noumena.density.model import VAE
from noumena.density.table import Table

CALIBRATION = np.array([-3.0, -1.0, -1.0, 0.0, 2.0])
SCORES = np.array([-4.0, -3.0, -1.0, 1.0, 2.0, 9.0])


def rates(draw, n, rate, trials=400, rows=50, **options):
    """Shares of p-values at most ``rate`` of ``rows`` new scores, one for each calibration set of ``n``."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(trials):
        calibration = sorted_scores(draw(rng, n))
        found = p_values(draw(rng, rows), calibration, **options, **({"seed": rng} if options else {}))
        shares.append((found <= rate).mean())
    return np.array(shares)


def normal(rng, size):
    return rng.normal(size=size)


def few_values(rng, size):
    return rng.integers(0, 4, size).astype(float)


def test_a_p_value_counts_the_calibration_scores_that_are_as_low():
    expected = [(1 + np.sum(score >= CALIBRATION)) / 6 for score in SCORES]
    np.testing.assert_allclose(p_values(SCORES, CALIBRATION), expected)
    np.testing.assert_allclose(expected, [1 / 6, 2 / 6, 4 / 6, 5 / 6, 1.0, 1.0])


def test_a_smoothed_p_value_lies_between_the_strict_and_the_other_count_and_follows_its_seed():
    below = np.array([(score > CALIBRATION).sum() for score in SCORES])
    high = p_values(SCORES, CALIBRATION)
    drawn = np.stack([p_values(SCORES, CALIBRATION, ties="smoothed", seed=seed) for seed in range(200)])
    assert (drawn > below / 6).all()
    assert (drawn <= high).all()
    np.testing.assert_allclose(drawn.mean(0), (below / 6 + high) / 2, atol=0.06)
    again = p_values(SCORES, CALIBRATION, ties="smoothed", seed=np.random.default_rng(7))
    np.testing.assert_array_equal(again, p_values(SCORES, CALIBRATION, ties="smoothed", seed=7))


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.5])
def test_smoothed_p_values_are_uniform_whatever_the_ties_and_conservative_ones_never_below(rate):
    for draw in (normal, few_values):
        # A mean over 400 calibration sets; the error is that between sets.
        smoothed = rates(draw, 30, rate, ties="smoothed")
        assert abs(smoothed.mean() - rate) < 4 * smoothed.std() / 20
        conservative = rates(draw, 30, rate)
        assert conservative.mean() - rate < 4 * conservative.std() / 20 + 1e-12
    assert rates(few_values, 30, rate).mean() < rate - 0.02


def test_scores_that_are_not_finite_rank_lowest_in_calibration_and_in_use():
    calibration = sorted_scores(np.array([np.nan, 1.0, np.inf, -np.inf, 0.0]))
    np.testing.assert_array_equal(calibration, [-np.inf, -np.inf, -np.inf, 0.0, 1.0])
    np.testing.assert_allclose(p_values(np.array([np.nan, np.inf, -np.inf]), calibration), 4 / 6)
    np.testing.assert_allclose(p_values(np.array([np.nan, np.inf, -np.inf]), CALIBRATION), 1 / 6)


def test_a_row_below_the_threshold_is_one_whose_p_value_is_at_most_the_rate():
    rng = np.random.default_rng(3)
    for draw in (normal, few_values):
        calibration, scores = sorted_scores(draw(rng, 99)), draw(rng, 500)
        for rate in (0.01, 0.1, 0.1 + 1e-9, 0.33):
            below = scores < threshold_of(calibration, rate)
            np.testing.assert_array_equal(below, p_values(scores, calibration) <= rate)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.1), (999, 0.01), (50, 0.05)])
def test_the_rate_of_a_threshold_is_in_its_interval_as_often_as_stated(n, rate):
    low, high = rate_interval(n, rate, 0.9)
    rng = np.random.default_rng(1)
    true_rates = stats.norm.cdf([threshold_of(sorted_scores(normal(rng, n)), rate) for _ in range(1000)])
    inside = ((true_rates >= low) & (true_rates <= high)).sum()
    assert stats.binomtest(int(inside), 1000, 0.9).pvalue > 1e-3


def test_the_interval_of_counted_false_alarms_is_wider_and_holds_as_often_as_stated():
    low, high = rate_interval(99, 0.1, 0.9, rows=50)
    assert low < rate_interval(99, 0.1, 0.9)[0] < rate_interval(99, 0.1, 0.9)[1] < high
    shares = rates(normal, 99, 0.1, trials=1000)
    inside = ((shares >= low) & (shares <= high)).sum()
    k = np.rint(np.array([low, high]) * 50)
    exact = stats.betabinom.cdf(k[1], 50, 10, 90) - stats.betabinom.cdf(k[0] - 1, 50, 10, 90)
    assert exact >= 0.9
    assert stats.binomtest(int(inside), 1000, exact).pvalue > 1e-3


def test_how_many_rows_a_rate_takes():
    assert [reaches(n, 0.1) for n in (8, 9, 10)] == [False, True, True]
    assert [reaches(n, 0.01) for n in (98, 99)] == [False, True]


def test_each_group_keeps_its_rate_by_its_own_calibration_rows():
    rng = np.random.default_rng(5)
    groups, calibration_groups = rng.integers(0, 3, 6000), rng.integers(0, 3, 3000)
    scores = rng.normal(size=6000) * (1 + groups * 5)
    calibration = rng.normal(size=3000) * (1 + calibration_groups * 5)
    found = p_values_by_group(scores, groups, calibration, calibration_groups)
    together = p_values(scores, sorted_scores(calibration))
    for group in range(3):
        mine = groups == group
        own = sorted_scores(calibration[calibration_groups == group])
        np.testing.assert_array_equal(found[mine], p_values(scores[mine], own))
        assert 0.07 < (found[mine] <= 0.1).mean() < 0.13
    assert (together[groups == 0] <= 0.1).mean() < 0.01
    assert (together[groups == 2] <= 0.1).mean() > 0.18


def test_groups_may_be_text_and_one_without_calibration_rows_is_refused_by_name():
    names = np.array(["pump", "fan", "pump"])
    found = p_values_by_group(np.zeros(3), names, np.array([1.0, -1.0]), np.array(["fan", "pump"]), ties="smoothed")
    assert ((found > 0) & (found <= 1)).all()
    with pytest.raises(DataError, match="fan"):
        p_values_by_group(np.zeros(3), names, np.zeros(2), np.array(["pump", "pump"]))
    with pytest.raises(DataError, match="one group for each score"):
        p_values_by_group(np.zeros(3), names[:2], np.zeros(1), names[:1])


def test_a_drift_of_normal_rows_is_seen_and_its_absence_too():
    rng = np.random.default_rng(2)
    calibration = rng.normal(size=500)
    same = [same_distribution(rng.normal(size=200), rng.normal(size=500)) for _ in range(200)]
    assert stats.binomtest(sum(p <= 0.05 for p in same), 200, 0.05).pvalue > 1e-3
    assert same_distribution(rng.normal(0.5, size=200), calibration) < 1e-3
    with pytest.raises(DataError, match="at least one score"):
        same_distribution(np.zeros(0), calibration)


@pytest.mark.parametrize("fold", ["auto", "trajectory", "group"])
def test_a_fold_of_groups_divides_no_group_and_is_the_same_each_time(fold):
    groups = np.repeat(np.arange(10, 30), np.random.default_rng(0).integers(1, 40, 20))
    rest, chosen = calibration_fold(len(groups), groups, fold=fold)
    assert not set(groups[rest]) & set(groups[chosen])
    np.testing.assert_array_equal(np.sort([*rest, *chosen]), np.arange(len(groups)))
    assert 0.4 < len(chosen) / len(groups) < 0.6
    again = calibration_fold(len(groups), groups, fold=fold)
    np.testing.assert_array_equal(again[1], chosen)
    assert len(calibration_fold(len(groups), groups, fold=fold, seed=2)[1])


def test_a_fold_of_rows_takes_the_share_asked_for_and_few_groups_are_no_groups():
    groups = np.arange(100) % 3
    for rest, chosen in (calibration_fold(100, share=0.3), calibration_fold(100, groups, share=0.3)):
        assert len(chosen) == 30
        np.testing.assert_array_equal(np.sort([*rest, *chosen]), np.arange(100))
    _, whole = calibration_fold(100, groups, fold="group", share=0.3)
    assert len(set(groups[whole])) == 1
    assert [len(part) for part in calibration_fold(2)] == [1, 1]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"fold": "group"}, ConfigError, "fold='random'"),
        ({"fold": "rows"}, ConfigError, "unknown 'rows'"),
        ({"share": 1.0}, ConfigError, "share"),
        ({"groups": np.zeros(9, np.int64), "fold": "group"}, DataError, "1 groups"),
    ],
)
def test_a_fold_that_cannot_be_is_refused_in_words(options, error, words):
    with pytest.raises(error, match=words):
        calibration_fold(9, **options)


# The model's own


@pytest.fixture(scope="module")
def calibrated():
    rng = torch.Generator().manual_seed(0)
    model = VAE(input_dim=3, hidden_dims=[8], latent_dim=2, scoring="elbo").eval()
    model.calibrate(torch.randn(199, 3, generator=rng), 0.05)
    return model, torch.randn(300, 3, generator=rng)


def test_another_threshold_leaves_the_models_own_as_it_is(calibrated):
    model, rows = calibrated
    before = float(model.threshold)
    scores = model.score_samples(rows)
    wide = model.threshold_at(0.3)
    assert wide > before == model.threshold_at(0.05) == float(model.threshold)
    np.testing.assert_array_equal(model.is_anomaly(scores, wide), model.p_value(rows) <= 0.3)


def test_smoothed_p_values_of_a_model_follow_their_seed(calibrated):
    model, rows = calibrated
    first = model.p_value(rows, ties="smoothed", seed=1)
    np.testing.assert_array_equal(first, model.p_value_of(model.score_samples(rows), ties="smoothed", seed=1))
    assert (first != model.p_value(rows, ties="smoothed", seed=2)).all()
    assert (first <= model.p_value(rows)).all()
    with pytest.raises(ConfigError, match=r"'smothed'.*smoothed"):
        model.p_value(rows, ties="smothed")


def test_too_few_calibration_rows_for_a_rate_are_told(calibrated, caplog):
    model, _ = calibrated
    with caplog.at_level(logging.WARNING, "noumena"):
        lowest = model.threshold_at(0.001)
    assert lowest == float(model.calibration.min())
    assert "199 rows cannot keep a false-alarm rate of 0.001" in caplog.text
    assert "999" in caplog.text


def test_without_calibration_nothing_is_compared():
    model = VAE(input_dim=3, hidden_dims=[8], latent_dim=2)
    for call in (lambda: model.threshold_at(0.1), lambda: model.p_value_of(np.zeros(2))):
        with pytest.raises(NotSupportedError, match="calibrate"):
            call()


def test_fit_calibrates_on_whole_groups_that_chose_no_weights():
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(240, 3)).astype(np.float32))
    val = Table(rows, ("a", "b", "c"), groups=torch.arange(240) // 12)
    model = VAE(hidden_dims=[8], latent_dim=2, scoring="elbo")
    stopping, calibration = model.divide_validation(val)
    assert not set(stopping.groups.tolist()) & set(calibration.groups.tolist())
    assert len(stopping) + len(calibration) == 240
    model.fit(Table(rows, val.columns), val, max_epochs=1, batch_size=60, seed=0, progress=False)
    np.testing.assert_allclose(model.calibration.numpy(), np.sort(model.score_samples(calibration)))
    one = val.subset(torch.zeros(1, dtype=torch.int64))
    assert [len(part) for part in model.divide_validation(one)] == [1, 1]
