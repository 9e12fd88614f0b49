import pickle

import pytest

from noumena.config import compose
from noumena.core.errors import ConfigError, DataError
from noumena.density.gormpo.study import recipe_sections
from noumena.experiment import make_model, open_data
from noumena.registry import family, resolve

VAE = """
task: hopper-medium-v2
data_path: {data}
obs_dim: [[11]]
action_dim: !!python/tuple [3]
hidden_dims: [256, 128]
latent_dim: 8
epochs: 50
batch_size: 512
lr: 5e-4
beta: 0.5
patience: 11
val_ratio: 0.15
test_ratio: 0.1
seed: 7
anomaly_fraction: 0.05
device: cuda:1
model_save_path: /public/models/hopper
"""
REALNVP = """
model_type: RealNVP
num_layers: 4
hidden_dims: [64, 64]
data_path: sample:hopper
"""
SMALL = ["fit.max_epochs=1", "fit.progress=false"]


@pytest.fixture
def file(tmp_path):
    def write(text, name="hopper.yaml"):
        path = tmp_path / name
        path.write_text(text.format(data="sample:hopper"))
        return path

    return write


def test_a_vae_is_taken_over_as_the_original_trained_it(file):
    found = recipe_sections(file(VAE))
    assert found["model"] == {
        "name": "density/vae",
        "hidden_dims": [256, 128],
        "latent_dim": 8,
        "beta": 0.5,
        "decoder_scale": "fixed",
        "scoring": "reconstruction",
        "standardize": False,
    }
    assert found["data"] == {
        "kind": "episodes",
        "path": "sample:hopper",
        "row": "next_observation+action",
        "split": "time",
        "val_fraction": 0.15,
        "test_fraction": 0.1,
        "seed": 7,
    }
    assert found["fit"] == {
        "max_epochs": 50,
        "batch_size": 512,
        "lr": 5e-4,
        "lr_schedule": "plateau",
        "lr_factor": 0.5,
        "lr_patience": 5,
        "patience": 11,
        "seed": 7,
    }


def test_what_a_file_does_not_say_is_as_in_the_original(file):
    found = recipe_sections(file("latent_dim: 8"))
    assert found["model"]["hidden_dims"] == [256, 128]
    assert found["model"]["beta"] == 1.0
    assert found["fit"] == {
        **{"max_epochs": 100, "batch_size": 256, "lr": 1e-3, "patience": 15, "seed": 42},
        **{"lr_schedule": "plateau", "lr_factor": 0.5, "lr_patience": 7},
    }
    assert (found["data"]["val_fraction"], found["data"]["test_fraction"]) == (0.2, 0.2)
    flow = recipe_sections(file("num_layers: 6"))
    assert flow["model"] == {
        "name": "density/flow",
        "architecture": "original",
        "transforms": 6,
        "hidden_dims": [256, 256],
        "standardize": False,
        "dequantise": False,
    }
    assert (flow["fit"]["max_epochs"], flow["fit"]["batch_size"], flow["fit"]["patience"]) == (60, 128, 15)


@pytest.mark.parametrize(
    ("task", "latent"), [("hopper", 8), ("hopper-medium-v2", 8), ("HalfCheetah_expert", 10), ("walker2d-x", 10)]
)
def test_the_latent_size_follows_from_the_task_where_it_is_not_said(file, task, latent):
    found = recipe_sections(file(f"model_type: vae\ntask: {task}"))
    assert found["model"]["latent_dim"] == latent
    assert "latent_dim is that of the published file" in found["description"]


def test_sections_and_other_spellings_say_the_same(file):
    flat = recipe_sections(file("latent_dim: 4\nepochs: 3\nlr: 0.01\nval_ratio: 0.1"))
    nested = recipe_sections(
        file("vae: {{latent: 4}}\ntraining:\n  num_epochs: 3\n  learning_rate: 0.01\n  val_split: 0.1")
    )
    assert nested == flat


@pytest.mark.parametrize("text", [VAE, REALNVP], ids=["vae", "realnvp"])
def test_the_sections_compose_to_a_model_and_data_that_fit_each_other(file, text):
    config = compose("density/hopper", overrides=SMALL, study=file(text))
    splits = open_data(config)
    assert splits.about["split"].startswith("rows in time order")
    model = make_model(config)
    model.prepare(splits.train, seed=config.fit["seed"])
    assert model.input_dim == 14
    assert model.standardizer is None
    assert model.loss(splits.train.rows[:8]).total.isfinite()


def test_a_value_on_the_command_line_wins(file):
    config = compose("density/hopper", overrides=["data.split=trajectory", "fit.lr=0.1"], study=file(VAE))
    assert config.data["split"] == "trajectory"
    assert config.fit["lr"] == 0.1
    assert config.fit["batch_size"] == 512


def test_the_family_translates_configurations():
    assert resolve(family("density").study) is recipe_sections


# Notes


