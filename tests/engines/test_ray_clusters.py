"""Which cluster is used, and that one of our own ends."""

import numpy as np
import pytest

from noumena.core.errors import ConfigError
from noumena.density.model import VAE
from noumena.engines.ray_data import _connected, _ray, chunks_by_ray
from noumena.engines.work import Work
from tests.engines.test_ray_data import processes_of_ray
from tests.training.workers import rows

pytest.importorskip("ray")


@pytest.mark.slow
def test_a_cluster_of_this_command_ends_with_it(tmp_path):
    VAE(hidden_dims=[4], latent_dim=2).fit(rows(100), max_epochs=1, progress=False, run_dir=tmp_path)
    np.save(tmp_path / "rows.npy", rows(30))
    found = chunks_by_ray(tmp_path, [str(tmp_path / "rows.npy")], Work("scores"), workers=1)
    assert len(np.concatenate([columns["score"] for columns in found])) == 30
    assert not _ray().is_initialized()
    assert processes_of_ray() == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_named(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS={address} cannot be reached"), _connected(_ray(), 1):
        pass
