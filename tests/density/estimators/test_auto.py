import json

import numpy as np
import pytest
from scipy.stats import genpareto, kstest

from noumena.core.errors import ArtifactError, ConfigError
from noumena.density.estimators import AutoDetector, GMMDetector, KNNDetector, VAEDetector
from noumena.density.estimators.tails import Tail

QUICK = (KNNDetector(), GMMDetector(components=1), GMMDetector(components=2))


def two_blobs(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) + 8.0 * rng.integers(0, 2, size=(n, 1))


@pytest.fixture(scope="module")
def fitted():
    return AutoDetector(members=QUICK, random_state=0).fit(two_blobs())


# Tails


def test_a_tail_recovers_the_distribution_of_its_scores():
    rng = np.random.default_rng(0)
    tail = Tail.fit(rng.normal(size=4000))
    p = np.exp(tail(rng.normal(size=4000)))
    assert kstest(p, "uniform").statistic < 0.04


def test_below_its_start_a_tail_is_a_generalised_pareto_distribution():
    tail = Tail.fit(np.random.default_rng(0).standard_t(3, size=2000))
    scores = tail.start - np.array([0.1, 1.0, 10.0, 1000.0])
    expected = tail.log_p[0] + genpareto(tail.shape, scale=tail.scale).logsf(tail.start - scores)
    np.testing.assert_allclose(tail(scores), expected, rtol=1e-9)


def test_scale_and_shape_are_those_the_scores_were_drawn_with():
    rng = np.random.default_rng(0)
    short = genpareto(0.4, scale=2.0).rvs(20_000, random_state=rng)
    tail = Tail.fit(np.concatenate([-short, np.full(80_000, 1e-3) + rng.random(80_000)]))
    assert tail.shape == pytest.approx(0.4, abs=0.05)
    assert tail.scale == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 500, 5000])
def test_a_tail_rises_without_a_jump_and_keeps_far_rows_apart(n):
    scores = np.random.default_rng(n).normal(size=n)
    tail = Tail.fit(scores)
    grid = np.concatenate([-np.logspace(8, 1.1, 50), np.linspace(-10.0, 10.0, 4001)])
    found = tail(grid)
    assert (np.diff(found) >= 0.0).all()
    assert (np.diff(found[grid < tail.start]) > 0.0).all()
    assert (found <= 0.0).all()
    assert tail(np.array([tail.start - 1e-12]))[0] == pytest.approx(tail(np.array([tail.start]))[0], abs=1e-3)
    assert tail(np.array([-np.inf]))[0] == -np.inf


def test_a_tail_of_equal_scores_tells_lower_ones_apart():
    found = Tail.fit(np.full(20, 3.0))(np.array([3.0, 2.9, 2.8]))
    assert (np.diff(found) < 0.0).all()


def test_scores_that_are_not_finite_say_nothing_about_a_tail():
    scores = np.random.default_rng(0).normal(size=100)
    some = np.concatenate([scores, [-np.inf, -np.inf]])
    np.testing.assert_array_equal(Tail.fit(scores)(scores), Tail.fit(some)(scores))


# Rules


def test_the_average_counts_distances_as_much_as_all_densities(fitted):
    rows = two_blobs(50, seed=1)
    by = {name: fitted.tails_[name](one.score_samples(rows)) for name, one in fitted.members_.items()}
    assert list(by) == ["knn", "gmm", "gmm_2"]
    expected = 0.5 * by["knn"] + 0.25 * by["gmm"] + 0.25 * by["gmm_2"]
    np.testing.assert_allclose(fitted.score_samples(rows), expected, rtol=1e-12)


def test_one_members_units_do_not_matter_to_the_average():
    rows, new = two_blobs(), two_blobs(50, seed=1)
    scores = [AutoDetector(members=QUICK, random_state=0).fit(f * rows).score_samples(f * new) for f in (1.0, 64.0)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3)


def test_likelihood_takes_the_density_that_describes_the_rows_best(fitted):
    assert fitted.best_ == "gmm_2"
    assert set(fitted.likelihoods_) == {"gmm", "gmm_2"}
    likely = AutoDetector(members=QUICK, rule="likelihood", random_state=0).fit(two_blobs())
    new = two_blobs(50, seed=1)
    np.testing.assert_array_equal(likely.score_samples(new), likely.members_["gmm_2"].score_samples(new))
    rows = likely.sample(4000, random_state=0)
    np.testing.assert_allclose(rows.mean(0), two_blobs(4000, seed=2).mean(0), atol=0.5)


def test_members_by_name_take_the_training_of_the_whole():
    detector = AutoDetector(members=("vae", "knn"), max_epochs=1, batch_size=64, random_state=0).fit(two_blobs())
    assert len(detector.members_["vae"].history_["train_loss"]) == 1
    assert detector.members_["vae"].batch_size == 64


def test_members_that_are_estimators_are_left_as_they_were():
    member = GMMDetector(components=1)
    AutoDetector(members=(member,), anomaly_fraction=0.2).fit(two_blobs())
    assert not hasattr(member, "model_")
    assert member.anomaly_fraction == 0.05


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rule": "averge"}, "Did you mean 'average'"),
        ({"members": ("knn", "vea")}, "Did you mean 'vae'"),
        ({"members": ()}, "at least one member"),
        ({"members": "knn"}, "expected a tuple"),
        ({"members": (3,)}, "expected names among"),
        ({"members": (KNNDetector(),), "rule": "likelihood"}, "compares densities"),
        ({"members": (VAEDetector(decoder_scale="fixed"),), "rule": "likelihood"}, "compares densities"),
        ({"members": (KNNDetector(device="gpu"),)}, "device"),
    ],
)
def test_impossible_members_are_refused_in_words(wrong, words):
    with pytest.raises(ConfigError, match=words):
        AutoDetector(**wrong).fit(two_blobs())


def test_without_a_density_there_is_nothing_to_draw_from():
    with pytest.raises(ConfigError, match="none is a density"):
        AutoDetector(members=(KNNDetector(),)).fit(two_blobs()).sample(3)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"members": ["knn"]}, "expected the members"),
        ({"best": "../../elsewhere"}, "which is no member"),
        ({"tails": {}}, "are damaged"),
        ({"calibration": []}, "are damaged"),
        ({"calibration": "none"}, "are damaged"),
    ],
)
def test_a_damaged_state_is_refused_in_words(fitted, tmp_path, damage, words):
    fitted.save(tmp_path / "saved")
    file = tmp_path / "saved" / "estimator.json"
    content = json.loads(file.read_text())
    content["state"] |= damage
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=words):
        AutoDetector.load(tmp_path / "saved")
