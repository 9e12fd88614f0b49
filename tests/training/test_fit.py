import logging
import math
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

import noumena
from noumena.core.errors import ArtifactError, ConfigError, DataError
from noumena.density.model import VAE
from noumena.density.table import as_table
from noumena.training import DataModule, FitSettings, History, TrainingModule
from tests.training.workers import rows

QUICK = {"max_epochs": 3, "batch_size": 32, "lr": 1e-2, "accelerator": "cpu", "progress": False}


def small(**changes):
    return VAE(**{"hidden_dims": (8,), "latent_dim": 2, **changes})


def weights_of(model):
    return torch.cat([value.detach().double().flatten() for value in model.parameters()])


def losses(model, data_module, split):
    """The mean loss of a split on the draws that training evaluates it with."""
    loader = data_module.val_dataloader()[("val", "test").index(split)]
    with torch.no_grad():
        terms = [(float(model.loss(batch.data, noise=batch.noise).total), batch.size) for batch in loader]
    return sum(loss * size for loss, size in terms) / sum(size for _, size in terms)


# What is kept


def test_the_weights_kept_are_those_with_the_lowest_validation_loss():
    train, val, test = as_table(rows(60)), as_table(rows(40, seed=7)), as_table(rows(30, seed=8))
    model = small()
    history = model.fit(train, val, test, **QUICK | {"max_epochs": 25, "patience": None, "lr": 0.05, "seed": 3})
    best = int(np.argmin(history["val_loss"]))
    assert best < 24, "the case needs a best epoch before the last"
    assert history.best_epoch == best
    stopping, _ = model.divide_validation(val)
    data = DataModule(train, stopping, test, batch_size=32, seed=3)
    assert losses(model, data, "val") == pytest.approx(history["val_loss"][best], rel=1e-6)
    assert losses(model, data, "test") == pytest.approx(history["test_loss"][best], rel=1e-6)


def test_the_last_weights_are_kept_where_the_loss_says_little():
    train, val = as_table(rows(60)), as_table(rows(40, seed=7))
    model = small()
    history = model.fit(train, val, keep="last", **QUICK | {"max_epochs": 25, "patience": None, "lr": 0.05, "seed": 3})
    assert int(np.argmin(history["val_loss"])) < 24, "the case needs a best epoch before the last"
    data = DataModule(train, model.divide_validation(val)[0], batch_size=32, seed=3)
    assert losses(model, data, "val") == pytest.approx(history["val_loss"][-1], rel=1e-6)


def test_without_validation_data_the_last_weights_are_kept():
    model = small()
    history = model.fit(rows(60), **QUICK)
    assert history.best_epoch is None
    once_more = small()
    once_more.fit(rows(60), **QUICK | {"patience": None, "min_delta": 1.0})
    assert torch.equal(weights_of(model), weights_of(once_more))


def test_a_fitted_model_is_in_evaluation_mode():
    model = small()
    model.fit(rows(60), **QUICK)
    assert not model.training


def test_the_test_split_is_recorded_and_changes_nothing():
    with_test, without = small(), small()
    recorded = with_test.fit(rows(60), rows(40, seed=7), rows(30, seed=8), **QUICK)
    plain = without.fit(rows(60), rows(40, seed=7), **QUICK)
    assert len(recorded["test_loss"]) == 3
    assert "test_loss" not in plain
    for name in plain:
        if name != "seconds":
            assert recorded[name] == plain[name]
    assert torch.equal(weights_of(with_test), weights_of(without))


# Early stopping and schedules


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_when_patience_has_run_out(patience):
    history = small().fit(rows(60), rows(40, seed=7), **QUICK | {"max_epochs": 200, "patience": patience, "lr": 0.05})
    assert history.stopped_early
    assert history.best_epoch is not None
    assert history.epochs == history.best_epoch + 1 + patience < 200


def test_an_improvement_below_min_delta_does_not_count():
    history = small().fit(rows(60), rows(60), **QUICK | {"max_epochs": 50, "patience": 2, "min_delta": 1e6})
    assert history.best_epoch == 0  # anything is better than nothing
    assert history.epochs == 3