def test_the_description_says_what_is_otherwise_and_what_has_no_effect(file):
    text = recipe_sections(file(VAE))["description"]
    assert text.startswith("vae of hopper.yaml (GORMPO)")
    for words in (
        "data.split=trajectory is better",
        "anomaly_fraction=0.05 has no effect: as in the original, which never reads it",
        "device=cuda:1 has no effect",
        "model_save_path=/public/models/hopper has no effect",
        "obs_dim=11 has no effect: sizes are read from the data",
        "action_dim=3 has no effect",
    ):
        assert words in text
    flow = recipe_sections(file(REALNVP))["description"]
    assert "in the original they did so when it fell" in flow
    assert "seed=42, the default" in flow


@pytest.mark.parametrize("size", ["11", "[11]", "[[11]]", '"((11,),)"', "!!python/tuple [11]", "(11,)"])
def test_sizes_may_stand_in_brackets(file, size):
    assert "obs_dim=11 has no effect" in recipe_sections(file(f"latent_dim: 8\nobs_dim: {size}"))["description"]


def test_without_data_the_file_has_to_be_named(file):
    path = file("latent_dim: 8\ntask: hopper-medium-v2")
    assert "the original took 'hopper-medium-v2' from d4rl; data.path=FILE" in recipe_sections(path)["description"]
    with pytest.raises(ConfigError, match=r"'data.path' is missing"):
        compose("density/hopper", study=path)
    assert compose("density/hopper", overrides=["data.path=sample:hopper"], study=path).data["path"] == "sample:hopper"


def test_data_in_a_pickle_are_not_read(file, tmp_path):
    data = tmp_path / "hopper.pkl"
    data.write_bytes(pickle.dumps({}))
    path = file(f"latent_dim: 8\ndata_path: {data}")
    assert "hopper.pkl is a pickle" in recipe_sections(path)["description"]
    with pytest.raises(DataError, match="pickled files can run code"):
        open_data(compose("density/hopper", study=path))


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent_dims: 8", r"unknown key 'latent_dims'. Did you mean 'latent_dim'"),
        ("latent_dim: 8\nother: {{a: 1}}", r"unknown section 'other'"),
        ("latent_dim: eight", r"'latent_dim': expected an integer, got 'eight'"),
        ("latent_dim: 8.5", r"'latent_dim': expected an integer, got 8.5"),
        ("latent_dim: true", r"'latent_dim': expected an integer, got True"),
        ("latent_dim: 0", r"'latent_dim': expected at least 1, got 0"),
        ("latent_dim: 8\nlr: .inf", r"'lr': expected a number, got inf"),
        ("latent_dim: 8\nlr: fast", r"'lr': expected a number"),
        ("latent_dim: 8\nhidden_dims: 256", r"'hidden_dims': expected a list of integers, got 256"),
        ("latent_dim: 8\nhidden_dims: []", r"'hidden_dims': expected a list of integers"),
        ("latent_dim: 8\nhidden_dims: [256, 0]", r"'hidden_dims': expected at least 1"),
        ("latent_dim: 8\nbatch_size: [1]", r"'batch_size': expected an integer"),
        ("latent_dim: 8\nseed: ${{oc.env:HOME}}", r"'seed': expected an integer"),
        ("latent_dim: 8\ndata_path: 3", r"'data_path': expected text"),
        ("latent_dim: 8\nlr: 1\nlearning_rate: 1", r"'lr' and 'learning_rate' say the same"),
        ("latent_dim: 8\nmodel: {{latent_dim: 9}}", r"'latent_dim' is said twice, as 8 and 9"),
        ("latent_dim: 8\nnum_layers: 6", r"is it a VAE .* It has keys of both. Add model_type"),
        ("epochs: 3", r"None of its keys \(epochs\) tells"),
        ("model: vae\nnum_layers: 6\nlatent_dim: 8", r"'num_layers' is no key of vae"),
        ("model: realnvp\nbeta: 1", r"'beta' is no key of realnvp"),
        ("model: gan", r"unknown model 'gan'"),
        ("model: neural_ode", r"is a NeuralODE, which is not offered"),
        ("bandwidth: 1.0", r"'bandwidth' is a key of kde, which is not offered.*density/knn"),
        ("timesteps: 1000", r"'timesteps' is a key of diffusion.*density/flow"),
        ("model: vae", r"latent_dim is missing, and the task tells none"),
        ("latent_dim: 8\nobs_dim: [11, 3]", r"'obs_dim': expected one positive integer"),
        ("latent_dim: 8\nobs_dim: 11\naction_dim: 3\ninput_dim: 15", r"input_dim=15 is not obs_dim=11 plus"),
        ("- a\n- b", r"expected a mapping of keys"),
        ("a: [", r"is no valid YAML"),
        ("latent_dim: !!python/object/apply:os.system [id]", r"is no valid YAML"),
        ("latent_dim: 8\nlatent_dim: 9", r"is no valid YAML"),
    ],
)
def test_files_that_say_something_else_are_refused_by_the_key(file, text, message):
    with pytest.raises(ConfigError, match=message):
        recipe_sections(file(text))


def test_a_missing_or_huge_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration"):
        recipe_sections(tmp_path / "none.yaml")
    (tmp_path / "huge.yaml").write_text("#" * (1 << 20) + "\nlatent_dim: 8\n")
    with pytest.raises(ConfigError, match=r"has more than 1,048,576 bytes"):
        recipe_sections(tmp_path / "huge.yaml")
