import json
import os
import resource
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

import noumena
from noumena.artifact import read_manifest, store
from noumena.core.errors import ArtifactError, NotSupportedError
from noumena.core.model import LatentModel
from noumena.density.model import VAE
from tests.artifact.folders import FILES, change_config, change_json, change_tensors, rows, sign, small_model


@pytest.fixture
def saved(tmp_path):
    small_model().save(tmp_path / "model")
    return tmp_path / "model"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder, *words):
    with pytest.raises(ArtifactError) as caught:
        noumena.load(folder)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# Round trip


def test_a_loaded_model_is_the_saved_one(saved):
    model, loaded = small_model(), noumena.load(saved)
    assert type(loaded) is VAE
    assert loaded.hyperparameters() == model.hyperparameters()
    assert loaded.schema == model.schema
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == value.dtype
    assert np.array_equal(loaded.score_samples(rows(seed=1)), model.score_samples(rows(seed=1)))


def test_saving_a_loaded_model_writes_the_same_configuration_and_weights(saved, tmp_path):
    noumena.load(saved).save(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "card.md"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_a_loaded_model_can_be_trained_on(saved):
    history = noumena.load(saved).fit(rows(), rows(seed=1), max_epochs=2, batch_size=16, accelerator="cpu")
    assert np.isfinite(history["train_loss"]).all()


def test_a_run_folder_is_loaded_by_the_model_inside_it(saved):
    assert noumena.load(saved.parent).hyperparameters() == small_model().hyperparameters()


def test_a_folder_holds_nothing_but_the_four_files_and_each_is_named_with_its_hash(saved):
    assert {path.name for path in saved.iterdir()} == set(FILES)
    assert set(noumena.verify(saved).files) == set(FILES) - {"manifest.json"}


def test_the_manifest_names_the_training_data_of_a_fitted_model(tmp_path):
    model = VAE(hidden_dims=(4,))
    model.fit(rows(), max_epochs=1, accelerator="cpu")
    model.save(tmp_path / "model")
    assert read_manifest(tmp_path / "model").data == model.data_fingerprint
    assert noumena.load(tmp_path / "model").data_fingerprint == model.data_fingerprint


def test_the_tensors_of_a_loaded_model_are_its_own(saved):
    first, second = noumena.load(saved), noumena.load(saved)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert np.array_equal(second.score_samples(rows()), small_model().score_samples(rows()))


# What cannot be saved


def test_a_model_without_weights_is_not_saved(tmp_path):
    with pytest.raises(NotSupportedError, match="fit it"):
        VAE().save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_could_not_be_found_again_is_not_saved(tmp_path):
    class Private(VAE):
        pass

    with pytest.raises(ArtifactError, match=r"Private.*not a registered model"):
        Private(input_dim=2).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# Overwriting


def test_an_existing_folder_is_not_replaced_unless_asked(saved):
    before = content(saved)
    with pytest.raises(ArtifactError, match="overwrite=True"):
        small_model(seed=1).save(saved)
    assert content(saved) == before


def test_overwriting_replaces_everything_and_leaves_nothing_beside(saved):
    (saved / "notes.txt").write_text("left by somebody")
    small_model(seed=1).save(saved, overwrite=True)
    assert {path.name for path in saved.iterdir()} == set(FILES)
    expected = small_model(seed=1).score_samples(rows())
    assert np.array_equal(noumena.load(saved).score_samples(rows()), expected)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("step", ["save_file", "model_card", "write_manifest"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_folder_intact(saved, monkeypatch, step, error):
    def fail(*args, **kwargs):
        raise error

    before = content(saved)
    monkeypatch.setattr(store, step, fail)
    with pytest.raises((ArtifactError, KeyboardInterrupt)) as caught:
        small_model(seed=1).save(saved, overwrite=True)
    if isinstance(error, OSError):
        assert str(saved) in str(caught.value)
        assert "No space left" in str(caught.value)
    assert content(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_failed_rename_gives_the_old_folder_back(saved, monkeypatch):
    rename, calls = os.replace, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    before = content(saved)
    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(ArtifactError, match="Input/output error"):
        small_model(seed=1).save(saved, overwrite=True)
    assert content(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="file"):
        small_model().save(tmp_path / "file" / "model")
    assert (tmp_path / "file").read_text() == "in the way"


# Refusals: files and manifest


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    refused(saved, name)


def test_a_place_that_is_no_folder_is_named(tmp_path, saved):
    refused(tmp_path / "nowhere", "nowhere", "does not exist")
    refused(saved / "config.json", "config.json", "it is a file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "card.md"])
def test_a_file_whose_hash_is_wrong_is_named(saved, name):
    raw = bytearray((saved / name).read_bytes())
    raw[-2] ^= 1
    (saved / name).write_bytes(raw)
    refused(saved, name, "sha256")


@pytest.mark.parametrize("version", [0, 2, 999, -1, "1", None, True, 1.0, [1]])
def test_an_unknown_format_version_is_refused(saved, version):
    sign(saved, format=version)
    refused(saved, "format")


@pytest.mark.parametrize("name", ["density/gan", "vae", "density/", "/", "", "atoms/vae", "density/vae/x"])
def test_an_unknown_model_name_is_refused_with_the_known_ones(saved, name):
    sign(saved, model=name)
    refused(saved, f"'{name}'", "density/vae")


@pytest.mark.parametrize("change", [{"extra": 1}, {"files": {}}, {"data": 3}, {"model": None}, {"created": []}])
def test_a_manifest_of_another_shape_is_refused(saved, change):
    sign(saved, **change)
    refused(saved, "manifest.json")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "config.json/../../outside"])
def test_a_manifest_that_points_outside_its_folder_is_refused(saved, name):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["card.md"]
    (saved.parent / "outside").write_bytes((saved / "card.md").read_bytes())
    sign(saved, files=manifest["files"])
    refused(saved, "manifest.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"format": 1}', "{" * 100_000, '{"format": 1, "format": 1}'])
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_other_json_is_refused(saved, name, text):
    (saved / name).write_text(text)
    if name == "config.json":
        sign(saved)
    refused(saved, name)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_json_of_absurd_size_is_refused_before_it_is_parsed(saved, name):
    change_json(saved / name, lambda content: content | {"pad": " " * (2 << 20)})
    if name == "config.json":
        sign(saved)
    refused(saved, name, "bytes")


# Refusals: tensors


def test_an_extra_tensor_is_named(saved):
    change_tensors(saved, lambda tensors: tensors.update(stowaway=torch.zeros(3)))
    refused(saved, "model.safetensors", "'stowaway'", "not part of this model")


@pytest.mark.parametrize("name", ["encoder.head.weight", "threshold", "standardizer.constant"])
def test_a_missing_tensor_is_named(saved, name):
    change_tensors(saved, lambda tensors: tensors.pop(name))
    refused(saved, "model.safetensors", f"'{name}'", "missing")


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (32,), (), (0, 4)])
def test_a_tensor_of_another_shape_is_named_with_both_shapes(saved, shape):
    change_tensors(saved, lambda tensors: tensors.update({"encoder.trunk.0.weight": torch.zeros(shape)}))
    refused(saved, "'encoder.trunk.0.weight'", str(shape), "(8, 4)")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("encoder.trunk.0.weight", torch.int64),
        ("encoder.trunk.0.weight", torch.bool),
        ("standardizer.constant", torch.float32),
        ("standardizer.constant", torch.int64),
        ("encoder.trunk.0.weight", torch.float16),
        ("encoder.trunk.0.weight", torch.float8_e4m3fn),
        ("encoder.trunk.0.weight", torch.float64),
    ],
)
def test_a_tensor_of_a_type_that_does_not_fit_is_named(saved, name, dtype):
    change_tensors(saved, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    refused(saved, f"'{name}'", "type")


def test_a_file_that_is_no_safetensors_is_named(saved):
    for raw in (b"", b"\x00" * 64, b"PK\x03\x04" + b"\x00" * 100, b"\x80\x04\x95" + b"\x00" * 100):
        (saved / "model.safetensors").write_bytes(raw)
        sign(saved)
        refused(saved, "model.safetensors")


def test_a_header_that_declares_more_than_the_file_holds_is_refused(saved):
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}).encode()
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    sign(saved)
    refused(saved, "model.safetensors")


