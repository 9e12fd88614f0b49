import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from noumena.core.posterior import DiagonalGaussian
from noumena.multimodal.networks import (
    Encoder,
    Expert,
    SkipMLP,
    kl_between,
    mixture_of_experts,
    product_of_experts,
    squared_wasserstein,
)
from noumena.multimodal.objective import ErrorScales, Sources, aligned_objective, subset_index, subsets, usable


def gaussians(count, batch, latent, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [
        DiagonalGaussian(
            torch.randn(batch, latent, generator=rng, dtype=torch.float64),
            torch.randn(batch, latent, generator=rng, dtype=torch.float64),
        )
        for _ in range(count)
    ]


def everywhere(posteriors):
    return [Expert(torch.arange(len(q.mean)), q) for q in posteriors]


# Fusion


def test_a_product_of_experts_is_the_normalised_product_of_their_densities():
    experts = gaussians(3, 5, 2)
    product = product_of_experts(everywhere(experts), 5)
    points = torch.randn(100, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = torch.stack([q.log_prob(points) for q in experts]).sum(0)
    difference = together - product.log_prob(points)
    assert torch.allclose(difference, difference[:1].expand_as(difference))


def test_a_mixture_has_the_moments_of_equal_shares():
    experts = gaussians(2, 3, 2)
    mixture = mixture_of_experts(everywhere(experts), 3)
    generator = torch.Generator().manual_seed(0)
    draws = torch.cat(
        [q.mean + q.std * torch.randn(200_000, 3, 2, generator=generator, dtype=torch.float64) for q in experts]
    )
    assert torch.allclose(mixture.mean, draws.mean(0), atol=0.02)
    assert torch.allclose(mixture.std, draws.std(0), rtol=0.02)


@pytest.mark.parametrize("fuse", [product_of_experts, mixture_of_experts])
def test_rows_with_different_experts_get_what_each_would_get_alone(fuse):
    first, second = gaussians(2, 4, 3)
    rows = torch.tensor([0, 2])
    fused = fuse(
        [Expert(torch.arange(4), first), Expert(rows, DiagonalGaussian(second.mean[rows], second.log_var[rows]))], 4
    )
    for row in range(4):
        own = [q for q, has in ((first, True), (second, row in rows)) if has]
        alone = fuse([Expert(torch.tensor([0]), DiagonalGaussian(q.mean[[row]], q.log_var[[row]])) for q in own], 1)
        assert torch.allclose(fused.mean[row], alone.mean[0])
        assert torch.allclose(fused.log_var[row], alone.log_var[0])


def test_one_expert_alone_is_its_own_product_and_mixture():
    (only,) = gaussians(1, 4, 3)
    for fuse in (product_of_experts, mixture_of_experts):
        fused = fuse(everywhere([only]), 4)
        assert torch.allclose(fused.mean, only.mean)
        assert torch.allclose(fused.log_var, only.log_var, atol=1e-6)


def test_divergences_equal_those_of_torch_distributions():
    q, p = gaussians(2, 6, 4)

    def torch_normal(one):
        return Independent(Normal(one.mean, one.std), 1)

    assert torch.allclose(kl_between(q, p.mean, p.log_var), kl_divergence(torch_normal(q), torch_normal(p)))
    width = (q.std - p.std).square().sum(1)
    assert torch.allclose(squared_wasserstein(q, p.mean, p.log_var), (q.mean - p.mean).square().sum(1) + width)
    assert float(squared_wasserstein(q, q.mean, q.log_var).abs().max()) == 0.0


# Sources


@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_every_subset_is_found_again_by_its_number(modalities):
    masks = subsets(modalities)
    assert len(masks) == 2**modalities - 1
    assert bool(masks.any(1).all())
    assert subset_index(masks).tolist() == list(range(len(masks)))


@pytest.mark.parametrize(("fusion", "sizes"), [("moe", {1}), ("mopoe", {1, 2, 3}), ("mvtcae", {3}), ("poe", {1, 2, 3})])
def test_each_objective_encodes_from_the_subsets_of_its_paper(fusion, sizes):
    sources = Sources.of(fusion, ("a", "b", "c"), {}, 0.25)
    assert set(sources.masks.sum(1).tolist()) == sizes
    assert float(sources.shares.sum()) == pytest.approx(1.0)


def test_shares_follow_weights_and_the_joint_share():
    sources = Sources.of("poe", ("a", "b", "c"), {"a": 3.0}, 0.25)
    by_mask = {
        tuple(mask): share for mask, share in zip(sources.masks.int().tolist(), sources.shares.tolist(), strict=True)
    }
    assert by_mask[1, 0, 0] == pytest.approx(0.75 * 0.6)
    assert by_mask[0, 1, 0] == pytest.approx(0.75 * 0.2)
    assert by_mask[1, 1, 1] == pytest.approx(0.125)
    assert by_mask[1, 1, 0] == pytest.approx(0.125 / 3)


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_row_is_encoded_from_something_it_has(seed, modalities):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(50, modalities, generator=generator) > 0.5
    present[~present.any(1), 0] = True
    sources = Sources.of("poe", tuple("abcd"[:modalities]), {}, 0.3)
    observed = sources.draw(present, torch.rand(50, generator=generator))
    assert bool(observed.any(1).all())
    assert not bool((observed & ~present).any())


def test_a_subset_of_which_a_row_has_nothing_gives_way_to_all_it_has():
    wanted = torch.tensor([[True, False, False], [True, True, False]])
    present = torch.tensor([[False, True, True], [False, True, True]])
    assert usable(wanted, present).tolist() == [[False, True, True], [False, True, False]]


def test_draws_come_in_the_shares_asked_for():
    sources = Sources.of("poe", ("a", "b"), {"a": 3.0}, 0.2)
    uniform = torch.linspace(0, 0.999999, 10_000)
    observed = sources.draw(torch.ones(10_000, 2, dtype=torch.bool), uniform)
    assert float((observed.sum(1) == 2).float().mean()) == pytest.approx(0.2, abs=1e-3)
    assert float((observed[:, 0] & ~observed[:, 1]).float().mean()) == pytest.approx(0.6, abs=1e-3)


# Learned error scales


def test_error_scales_give_the_gaussian_likelihood_up_to_its_constant():
    scales = ErrorScales(2).double()
    with torch.no_grad():
        scales.raw.copy_(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)) * 0.2)
    residual = torch.randn(5, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    observed = torch.tensor([[True, False], [False, True], [True, True], [True, False], [True, True]])
    source = torch.tensor([0, 1, 2, 0, 2])
    std = torch.exp(0.5 * scales.log_variance.detach())[source]
    expected = -Normal(0.0, std[:, :, None]).log_prob(residual).mean(2) - 0.5 * np.log(2 * np.pi)
    found = scales.negative_log_likelihood(residual.square().mean(2), observed).detach()
    assert torch.allclose(found, expected, atol=1e-12)


def test_a_pair_has_one_scale_for_what_it_saw_and_another_for_what_it_did_not():
    scales = ErrorScales(3)
    with torch.no_grad():
        scales.raw.copy_(torch.arange(15.0).view(5, 3) / 10)
    observed = torch.tensor([[True, True, False], [True, False, True], [True, True, True]])
    table = scales.log_variance.detach()
    expected = torch.stack([table[[3, 3, 4], [0, 1, 2]], table[[3, 4, 3], [0, 1, 2]], table[3]])
    found = scales.negative_log_likelihood(torch.zeros(3, 3), observed).detach()
    assert torch.allclose(2 * found, expected)


def test_the_best_error_scale_is_the_root_mean_square_of_the_errors():
    scales = ErrorScales(1)
    errors = torch.tensor([[0.01], [0.03]])
    optimizer = torch.optim.Adam(scales.parameters(), lr=0.01)
    for _ in range(600):
        optimizer.zero_grad()
        scales.negative_log_likelihood(errors, torch.ones(2, 1, dtype=torch.bool)).mean().backward()
        optimizer.step()
    assert float(torch.exp(scales.log_variance.detach()[0, 0])) == pytest.approx(0.02, rel=0.05)


def test_what_was_observed_need_not_come_back_to_the_last_digit():
    scales = ErrorScales(2)
    with torch.no_grad():
        scales.raw.fill_(-10.0)
    least = scales.log_variance.detach()
    own = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    assert bool((least[own] > least[~own].max() + 5).all())


# The objective of ProSoRo, written again from its formula with torch.distributions


def test_the_aligned_objective_equals_its_formula_on_fixed_weights_and_noise():
    torch.manual_seed(0)
    sizes, latent, batch = (6, 4, 9), 5, 11
    encoders = [
        Encoder(n, (7, 8), latent, "relu", skip=False, activate_last=False, bounded=False).double() for n in sizes
    ]
    decoders = [SkipMLP([latent, 8, 7, n], "relu", skip=False).double() for n in sizes]
    x = [torch.randn(batch, n, dtype=torch.float64) for n in sizes]
    noises = [torch.randn(batch, latent, dtype=torch.float64) for _ in range(5)]
    alpha, zeta, gamma = 0.7, 1.3, 0.2
    posteriors = [encoder(rows) for encoder, rows in zip(encoders, x, strict=True)]
    total, parts = aligned_objective(
        x, posteriors, decoders, noises, recon_pred_scale=alpha, z_coeff=zeta, kl_coeff=gamma
    )
    q = [Normal(p.mean, p.std) for p in posteriors]
    z = [one.mean + one.stddev * eps for one, eps in zip(q, noises[:3], strict=True)]
    mse = torch.nn.functional.mse_loss
    reconstruction = sum(mse(decoders[i](z[i]), x[i]) for i in range(3)) / 3
    prediction = sum(mse(decoders[j](q[0].mean + q[0].stddev * noises[2 + j]), x[j]) for j in (1, 2)) / 2
    standard = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    kl = sum((q[i].log_prob(z[i]) - standard.log_prob(z[i])).mean() for i in range(3)) / 3
    apart = (mse(z[0], z[1]) + mse(z[0], z[2]) + mse(z[1], z[2])) / 3
    expected = alpha / (1 + alpha) * reconstruction + 1 / (1 + alpha) * prediction + gamma * kl + zeta * apart
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for name, term in (
        ("reconstruction", reconstruction),
        ("prediction", prediction),
        ("kl", kl),
        ("alignment", apart),
    ):
        assert float(parts[name].detach()) == pytest.approx(float(term.detach()), rel=1e-12)
    weights = [*encoders[0].parameters(), *decoders[2].parameters()]
    gradients = [torch.autograd.grad(value, weights, retain_graph=True) for value in (total, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)
