"""Training on sequences that are made on the fly: resumed, shared among processes, with an awkward last batch."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.worldmodels.baselines import Random, Supervised
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.rssm import RSSM
from noumena.worldmodels.sequences import Sequences

QUICK = {"accelerator": "cpu", "progress": False}
SMALL = {"steps": 6, "size": 16, "test_sequences": 0}
TINY_RSSM = {"deter": 8, "hidden": 8, "variables": 2, "classes": 4, "decoder_width": 4}


class Killed(Exception):
    pass


def killed_after(calls):
    plain, seen = JEPA.loss, 0

    def loss(self, *arguments, **options):
        nonlocal seen
        seen += 1
        if seen > calls:
            raise Killed
        return plain(self, *arguments, **options)

    return loss


def train(folder, *, resume=False):
    data = open_dots(sequences=40, val_sequences=9, fixed=1.0, **SMALL)
    model = JEPA(latent_dim=8, swap="always", targets=3, episode_dim=4)
    often = {"checkpoint_every_n_steps": 3, "checkpoint_seconds": 0.0}
    schedule = {"lr_schedule": "cosine", "keep": "last", "patience": None}
    options = {"max_epochs": 3, "batch_size": 8, "run_dir": folder, "resume": resume, **often, **schedule, **QUICK}
    model.fit(data.train, data.val, **options)
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("calls", [5, 9])
def test_a_training_on_sequences_made_on_the_fly_resumes_to_the_bit(tmp_path, monkeypatch, calls):
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(JEPA, "loss", killed_after(calls))
        with pytest.raises(Killed):
            train(tmp_path / "killed")
    assert train(tmp_path / "killed", resume=True) == whole


@pytest.mark.parametrize(
    "model",
    [
        JEPA(latent_dim=8, projector=(8,), episode_dim=4, std_time=1.0, idm=1.0, swap="always"),
        JEPA(latent_dim=8, objective="simclr", negatives="both"),
        JEPA(latent_dim=8, objective="sigreg"),
        JEPA(latent_dim=8, objective="idm", idm=1.0),
        RSSM(**TINY_RSSM),
        RSSM(variant="study", deter=8),
        Supervised(latent_dim=8),
        Random(latent_dim=8),
    ],
    ids=["vicreg", "simclr", "sigreg", "idm", "rssm", "study's rssm", "supervised", "random"],
)
def test_an_epoch_that_leaves_one_sequence_over_keeps_the_losses_finite(model):
    data = open_dots(sequences=9, val_sequences=9, steps=6, test_sequences=0)
    history = model.fit(data.train, data.val, max_epochs=2, batch_size=4, **QUICK)
    assert torch.tensor([history["train_loss"], history["val_loss"]]).isfinite().all()
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_single_sequence_is_refused_where_sequences_are_compared():
    data = open_dots(sequences=4, **SMALL)
    with pytest.raises(ConfigError, match=r"fit\.batch_size: expected at least 2, got 1"):
        JEPA(latent_dim=8).fit(data.train, batch_size=1, **QUICK)
    with pytest.raises(DataError, match="needs 2 at least; a part of the data has 1"):
        JEPA(latent_dim=8).fit(open_dots(sequences=1, **SMALL).train, **QUICK)
    model = JEPA(latent_dim=8, frame=(1, 16, 16), action_dim=2)
    with pytest.raises(DataError, match="got 1, needs 2"):
        model.loss(data.train.batch(torch.arange(1)))


BUILT = [
    JEPA(latent_dim=8, frame=(1, 16, 16), action_dim=2),
    RSSM(frame=(1, 16, 16), action_dim=2, **TINY_RSSM),
    Supervised(latent_dim=8, frame=(1, 16, 16), action_dim=2, state_shape=(1, 2)),
    Random(latent_dim=8, frame=(1, 16, 16), action_dim=2),
]


@pytest.mark.parametrize("model", BUILT, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("call", ["encode", "predict", "start"])
def test_frames_and_actions_of_another_shape_are_refused_in_words(model, call):
    colour = Sequences(torch.zeros(2, 4, 3, 16, 16), torch.zeros(2, 3, 2))
    with pytest.raises(DataError, match=r"expected shape \(\.\.\., 1, 16, 16\), got"):
        getattr(model, call)(colour.frames[:, 0] if call == "start" else colour)
    with pytest.raises(DataError, match=r"actions: expected shape \(\.\.\., 2\), got \(2, 3, 5\)"):
        model.predict(Sequences(torch.zeros(2, 4, 1, 16, 16), torch.zeros(2, 3, 5)))


@pytest.mark.parametrize("kind", [JEPA, RSSM, Supervised, Random])
def test_a_model_that_was_not_fitted_says_so(kind):
    with pytest.raises(NotSupportedError, match="no weights yet: call fit"):
        kind().encode(torch.zeros(2, 1, 28, 28))


SCRIPT = """
import json, sys
from pathlib import Path
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.jepa import JEPA

data = open_dots(sequences=30, steps=6, size=16, val_sequences=9, test_sequences=0)
model = JEPA(latent_dim=8, **json.loads(sys.argv[3]))
options = dict(max_epochs=2, batch_size=10, accelerator="cpu", progress=False, run_dir=sys.argv[1], lr=1e-3)
model.fit(data.train, data.val, **options, devices=int(sys.argv[2]), strategy="ddp" if sys.argv[2] == "2" else "auto")
"""


def losses_of(folder, devices, options):
    script = folder.with_suffix(".py")
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "MASTER_PORT")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, script, folder, str(devices), options]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert found.returncode == 0, found.stderr[-3000:]
    with (folder / "metrics.csv").open() as file:
        return [(float(row["train_loss"]), float(row["val_loss"])) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "tolerance"), [('{"objective": "idm", "idm": 1.0}', 0.01), ("{}", 0.05)])
def test_two_processes_have_nearly_the_losses_of_one(tmp_path, options, tolerance):
    one, two = (losses_of(tmp_path / f"of{devices}", devices, options) for devices in (1, 2))
    # Not the same: batch norm, and the variances and covariances of VICReg, are those of each process's share.
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, rel=tolerance)
