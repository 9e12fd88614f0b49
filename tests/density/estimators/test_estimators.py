import json
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, parametrize_with_checks

import noumena
from noumena.core.errors import ArtifactError, ConfigError, DataError, NotSupportedError
from noumena.density.calibration import rate_interval
from noumena.density.estimators import AutoDetector, FlowDetector, GMMDetector, KNNDetector, VAEDetector
from noumena.density.estimators.folds import Reservoir, as_named_table, divide

VAE = {"max_epochs": 1, "hidden_dims": (8,), "latent_dim": 2, "draws": 4}
FLOW = {"max_epochs": 1, "hidden_dims": (8,), "transforms": 2, "bins": 4}


def small(**changes):
    """One of each, quick to fit."""
    return [
        VAEDetector(**VAE | changes),
        FlowDetector(**FLOW | changes),
        GMMDetector(**changes),
        KNNDetector(**changes),
        AutoDetector(members=(KNNDetector(), GMMDetector(), VAEDetector(**VAE), FlowDetector(**FLOW)), **changes),
    ]


NAMES = ["vae", "flow", "gmm", "knn", "auto"]
each = pytest.mark.parametrize("detector", small(random_state=0), ids=NAMES)


def rows_on_a_plane(n=120, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(2, columns))
    return 5.0 + rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, columns))


@parametrize_with_checks(small())
def test_scikit_learn_finds_nothing_amiss(estimator, check):
    check(estimator)


@each
def test_column_names_are_kept_and_compared(detector):
    check_dataframe_column_names_consistency(type(detector).__name__, detector)


@each
def test_scores_threshold_prediction_and_p_value_agree(detector):
    detector = clone(detector).fit(rows_on_a_plane())
    rows = np.concatenate([rows_on_a_plane(seed=1), 50.0 + rows_on_a_plane(40, seed=2)])
    scores, outlying = detector.score_samples(rows), detector.predict(rows) == -1
    np.testing.assert_array_equal(detector.decision_function(rows), scores - detector.offset_)
    np.testing.assert_array_equal(outlying, scores < detector.offset_)
    assert outlying[120:].all()
    p = detector.p_value(rows)
    order = np.argsort(scores)
    assert (np.diff(p[order]) >= 0.0).all()
    assert (p[120:] == p.min()).all()
    assert detector.score(rows) == pytest.approx(scores.mean())


@each
def test_the_share_of_false_alarms_is_near_the_one_asked_for(detector):
    detector = clone(detector).set_params(anomaly_fraction=0.1, calibration_fraction=0.5)
    detector.fit(rows_on_a_plane(800))
    alarms = (detector.predict(rows_on_a_plane(4000, seed=3)) == -1).mean()
    low, high = rate_interval(400, 0.1, confidence=0.999)
    assert low - 0.02 < alarms < high + 0.02


@each
@pytest.mark.parametrize("contamination", [0.05, 0.5])
def test_contamination_is_the_share_of_the_fitted_rows_that_are_outliers(detector, contamination):
    rows = rows_on_a_plane(200)
    found = clone(detector).set_params(contamination=contamination).fit_predict(rows)
    assert (found == -1).sum() == contamination * 200


@each
def test_the_same_seed_gives_the_same_scores_and_another_one_others(detector):
    rows = rows_on_a_plane()
    first, again = (clone(detector).fit(rows).score_samples(rows) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, clone(detector).set_params(random_state=1).fit(rows).score_samples(rows))


# Hard data


HARD = {
    "two rows": np.array([[0.0, 1.0], [1.0, 3.0]]),
    "equal rows": np.ones((12, 3)),
    "one column": rows_on_a_plane()[:, :1],
    "a constant column": np.column_stack([rows_on_a_plane(), np.full(120, 7.0)]),
    "duplicates": np.repeat(rows_on_a_plane(8), 10, axis=0),
    "integers": np.random.default_rng(0).integers(-5, 5, size=(40, 3)),
    "bytes": np.random.default_rng(0).integers(0, 255, size=(40, 3)).astype(np.uint8),
    "more columns than rows": np.random.default_rng(0).normal(size=(30, 60)),
}


