import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from noumena.core.posterior import DiagonalGaussian, IsotropicGaussian, PointMass, active_units

gaussians = settings(max_examples=60, deadline=None)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))
seeds = st.integers(0, 2**32 - 1)


def random_parameters(shape, seed, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    log_var = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    return mean, log_var


def reference(mean, log_var):
    return Independent(Normal(mean, (0.5 * log_var).exp().expand_as(mean)), 1)


def standard_normal_like(mean):
    return Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)


@gaussians
@given(shapes, seeds)
def test_kl_equals_that_of_torch_distributions(shape, seed):
    mean, log_var = random_parameters(shape, seed)
    expected = kl_divergence(reference(mean, log_var), standard_normal_like(mean))
    torch.testing.assert_close(DiagonalGaussian(mean, log_var).kl(), expected, rtol=1e-9, atol=1e-9)


@gaussians
@given(shapes, seeds)
def test_kl_per_dimension_is_that_of_each_dimension_alone(shape, seed):
    mean, log_var = random_parameters(shape, seed)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(DiagonalGaussian(mean, log_var).kl_per_dimension(), expected, rtol=1e-9, atol=1e-9)


@gaussians
@given(shapes, seeds)
def test_kl_is_never_negative_and_zero_only_at_the_prior(shape, seed):
    mean, log_var = random_parameters(shape, seed)
    assert (DiagonalGaussian(mean, log_var).kl_per_dimension() > 0).all()
    prior = DiagonalGaussian(torch.zeros(shape), torch.zeros(shape))
    assert (prior.kl_per_dimension() == 0).all()


@gaussians
@given(shapes, seeds)
def test_log_prob_equals_that_of_torch_distributions(shape, seed):
    mean, log_var = random_parameters(shape, seed, spread=1.5)
    z, _ = random_parameters(shape, seed + 1)
    expected = reference(mean, log_var).log_prob(z)
    torch.testing.assert_close(DiagonalGaussian(mean, log_var).log_prob(z), expected, rtol=1e-9, atol=1e-9)


@gaussians
@given(shapes, seeds)
def test_std_is_the_square_root_of_the_variance(shape, seed):
    mean, log_var = random_parameters(shape, seed)
    torch.testing.assert_close(DiagonalGaussian(mean, log_var).std.square(), log_var.exp())


@gaussians
@given(shapes, seeds)
def test_an_isotropic_gaussian_is_a_diagonal_one_with_equal_variances(shape, seed):
    mean, log_var = random_parameters(shape, seed)
    log_var = log_var[..., :1]
    isotropic = IsotropicGaussian(mean, log_var)
    diagonal = DiagonalGaussian(mean, log_var.expand_as(mean))
    z, noise = random_parameters(shape, seed + 1)
    torch.testing.assert_close(isotropic.kl(), diagonal.kl())
    torch.testing.assert_close(isotropic.kl_per_dimension(), diagonal.kl_per_dimension())
    torch.testing.assert_close(isotropic.log_prob(z), diagonal.log_prob(z))
    torch.testing.assert_close(isotropic.std, diagonal.std)
    torch.testing.assert_close(isotropic.sample(noise=noise), diagonal.sample(noise=noise))


def test_an_isotropic_gaussian_refuses_a_variance_per_dimension():
    with pytest.raises(ValueError, match="last axis of 1"):
        IsotropicGaussian(torch.zeros(2, 3), torch.zeros(2, 3))


def test_samples_have_the_moments_of_the_distribution():
    rows = 200_000
    mean, log_var = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.0, 1.0, -3.0])
    posterior = DiagonalGaussian(mean.expand(rows, 3), log_var.expand(rows, 3))
    z = posterior.sample(torch.Generator().manual_seed(0))
    std = (0.5 * log_var).exp()
    # Five standard errors of a mean and of a standard deviation.
    assert ((z.mean(0) - mean).abs() < 5 * std / math.sqrt(rows)).all()
    assert ((z.std(0) - std).abs() < 5 * std / math.sqrt(2 * rows)).all()
    correlation = torch.corrcoef(z.T) - torch.eye(3)
    assert (correlation.abs() < 5 / math.sqrt(rows)).all()


def test_equal_generators_draw_equal_samples_and_the_global_one_is_untouched():
    posterior = DiagonalGaussian(torch.zeros(5, 3), torch.zeros(5, 3))
    before = torch.get_rng_state()
    first = posterior.sample(torch.Generator().manual_seed(7))
    again = posterior.sample(torch.Generator().manual_seed(7))
    other = posterior.sample(torch.Generator().manual_seed(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_generator_that_goes_on_draws_something_new():
    posterior = DiagonalGaussian(torch.zeros(5, 3), torch.zeros(5, 3))
    generator = torch.Generator().manual_seed(7)
    assert not torch.equal(posterior.sample(generator), posterior.sample(generator))


@gaussians
@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_gradients_of_sample_kl_and_log_prob_equal_finite_differences(rows, latent, seed):
    mean, log_var = random_parameters((rows, latent), seed, spread=1.0)
    noise, z = random_parameters((rows, latent), seed + 1, spread=1.0)
    mean.requires_grad_()
    log_var.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: DiagonalGaussian(m, v).sample(noise=noise), (mean, log_var))
    assert torch.autograd.gradcheck(lambda m, v: DiagonalGaussian(m, v).kl(), (mean, log_var))
    assert torch.autograd.gradcheck(lambda m, v: DiagonalGaussian(m, v).log_prob(z), (mean, log_var))


def test_the_reparameterised_gradient_is_one_for_the_mean_and_half_the_deviation_for_the_log_variance():
    mean, log_var = (tensor.requires_grad_() for tensor in random_parameters((4, 3), 0))
    noise = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    posterior = DiagonalGaussian(mean, log_var)
    posterior.sample(noise=noise).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(log_var.grad, 0.5 * posterior.std.detach() * noise)


def test_a_detached_posterior_is_the_same_distribution_without_gradients():
    mean, log_var = (tensor.requires_grad_() for tensor in random_parameters((4, 1), 0))
    detached = IsotropicGaussian(mean, log_var).detach()
    assert isinstance(detached, IsotropicGaussian)
    assert torch.equal(detached.mean, mean)
    assert torch.equal(detached.log_var, log_var)
    assert not detached.kl().requires_grad


@gaussians
@given(st.integers(0, 6), st.integers(1, 6), seeds)
def test_active_units_counts_the_dimensions_whose_mean_varies(active, dead, seed):
    generator = torch.Generator().manual_seed(seed)
    varying = torch.randn(400, active, generator=generator)
    still = 0.01 * torch.randn(400, dead, generator=generator) + 5.0
    assert active_units(torch.cat([varying, still], dim=1)) == active


def test_active_units_of_one_row_are_none():
    assert active_units(torch.randn(1, 4)) == 0


def test_every_sample_of_a_point_mass_is_its_mean_and_its_kl_is_infinite():
    mean = torch.tensor([[1.5, -2.0, 0.0], [0.0, 0.0, 3.0]])
    posterior = PointMass(mean)
    assert torch.equal(posterior.sample(torch.Generator().manual_seed(0)), mean)
    assert torch.equal(posterior.std, torch.zeros_like(mean))
    assert posterior.kl().tolist() == [math.inf, math.inf]


def test_the_gradient_of_a_sample_of_a_point_mass_is_that_of_its_mean():
    mean = torch.ones(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(PointMass(mean).sample().sum(), mean)
    assert torch.equal(gradient, torch.ones(2, 3))
    assert not PointMass(mean).detach().mean.requires_grad
