import csv
import logging

import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ConfigError, DataError
from noumena.density.gmm import GaussianMixture
from noumena.density.neighbours import Neighbours
from noumena.density.table import as_table
from tests.training.workers import rows

QUIET = {"accelerator": "cpu", "progress": False}


@pytest.fixture(params=["gmm", "knn"])
def model(request):
    return GaussianMixture(components=2) if request.param == "gmm" else Neighbours(neighbours=3)


def test_the_history_of_a_solved_model_has_one_entry_per_split(model):
    train, val, test = as_table(rows(80)), as_table(rows(60, seed=7)), as_table(rows(30, seed=8))
    history = model.fit(train, val, test, **QUIET)
    assert history.epochs == 1
    assert history.best_epoch == 0
    for name, part in (("train", train), ("val", model.divide_validation(val)[0]), ("test", test)):
        assert history[f"{name}_loss"] == [pytest.approx(-model.score_samples(part).mean(), rel=1e-4)]
    assert not model.training


def test_a_solved_model_is_calibrated_on_rows_that_chose_nothing(model):
    train, val = as_table(rows(80)), as_table(rows(60, seed=7))
    model.fit(train, val, **QUIET)
    chosen, calibration = model.divide_validation(val)
    assert len(chosen) + len(calibration) == len(val)
    scores = np.sort(model.score_samples(calibration))
    np.testing.assert_array_equal(model.calibration.numpy(), scores)
    assert float(model.threshold) == scores[0]


def test_without_validation_rows_there_is_no_threshold(model):
    history = model.fit(as_table(rows(80)), **QUIET)
    assert "val_loss" not in history
    assert bool(model.threshold.isnan())


def test_the_run_folder_holds_the_history_the_log_and_the_model(model, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "noumena"):
        history = model.fit(as_table(rows(80)), as_table(rows(40, seed=7)), run_dir=tmp_path, **QUIET)
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_loss"]) == pytest.approx(history["val_loss"][0])
    assert "fitted" in (tmp_path / "log.txt").read_text()
    loaded = noumena.load(tmp_path)
    assert np.array_equal(loaded.score_samples(rows(20)), model.score_samples(rows(20)))


def test_a_run_that_is_resumed_is_solved_again_to_the_same_result(tmp_path):
    states = []
    for resume in (False, True):
        model = GaussianMixture(components=2)
        model.fit(as_table(rows(80)), as_table(rows(40, seed=7)), run_dir=tmp_path, resume=resume, seed=4, **QUIET)
        states.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_solving_draws_nothing_from_the_callers_generator(model):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    model.fit(as_table(rows(80)), **QUIET)
    assert torch.equal(torch.rand(4), expected)


def test_options_and_data_are_checked_as_for_other_models(model):
    with pytest.raises(ConfigError, match="sed"):
        model.fit(as_table(rows(80)), sed=1)
    with pytest.raises(DataError, match="columns"):
        model.fit(as_table(rows(80)), as_table(rows(80)[:, :2]), **QUIET)
    with pytest.raises(DataError, match="without validation"):
        model.fit(as_table(rows(80)), None, as_table(rows(80)), **QUIET)