@each
@pytest.mark.parametrize("rows", HARD.values(), ids=HARD)
def test_hard_rows_are_fitted_and_scored(detector, rows):
    detector = clone(detector).fit(rows)
    assert np.isfinite(detector.score_samples(rows)).all()
    assert set(detector.predict(rows)) <= {-1, 1}


@pytest.mark.parametrize("n", range(2, 11))
@pytest.mark.parametrize("detector", [small()[0], small()[3]], ids=["vae", "knn"])
def test_few_rows_are_fitted(detector, n):
    rows = rows_on_a_plane(n)
    assert np.isfinite(clone(detector).fit(rows).score_samples(rows)).all()


WIDE = [VAEDetector(**VAE), FlowDetector(**FLOW), GMMDetector(covariance="diag"), KNNDetector()]


@pytest.mark.parametrize("detector", [*WIDE, pytest.param(GMMDetector(), marks=pytest.mark.slow)], ids=[*NAMES[:4], ""])
def test_1555_columns_are_fitted(detector):
    rows = np.random.default_rng(0).normal(size=(40, 1555))
    assert (clone(detector).fit(rows).predict(rows + 100.0) == -1).all()


@each
@pytest.mark.parametrize("far", [1e20, -1e308])
def test_a_far_cell_is_an_anomaly_with_the_lowest_p_value(detector, far):
    detector = clone(detector).fit(rows_on_a_plane())
    row = rows_on_a_plane(1, seed=1)
    row[0, 1] = far
    assert detector.predict(row) == -1
    assert detector.p_value(row) == pytest.approx(1.0 / 19.0)


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused_in_scikit_learns_words(detector, bad):
    rows = rows_on_a_plane()
    rows[3, 1] = bad
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        clone(detector).fit(rows)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        clone(detector).fit(rows_on_a_plane()).score_samples(rows)


@each
def test_it_must_be_fitted_before_use(detector, tmp_path):
    for use in (detector.score_samples, detector.p_value, detector.predict, detector.decision_function):
        with pytest.raises(NotFittedError):
            use(rows_on_a_plane())
    with pytest.raises(NotFittedError):
        detector.save(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"contamination": 0.7}, "contamination"),
        ({"contamination": "all"}, "contamination"),
        ({"anomaly_fraction": 0.0}, "anomaly_fraction"),
        ({"calibration_fraction": 1.0}, "calibration_fraction"),
        ({"validation_fraction": 0.5, "calibration_fraction": 0.5}, "leave rows to train on"),
        ({"device": "gpu"}, "device"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"latent_dim": 0}, "latent_dim"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(wrong, words):
    with pytest.raises(ConfigError, match=words):
        VAEDetector(**VAE | wrong).fit(rows_on_a_plane())


# Folds


def test_folds_share_no_row_and_leave_none_out():
    rows = np.arange(200.0).reshape(100, 2)
    folds = divide(as_named_table(rows, None), validation=0.1, calibration=0.2, groups=None, seed=0)
    parts = [table.rows[:, 0].tolist() for table in (folds.train, folds.validation, folds.calibration)]
    assert [len(part) for part in parts] == [70, 10, 20]
    assert sorted(row for part in parts for row in part) == rows[:, 0].tolist()


def test_no_group_is_in_two_folds():
    groups = np.repeat([f"run {i}" for i in range(20)], 10)
    rows = np.column_stack([np.repeat(np.arange(20.0), 10), np.random.default_rng(0).normal(size=200)])
    folds = divide(as_named_table(rows, None), validation=0.1, calibration=0.2, groups=groups, seed=0)
    parts = [set(table.rows[:, 0].tolist()) for table in (folds.train, folds.validation, folds.calibration)]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 20


