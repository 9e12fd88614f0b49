import math

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.training.lars import LARS
from noumena.training.module import _cosine
from noumena.training.settings import FitSettings


def test_three_steps_follow_the_published_rule():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    bias = torch.nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))
    p, b = matrix.detach().numpy().copy(), bias.detach().numpy().copy()
    momentum_p, momentum_b = np.zeros_like(p), np.zeros_like(b)
    optimizer = LARS([matrix, bias], 0.2, momentum=0.9, weight_decay=0.1, eta=1e-3)
    for step in range(3):
        g, gb = np.cos(np.arange(12.0) + step).reshape(3, 4), np.sin(np.arange(3.0) + step)
        matrix.grad, bias.grad = torch.from_numpy(g), torch.from_numpy(gb)
        optimizer.step()
        decayed = g + 0.1 * p
        momentum_p = 0.9 * momentum_p + decayed * 1e-3 * np.linalg.norm(p) / np.linalg.norm(decayed)
        momentum_b = 0.9 * momentum_b + gb
        p, b = p - 0.2 * momentum_p, b - 0.2 * momentum_b
        np.testing.assert_allclose(matrix.detach().numpy(), p, rtol=1e-12)
        np.testing.assert_allclose(bias.detach().numpy(), b, rtol=1e-12)


def test_a_matrix_of_zeros_can_leave_zero():
    matrix = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([matrix], 0.1)
    matrix.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), -0.1))


def test_the_schedule_is_that_of_the_study():
    settings = FitSettings(
        max_epochs=100, lr_schedule="cosine", warmup_epochs=10, lr_floor=0.001, schedule_start=1, optimizer="lars"
    )
    per_epoch = 312
    rate = _cosine(per_epoch, settings)
    for step in (0, 1, 1000, 2807, 2808, 20_000, 28_000):
        count = step + per_epoch
        if count < 10 * per_epoch:
            expected = (count + 1) / (10 * per_epoch)
        else:
            q = 0.5 * (1 + math.cos(math.pi * (count - 10 * per_epoch) / (90 * per_epoch)))
            expected = q + 0.001 * (1 - q)
        assert rate(step) == pytest.approx(expected, rel=1e-9)


def test_a_schedule_may_be_longer_than_the_training():
    short = _cosine(10, FitSettings(max_epochs=2, schedule_epochs=20, lr_schedule="cosine"))
    whole = _cosine(10, FitSettings(max_epochs=20, lr_schedule="cosine"))
    assert [short(step) for step in range(20)] == [whole(step) for step in range(20)]


@pytest.mark.parametrize("options", [{"lr_floor": 1.0}, {"beta2": 1.0}, {"keep": "first"}, {"schedule_epochs": 0}])
def test_impossible_settings_are_refused(options: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        FitSettings.from_options(options)
