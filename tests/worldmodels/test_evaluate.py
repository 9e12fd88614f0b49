import json
import logging

import pytest
import torch

from noumena.config.schema import check_section
from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.evaluation import write_report
from noumena.training import History
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.evaluate import evaluate
from noumena.worldmodels.probing.latents import draw, latents
from noumena.worldmodels.probing.measure import untrained_copy
from noumena.worldmodels.sequences import Sequences
from tests.worldmodels.standin_linear import Held, Reader, held, schema, walks


def made(data, **options):
    model = Reader(**options)
    model.prepare(data)
    return model


def splits_of(background=0.0, **options):
    return Splits(held(200, seed=0, background=background, **options), None, held(100, seed=1, background=background))


@pytest.fixture(scope="module")
def splits():
    return splits_of()


@pytest.fixture(scope="module")
def perfect(splits):
    return evaluate(made(splits.train), splits)


def test_latents_that_are_positions_have_no_error(perfect):
    metrics = perfect.metrics
    for name in ("rmse", "encoding_rmse", "rmse_t0", "rmse_t5", "encoding_rmse_t0"):
        assert metrics[name] < 0.02, name
    assert metrics["r2"] == pytest.approx(1.0, abs=1e-3)
    assert metrics["action_r2"] == pytest.approx(1.0, abs=1e-3)
    assert metrics["rollout_error"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["baseline_actions/rmse"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["baseline_constant/rmse"] > metrics["baseline_repeat/rmse"] > 1
    assert not any(table.title == "Warning" for table in perfect.tables)


def test_what_matters_most_comes_first_and_every_metric_is_a_plain_number(perfect):
    names = list(perfect.metrics)
    assert names[:4] == ["rmse", "encoding_rmse", "untrained/rmse", "baseline_constant/rmse"]
    assert all(isinstance(value, float) for value in perfect.metrics.values())
    json.dumps(perfect.metrics)


def test_the_error_of_each_step_is_a_file_whose_root_mean_square_is_the_headline(perfect):
    lines = perfect.files["step_errors.csv"].decode().splitlines()
    columns = lines[0].split(",")
    assert columns[:3] == ["step", "model", "encoding"]
    steps = torch.tensor([[float(x) for x in line.split(",")] for line in lines[1:]])
    assert len(steps) == 6
    repeat = steps[:, columns.index("baseline_repeat")]
    assert float(repeat.square().mean().sqrt()) == pytest.approx(perfect.metrics["baseline_repeat/rmse"], rel=1e-5)


def test_a_latent_of_the_background_is_warned_of_in_the_log_and_in_the_report(caplog, tmp_path):
    data = splits_of(background=20.0)
    with caplog.at_level(logging.WARNING, logger="noumena"):
        found = evaluate(made(data.train, looks="random", numbers=8), data)
    assert found.metrics["slow_index"] > 0.95
    assert "collapsed onto the background" in caplog.text
    assert found.tables[0].title == "Warning"
    history = History(columns={"train_loss": [2.0, 1.0]})
    facts = {"about": {}, "config": "", "model_summary": {}, "timings": {}, "versions": {}}
    path = write_report(tmp_path / "report.html", title="t", history=history, evaluation=found, **facts)
    assert "collapsed onto the background" in path.read_text(encoding="utf-8")


def test_without_a_state_there_are_diagnostics_only():
    data = Splits(held(60, labelled=False), None, held(40, seed=1, labelled=False))
    found = evaluate(made(data.train), data)
    assert "rmse" not in found.metrics
    assert found.metrics["action_r2"] > 0.9
    assert [picture.name for picture in found.pictures] == ["latent_map", "latent_spectrum"]
    assert found.files == {}


def test_other_data_with_a_state_that_the_training_data_lack_have_diagnostics_only():
    data = Splits(held(60, labelled=False), None, held(40, seed=1))
    assert "rmse" not in evaluate(made(data.train), data).metrics


def test_a_bare_model_is_probed_on_sequences_that_the_probe_was_not_fitted_to():
    # More features than a fifth of the sequences has rows: fitted to the held-out ones, the probe would be perfect.
    data = held(100)
    found = evaluate(made(data, looks="random", numbers=300), Splits(data, None, data), baselines=False, ridge=1e-9)
    assert found.metrics["rmse"] > 0.5
    assert not any(name.startswith(("baseline", "untrained")) for name in found.metrics)
    assert any("20 held-out" in table.caption for table in found.tables)


def test_validation_stands_in_for_a_missing_test(splits):
    model = made(splits.train)
    test, val = (evaluate(model, part).metrics for part in (splits, Splits(splits.train, splits.test)))
    assert test == val


def test_the_same_seed_gives_the_same_numbers_and_another_one_other_untrained_weights(splits):
    model = made(splits.train, looks="random", numbers=6)
    first, again, other = (evaluate(model, splits, seed=seed).metrics for seed in (0, 0, 1))
    assert first == pytest.approx(again)
    assert first["rmse"] == other["rmse"]
    assert first["untrained/rmse"] != other["untrained/rmse"]


def test_an_untrained_copy_has_other_weights_and_the_same_preprocessing(splits):
    model = made(splits.train, looks="random", numbers=6)
    fresh = untrained_copy(model, 0)
    assert not torch.equal(fresh.mixing.weight, model.mixing.weight)
    assert torch.equal(fresh.action_scale.scale, model.action_scale.scale)
    assert torch.equal(fresh.pixels.mean, model.pixels.mean)


def test_evaluation_leaves_the_model_as_it_was(splits):
    model = made(splits.train)
    model.train()
    generator = torch.random.get_rng_state()
    evaluate(model, splits)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_the_probe_of_the_study_stands_beside_the_closed_form_one(splits):
    found = evaluate(made(splits.train), splits, probe="sgd", baselines=False).metrics
    assert found["sgd/rmse"] > found["rmse"]


def test_several_things_have_errors_of_their_own_and_three_channels_are_shown_in_colour():
    data = open_dots(dots="multiple", channels=3, sequences=60, test_sequences=30, steps=5)
    found = evaluate(_dots(data), data, probe_train_sequences=60, probe_sequences=30)
    for name in ("dot1", "dot2", "dot3"):
        assert found.metrics[f"rmse/{name}"] > 0
    assert found.metrics["baseline_repeat/rmse/dot3"] == 0
    assert any(table.title == "Error of each part of the state" for table in found.tables)


def _dots(data):
    from noumena.worldmodels.baselines import Random

    model = Random(latent_dim=8)
    model.prepare(data.train)
    return model


def test_data_made_on_the_fly_give_probes_sequences_that_training_does_not_see():
    train = open_dots(sequences=30, steps=4).train
    drawn = list(draw(train, 70, epoch=5))
    state = torch.cat([part.state for part in drawn])
    assert len(state) == 70
    assert len(torch.unique(state[:, 0, 0, 0])) == 70
    assert torch.equal(state[:30], train.at_epoch(5).batch(torch.arange(30)).state)


def test_stored_data_give_what_they_have():
    stored = held(10)
    assert sum(map(len, draw(stored, 500, epoch=0))) == 10
    parts = [torch.cat([x.state for x in draw(stored, 99, epoch=0, part=p)]) for p in ((0.0, 0.8), (0.8, 1.0))]
    assert torch.equal(torch.cat(parts), stored.sequences.state)


def test_states_of_single_numbers_are_drawn_over_time():
    def numbers(n, seed):
        data = walks(n, seed=seed)
        state = data.state[:, :, 0].unsqueeze(-1)
        return Held(Sequences(data.frames, data.actions, state), _own(schema()))

    data = Splits(numbers(60, 0), None, numbers(40, 1))
    found = evaluate(made(data.train), data)
    assert found.metrics["rmse/speed"] < 0.02
    assert "traces" in [picture.name for picture in found.pictures]
    assert "baseline_actions/rmse" not in found.metrics


def _own(known):
    return {**known, "kind": "episodes", "state": ["speed", "angle"], "state_dims": 1, "state_unit": ""}


def test_latents_that_are_not_finite_are_refused():
    data = held(20)
    model = made(data, looks="random", numbers=3)
    model.mixing.weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="training diverged"):
        latents(model, draw(data, 5, epoch=0))


def test_data_of_other_frames_are_refused(splits):
    model = made(splits.train)
    other = Held(walks(20), {**schema(), "frame": [3, 12, 12]})
    with pytest.raises(DataError, match="frame"):
        evaluate(model, Splits(splits.train, None, other))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probe_sequences": 1}, r"evaluate\.probe_sequences: expected at least 4"),
        ({"probe_train_sequences": 0}, r"evaluate\.probe_train_sequences: expected at least 2"),
        ({"ridge": 0.0}, r"evaluate\.ridge: expected a number above 0"),
        ({"plan_episodes": 5}, r"evaluate\.plan_episodes: data of kind 'dots' have no world"),
    ],
)
def test_options_out_of_range_are_refused_by_name(splits, options, words):
    with pytest.raises(ConfigError, match=words):
        evaluate(made(splits.train), splits, **options)


def test_the_keywords_are_a_section_of_a_recipe():
    check_section("evaluate", {"probe": "sgd", "probe_sequences": 100, "plan_episodes": 5}, evaluate)
    with pytest.raises(ConfigError, match="probe"):
        check_section("evaluate", {"probe": "svm"}, evaluate)