def test_groups_are_taken_by_fit():
    rows = rows_on_a_plane(40)
    detector = KNNDetector(random_state=0, calibration_fraction=0.25).fit(rows, groups=np.repeat([0, 1, 2, 3], 10))
    kept = {tuple(row) for row in detector._held.rows}
    assert any(kept == {tuple(row) for row in part.astype(np.float32)} for part in np.split(rows, 4))
    with pytest.raises(DataError, match="one group for each of 40 rows"):
        KNNDetector().fit(rows, groups=[0, 1])
    with pytest.raises(DataError, match="1 groups cannot be dealt"):
        KNNDetector().fit(rows, groups=np.zeros(40))


@each
def test_given_validation_rows_spare_the_training_rows(detector):
    rows, held = rows_on_a_plane(60), rows_on_a_plane(40, seed=1)
    detector = clone(detector).fit(rows, X_val=held)
    expected = 40 if isinstance(detector, GMMDetector | KNNDetector) else 20
    assert {tuple(row) for row in detector._held.rows} <= {tuple(row) for row in held.astype(np.float32)}
    assert len(detector._calibration_scores) == len(detector._held.rows) == expected


# Streams


@each
def test_partial_fit_learns_from_further_rows_with_the_first_standardiser(detector):
    detector = clone(detector).partial_fit(rows_on_a_plane(100))
    model = detector.members_["gmm"].model_ if isinstance(detector, AutoDetector) else detector.model_
    mean, score = model.standardizer.mean.clone(), detector.score_samples(8.0 + rows_on_a_plane(50))
    for seed in range(1, 4):
        detector.partial_fit(8.0 + rows_on_a_plane(100, seed=seed))
    assert (model.standardizer.mean == mean).all()
    assert detector.score_samples(8.0 + rows_on_a_plane(50)).mean() > score.mean()
    assert 20 < len(detector._calibration_scores) < 110


def test_partial_fit_goes_on_from_a_fit():
    detector = KNNDetector(random_state=0, calibration_fraction=0.2).fit(rows_on_a_plane(100))
    assert detector.model_.reference_rows == 80
    detector.partial_fit(rows_on_a_plane(1, seed=1)).partial_fit(rows_on_a_plane(30, seed=2))
    assert detector.model_.reference_rows + len(detector._held.rows) == 131


def test_the_reservoir_is_bounded_and_draws_evenly(monkeypatch):
    monkeypatch.setattr(Reservoir, "_CAPACITY", 500)
    held = Reservoir.empty(1)
    for call in range(10):
        held = held.add(np.full((400, 1), call), seed=call)
    counts = np.bincount(held.rows[:, 0].astype(int), minlength=10)
    assert counts.sum() == 500
    assert (np.abs(counts - 50) < 5 * np.sqrt(50 * 0.9)).all()


# Other uses


@pytest.mark.parametrize(("detector", "width"), [(small()[0], 2), (small()[1], 3)], ids=["vae", "flow"])
def test_latents_are_the_models_own(detector, width):
    rows = pd.DataFrame(rows_on_a_plane(), columns=["a", "b", "c"])
    detector = clone(detector).fit(rows)
    found = detector.set_output(transform="pandas").transform(rows)
    np.testing.assert_allclose(found.to_numpy(), detector.model_.encode(rows).mean.detach().numpy(), rtol=1e-6)
    assert list(found.columns) == [f"{type(detector).__name__.lower()}{i}" for i in range(width)]


@each
def test_samples_follow_the_seed(detector):
    detector = clone(detector).fit(rows_on_a_plane())
    if isinstance(detector, KNNDetector):
        with pytest.raises(NotSupportedError, match="cannot draw rows"):
            detector.sample(5)
        return
    first, again, other = (detector.sample(5, random_state=seed) for seed in (0, 0, 1))
    assert first.shape == (5, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@each
def test_it_works_in_a_pipeline(detector):
    rows = rows_on_a_plane()
    pipeline = make_pipeline(StandardScaler(), clone(detector)).fit(rows)
    alone = clone(detector).fit(StandardScaler().fit_transform(rows))
    np.testing.assert_array_equal(
        pipeline.score_samples(rows), alone.score_samples(StandardScaler().fit_transform(rows))
    )


def test_grid_search_finds_the_parameter_of_the_highest_likelihood():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 2)) + 8.0 * rng.integers(0, 2, size=(300, 1))
    search = GridSearchCV(GMMDetector(random_state=0), {"components": [1, 2]}, cv=KFold(3)).fit(rows)
    assert search.best_params_ == {"components": 2}
    scores = cross_val_score(search.best_estimator_, rows, cv=KFold(3))
    assert scores.mean() == pytest.approx(search.best_score_)


