import random
import signal

import pytest
import torch

from noumena.density.model import VAE
from tests.training.workers import (
    CHECKPOINT,
    SETTINGS,
    kill_again_and_again,
    outcome,
    rows,
    shared_counter,
    signal_after,
    start,
    train,
    train_until_interrupted,
)

QUICK = {"batch_size": 16, "accelerator": "cpu", "progress": False}
LONG = {"max_epochs": 80, "patience": None}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What a training comes to that nobody disturbs; made once for each way to train."""
    made = {}

    def run(setting, **options):
        key = setting, *sorted(options.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            process = start(train, folder, setting, pause=False, **options)
            process.join(240)
            assert process.exitcode == 0
            made[key] = outcome(folder)
        return made[key]

    return run


@pytest.mark.parametrize(
    ("setting", "options"), [("plateau", {}), ("cosine", {"dropout": True})], ids=["plateau", "cosine with dropout"]
)
def test_a_training_killed_ten_times_and_more_ends_like_one_that_nobody_disturbed(
    uninterrupted, tmp_path, setting, options
):
    rng = random.Random(setting)
    kills = kill_again_and_again(tmp_path, setting, 12, rng, mean_batches=12, **options)
    assert kills >= 10
    assert outcome(tmp_path) == uninterrupted(setting, **options)


def test_the_case_of_the_kills_has_schedule_and_early_stopping_in_play(uninterrupted):
    whole = uninterrupted("plateau")
    header, *lines = whole["metrics"]
    rates = [float(line[header.index("lr")]) for line in lines]
    assert rates[-1] < rates[0]
    assert whole["result"]["stopped_early"] or whole["result"]["best_epoch"] < whole["result"]["epochs"] - 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dropout", [False, True])
def test_a_training_killed_a_hundred_times_ends_like_one_that_nobody_disturbed(
    uninterrupted, tmp_path, setting, dropout
):
    options = {"dropout": dropout, **LONG}
    kills = kill_again_and_again(
        tmp_path, setting, 100, random.Random(f"{setting} {dropout}"), mean_batches=15, **options
    )
    assert kills == 100
    assert outcome(tmp_path) == uninterrupted(setting, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batches", [5, 70])
def test_an_interrupted_training_saves_its_state_and_resumes_to_the_bit(uninterrupted, tmp_path, number, batches):
    counter = shared_counter()
    # No checkpoint but the one of the interruption.
    process = start(
        train_until_interrupted,
        tmp_path,
        "plateau",
        counter=counter,
        checkpoint_every_n_steps=1000,
        checkpoint_seconds=1e6,
    )
    assert signal_after(process, counter, batches, 0.0, number)
    process.join(60)
    assert process.exitcode == 130
    assert (tmp_path / CHECKPOINT).is_file()
    assert not (tmp_path / "model").exists()
    assert "TrainingInterrupted" in (tmp_path / "log.txt").read_text()
    process = start(train, tmp_path, "plateau", pause=False)
    process.join(60)
    assert process.exitcode == 0
    assert outcome(tmp_path) == uninterrupted("plateau")


def test_the_callers_signal_handlers_are_given_back(tmp_path):
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        VAE(hidden_dims=(4,)).fit(rows(40), run_dir=tmp_path, max_epochs=1, **QUICK)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_how_often_checkpoints_are_written_changes_nothing(uninterrupted, precision):
    often = uninterrupted("plateau", precision=precision)
    seldom = uninterrupted("plateau", precision=precision, checkpoint_every_n_steps=1000, checkpoint_seconds=1e6)
    assert often == seldom


def comparable(history):
    return {name: values for name, values in history.items() if name != "seconds"}


def fit_small(folder, max_epochs, resume=False, **options):
    model = VAE(hidden_dims=(8,), latent_dim=2)
    history = model.fit(
        rows(100), rows(40, seed=7), run_dir=folder, resume=resume, max_epochs=max_epochs, **QUICK, **options
    )
    return model, history


def test_a_finished_training_that_gets_more_epochs_goes_on_as_if_it_had_them_from_the_start(tmp_path):
    whole, history = fit_small(tmp_path / "whole", 6, patience=None)
    fit_small(tmp_path / "parts", 2, patience=None)
    resumed, history_of_parts = fit_small(tmp_path / "parts", 6, resume=True, patience=None)
    assert comparable(history_of_parts) == comparable(history)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


@pytest.mark.parametrize("early", [False, True])
def test_resuming_a_finished_training_gives_its_model_again_and_trains_nothing(tmp_path, early):
    options = {"max_epochs": 100, "patience": 1, "lr": 0.05} if early else {"max_epochs": 3, "patience": None}
    model, history = fit_small(tmp_path, **options)
    assert history.stopped_early == early
    again, history_again = fit_small(tmp_path, resume=True, **options)
    assert history_again.columns == history.columns
    assert history_again.best_epoch == history.best_epoch
    assert history_again.stopped_early == history.stopped_early
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
