import random
import resource
import shutil
from pathlib import Path

import pytest
import torch

import noumena
from noumena.core.errors import ArtifactError, DataError
from noumena.density.model import VAE
from noumena.training.checkpoint_io import SafeCheckpointIO
from tests.training.workers import (
    CHECKPOINT,
    OFTEN,
    SlowTable,
    outcome,
    rows,
    shared_counter,
    signal_after,
    start,
    train,
)

QUICK = {"max_epochs": 3, "batch_size": 16, "accelerator": "cpu", "progress": False, "seed": 0}


def fit(folder, *, data=None, resume=False, hyperparameters=None, **changes):
    model = VAE(**{"hidden_dims": (8,), "latent_dim": 2} | (hyperparameters or {}))
    model.fit(rows(100) if data is None else data, run_dir=folder, resume=resume, **{**QUICK, **OFTEN, **changes})
    return model


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=0, atol=0, equal_nan=True) for name in a)


def parts_left_in(folder):
    return [path for path in Path(folder).rglob("*") if path.name.endswith((".part", ".old"))]


# A full disk, stood for by a limit on the size of files


def fill_the_disk_while_training(folder):
    fit(folder, max_epochs=2)
    checkpoint = folder / CHECKPOINT
    before = checkpoint.read_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        fit(folder, max_epochs=6, resume=True)
    except ArtifactError as error:
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert str(checkpoint) in message, message
    assert "untouched" in message
    assert checkpoint.read_bytes() == before
    assert parts_left_in(folder) == []
    resumed = fit(folder, max_epochs=6, resume=True)
    assert same(state_of(resumed), state_of(fit(folder.parent / "whole", max_epochs=6)))


def fill_the_disk_while_saving_the_model(folder):
    model = fit(folder, max_epochs=2)
    before = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        model.save(folder / "model", overwrite=True)
    except ArtifactError as error:
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert str(folder / "model") in message, message
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == before
    assert parts_left_in(folder) == []
    noumena.load(folder)


@pytest.mark.parametrize("scenario", [fill_the_disk_while_training, fill_the_disk_while_saving_the_model])
def test_a_full_disk_is_an_error_that_names_the_path_and_costs_nothing_that_was_there(tmp_path, scenario):
    process = start(scenario, tmp_path / "run")
    process.join(120)
    assert process.exitcode == 0


# A run folder that somebody touches


class At(SlowTable):
    """A table at whose n-th batch something happens."""

    def batch(self, index):
        rows_ = super().batch(index)
        if self.counter["left"] == 0:
            self.counter["then"]()
        self.counter["left"] -= 1
        return rows_


def table_with_event(batches, then):
    from noumena.density.table import as_table

    table = as_table(rows(100))
    counter = {"left": batches, "then": then, "value": 0}

    class Counter(dict):
        value = 0

    return At(table.rows, table.columns, layout=table.layout, counter=Counter(counter))


def test_a_file_in_the_place_of_the_checkpoint_folder_is_named(tmp_path):
    def replace_by_file():
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        (tmp_path / "run" / "checkpoints").write_text("in the way")

    with pytest.raises(ArtifactError, match=f"cannot write {tmp_path / 'run' / CHECKPOINT}"):
        fit(tmp_path / "run", data=table_with_event(8, replace_by_file))
    assert parts_left_in(tmp_path) == []


def test_a_folder_in_the_place_of_the_checkpoint_file_is_named(tmp_path):
    (tmp_path / CHECKPOINT / "inside").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=f"cannot write {tmp_path / CHECKPOINT}"):
        fit(tmp_path)
    assert parts_left_in(tmp_path) == []


def test_a_file_in_the_place_of_the_run_folder_is_named_before_training(tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ArtifactError, match=str(tmp_path / "run")):
        fit(tmp_path / "run", data=table_with_event(3, lambda: pytest.fail("it trained")))
    assert (tmp_path / "run").read_text() == "in the way"


def test_a_checkpoint_folder_that_was_removed_is_made_again(tmp_path):
    fit(tmp_path / "run", data=table_with_event(8, lambda: shutil.rmtree(tmp_path / "run" / "checkpoints")))
    assert (tmp_path / "run" / CHECKPOINT).is_file()
    assert same(state_of(noumena.load(tmp_path / "run")), state_of(fit(tmp_path / "whole")))


def test_a_finished_run_leaves_no_temporary_files(tmp_path):
    fit(tmp_path)
    assert parts_left_in(tmp_path) == []


