"""Trainings that tests run in processes of their own, to kill, interrupt and compare them."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from noumena.core.errors import TrainingInterrupted
from noumena.density.model import VAE
from noumena.density.table import Table, as_table

CHECKPOINT = Path("checkpoints") / "last.safetensors"
OFTEN = {"checkpoint_every_n_steps": 3, "checkpoint_seconds": 0.0}
TIME_COLUMNS = ("seconds",)


def rows(n, seed=0, columns=4):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 2)) @ rng.normal(size=(2, columns)) + 0.3 * rng.normal(size=(n, columns))).astype(
        "float32"
    )


@dataclass(frozen=True, eq=False)
class SlowTable(Table):
    """A table that takes its time, so that a kill finds the training anywhere, and that counts its batches."""

    counter: Any = None

    def batch(self, index):
        time.sleep(0.002)
        if self.counter is not None:
            self.counter.value += 1
        return super().batch(index)


def slow(data, counter=None):
    table = as_table(data)
    return SlowTable(table.rows, table.columns, layout=table.layout, counter=counter)


# Ways to train: (model hyperparameters, options of fit)
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plateau": (
        {"hidden_dims": [16], "latent_dim": 2},
        {"lr": 2e-2, "lr_schedule": "plateau", "lr_patience": 0, "patience": 4, "min_delta": 0.01, "max_epochs": 8},
    ),
    "cosine": (
        {"hidden_dims": [16], "latent_dim": 2, "free_bits": 0.05},
        {
            "lr": 1e-2,
            "lr_schedule": "cosine",
            "warmup_epochs": 1.5,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "gradient_clip": 1.0,
            "beta_schedule": "cyclic",
            "beta_period_epochs": 2.5,
            "patience": None,
            "max_epochs": 8,
        },
    ),
}


def with_dropout():
    """Make the VAE's loss draw from torch's global generator, as a model with dropout does."""
    plain = VAE.loss

    def loss(self, batch, *, noise=None, beta_scale=1.0):
        keep = torch.rand(batch.shape) > 0.1
        return plain(self, batch * keep, noise=noise, beta_scale=beta_scale)

    VAE.loss = loss


def train(run_dir, setting, *, counter=None, dropout=False, pause=True, **changes):
    """One training into ``run_dir``, resumed where there is a checkpoint; writes what came out to ``result.json``."""
    torch.set_num_threads(1)
    if dropout:
        with_dropout()
    hyperparameters, options = SETTINGS[setting]
    run_dir = Path(run_dir)
    form = (lambda data: slow(data, counter)) if pause else as_table
    # 310 rows in batches of 16: twenty steps, the last one smaller.
    history = VAE(**hyperparameters).fit(
        form(rows(310)),
        form(rows(100, seed=0)[::-1] + 0.05),
        run_dir=run_dir,
        resume=(run_dir / CHECKPOINT).is_file(),
        **{"batch_size": 16, "accelerator": "cpu", "progress": False, **OFTEN, **options, **changes},
    )
    result = {"best_epoch": history.best_epoch, "stopped_early": history.stopped_early, "epochs": history.epochs}
    (run_dir / "result.json").write_text(json.dumps(result))


def train_until_interrupted(run_dir, setting, **options):
    """The same, and exit code 130 when it was asked to stop."""
    try:
        train(run_dir, setting, **options)
    except TrainingInterrupted:
        sys.exit(130)


def outcome(run_dir):
    """Everything of a finished run that must not depend on interruptions."""
    run_dir = Path(run_dir)
    header, *lines = [line.split(",") for line in (run_dir / "metrics.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(header) if name not in TIME_COLUMNS]
    return {
        "weights": weights_hash(run_dir / "model" / "model.safetensors"),
        "metrics": [[line[i] for i in kept] for line in [header, *lines]],
        "result": json.loads((run_dir / "result.json").read_text()),
    }


def weights_hash(path):
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


# Processes

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["noumena.training.engine", "noumena.density.model", "safetensors.torch"])


def shared_counter():
    return _context.RawValue("i", 0)


def start(target, *args, **kwargs):
    process = _context.Process(target=target, args=args, kwargs=kwargs, daemon=True)
    process.start()
    return process


def signal_after(process, counter, batches, delay, number):
    """Send a signal once ``batches`` more batches were drawn; False when the process ended before."""
    goal = counter.value + batches
    while counter.value < goal:
        if not process.is_alive():
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    if not process.is_alive():
        return False
    os.kill(process.pid, number)
    return True


def kill_again_and_again(run_dir, setting, kills, rng, mean_batches, **options):
    """Train with SIGKILLs at random moments; returns how many there were. The last attempt runs to its end."""
    counter = shared_counter()
    done = 0
    while True:
        process = start(train, run_dir, setting, counter=counter, **options)
        if done < kills:
            batches = rng.randrange(1, 2 * mean_batches)
            done += signal_after(process, counter, batches, rng.random() * 0.008, signal.SIGKILL)
        process.join(120)
        if process.exitcode == 0:
            return done
        assert process.exitcode == -signal.SIGKILL, f"the training ended with exit code {process.exitcode}"