def test_without_patience_training_goes_to_the_last_epoch():
    history = small().fit(rows(60), rows(40, seed=7), **QUICK | {"max_epochs": 30, "patience": None, "lr": 0.05})
    assert history.epochs == 30
    assert not history.stopped_early


@pytest.mark.parametrize("validated", [True, False])
def test_the_plateau_schedule_follows_the_loss_that_is_watched(validated):
    val = rows(40, seed=7) if validated else None
    options = {"max_epochs": 20, "patience": None, "lr": 0.05, "lr_patience": 1, "lr_factor": 0.3}
    history = small().fit(rows(60), val, **QUICK | options, lr_schedule="plateau")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)
    expected = []
    for loss in history["val_loss" if validated else "train_loss"]:
        expected.append(optimizer.param_groups[0]["lr"])
        reference.step(loss)
    assert history["lr"] == expected
    if validated:
        assert history["lr"][-1] < 0.05, "the case needs a plateau"


@pytest.mark.parametrize("warmup", [0.0, 1.5])
def test_the_cosine_schedule_rises_falls_and_ends_at_zero(warmup):
    epochs, steps = 6, 4
    options = {"max_epochs": epochs, "batch_size": 15, "lr_schedule": "cosine", "warmup_epochs": warmup, "lr": 0.01}
    history = small().fit(rows(60), **QUICK | options)
    rise = round(warmup * steps)

    def rate(step):
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / (epochs * steps - rise)))

    assert history["step"] == [steps * (epoch + 1) for epoch in range(epochs)]
    assert history["lr"] == pytest.approx([0.01 * rate(step) for step in history["step"]], abs=1e-12)
    assert history["lr"][-1] == pytest.approx(0.0, abs=1e-12)


def test_a_constant_rate_stays():
    assert small().fit(rows(60), rows(40), **QUICK, lr_schedule="constant")["lr"] == [0.01] * 3


def test_gradient_clipping_bounds_the_update():
    def moved(**options):
        model = small()
        model.prepare(as_table(rows(60)))
        before = weights_of(model)
        history = model.fit(rows(60), **QUICK, **options)
        return float((weights_of(model) - before).abs().max()), history["step"][-1]

    clipped, steps = moved(gradient_clip=1e-12)
    free, _ = moved()
    # Adam divides by a root mean square of at least its epsilon, 1e-8.
    assert clipped <= steps * 0.01 * 1e-12 / 1e-8 * 1.1 + 1e-7
    assert free > 100 * clipped


def test_beta_warms_up_in_training_and_is_whole_in_validation():
    options = {"max_epochs": 8, "batch_size": 60, "beta_schedule": "warmup", "beta_period_epochs": 5}
    history = small(beta=3.0).fit(rows(60), rows(40), **QUICK | options)
    parts = zip(history["train_loss"], history["train_reconstruction"], history["train_kl"], strict=True)
    for epoch, (loss, reconstruction, kl) in enumerate(parts):  # one step per epoch
        assert loss == pytest.approx(reconstruction + 3.0 * min(1.0, epoch / 5) * kl, rel=1e-5)
    parts = zip(history["val_loss"], history["val_reconstruction"], history["val_kl"], strict=True)
    for loss, reconstruction, kl in parts:
        assert loss == pytest.approx(reconstruction + 3.0 * kl, rel=1e-5)


def test_the_training_loss_is_the_mean_over_rows_whatever_the_batches():
    frozen = {"lr": 1e-12, "lr_schedule": "constant", "max_epochs": 1}
    means = [small().fit(rows(61), **QUICK | frozen | {"batch_size": size})["train_kl"][0] for size in (61, 7, 60)]
    assert means == pytest.approx([means[0]] * 3, rel=1e-5)


