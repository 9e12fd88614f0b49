import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from noumena.training import History

SCRIPT = Path(__file__).with_name("train_script.py")
TWO = ('strategy="ddp"', "devices=2")
LOSSES = ("train_loss", "train_reconstruction", "train_kl", "val_loss", "val_reconstruction", "val_kl")


def run(folder, *options):
    """Train by a script in processes of its own; Lightning starts the second one itself."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "MASTER_PORT")}
    found = subprocess.run(
        [sys.executable, SCRIPT, folder, *options], capture_output=True, text=True, timeout=240, env=environment
    )
    assert found.returncode == 0, found.stderr[-4000:]
    return History.read_csv(folder / "metrics.csv")


# 310 rows in batches of 15 over two processes: neither the batches nor the last one (10 rows) are split evenly.
COMMON = ("max_epochs=3", "batch_size=15", "checkpoint_every_n_steps=7")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    return folder, run(folder, *COMMON)


def check_equal(folder, history, single):
    reference_folder, reference = single
    for name in LOSSES:
        assert history[name] == pytest.approx(reference[name], rel=1e-5), name
    assert history["lr"] == reference["lr"]
    assert history["step"] == reference["step"]
    found, expected = (load_file(place / "model" / "model.safetensors") for place in (folder, reference_folder))
    for name, value in expected.items():
        assert found[name].double().numpy() == pytest.approx(value.double().numpy(), rel=1e-3, abs=1e-4), name


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return folder, run(folder, *COMMON, *TWO)


def test_two_processes_train_like_one(single, pair):
    check_equal(*pair, single)


@pytest.mark.slow
def test_a_training_of_two_processes_resumes_like_one(single, tmp_path):
    run(tmp_path, *COMMON, *TWO, "max_epochs=1")
    history = run(tmp_path, *COMMON, *TWO)
    assert history.epochs == 3
    check_equal(tmp_path, history, single)


def test_only_the_first_process_writes(pair):
    folder, _ = pair
    with (folder / "metrics.csv").open(newline="") as file:
        epochs = [line["epoch"] for line in csv.DictReader(file)]
    assert epochs == ["0", "1", "2"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.safetensors"]


@pytest.mark.slow
def test_a_run_of_two_processes_from_the_command_line_makes_one_run_folder(tmp_path):
    command = [Path(sys.executable).with_name("noumena"), "-q", "fit", "density/synthetic", "fit.max_epochs=1"]
    options = ["fit.strategy=ddp", "fit.devices=2", "fit.accelerator=cpu"]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "MASTER_PORT")}
    found = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=240, env=environment
    )
    assert found.returncode == 0, found.stderr[-4000:]
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "report.html").is_file()
    assert found.stdout.count("AUROC") == 1
