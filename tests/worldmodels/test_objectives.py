import numpy as np
import pytest
import torch
from torch.nn import functional

from noumena.worldmodels.objectives.contrastive import nt_xent
from noumena.worldmodels.objectives.inverse import InverseDynamics
from noumena.worldmodels.objectives.sigreg import random_directions, sigreg
from noumena.worldmodels.objectives.vicreg import covariance_loss, variance_loss, without_sequence_mean


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(shape[-1], shape[-1], generator=generator, dtype=torch.float64)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) @ mixing


def test_variance_term_is_the_hinge_on_each_dimensions_deviation_at_each_step():
    z = 0.3 * latents(4, 9, 6)
    expected = np.mean(
        [
            max(0.0, 1.0 - np.sqrt(np.var(z[t, :, j].numpy(), ddof=1) + 1e-4))
            for t in range(z.shape[0])
            for j in range(z.shape[2])
        ]
    )
    assert variance_loss(z).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("batch", [5, 40])
def test_covariance_term_is_that_of_the_covariance_matrix_for_small_and_large_batches(batch: int):
    z = latents(3, batch, 12)
    expected = 0.0
    for step in z.numpy():
        covariance = np.cov(step.T)
        expected += (np.square(covariance).sum() - np.square(np.diag(covariance)).sum()) / 12 / 3
    assert covariance_loss(z).item() == pytest.approx(expected, rel=1e-10)
    assert covariance_loss(z.float()).item() == pytest.approx(expected, rel=1e-5)


def test_what_is_constant_in_a_sequence_has_no_variance_without_the_sequences_mean():
    constant = latents(1, 16, 4).expand(6, -1, -1)
    assert variance_loss(constant) < 0.5
    assert variance_loss(without_sequence_mean(constant)).item() == pytest.approx(0.99, abs=1e-9)


def test_white_sequences_keep_their_variance_without_the_sequences_mean():
    white = torch.randn(5, 4000, 3, generator=torch.Generator().manual_seed(0))
    assert without_sequence_mean(white).var().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("normalize", [True, False])
def test_contrast_is_the_log_probability_of_the_partner_among_all_others(normalize: bool):
    predicted, target = latents(3, 5, 4, seed=1), latents(3, 5, 4, seed=2)
    total = 0.0
    for group in range(3):
        rows = np.concatenate([predicted[group].numpy(), target[group].numpy()])
        if normalize:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for i in range(10):
            scores = {j: float(rows[i] @ rows[j]) / 0.5 for j in range(10) if j != i}
            top = max(scores.values())
            log_sum = top + np.log(sum(np.exp(s - top) for s in scores.values()))
            total += (log_sum - scores[(i + 5) % 10]) / 30
    assert nt_xent(predicted, target, temperature=0.5, normalize=normalize).item() == pytest.approx(total, rel=1e-9)


def test_a_constant_code_wins_across_sequences_and_loses_within_them():
    code = 5.0 * torch.eye(8)[:, None].expand(-1, 6, -1)  # (batch, time, latent), the same at each step
    across = nt_xent(code.transpose(0, 1), code.transpose(0, 1), temperature=0.1, normalize=True)
    within = nt_xent(code, code, temperature=0.1, normalize=True)
    assert across < 1e-3
    assert within.item() == pytest.approx(np.log(11), abs=1e-4)  # one of eleven, by chance


def test_sigreg_is_the_weighted_distance_of_characteristic_functions():
    z = latents(7, 3)
    directions = random_directions(5, 3, torch.Generator().manual_seed(0), z)
    t = np.linspace(0.0, 3.0, 17)
    expected = 0.0
    for direction in directions.numpy():
        u = z.numpy() @ direction
        gap = (np.cos(np.outer(u, t)).mean(0) - np.exp(-(t**2) / 2)) ** 2 + np.sin(np.outer(u, t)).mean(0) ** 2
        expected += 7 * np.trapezoid(gap * np.exp(-(t**2) / 2), t) / 5
    assert sigreg(z, directions).item() == pytest.approx(expected, rel=1e-9)


def test_sigreg_prefers_a_standard_normal_to_other_scales_and_shapes():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2000, 4, generator=generator)
    directions = random_directions(64, 4, generator, normal)
    others = (2.0 * normal, normal.sign(), torch.zeros_like(normal))
    assert all(sigreg(normal, directions) < 0.05 * sigreg(other, directions) for other in others)


def test_directions_are_unit_vectors():
    directions = random_directions(10, 6, torch.Generator().manual_seed(3), torch.zeros(()))
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(10))


def test_differences_hide_what_both_latents_share():
    inverse = InverseDynamics(6, 2, "difference")
    before, after, shared = (latents(4, 6, seed=s).float() for s in range(3))
    torch.testing.assert_close(inverse(before + shared, after + shared), inverse(before, after), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(
        InverseDynamics(6, 2)(before + shared, after + shared), functional.pad(before, (0, 0))[:, :2]
    )
