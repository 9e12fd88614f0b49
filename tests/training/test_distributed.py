"""The commands of the page on many devices: torchrun, several nodes and SLURM give the run that one launcher gives."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from noumena.core.errors import ConfigError
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from noumena.training import History
from tests.training.launching import FIT, NOUMENA, TORCHRUN, finish, free_port, job, start
from tests.training.workers import rows, weights_hash

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "many_devices.md"
DDP = ("fit.strategy=ddp", "fit.progress=false")
TWO = (*FIT, *DDP, "fit.devices=2")
TWO_NODES = (*FIT, *DDP, "fit.devices=1", "fit.num_nodes=2")


def outcome(folder):
    """Weights and losses of a run."""
    history = History.read_csv(folder / "metrics.csv")
    losses = {name: values for name, values in history.columns.items() if name != "seconds"}
    return weights_hash(folder / "model" / "model.safetensors"), losses


def check_one_run(folder, out):
    """One process wrote, and one told."""
    assert {"config.yaml", "metrics.csv", "log.txt", "checkpoints", "model", "evaluation.json", "report.html"} <= {
        path.name for path in folder.iterdir()
    }
    assert [path.name for path in folder.parent.iterdir() if path.is_dir() and path.name.startswith(folder.name)] == [
        folder.name
    ]
    assert out.count("report  ") == 1
    assert (folder / "log.txt").read_text().count("epoch 2/2") == 1


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Two epochs by two processes, of which Lightning started the second."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    out, _ = finish(start([*NOUMENA, *TWO, "fit.max_epochs=2", "--out", folder]))
    check_one_run(folder, out)
    return outcome(folder)


def test_a_run_of_torchrun_is_the_run_of_two_devices(reference, tmp_path):
    folder = tmp_path / "run"
    torchrun = [*TORCHRUN, "--nproc-per-node", 2, "--master-port", free_port(), "-m", "noumena"]
    out, err = finish(start([*torchrun, *TWO, "fit.max_epochs=2", "--out", folder]))
    check_one_run(folder, out)
    assert outcome(folder) == reference
    assert re.findall(r"epoch \d/\d", err) == ["epoch 1/2", "epoch 2/2"]
    assert len(err.splitlines()) == 3, err  # and that it is being evaluated


@pytest.mark.slow
def test_a_killed_run_of_torchrun_resumes_to_the_same_weights(reference, tmp_path):
    folder = tmp_path / "run"
    torchrun = [*TORCHRUN, "--nproc-per-node", 2, "--master-port", free_port(), "-m", "noumena"]
    often = ("fit.checkpoint_seconds=0.0", "fit.checkpoint_every_n_steps=2", "fit.max_epochs=2")
    killed = start([*torchrun, *TWO, *often, "--out", folder])
    while not (folder / "checkpoints" / "last.safetensors").exists():
        assert killed.poll() is None, killed.communicate()[1][-4000:]
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    out, _ = finish(start([*torchrun, "fit", "--resume", folder]))
    check_one_run(folder, out)
    assert outcome(folder) == reference


@pytest.mark.slow
def test_two_nodes_of_torchrun_give_the_run_of_two_devices(reference, tmp_path):
    folder = tmp_path / "run"
    address = ("--nnodes", 2, "--nproc-per-node", 1, "--master-addr", "127.0.0.1", "--master-port", free_port())
    command = ("-m", "noumena", *TWO_NODES, "fit.max_epochs=2", "--out", folder)
    nodes = [start([*TORCHRUN, *address, "--node-rank", rank, *command]) for rank in range(2)]
    (out, _), (other, _) = [finish(node) for node in nodes]
    check_one_run(folder, out)
    assert other == ""
    assert outcome(folder) == reference


def script_of_the_page(folder, *changes):
    """The page's SLURM script, with the options of these tests added to its recipe."""
    (script,) = re.findall(r"```slurm\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = folder / "train.sh"
    assert script.count("density/synthetic") == 1
    path.write_text(script.replace("density/synthetic", " ".join(("density/synthetic", *FIT[2:], *changes))))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "tasks"), [(1, 2), (2, 1)])
def test_the_script_of_the_page_trains_under_slurm_and_goes_on_when_it_is_queued_again(
    reference, tmp_path, nodes, tasks
):
    script = script_of_the_page(tmp_path, "fit.max_epochs=2", "fit.progress=false")
    variables = job(tmp_path, nodes, tasks)
    out, _ = finish(start(["bash", script], cwd=tmp_path, **variables))
    (folder,) = (tmp_path / "runs").iterdir()
    check_one_run(folder, out)
    assert outcome(folder) == reference
    finish(start(["bash", script], cwd=tmp_path, **variables))
    assert outcome(folder) == reference


LAUNCHED = [
    {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"},
    {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
]


@pytest.mark.parametrize("variables", LAUNCHED)
def test_processes_that_would_each_train_the_whole_are_refused(monkeypatch, tmp_path, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"fit.num_nodes=1 fit.devices=2"):
        VAE(latent_dim=2).fit(rows(40), run_dir=tmp_path / "run", max_epochs=1)
    with pytest.raises(ConfigError, match="without torchrun"):
        GaussianMixture().fit(rows(40), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_devices_in_a_job_of_slurm_without_srun_are_started_here(reference, tmp_path):
    folder = tmp_path / "run"
    variables = {**job(tmp_path, 1, 2), "SLURM_PROCID": "0"}
    out, _ = finish(start([*NOUMENA, *TWO, "fit.max_epochs=2", "--out", folder], **variables))
    check_one_run(folder, out)
    assert outcome(folder) == reference


def test_an_allocation_of_slurm_without_srun_trains_in_its_one_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert VAE(latent_dim=2, hidden_dims=[4]).fit(rows(40), max_epochs=1, progress=False).epochs == 1
