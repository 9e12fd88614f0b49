import json
import logging
import os
import posixpath
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import noumena
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.worldmodels.importing import import_jepa_ssl
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.sequences import Sequences
from tests.cli.test_cli import run

FILES = Path(__file__).parent / "parity"
METHODS = ("vicreg", "simclr")


def read(name):
    with np.load(FILES / name, allow_pickle=False) as archive:
        return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}


@pytest.fixture(scope="module")
def inputs():
    return read("inputs.npz")


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a checkpoint and its configuration in a folder of its own."""
    shutil.copy(FILES / "vicreg.yaml", tmp_path / "vicreg.yaml")
    return Path(shutil.copy(FILES / "vicreg.ckpt", tmp_path / "vicreg.ckpt"))


def sequences(inputs):
    return Sequences(inputs["states"], inputs["actions"][:, :, 0])


def rewritten(path, change):
    """The weights of a checkpoint after ``change``, without the optimiser's state."""
    inert = [(lambda *_: None, "lars.exclude_bias_and_norm")]
    with torch.serialization.safe_globals(inert):
        tensors = torch.load(path, weights_only=True)["model_state_dict"]
    change(tensors)
    torch.save({"model_state_dict": tensors, "optimizer_state_dict": {}}, path)
    return path


def settings(path, **changes):
    """Change keys of a configuration; a double underscore goes into a section."""
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    path.write_text(yaml.safe_dump(values))


# Parity