def test_training_improves_the_loss():
    history = small().fit(rows(300), rows(100, seed=0), **QUICK | {"max_epochs": 20})
    assert history["val_loss"][-1] < history["val_loss"][0] - 0.5


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_every_precision_trains_a_model_that_scores_and_is_saved(tmp_path, precision):
    model = small()
    history = model.fit(
        rows(300), rows(100, seed=0), run_dir=tmp_path, **QUICK | {"max_epochs": 10}, precision=precision
    )
    assert history["val_loss"][-1] < history["val_loss"][0]
    loaded = noumena.load(tmp_path)
    assert np.array_equal(loaded.score_samples(rows(50)), model.score_samples(rows(50)))
    assert float(loaded.threshold) == float(model.threshold)
    assert model.predict_anomaly(rows(100, seed=0)).mean() == pytest.approx(0.01, abs=0.011)


# What is written


def test_the_metrics_file_is_the_history(tmp_path):
    history = small().fit(rows(60), rows(40, seed=7), run_dir=tmp_path / "run", **QUICK)
    assert History.read_csv(tmp_path / "run" / "metrics.csv").columns == history.columns


def test_a_run_folder_holds_the_model_that_fit_left_behind(tmp_path):
    model = small()
    model.fit(rows(60), rows(40, seed=7), run_dir=tmp_path / "run", **QUICK)
    loaded = noumena.load(tmp_path / "run")
    assert np.array_equal(loaded.score_samples(rows(50, seed=9)), model.score_samples(rows(50, seed=9)))
    assert float(loaded.threshold) == float(model.threshold)


