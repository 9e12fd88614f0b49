import numpy as np
import pytest
import torch

from noumena.multimodal.calibration import NINETY_PERCENT, Calibration
from noumena.multimodal.latent import LatentMap


def heteroscedastic(rows, seed, heavy=False):
    """Latents, and errors of two columns that grow with the distance from the middle."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 3, generator=generator)
    size = torch.exp(1.5 * (z.square().mean(1).sqrt() - 1.0))
    noise = torch.randn(rows, 2, generator=generator)
    if heavy:
        noise = noise * torch.rand(rows, 1, generator=generator).clamp(min=0.02).rsqrt()
    return z, size[:, None] * noise * torch.tensor([0.1, 3.0])


def calibrated(z, errors):
    calibration = Calibration(subsets=3, modalities=2, columns=4, latent_dim=3)
    calibration.set_latents(z)
    calibration.fit(1, 0, slice(0, 2), z, errors)
    return calibration


@pytest.mark.parametrize("heavy", [False, True])
def test_intervals_hold_ninety_percent_of_new_errors(heavy):
    calibration = calibrated(*heteroscedastic(2000, 0, heavy))
    z, errors = heteroscedastic(20_000, 1, heavy)
    std = calibration.std(torch.ones(len(z), dtype=torch.int64), 0, slice(0, 2), z)
    inside = (errors.abs() <= NINETY_PERCENT * std).float().mean(0)
    assert torch.allclose(inside, torch.tensor(0.9), atol=0.025)


def test_deviations_grow_with_the_errors():
    z, errors = heteroscedastic(4000, 0)
    calibration = calibrated(z, errors)
    std = calibration.std(torch.ones(len(z), dtype=torch.int64), 0, slice(0, 2), z)
    far = z.square().mean(1) > 1.5
    assert float(std[far].mean() / std[~far].mean()) == pytest.approx(
        float(errors[far].abs().mean() / errors[~far].abs().mean()), rel=0.25
    )
    assert float(std[:, 1].mean() / std[:, 0].mean()) == pytest.approx(30, rel=0.1)


def test_few_rows_take_the_largest_error():
    z, errors = torch.zeros(9, 3), torch.arange(1.0, 10.0)[:, None].repeat(1, 2)
    calibration = calibrated(z, errors)
    assert float(calibration.scale[1, 0]) * NINETY_PERCENT == pytest.approx(9.0)


def test_too_few_rows_leave_no_deviation_and_other_subsets_are_untouched():
    z, errors = heteroscedastic(7, 0)
    assert bool(calibrated(z, errors).scale.isnan().all())
    calibration = calibrated(*heteroscedastic(50, 0))
    assert bool(calibration.scale[[0, 2]].isnan().all())
    assert bool(calibration.scale[1, 2:].isnan().all())


def test_exact_columns_have_no_deviation():
    z, errors = heteroscedastic(100, 0)
    errors[:, 0] = 0.0
    assert float(calibrated(z, errors).scale[1, 0]) == 0.0


def test_a_far_latent_does_not_make_the_deviation_explode():
    calibration = calibrated(*heteroscedastic(500, 0))
    one = torch.ones(2, dtype=torch.int64)
    std = calibration.std(one, 0, slice(0, 2), torch.tensor([[10.0] * 3, [1e6] * 3]))
    assert torch.equal(std[0], std[1])


# The distribution of latents


def test_the_mixture_has_the_moments_of_the_latents():
    generator = torch.Generator().manual_seed(0)
    z = torch.cat([torch.randn(800, 2, generator=generator) + 4, torch.randn(800, 2, generator=generator) * 0.1])
    latents = LatentMap(2, components=4)
    latents.fit(z)
    drawn = latents.sample(20_000, torch.Generator().manual_seed(1))
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=0.1)
    assert np.allclose(np.cov(drawn.T), np.cov(z.T), atol=0.2)
    between = ((drawn - 2).norm(dim=1) < 0.7).float().mean()
    assert float(between) < 0.01


def test_axes_are_the_principal_axes_and_sweeps_follow_them():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 3, generator=generator) * torch.tensor([0.2, 3.0, 1.0])
    latents = LatentMap(3, components=1)
    latents.fit(z)
    assert torch.allclose(latents.axes.abs(), torch.eye(3)[[1, 2, 0]], atol=0.1)
    assert torch.allclose(latents.spread, torch.tensor([3.0, 1.0, 0.2]), rtol=0.1)
    line = latents.along(0, torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.allclose(line[1], latents.centre)
    assert float((line[2] - line[0]).norm()) == pytest.approx(2 * float(latents.spread[0]), rel=1e-5)