def test_a_resumed_run_clears_what_a_kill_left_of_a_checkpoint(tmp_path):
    counter = shared_counter()
    process = start(train, tmp_path, "plateau", counter=counter)
    assert signal_after(process, counter, 30, 0.0, 9)
    process.join(30)
    (tmp_path / CHECKPOINT).with_name(".last.safetensors.0123abcd.part").write_bytes(b"half")  # as a kill leaves it
    process = start(train, tmp_path, "plateau", pause=False)
    process.join(60)
    assert process.exitcode == 0
    assert outcome(tmp_path)["result"]["epochs"] > 0
    assert parts_left_in(tmp_path) == []


# Resuming what is something else


@pytest.fixture
def begun(tmp_path):
    fit(tmp_path / "run", max_epochs=1)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"data": rows(100, seed=1)}, "data"),
        ({"data": rows(99)}, "data"),
        ({"hyperparameters": {"beta": 2.0}}, "hyperparameters"),
        ({"hyperparameters": {"latent_dim": 3}}, "hyperparameters"),
        ({"hyperparameters": {"hidden_dims": (9,)}}, "hyperparameters"),
        ({"hyperparameters": {"hidden_dims": (8, 8)}}, "hyperparameters"),
        ({"hyperparameters": {"decoder_scale": "fixed"}}, "hyperparameters"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 8}, "batch_size"),
    ],
)
def test_resuming_with_something_else_is_refused_by_its_name(begun, changes, name):
    before = (begun / CHECKPOINT).read_bytes()
    with pytest.raises(ArtifactError, match=rf"another {name}"):
        fit(begun, resume=True, **changes)
    assert (begun / CHECKPOINT).read_bytes() == before


def test_resuming_with_rows_of_another_width_is_refused(begun):
    with pytest.raises((ArtifactError, DataError)):
        fit(begun, resume=True, data=rows(100, columns=5))


# Damaged checkpoints


def test_a_truncated_checkpoint_is_refused(begun):
    raw = (begun / CHECKPOINT).read_bytes()
    rng = random.Random(0)
    for length in [0, 1, 7, 8, 9, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(30))]:
        (begun / CHECKPOINT).write_bytes(raw[:length])
        with pytest.raises(ArtifactError, match=str(CHECKPOINT)):
            SafeCheckpointIO().load_checkpoint(begun / CHECKPOINT)
    with pytest.raises(ArtifactError, match=str(CHECKPOINT)):
        fit(begun, resume=True)


def test_a_checkpoint_with_a_flipped_byte_is_refused(begun):
    raw = (begun / CHECKPOINT).read_bytes()
    rng = random.Random(0)
    unnoticed = []
    for _ in range(300):
        place = rng.randrange(len(raw))
        damaged = bytearray(raw)
        damaged[place] ^= 1 << rng.randrange(8)
        (begun / CHECKPOINT).write_bytes(damaged)
        try:
            SafeCheckpointIO().load_checkpoint(begun / CHECKPOINT)
        except ArtifactError:
            continue
        unnoticed.append(place)
    assert unnoticed == []


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04" + b"\x00" * 200, b"\x80\x02}q\x00." + b"\x00" * 200])
def test_a_checkpoint_of_another_kind_is_refused(begun, raw):
    (begun / CHECKPOINT).write_bytes(raw)
    with pytest.raises(ArtifactError, match=str(CHECKPOINT)):
        fit(begun, resume=True)


def test_a_model_file_in_the_place_of_a_checkpoint_is_refused(begun):
    shutil.copy(begun / "model" / "model.safetensors", begun / CHECKPOINT)
    with pytest.raises(ArtifactError, match="not a checkpoint"):
        fit(begun, resume=True)


def test_a_checkpoint_gives_back_what_was_put_into_it(tmp_path):
    tree = {
        "tensors": [torch.arange(3), torch.tensor(float("nan")), torch.zeros(0, 2), torch.tensor(True)],
        "numbers": (1, -2.5, float("inf"), None, True, "text with \u00fc and {braces}"),
        "shared": (lambda t: [t, t[1:]])(torch.randn(4)),
        3: {"a key that is a number": {}, ("a", 1): []},
    }
    SafeCheckpointIO().save_checkpoint(tree, tmp_path / "file")
    found = SafeCheckpointIO().load_checkpoint(tmp_path / "file")

    def equal(a, b):
        if isinstance(a, torch.Tensor):
            return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        if isinstance(a, dict):
            return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
        return type(a) is type(b) and a == b

    assert equal(tree, found)


def test_what_a_checkpoint_cannot_hold_is_refused_and_the_previous_one_stays(tmp_path):
    SafeCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "file")
    with pytest.raises(ArtifactError, match="object"):
        SafeCheckpointIO().save_checkpoint({"thing": object()}, tmp_path / "file")
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "file") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_holds_a_training_is_not_trained_over(tmp_path):
    fit(tmp_path, max_epochs=1)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(ArtifactError, match="resume=True"):
        fit(tmp_path, max_epochs=1, seed=1)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