@pytest.mark.parametrize("method", METHODS)
def test_encodings_and_open_loop_predictions_are_those_of_the_original(method, inputs, tmp_path):
    import_jepa_ssl(FILES / f"{method}.ckpt", inputs="normalised").save(tmp_path / "model")
    model = noumena.load(tmp_path / "model")
    reference, batch = read(f"{method}.npz"), sequences(inputs)[:4]
    with torch.no_grad():
        encoded, predicted = model.encode(batch).mean, model.predict(batch)
    torch.testing.assert_close(encoded, reference["encodings"].transpose(0, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(predicted[:, 1:], reference["predictions"].transpose(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "names"), [("vicreg", {"sim": "repr", "std": "std", "cov": "cov"}), ("simclr", {"nce": "total"})]
)
def test_every_term_of_the_loss_is_that_of_the_original(method, names, inputs):
    model = import_jepa_ssl(FILES / f"{method}.ckpt", inputs="normalised").train()
    reference, terms = read(f"{method}.npz"), model.loss(sequences(inputs))
    assert terms.total.item() == pytest.approx(float(reference["train_mode_total_loss"]), rel=1e-6)
    assert set(terms.parts) == set(names)
    for ours, theirs in names.items():
        assert terms.parts[ours].item() == pytest.approx(float(reference[f"train_mode_{theirs}_loss"]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif("NOUMENA_DATA" not in os.environ, reason="NOUMENA_DATA names no data folder")
@pytest.mark.parametrize("method", METHODS)
def test_the_unabridged_references_are_met(method):
    folder = Path(os.environ["NOUMENA_DATA"]) / "parity" / "jepa_ssl"
    model = import_jepa_ssl(folder / f"{method}_small.ckpt", inputs="normalised")
    with np.load(folder / f"{method}_small_reference.npz", allow_pickle=False) as archive:
        reference = {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}
    with torch.no_grad():
        found = model.encode(sequences(reference)).mean, model.predict(sequences(reference))[:, 1:]
    for name, value in zip(("encodings", "predictions"), found, strict=True):
        torch.testing.assert_close(value, reference[name].transpose(0, 1), rtol=0, atol=1e-5)


# Frames and actions in our units


def raw(inputs):
    """The batch as this library makes it: dots of peak 1 at the same places, actions in pixels."""
    low, side = 2.6, 21.8
    places = (inputs["locations"][:, :, 0] * 12**-0.5 + 0.5) * side + low  # (batch, time, 2) as x, y
    grid = torch.arange(28.0)
    x, y = (torch.exp(-((grid - places[..., i, None]) ** 2) / (2 * 1.3**2)) for i in (0, 1))
    return Sequences((y[..., :, None] * x[..., None, :])[:, :, None], inputs["actions"][:, :, 0] * 0.4102 * 4)


def test_with_a_configuration_the_model_takes_dots_as_this_library_makes_them(inputs):
    model = import_jepa_ssl(FILES / "vicreg.ckpt")
    assert model.schema["kind"] == "dots"
    batch = raw(inputs)
    frames = model._standard_frames(batch.frames)
    # Statistics of 100 batches there, of other sequences here.
    torch.testing.assert_close(frames, inputs["states"], rtol=0.01, atol=0.002)
    torch.testing.assert_close(model._standard_actions(batch.actions), inputs["actions"][:, :, 0])
    with torch.no_grad():
        predicted = model.predict(batch[:4])[:, 1:]
    torch.testing.assert_close(predicted, read("vicreg.npz")["predictions"].transpose(0, 1), rtol=0, atol=0.01)


def test_the_noise_of_the_configuration_sets_the_scale_of_frames(checkpoint):
    clean = import_jepa_ssl(checkpoint)
    settings(checkpoint.with_suffix(".yaml"), dataset_static_noise=1.0)
    noisy = import_jepa_ssl(checkpoint)
    # A level-1 overlay is uniform on [0, 1], independent of the dot.
    expected = (clean.pixels.scale**2 + 1 / 12).sqrt()
    torch.testing.assert_close(noisy.pixels.scale, expected, rtol=0.01, atol=0)
    torch.testing.assert_close(noisy.pixels.mean, clean.pixels.mean + 0.5, rtol=0.01, atol=0)
    assert noisy.schema["world"]["fixed"] == 1.0


def test_three_dots_in_one_picture_keep_the_scale_of_one(checkpoint):
    one = import_jepa_ssl(checkpoint)
    settings(checkpoint.with_suffix(".yaml"), dataset_type="Multiple")
    three = import_jepa_ssl(checkpoint)
    torch.testing.assert_close(three.pixels.mean, 3 * one.pixels.mean, rtol=0.02, atol=0)
    torch.testing.assert_close(three.pixels.scale, one.pixels.scale, rtol=0.02, atol=0)
    assert three.schema["state"] == ["dot1", "dot2", "dot3"]


def test_an_imported_model_can_be_trained_on(checkpoint):
    from noumena.worldmodels.dots.data import open_dots

    model = import_jepa_ssl(checkpoint)
    scale = model.pixels.scale.clone()
    history = model.fit(open_dots(sequences=8).train, max_epochs=1, batch_size=4, progress=False)
    assert history.epochs == 1
    torch.testing.assert_close(model.pixels.scale, scale)


# What comes along


def test_without_a_configuration_sizes_are_those_of_the_tensors(checkpoint, caplog):
    checkpoint.with_suffix(".yaml").unlink()
    with caplog.at_level(logging.WARNING, "noumena"):
        model = import_jepa_ssl(checkpoint)
    assert (model.width, model.latent_dim, model.predictor_layers, model.frame) == (1, 32, 1, (1, 28, 28))
    assert "normalised" in caplog.text
    assert float(model.pixels.scale) == 1.0
    with pytest.raises(ConfigError, match="needs the configuration"):
        import_jepa_ssl(checkpoint, inputs="dots")


def test_a_configuration_is_found_beside_or_given(checkpoint, tmp_path):
    assert import_jepa_ssl(checkpoint, inputs="normalised").sim == pytest.approx(20.55300175)
    beside = checkpoint.with_suffix(".yaml").rename(tmp_path / "config.yaml")
    assert import_jepa_ssl(checkpoint, inputs="normalised").sim == pytest.approx(20.55300175)
    elsewhere = beside.rename(tmp_path / "other.yaml")
    assert import_jepa_ssl(checkpoint).sim == 10.0
    assert import_jepa_ssl(checkpoint, config=elsewhere, inputs="normalised").sim == pytest.approx(20.55300175)


def test_the_head_of_actions_comes_along_where_it_was_trained(checkpoint):
    assert not hasattr(import_jepa_ssl(checkpoint, inputs="normalised"), "inverse")
    settings(
        checkpoint.with_suffix(".yaml"),
        vicreg__sim_coeff=0.0,
        vicreg__std_coeff=0.0,
        vicreg__cov_coeff=0.0,
        vicreg__action_coeff=0.5,
    )
    model = import_jepa_ssl(checkpoint, inputs="normalised")
    assert (model.objective, model.idm) == ("idm", 0.5)
    assert model.inverse.linear.weight.shape == (2, 64)


class Plain(nn.Module):
    """An encoder with layers behind it, and a projector, written down independently under the study's names."""

    def __init__(self, width, size, channels):
        super().__init__()
        one, two = 16 * width, 32 * width
        encoder = nn.Module()
        encoder.layer1 = nn.Sequential(
            *(nn.Conv2d(channels, one, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(one)),
            *(nn.Conv2d(one, two, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(two)),
            *(nn.Conv2d(two, two, 3, 1, 1), nn.ReLU(), nn.BatchNorm2d(two)),
            nn.AvgPool2d(2),
        )
        encoder.fc = nn.Linear(9 * two, size)
        self.backbone = nn.ModuleList([encoder, self.layers(size, 12, 10)])
        self.projector = self.layers(10, 6, 5)
        self.predictor = nn.Module()
        self.predictor.rnn = nn.GRU(2, 10, num_layers=2)

    @staticmethod
    def layers(inputs, hidden, outputs):
        return nn.Sequential(
            nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs, bias=False)
        )

    def forward(self, frames, actions):
        encoder, rest = self.backbone
        encoded = rest(encoder.fc(encoder.layer1(frames.flatten(0, 1)).flatten(1))).unflatten(0, frames.shape[:2])
        hidden = encoded[:, 0].expand(2, -1, -1).contiguous()
        return encoded, self.predictor.rnn(actions.transpose(0, 1), hidden)[0].transpose(0, 1)


def test_layers_behind_the_encoder_a_projector_and_deeper_predictors_come_along(tmp_path):
    torch.manual_seed(0)
    plain = Plain(2, 7, 3)
    frames, actions = torch.randn(6, 4, 3, 28, 28), torch.randn(6, 3, 2)
    plain.train()(frames, actions)  # moves the running statistics
    torch.save({"model_state_dict": plain.state_dict(), "optimizer_state_dict": {}}, tmp_path / "deep.ckpt")
    model = import_jepa_ssl(tmp_path / "deep.ckpt")
    assert (model.width, model.latent_dim, model.backbone_mlp, model.projector) == (2, 7, (12, 10), (6, 5))
    with torch.no_grad():
        encoded, predicted = plain.eval()(frames, actions)
        batch = Sequences(frames, actions)
        torch.testing.assert_close(model.encode(batch).mean, encoded)
        torch.testing.assert_close(model.predict(batch)[:, 1:], predicted)
        torch.testing.assert_close(model.projection(encoded[:, 0]), plain.projector(encoded[:, 0]))


# What is refused


def test_the_function_in_the_optimisers_state_is_neither_imported_nor_called(checkpoint, monkeypatch):
    trap = types.ModuleType("lars")
    called = []
    trap.exclude_bias_and_norm = lambda *arguments: called.append(arguments)
    monkeypatch.setitem(sys.modules, "lars", trap)
    before = set(torch.serialization.get_safe_globals())
    assert isinstance(import_jepa_ssl(checkpoint, inputs="normalised"), JEPA)
    assert not called
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(Exception, match="lars"):
        torch.load(checkpoint, weights_only=True)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_any_other_code_is_refused_by_name_and_not_run(checkpoint, tmp_path):
    torch.save({"model_state_dict": {}, "optimizer_state_dict": {"filter": posixpath.join}}, checkpoint)
    with pytest.raises(ArtifactError, match=r"posixpath\.join"):
        import_jepa_ssl(checkpoint)
    torch.save({"model_state_dict": Hostile(tmp_path / "made")}, checkpoint)
    with pytest.raises(ArtifactError, match="mkdir"):
        import_jepa_ssl(checkpoint)
    assert not (tmp_path / "made").exists()


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, value):
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("backbone.fc.bias"), r"'backbone\.fc\.bias' is missing"),
        (drop("backbone.layer1.0.weight"), "expected the encoder menet5"),
        (drop("predictor.rnn.bias_hh_l0"), "bias_hh_l0' is missing"),
        (put("decoder.weight", torch.zeros(3)), r"'decoder\.weight' is unknown"),
        (put("backbone.fc.bias", torch.full((32,), torch.nan)), r"'backbone\.fc\.bias' is not finite"),
        (put("backbone.fc.bias", torch.zeros(31)), "shapes that contradict"),
        (put("backbone.fc.weight", torch.zeros(32, 512)), "28 x 28"),
        (put("backbone.layer1.0.weight", torch.zeros(15, 1, 5, 5)), "shapes 15x1x5x5"),
        (put("backbone.fc.bias", "text"), "is no tensor"),
    ],
)
def test_tensors_that_make_no_model_are_refused(checkpoint, change, message):
    with pytest.raises(ArtifactError, match=message):
        import_jepa_ssl(rewritten(checkpoint, change), inputs="normalised")


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        import_jepa_ssl(tmp_path / "none.ckpt")
    with pytest.raises(ArtifactError, match=r"is a folder; name the \.ckpt file in it"):
        import_jepa_ssl(tmp_path)
    (tmp_path / "text.ckpt").write_text("weights")
    with pytest.raises(ArtifactError, match="damaged"):
        import_jepa_ssl(tmp_path / "text.ckpt")
    (tmp_path / "half.ckpt").write_bytes((FILES / "vicreg.ckpt").read_bytes()[:5000])
    with pytest.raises(ArtifactError, match="damaged"):
        import_jepa_ssl(tmp_path / "half.ckpt")
    torch.save({"weights": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ArtifactError, match="model_state_dict"):
        import_jepa_ssl(tmp_path / "other.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(ArtifactError, match="model_state_dict"):
        import_jepa_ssl(tmp_path / "list.ckpt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vicreg__embedding_size": 64}, "latent_dim=64, the tensors have 32"),
        ({"vicreg__backbone_mlp": "16"}, "backbone_mlp"),
        ({"vicreg__rnn_layers": 2}, "predictor_layers=2"),
    ],
)
def test_the_configuration_of_another_checkpoint_is_refused(checkpoint, changes, message):
    settings(checkpoint.with_suffix(".yaml"), **changes)
    with pytest.raises(ArtifactError, match=message):
        import_jepa_ssl(checkpoint)


