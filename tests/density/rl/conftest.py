from types import SimpleNamespace

import numpy as np
import pytest
import torch

from noumena.density.data import open_episodes
from noumena.density.model import VAE


def small(**options):
    return VAE(hidden_dims=(16,), latent_dim=2, draws=4, **options)


@pytest.fixture(scope="session")
def hopper():
    """A small calibrated model of (next observation, action) of Hopper, its data, and rows from near to far."""
    splits = open_episodes("sample:hopper", max_rows=2500)
    model = small()
    model.fit(splits.train, splits.val, max_epochs=3, batch_size=128, lr=3e-3, seed=0)
    rows = splits.test.rows[::12].double().numpy()
    direction = np.random.default_rng(0).normal(size=rows.shape)
    spread = splits.train.rows.double().std(0).numpy()
    far = np.concatenate([rows + step * spread * direction for step in (0.0, 0.3, 1.0, 3.0)])
    return SimpleNamespace(model=model, splits=splits, far=far.astype(np.float32))


@pytest.fixture
def uncalibrated():
    """A model that was never trained."""
    torch.manual_seed(0)
    return small(input_dim=14)