# Files


@each
def test_a_saved_estimator_comes_back_the_same(detector, tmp_path):
    rows = pd.DataFrame(rows_on_a_plane(), columns=["a", "b", "c"])
    detector = clone(detector).fit(rows)
    detector.save(tmp_path / "saved")
    loaded = type(detector).load(tmp_path / "saved")
    assert repr(loaded) == repr(detector)
    new = pd.DataFrame(rows_on_a_plane(seed=1), columns=["a", "b", "c"])
    for use in ("score_samples", "predict", "p_value", "decision_function"):
        np.testing.assert_array_equal(getattr(loaded, use)(new), getattr(detector, use)(new))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(new.rename(columns={"a": "z"}))
    loaded.partial_fit(new)
    assert not list(tmp_path.rglob("*.pkl"))


@each
def test_a_pickled_estimator_scores_and_goes_on_learning_the_same(detector):
    detector = clone(detector).fit(rows_on_a_plane())
    copy = pickle.loads(pickle.dumps(detector))
    further = rows_on_a_plane(60, seed=1)
    for one in (detector, copy):
        one.partial_fit(further)
    np.testing.assert_array_equal(copy.score_samples(further), detector.score_samples(further))


def test_the_model_of_a_saved_estimator_is_an_artifact(tmp_path):
    rows = rows_on_a_plane()
    detector = small()[0].fit(rows)
    detector.save(tmp_path / "saved")
    model = noumena.load(tmp_path / "saved")
    np.testing.assert_array_equal(model.score_samples(rows), detector.score_samples(rows))
    np.testing.assert_array_equal(model.predict(rows), detector.predict(rows))


def test_an_existing_folder_is_overwritten_only_when_asked_and_an_estimators(tmp_path):
    detector = KNNDetector().fit(rows_on_a_plane())
    detector.save(tmp_path / "saved")
    with pytest.raises(ArtifactError, match="exists already"):
        detector.save(tmp_path / "saved")
    detector.save(tmp_path / "saved", overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ArtifactError, match="holds no estimator"):
        detector.save(tmp_path / "mine", overwrite=True)


def test_a_parameter_that_is_no_plain_value_is_not_saved(tmp_path):
    detector = KNNDetector(random_state=np.random.RandomState(0)).fit(rows_on_a_plane())
    with pytest.raises(ConfigError, match="random_state: a RandomState cannot be written"):
        detector.save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"format": 2}, "expected format 1"),
        ({"estimator": "os.system"}, "holds a os.system, not a KNNDetector"),
        ({"parameters": {"colour": "red"}}, "no parameter 'colour'"),
        ({"parameters": {"neighbours": {"estimator": "Popen"}}}, "no estimator is called 'Popen'"),
        ({"parameters": None}, "'parameters' is missing"),
        ({"n_features_in": 4}, "takes 4 columns, its model 3"),
        ({"n_features_in": "3"}, "'n_features_in' is '3'"),
        ({"feature_names_in": ["a"]}, "does not name 3 columns"),
        ({"offset": None}, "'offset' is None"),
        ({"state": None}, "'state' is missing"),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path, damage, words):
    KNNDetector().fit(rows_on_a_plane()).save(tmp_path / "saved")
    file = tmp_path / "saved" / "estimator.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    with pytest.raises(ArtifactError, match=words):
        KNNDetector.load(tmp_path / "saved")


def test_a_folder_without_an_estimator_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"no estimator\.json here"):
        KNNDetector.load(tmp_path)
    (tmp_path / "estimator.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        KNNDetector.load(tmp_path)
