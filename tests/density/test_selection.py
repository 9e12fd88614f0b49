import numpy as np
import pytest
import torch
from scipy import stats

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.calibration import p_values, sorted_scores
from noumena.density.model import VAE
from noumena.density.selection import (
    adjusted_p_values,
    benjamini_hochberg,
    benjamini_yekutieli,
    fewest_chosen,
    largest_chosen,
    select_anomalies,
)


def by_definition(p, target):
    """Step-up procedure, row by row: Benjamini & Hochberg 1995, section 3.1."""
    order = np.argsort(p, kind="stable")
    last = max((i + 1 for i in range(len(p)) if p[order[i]] <= target * (i + 1) / len(p) * (1 + 1e-12)), default=0)
    chosen = np.zeros(len(p), dtype=bool)
    chosen[order[:last]] = True
    return chosen


def test_the_published_example_is_chosen_as_published():
    # Benjamini & Hochberg 1995, section 3.2: four of the fifteen hypotheses at 0.05.
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344])
    p = np.append(p, [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0])
    np.testing.assert_array_equal(np.flatnonzero(benjamini_hochberg(p, 0.05)), [0, 1, 2, 3])
    # The divisor of Benjamini & Yekutieli is 1 + 1/2 + ... + 1/15 = 3.318.
    np.testing.assert_array_equal(np.flatnonzero(benjamini_yekutieli(p, 0.05)), [0, 1, 2])


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_that_of_the_definition_also_where_p_values_tie(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(2, 60)
    p = rng.integers(1, values + 1, size=rng.integers(1, 80)) / values
    p[: len(p) // 3] = 1 / values
    target = rng.choice([0.01, 0.05, 0.1, 0.3, 0.6])
    expected = by_definition(p, target)
    np.testing.assert_array_equal(benjamini_hochberg(p, target), expected)
    harmonic = (1 / np.arange(1, len(p) + 1)).sum()
    np.testing.assert_array_equal(benjamini_yekutieli(p, target), by_definition(p, target / harmonic))
    counts = np.bincount(np.rint(p * values).astype(int) - 1, minlength=values)
    last = largest_chosen(np.arange(1, values + 1) / values, counts, target)
    np.testing.assert_array_equal(p <= last, expected)


def test_a_p_value_at_its_bound_is_chosen_and_no_rows_are_no_choice():
    p = np.array([0.1, 0.2, 0.3]) * (1 - 1e-16)
    assert benjamini_hochberg(p, 0.3).all()
    assert len(benjamini_hochberg(np.zeros(0), 0.1)) == 0


def test_an_adjusted_value_is_the_least_target_that_chooses_the_row():
    p = np.random.default_rng(0).random(40) ** 3
    adjusted = adjusted_p_values(p)
    assert (adjusted >= p).all()
    for row in (3, 17, 30):
        assert benjamini_hochberg(p, min(adjusted[row] + 1e-9, 0.999))[row]
        assert not benjamini_hochberg(p, adjusted[row] - 1e-9)[row]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("target", [0.05, 0.2])
def test_the_realised_rate_of_false_discoveries_keeps_its_target(share, target):
    """1,000 calibration sets and tables; the p-values of a table share one calibration set."""
    rng = np.random.default_rng(0)
    rows, n = 200, 400
    anomalies = int(share * rows)
    proportions = []
    for _ in range(1000):
        scores = rng.normal(size=rows)
        scores[:anomalies] -= 3.0
        chosen = benjamini_hochberg(p_values(scores, sorted_scores(rng.normal(size=n))), target)
        proportions.append(chosen[anomalies:].sum() / max(1, chosen.sum()))
    rate, error = np.mean(proportions), np.std(proportions) / np.sqrt(1000)
    assert rate <= target * (1 - share) + 3 * error
    if share == 0.0:
        # Without anomalies every discovery is false, and the rate is the chance of making any.
        made = int(np.sum(proportions))
        assert stats.binomtest(made, 1000, target, alternative="greater").pvalue > 1e-3


def test_rows_are_selected_from_a_calibrated_model():
    rng = torch.Generator().manual_seed(0)
    model = VAE(input_dim=3, hidden_dims=[8], latent_dim=2, scoring="reconstruction").eval()
    model.calibrate(torch.randn(500, 3, generator=rng))
    rows = torch.randn(120, 3, generator=rng)
    rows[::4] += 30.0
    chosen = select_anomalies(model, rows, 0.1)
    np.testing.assert_array_equal(chosen.p_values, model.p_value(rows))
    np.testing.assert_array_equal(chosen.mask, by_definition(chosen.p_values, 0.1))
    np.testing.assert_array_equal(chosen.indices, np.flatnonzero(chosen.mask))
    assert set(range(0, 120, 4)) <= set(chosen.indices.tolist())
    assert len(chosen) == len(chosen.indices) < 40
    assert len(select_anomalies(model, rows, 0.1, method="by")) <= len(chosen)


def test_the_fewest_rows_that_can_be_chosen_are_enough_and_one_less_is_not():
    rows, n, target = 1000, 99, 0.1
    fewest = fewest_chosen(rows, n, target)
    assert fewest == 100
    for low, expected in ((fewest, fewest), (fewest - 1, 0)):
        p = np.ones(rows)
        p[:low] = 1 / (n + 1)
        assert benjamini_hochberg(p, target).sum() == expected


def test_what_is_no_p_value_no_target_or_no_method_is_refused_in_words():
    with pytest.raises(DataError, match=r"row 1 .* nan"):
        benjamini_hochberg(np.array([0.1, np.nan]), 0.1)
    with pytest.raises(DataError, match=r"1\.5"):
        adjusted_p_values(np.array([1.5]))
    with pytest.raises(DataError, match="one axis"):
        adjusted_p_values(np.ones((2, 2)))
    with pytest.raises(ConfigError, match="target"):
        benjamini_hochberg(np.array([0.1]), 1.0)
    with pytest.raises(ConfigError, match=r"'holm'.*bh, by"):
        adjusted_p_values(np.array([0.1]), "holm")
    with pytest.raises(NotSupportedError, match="calibrate"):
        select_anomalies(VAE(input_dim=2, hidden_dims=[4], latent_dim=1), np.zeros((2, 2)), 0.1)