def test_writing_a_run_folder_changes_nothing(tmp_path):
    written, unwritten = small(), small()
    first = written.fit(rows(60), rows(40), run_dir=tmp_path, checkpoint_every_n_steps=1, checkpoint_seconds=0, **QUICK)
    second = unwritten.fit(rows(60), rows(40), **QUICK)
    assert torch.equal(weights_of(written), weights_of(unwritten))
    assert first["val_loss"] == second["val_loss"]


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().fit(rows(60), rows(40), **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_a_run_names_every_epoch(tmp_path):
    small().fit(rows(60), run_dir=tmp_path, **QUICK)
    text = (tmp_path / "log.txt").read_text()
    assert all(f"epoch {epoch}/3" in text for epoch in (1, 2, 3))
    assert not [
        handler for handler in logging.getLogger("noumena").handlers if isinstance(handler, logging.FileHandler)
    ]


def test_a_model_that_cannot_be_saved_is_refused_before_it_is_trained(tmp_path):
    class Private(VAE):
        steps = 0

        def loss(self, *args, **kwargs):
            type(self).steps += 1
            return super().loss(*args, **kwargs)

    with pytest.raises(ArtifactError, match="not a registered model"):
        Private(hidden_dims=(4,)).fit(rows(60), run_dir=tmp_path, **QUICK)
    assert Private.steps == 0


# Randomness


def test_the_callers_random_generators_are_untouched(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the caller's own
    random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    small().fit(rows(60), rows(40), run_dir=tmp_path, **QUICK)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


def test_training_is_a_function_of_its_seed_and_not_of_what_happened_before():
    found = []
    for seed, before in ((0, 1), (0, 99), (1, 1)):
        torch.manual_seed(before)
        model = small()
        model.fit(rows(60), rows(40), **QUICK, seed=seed)
        found.append(weights_of(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# Refusals


@pytest.mark.parametrize(
    ("typed", "meant"), [("epochs", "max_epochs"), ("batchsize", "batch_size"), ("learning", "lr")]
)
def test_an_unknown_option_is_refused_with_the_nearest_known(typed, meant):
    with pytest.raises(ConfigError, match=rf"'{typed}'.*{meant}"):
        small().fit(rows(60), **{typed: 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("weight_decay", -1.0),
        ("lr_factor", 1.0),
        ("lr_patience", -1),
        ("warmup_epochs", -0.5),
        ("patience", 0),
        ("gradient_clip", 0.0),
        ("beta_period_epochs", 0.0),
        ("devices", 0),
        ("checkpoint_seconds", -1.0),
        ("checkpoint_every_n_steps", 0),
        ("strategy", "ddp_spawn"),
        ("strategy", "ddp_notebook"),
        ("optimizer", "sgd"),
        ("lr_schedule", "linear"),
        ("beta_schedule", "linear"),
        ("precision", "8"),
        ("logger", "mlflow"),
    ],
)
def test_an_impossible_value_is_refused_by_the_name_of_its_option(name, value):
    with pytest.raises(ConfigError, match=rf"fit\.{name}\b"):
        FitSettings(**{name: value})


def test_hardware_that_is_not_there_is_refused_as_a_configuration_error():
    with pytest.raises(ConfigError, match="accelerator=tpu"):
        small().fit(rows(60), **QUICK | {"accelerator": "tpu"})


def test_validation_rows_with_other_columns_are_refused():
    train = as_table(rows(60), columns=["a", "b", "c", "d"])
    for columns in (["a", "b", "d", "c"], ["a", "b", "c", "e"]):
        with pytest.raises(DataError, match=r"val has the columns.*same order"):
            small().fit(train, as_table(rows(40), columns=columns), **QUICK)
    with pytest.raises(DataError, match="val has the columns"):
        small().fit(rows(60), rows(40, columns=3), **QUICK)


def test_training_without_training_data_or_testing_without_validation_is_refused():
    with pytest.raises(DataError, match="training data"):
        small().fit(None, **QUICK)
    with pytest.raises(DataError, match="without validation data"):
        small().fit(rows(60), None, rows(40), **QUICK)


def test_resuming_where_nothing_was_begun_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="nothing to resume"):
        small().fit(rows(60), resume=True, **QUICK)
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        small().fit(rows(60), run_dir=tmp_path, resume=True, **QUICK)


# A trainer of one's own; its advice on loaders is about ones with workers

advice = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"
)


def plain_trainer(tmp_path, **options):
    return pl.Trainer(
        **{"max_epochs": 3, "accelerator": "cpu", "default_root_dir": tmp_path, "logger": False}
        | {"enable_progress_bar": False, "enable_model_summary": False, **options}
    )


@advice
def test_a_plain_lightning_trainer_reaches_the_weights_that_fit_reaches(tmp_path):
    own, fitted = small(), small()
    fitted.fit(rows(60), **QUICK, seed=4)
    train, val = as_table(rows(60)), as_table(rows(40))
    own.prepare(train, seed=4)
    settings = FitSettings(**QUICK, seed=4)
    module, data = TrainingModule(own.train(), settings), DataModule(train, val, batch_size=32, seed=4)
    plain_trainer(tmp_path, enable_checkpointing=False).fit(module, datamodule=data)
    assert torch.equal(weights_of(own), weights_of(fitted))


@advice
def test_checkpoints_and_early_stopping_of_lightning_can_watch_the_validation_loss(tmp_path):
    train, val = as_table(rows(60)), as_table(rows(40, seed=7))
    model = small()
    model.prepare(train)
    module, data = (
        TrainingModule(model.train(), FitSettings(**QUICK | {"lr": 0.05})),
        DataModule(train, val, batch_size=32),
    )
    keep = ModelCheckpoint(tmp_path, monitor="val_loss", save_weights_only=True)
    stop = EarlyStopping("val_loss", patience=2)
    trainer = plain_trainer(tmp_path, max_epochs=100, callbacks=[keep, stop])
    trainer.fit(module, datamodule=data)
    assert stop.stopped_epoch > 0
    assert trainer.current_epoch < 99
    assert {"train_loss", "train_kl", "val_loss", "val_reconstruction"} <= set(trainer.callback_metrics)
    saved = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(saved)
    assert losses(model, data, "val") == pytest.approx(float(keep.best_model_score), rel=1e-5)


@advice
def test_any_loader_of_tensors_can_feed_a_training_module(tmp_path):
    model = small()
    model.prepare(as_table(rows(60)))
    before = losses(model, DataModule(as_table(rows(60)), as_table(rows(60))), "val")
    loader = torch.utils.data.DataLoader(torch.from_numpy(rows(60)), batch_size=10)  # type: ignore[arg-type]
    plain_trainer(tmp_path, enable_checkpointing=False).fit(TrainingModule(model.train(), FitSettings(**QUICK)), loader)
    assert losses(model, DataModule(as_table(rows(60)), as_table(rows(60))), "val") < before
