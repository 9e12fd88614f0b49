"""What cannot be shared among processes is refused before a file is written."""

import subprocess
import sys

import pytest

from noumena.config import compose
from noumena.core.errors import ConfigError
from noumena.experiment import run_recipe, start_run
from noumena.training.processes import can_run_again
from tests.training.launching import environment

SMALL = [
    "model.hidden_dims=[8]",
    "model.latent_dim=2",
    "fit.accelerator=cpu",
    "fit.max_epochs=1",
    "fit.progress=false",
    "evaluate.baselines=false",
]


def test_a_wrong_number_of_processes_leaves_no_folder_so_that_the_next_try_finds_it_free(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"3 processes were started.*Set fit\.num_nodes=1 fit\.devices=3"):
        run_recipe("density/synthetic", SMALL, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.delenv("WORLD_SIZE")
    again = start_run(compose("density/synthetic", (), SMALL), tmp_path / "run", report=False)
    assert again.history.epochs == 1


def test_a_session_that_reads_lines_and_a_program_without_a_file_cannot_run_again(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    monkeypatch.setattr(sys, "argv", [__file__])
    assert can_run_again()
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert not can_run_again()
    monkeypatch.delattr(sys, "ps1")
    monkeypatch.setattr(sys, "argv", ["-"])
    assert not can_run_again()


def test_several_devices_in_a_program_that_cannot_run_again_are_refused(tmp_path):
    code = (
        "from noumena.experiment import run_recipe\n"
        f"run_recipe('density/synthetic', {[*SMALL, 'fit.devices=2']}, out={str(tmp_path / 'run')!r})\n"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=100, check=False)
    assert "fit.devices=2: each further device takes a process that runs this program again" in found.stderr
    assert "`noumena fit`" in found.stderr
    assert not (tmp_path / "run").exists()
