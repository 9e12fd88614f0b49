"""What cannot be shared among processes is refused before a file is written."""

import subprocess
import sys

import pytest

from noumena.core.errors import ConfigError
from noumena.experiment import run_recipe
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
    assert run_recipe("density/synthetic", SMALL, out=tmp_path / "run").history.epochs == 1


@pytest.mark.parametrize("how", ["-c", "-", "-i"])
def test_several_devices_in_a_program_that_cannot_run_again_are_refused(how, tmp_path):
    code = (
        "from noumena.experiment import run_recipe\n"
        f"run_recipe('density/synthetic', {[*SMALL, 'fit.devices=2']}, out={str(tmp_path / 'run')!r})\n"
    )
    command = [sys.executable, how, *([code] if how == "-c" else [])]
    text = "" if how == "-c" else code
    found = subprocess.run(command, input=text, capture_output=True, text=True, env=environment(), timeout=100)
    assert "fit.devices=2: each further device takes a process that runs this program again" in found.stderr
    assert "`noumena fit`" in found.stderr
    assert not (tmp_path / "run").exists()