def test_a_missing_head_of_actions_is_not_made_up(checkpoint):
    settings(checkpoint.with_suffix(".yaml"), vicreg__action_coeff=1.0)

    def headless(tensors):
        del tensors["action_predictor.model.weight"], tensors["action_predictor.model.bias"]

    with pytest.raises(ArtifactError, match="no tensor for 'inverse"):
        import_jepa_ssl(rewritten(checkpoint, headless), inputs="normalised")


def test_rssm_is_refused_in_words(checkpoint):
    settings(checkpoint.with_suffix(".yaml"), model_type="RSSM")
    with pytest.raises(NotSupportedError, match="not of RSSM"):
        import_jepa_ssl(checkpoint)
    with pytest.raises(ConfigError, match="Did you mean 'dots'"):
        import_jepa_ssl(checkpoint, inputs="dot")


# On the command line


def test_a_checkpoint_becomes_a_model_folder_that_can_be_evaluated(checkpoint, tmp_path, capfd):
    code, text, err = run(capfd, "import", "jepa-ssl", checkpoint, "-o", tmp_path / "model", "--json")
    assert code == 0, err
    facts = json.loads(text)
    assert facts["inputs"] == "dots"
    assert facts["objective"] == "vicreg"
    assert run(capfd, "verify", tmp_path / "model")[0] == 0
    few = ["data.test_sequences=40", "evaluate.probe_train_sequences=60", "evaluate.baselines=false"]
    code, text, err = run(capfd, "evaluate", tmp_path / "model", *few, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    assert '"rmse"' in text
    code, _, err = run(capfd, "import", "jepa-ssl", checkpoint, "-o", tmp_path / "model")
    assert code == 4
    assert "exists" in err
    plain = ["import", "jepa-ssl", checkpoint, "-o", tmp_path / "model", "--overwrite", "--inputs", "normalised"]
    code, text, err = run(capfd, *plain)
    assert code == 0, err
    assert "normalised" in text
