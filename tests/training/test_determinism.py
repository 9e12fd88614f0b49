import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("train_script.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Hash of the weights of a training in a fresh process."""

    def train(*options, hash_seed="0"):
        command = [sys.executable, SCRIPT, tmp_path_factory.mktemp("run"), "max_epochs=2", *options]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(hash_seed))
        assert found.returncode == 0, found.stderr[-3000:]
        return found.stdout.strip()

    return train


def environment(hash_seed):
    import os

    return {**os.environ, "PYTHONHASHSEED": hash_seed}


def test_two_fresh_processes_reach_the_same_weights_and_another_seed_reaches_others(weights):
    first, second = weights(hash_seed="1"), weights(hash_seed="2")
    assert len(first) == 64
    assert first == second
    assert weights("seed=1") != first