# Refusals: hyperparameters


def with_hyperparameters(**changes):
    def change(config):
        config["hyperparameters"].update(changes)

    return change


def test_an_unknown_hyperparameter_is_named_with_the_nearest_known(saved):
    change_config(saved, with_hyperparameters(latentdim=2))
    refused(saved, "config.json", "'latentdim'", "'latent_dim'")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("latent_dim", 3),
        ("latent_dim", "2"),
        ("latent_dim", None),
        ("latent_dim", 2.5),
        ("input_dim", 5),
        ("input_dim", None),
        ("hidden_dims", [8]),
        ("hidden_dims", "84"),
        ("hidden_dims", 8),
        ("hidden_dims", [[8], 4]),
        ("hidden_dims", {"8": 4}),
        ("beta", -1.0),
        ("beta", "much"),
        ("activation", "softmax"),
        ("activation", ["relu"]),
        ("decoder_scale", "fixed"),
        ("standardize", False),
        ("anomaly_fraction", 2.0),
    ],
)
def test_a_hyperparameter_that_is_not_the_models_is_refused(saved, name, value):
    change_config(saved, with_hyperparameters(**{name: value}))
    refused(saved)


@pytest.mark.parametrize("key", ["hyperparameters", "schema"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_configuration_without_its_parts_is_refused(saved, key, value):
    change_config(saved, lambda config: config | {key: value})
    refused(saved, "config.json")


HUGE = [
    {"hidden_dims": [10**9]},
    {"hidden_dims": [10**9, 10**9]},
    {"hidden_dims": [10**12, 10**12]},
    {"latent_dim": 10**30},
    {"input_dim": 10**18},
    {"hidden_dims": [1] * 100_000},
]


@pytest.mark.parametrize("changes", HUGE, ids=lambda changes: next(iter(changes)))
def test_huge_declared_sizes_are_refused_before_anything_is_allocated(saved, changes):
    change_config(saved, with_hyperparameters(**changes))
    script = (
        "import resource, sys, noumena, noumena.density.model\n"
        "from noumena.core.errors import ArtifactError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    noumena.load(sys.argv[1])\n"
        "except ArtifactError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, str(error)[:500])\n"
    )
    found = subprocess.run([sys.executable, "-c", script, saved], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr[-2000:]
    grown_kib, _, message = found.stdout.partition(" ")
    assert message, "it was loaded"
    assert int(grown_kib) < 100 * 1024


def test_the_memory_that_loading_takes_is_about_the_size_of_the_model(tmp_path):
    model = VAE(input_dim=512, hidden_dims=(4096, 2048), latent_dim=64)
    model.save(tmp_path / "model")
    size = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    loaded = noumena.load(tmp_path / "model")
    assert loaded.input_dim == 512
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < 3 * size


# Where no registered model is involved


def test_nothing_is_known_by_a_class_name():
    assert issubclass(VAE, LatentModel)
    with pytest.raises(ArtifactError, match="unknown model"):
        noumena.registry.model_class("noumena.density.model:VAE")


def test_a_copied_folder_is_as_good_as_the_first(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "elsewhere")
    assert np.array_equal(
        noumena.load(tmp_path / "elsewhere").score_samples(rows()), small_model().score_samples(rows())
    )
