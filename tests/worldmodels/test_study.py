import math
import os
from pathlib import Path

import pytest
import yaml

from noumena.config import compose
from noumena.core.errors import ConfigError
from noumena.experiment import make_model, open_data
from noumena.training import FitSettings
from noumena.training.module import _cosine
from noumena.worldmodels.migration.sections import experiment, recipe_sections
from noumena.worldmodels.migration.settings import read_study_config, study_config
from tests.cli.test_cli import run

CONFIGS = Path(__file__).parent / "parity" / "configs"
VICREG = CONFIGS / "sweep_changing_uniform.(1).vicreg.best.yaml"
STRUCTURED = CONFIGS / "sweep_changing_structured.(1).vicreg.best.yaml"
SIMCLR = CONFIGS / "sweep_changing_uniform.(1).simclr.best.yaml"
IDM = CONFIGS / "sweep_fixed_uniform.(1).idm.best.yaml"
RSSM = CONFIGS / "sweep_fixed_uniform.(1.25).rssm.best.yaml"
SUPERVISED = CONFIGS / "sweep_changing_uniform.(1).supervised.best.yaml"
THREE_DOTS = CONFIGS / "sweep_changing_uniform.(0).supervised.best.yaml"

SMALL = ["data.sequences=8", "data.test_sequences=8", "fit.max_epochs=1", "fit.batch_size=4", "fit.progress=false"]
# Parameters of the study's models; an action head, which its models always carry, has 2,050 of 1,179,394.
ENCODER_AND_GRU = 384_768 + 792_576


def parameters(path):
    config = compose("worldmodels/dots", study=path)
    things = 3 if config.data["dots"] == "multiple" else 1
    options = {name: value for name, value in config.model.items() if name != "name"}
    shape = {"frame": (config.data["channels"], 28, 28), "action_dim": 2}
    shape |= {"state_shape": (things, 2)} if config.model_name == "worldmodels/supervised" else {}
    return sum(p.numel() for p in type(make_model(config))(**options, **shape).parameters())


def plain_count(width, size, mlp, layers, channels, things):
    """Parameters of MeNet5, layers behind it, GRU and a linear map with bias to positions."""
    one, two = 16 * width, 32 * width
    count = 25 * channels * one + one + 25 * one * two + two + 9 * two * two + two + 2 * (one + two + two)
    count += 9 * two * size + size
    for i, out in enumerate(mlp):
        count += size * out + (0 if i == len(mlp) - 1 else 3 * out)
        size = out
    count += sum(3 * size * ((2 if i == 0 else size) + size + 2) for i in range(layers))
    return count + (size + 1) * 2 * things


def edited(tmp_path, source=VICREG, **changes):
    """A copy of a configuration with keys changed; a double underscore goes into a section."""
    values = yaml.safe_load(source.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


# What a file says


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            VICREG,
            {
                "name": "worldmodels/jepa",
                "objective": "vicreg",
                "sim": 4.0833530849349,
                "std": 1.1795271331388952,
                "cov": 1.0,
                "skip_first": True,
                "idm": 0.0,
                "width": 2,
                "latent_dim": 512,
                "projector": [],
                "backbone_mlp": [],
                "predictor": "gru",
            },
        ),
        (SIMCLR, {"objective": "simclr", "temperature": 4.0, "normalize": True}),
        (IDM, {"objective": "idm", "width": 2}),
        (RSSM, {"name": "worldmodels/rssm", "variant": "study", "deter": 512, "min_var": 0.02}),
        (SUPERVISED, {"width": 5, "latent_dim": 2, "backbone_mlp": [128], "predictor_layers": 4}),
    ],
)
def test_each_method_of_the_study_is_a_model_of_ours(path, expected):
    model = compose("worldmodels/dots", study=path).model
    assert {name: model[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("path", "count"),
    [
        (VICREG, ENCODER_AND_GRU),
        (SIMCLR, ENCODER_AND_GRU),
        (IDM, ENCODER_AND_GRU + 2050),
        (RSSM, 5_004_064),
        (SUPERVISED, plain_count(5, 2, [128], 4, 1, 1)),
        (THREE_DOTS, plain_count(2, 512, [], 1, 3, 3)),
    ],
)
def test_models_have_the_parameters_of_the_study(path, count):
    assert parameters(path) == count


def test_the_noise_is_that_of_the_file():
    data = compose("worldmodels/dots", study=IDM).data
    assert (data["noise"], data["fixed"], data["changing"], data["steps"]) == ("uniform", 1.0, 0.0, 17)
    data = compose("worldmodels/dots", study=STRUCTURED).data
    assert (data["noise"], data["fixed"], data["changing"]) == ("structured", 0.0, 1.0)


def test_a_background_that_rolls_and_a_smaller_dot_are_kept(tmp_path):
    path = edited(tmp_path, dataset_static_noise=1.0, dataset_static_noise_speed=0.5, dataset_dot_std=1.0)
    data = compose("worldmodels/dots", study=path).data
    assert (data["drift"], data["dot_std"], data["fixed"]) == (0.5, 1.0, 1.0)


@pytest.mark.parametrize("batch", [32, 128, 512, 10_000])
def test_an_epoch_has_as_many_whole_batches_as_in_the_study(tmp_path, batch):
    config = compose("worldmodels/dots", study=edited(tmp_path, dataset_batch_size=batch))
    assert config.data["sequences"] == 10_000 // batch * batch
    assert config.fit["batch_size"] == batch


@pytest.mark.parametrize("path", [VICREG, SIMCLR, IDM])
def test_rates_of_lars_follow_the_published_schedule(path):
    values = yaml.safe_load(path.read_text())
    batch, base = values["dataset_batch_size"], values[values["model_type"].lower()]["base_lr"]
    fit = FitSettings(**compose("worldmodels/dots", study=path).fit)
    assert (fit.optimizer, fit.weight_decay, fit.keep, fit.max_epochs) == ("lars", 1e-6, "last", 100)
    steps = 10_000 // batch
    rate = _cosine(steps, fit)
    peak = base * batch / 256
    for taken in (0, 1, steps, 8 * steps, 9 * steps, 9 * steps + 1, 40 * steps, 98 * steps, 99 * steps - 1):
        count = taken + steps  # the study counts from the first epoch's end
        if count < 10 * steps:
            expected = peak * (count + 1) / (10 * steps)
        else:
            falling = 0.5 * (1 + math.cos(math.pi * (count - 10 * steps) / (90 * steps)))
            expected = peak * falling + 0.001 * peak * (1 - falling)
        assert rate(taken) * fit.lr * fit.batch_size / 256 == pytest.approx(expected, rel=1e-9)


def test_a_shorter_training_keeps_the_schedule_of_the_whole(tmp_path):
    config = compose("worldmodels/dots", overrides=["fit.max_epochs=5"], study=VICREG)
    assert (config.fit["max_epochs"], config.fit["schedule_epochs"]) == (5, 100)


def test_rssm_and_supervised_are_trained_by_adam_at_a_constant_rate():
    fit = FitSettings(**compose("worldmodels/dots", study=RSSM).fit)
    assert (fit.optimizer, fit.lr_schedule, fit.gradient_clip, fit.max_epochs) == ("adam", "constant", 1000.0, 100)
    assert fit.lr == pytest.approx(2.107e-3, rel=1e-3)
    fit = FitSettings(**compose("worldmodels/dots", study=SUPERVISED).fit)
    assert (fit.optimizer, fit.lr_schedule, fit.max_epochs) == ("adam", "constant", 200)
    assert fit.lr == pytest.approx(0.0015687455885606408)


def test_a_file_that_the_study_cannot_load_says_so_and_its_batch_size_counts():
    found = experiment(read_study_config(SUPERVISED), "study.yaml")
    assert "cannot load" in found.notes[0]
    assert found.fit["batch_size"] == 128
    assert not any("cannot load" in note for note in experiment(read_study_config(VICREG), "study.yaml").notes)


def test_the_file_of_three_dots_has_a_channel_for_each():
    config = compose("worldmodels/dots", overrides=["data.sequences=4"], study=THREE_DOTS)
    schema = open_data(config).train.schema
    assert schema["frame"] == [3, 28, 28]
    assert len(schema["state"]) == 3


def test_structured_noise_takes_the_shipped_photographs_unless_others_are_named():
    shipped = compose("worldmodels/dots", study=STRUCTURED)
    assert shipped.data["images"] == "sample:patches"
    assert "data.images" in shipped.description
    named = compose("worldmodels/dots", overrides=["data.images=mine.npz"], study=STRUCTURED)
    assert named.data["images"] == "mine.npz"
    assert "images" not in compose("worldmodels/dots", study=VICREG).data


def test_an_evaluation_without_training_is_the_untrained_model(tmp_path):
    config = compose("worldmodels/dots", study=edited(tmp_path, SIMCLR, eval_only=True))
    assert config.model_name == "worldmodels/random"
    assert config.model["latent_dim"] == 512


@pytest.mark.parametrize(("text", "widths"), [("64", [64]), (64, [64]), ("512-512-512", [512] * 3), ("id", [])])
def test_layers_behind_the_encoder_are_read_from_their_widths(tmp_path, text, widths):
    path = edited(tmp_path, SIMCLR, simclr__backbone_mlp=text, simclr__projector=str(text))
    model = compose("worldmodels/dots", study=path).model
    assert model["backbone_mlp"] == model["projector"] == widths


def test_keys_that_are_left_out_are_as_in_the_code_of_the_study():
    config = study_config({"model_type": "SimCLR", "dataset_normalize": True}, "study.yaml")
    model = experiment(config, "study.yaml").model
    assert (model["latent_dim"], model["projector"], model["temperature"]) == (64, [512, 512, 512], 1.0)
    assert config.seed == 42


# How it meets a recipe


def test_no_key_of_the_recipe_leaks_into_another_model():
    config = compose("worldmodels/jepa-robust", study=RSSM)
    assert set(config.model) == set(recipe_sections(RSSM)["model"])
    assert "warmup_epochs" not in config.fit


def test_files_and_overrides_come_after_it(tmp_path):
    more = tmp_path / "more.yaml"
    more.write_text("model:\n  width: 1\n  sim: 3.0\n")
    config = compose("worldmodels/dots", [more], ["model.sim=2.0", "evaluate.probe=sgd"], study=VICREG)
    assert (config.model["width"], config.model["sim"], config.model["std"]) == (1, 2.0, 1.1795271331388952)
    assert config.evaluate["probe"] == "sgd"


def test_a_family_without_a_study_takes_no_such_file():
    with pytest.raises(ConfigError, match=r"'multimodal'.*worldmodels"):
        compose("multimodal/softrobot", study=VICREG)


def test_a_file_of_another_study_is_refused_by_its_sections():
    with pytest.raises(ConfigError, match="unknown section 'vicreg'"):
        compose("density/hopper", study=VICREG)


# What cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_nois": 1.0}, "unknown key 'dataset_nois'.*'dataset_noise'"),
        ({"vicreg__sim_coef": 1.0}, r"unknown key 'vicreg\.sim_coef'.*'sim_coeff'"),
        ({"n_steps": "17"}, "'n_steps': expected an integer, got '17'"),
        ({"n_steps": 17.0}, "'n_steps': expected an integer"),
        ({"n_steps": True}, "'n_steps': expected an integer"),
        ({"vicreg__base_lr": None}, r"'vicreg\.base_lr': expected a number, got None"),
        ({"vicreg__base_lr": math.inf}, r"'vicreg\.base_lr': expected a number"),
        ({"wandb": 1}, "'wandb': expected true or false"),
        ({"probing_cfg__batch_size": "64"}, r"'probing_cfg\.batch_size': expected an integer or null"),
        ({"rssm": 3}, "'rssm': expected a section"),
        ({"model_type": "VicReg"}, "unknown model_type 'VicReg'.*'VICReg'"),
        ({"dataset_type": "Double"}, "dataset_type: expected Single or Multiple"),
        ({"dataset_normalize": False}, "dataset_normalize"),
        ({"dataset_batch_size": 20_000}, "batch of 20000"),
        ({"dataset_batch_size": 0}, "batch of 0"),
        ({"load_checkpoint_path": "a.ckpt"}, "noumena import jepa-ssl"),
        ({"probing_cfg__full_finetune": True}, "full_finetune"),
        ({"probing_cfg__prober_arch": "512"}, "prober_arch"),
        ({"vicreg__predictor": "515-512-512"}, r"vicreg\.predictor: expected rnn or id"),
        ({"vicreg__arch": "lenet5"}, r"vicreg\.arch"),
        ({"vicreg__rnn_burnin": 4}, "rnn_burnin"),
        ({"vicreg__action_dim": 3}, "action_dim"),
        ({"vicreg__projector": "512-x"}, r"vicreg\.projector"),
        ({"vicreg__projector": "512", "vicreg__random_projector": True}, "random_projector"),
        ({"vicreg__projector": "512", "vicreg__repr_loss_after_projector": True}, "repr_loss_after_projector"),
        ({"vicreg__decoding_coeff": 1.0}, r"vicreg\.decoding_coeff"),
        ({"vicreg__encoding_cov_coeff": 1.0}, r"vicreg\.encoding_cov_coeff"),
        ({"vicreg__sim_coeff": 0.0, "vicreg__std_coeff": 0.0, "vicreg__cov_coeff": 0.0}, "nothing would be trained"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_sections(edited(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rssm__rssm_adam_epsilon": 1e-5}, "rssm_adam_epsilon"), ({"eval_only": True}, "eval_only")],
)
def test_an_rssm_unlike_the_published_ones_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_sections(edited(tmp_path, RSSM, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "expected a mapping"),
        ("a: [1", "no valid YAML"),
        ("seed: 1\n", "'model_type' is missing"),
        ("model_type: ${oc.env:HOME}\n", "unknown model_type"),
    ],
)
def test_files_that_are_no_configurations_are_refused(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_study_config(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_study_config(tmp_path / "none.yaml")


# Running it


@pytest.mark.parametrize("path", [VICREG, SIMCLR, IDM, RSSM, SUPERVISED])
def test_every_method_trains(path):
    # Narrow, so that it takes no time; a supervised latent is as wide as its last layer.
    sizes = {RSSM: ["model.width=1", "model.deter=8"], SUPERVISED: ["model.width=1", "model.backbone_mlp=[8]"]}
    narrow = sizes.get(path, ["model.width=1", "model.latent_dim=8"])
    config = compose("worldmodels/dots", overrides=[*SMALL, *narrow], study=path)
    splits, model = open_data(config), make_model(config)
    history = model.fit(splits.train, **config.fit)
    assert history.epochs == 1
    assert math.isfinite(history["train_loss"][0])


def test_the_command_line_runs_a_file_and_keeps_the_notes(tmp_path, capfd, caplog):
    out = tmp_path / "run"
    narrow = ["model.width=1", "model.latent_dim=8", "evaluate.probe_train_sequences=8", "evaluate.baselines=false"]
    code, text, err = run(
        capfd, "fit", "worldmodels/dots", "--study-config", STRUCTURED, *SMALL, *narrow, "--out", out, "--json"
    )
    assert code == 0, err
    assert '"rmse"' in text
    assert "sample:patches instead of CIFAR-10" in caplog.text
    assert "sample:patches instead of CIFAR-10" in yaml.safe_load((out / "config.yaml").read_text())["description"]
    code, _, err = run(capfd, "fit", "--resume", out, "--study-config", STRUCTURED)
    assert code == 2
    assert "--resume" in err


def test_a_dry_run_checks_a_file(capfd):
    code, text, err = run(capfd, "fit", "worldmodels/dots", "--study-config", SUPERVISED, "--dry-run")
    assert code == 0, err
    assert "cannot load" in text


@pytest.mark.slow
@pytest.mark.skipif("NOUMENA_DATA" not in os.environ, reason="NOUMENA_DATA names no data folder")
def test_all_published_configurations_can_be_run():
    files = sorted((Path(os.environ["NOUMENA_DATA"]) / "worldmodels" / "reproduce_configs").glob("*.yaml"))
    assert len(files) == 144
    methods = {"vicreg": 28, "simclr": 28, "idm": 28, "rssm": 32, "supervised": 28}
    counts = dict.fromkeys(methods, 0)
    unloadable = 0
    for path in files:
        named = path.name.rsplit(".", 3)[1]
        found = experiment(read_study_config(path), str(path))
        counts[found.method] += 1
        assert found.method == named
        unloadable += "cannot load" in found.notes[0]
        part = found.model
        if named == "supervised":
            things = 3 if found.data["dots"] == "multiple" else 1
            sizes = (part["width"], part["latent_dim"], part["backbone_mlp"], part["predictor_layers"])
            expected = plain_count(*sizes, found.data["channels"], things)
        else:
            expected = {"rssm": 5_004_064, "idm": ENCODER_AND_GRU + 2050}.get(named, ENCODER_AND_GRU)
        assert parameters(path) == expected, path
    assert counts == methods
    assert unloadable == 12
