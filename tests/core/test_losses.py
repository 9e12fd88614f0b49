import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import ConfigError
from noumena.core.losses import BetaSchedule, LossTerms, kl_loss
from noumena.core.posterior import DiagonalGaussian


def random_posterior(seed, rows=6, latent=4, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(rows, latent, generator=generator, dtype=torch.float64)
    log_var = spread * torch.randn(rows, latent, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(mean.requires_grad_(), log_var.requires_grad_())


def test_kl_loss_sums_over_latents_and_averages_over_rows():
    posterior = random_posterior(0)
    by_hand = sum(
        0.5 * (m**2 + math.exp(v) - 1.0 - v)
        for m, v in zip(posterior.mean.flatten().tolist(), posterior.log_var.flatten().tolist(), strict=True)
    ) / len(posterior.mean)
    assert kl_loss(posterior).item() == pytest.approx(by_hand, rel=1e-12)


def test_kl_loss_does_not_depend_on_how_often_the_rows_are_repeated():
    posterior = random_posterior(0)
    twice = DiagonalGaussian(posterior.mean.repeat(2, 1), posterior.log_var.repeat(2, 1))
    for free_bits in (0.0, 0.5):
        torch.testing.assert_close(kl_loss(posterior, free_bits), kl_loss(twice, free_bits))


@given(st.integers(0, 10_000), st.floats(0.01, 3.0), st.sampled_from([0.01, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_free_bits_are_a_floor_per_latent_dimension(seed, free_bits, spread):
    posterior = random_posterior(seed, spread=spread)
    per_dimension = posterior.kl_per_dimension().mean(0)
    loss = kl_loss(posterior, free_bits)
    assert loss.item() == pytest.approx(sum(max(kl, free_bits) for kl in per_dimension.tolist()), rel=1e-12)
    assert loss.item() >= kl_loss(posterior).item() - 1e-12


def test_free_bits_push_only_the_dimensions_above_the_floor():
    mean = torch.tensor([[0.1, 3.0]], requires_grad=True)
    log_var = torch.zeros(1, 2, requires_grad=True)
    kl_loss(DiagonalGaussian(mean, log_var), free_bits=0.5).backward()
    assert mean.grad is not None
    assert mean.grad[0, 0] == 0.0
    assert mean.grad[0, 1] == 3.0


def test_no_free_bits_is_the_plain_kl():
    posterior = random_posterior(3)
    torch.testing.assert_close(kl_loss(posterior, 0.0), posterior.kl().mean())


@given(st.permutations(["reconstruction", "kl", "prior", "alignment"]))
@settings(max_examples=20, deadline=None)
def test_the_vector_of_loss_terms_is_in_the_order_of_their_names(names):
    parts = {name: torch.tensor(float(len(name))) for name in names}
    terms = LossTerms(torch.tensor(-1.0), parts)
    named = dict(zip(terms.names(), terms.vector().tolist(), strict=True))
    assert named == {"loss": -1.0, **{name: float(len(name)) for name in names}}
    assert terms.names()[0] == "loss"


def test_the_vector_of_loss_terms_is_outside_the_gradient_graph():
    weight = torch.tensor(2.0, requires_grad=True)
    terms = LossTerms(3 * weight, {"part": weight})
    assert not terms.vector().requires_grad
    assert terms.total.requires_grad


@given(st.integers(0, 10**6), st.integers(1, 10**4))
@settings(deadline=None)
def test_a_constant_schedule_is_always_one(step, period):
    assert BetaSchedule("constant", period)(step) == 1.0


@given(st.integers(1, 1000))
@settings(deadline=None)
def test_a_warm_up_rises_linearly_from_zero_to_one_and_stays(period):
    schedule = BetaSchedule("warmup", period)
    values = [schedule(step) for step in range(2 * period + 1)]
    assert values[0] == 0.0
    assert values[period:] == [1.0] * (period + 1)
    assert values[:period] == pytest.approx([step / period for step in range(period)])


@given(st.integers(2, 1000))
@settings(deadline=None)
def test_a_cycle_rises_over_its_first_half_and_repeats(period):
    schedule = BetaSchedule("cyclic", period)
    cycle = [schedule(step) for step in range(period)]
    assert cycle[0] == 0.0
    assert all(later >= earlier for earlier, later in pairwise(cycle))
    assert all(value == 1.0 for value in cycle[math.ceil(period / 2) :])
    assert all(value < 1.0 for value in cycle[: period // 2])
    assert [schedule(step + 3 * period) for step in range(period)] == cycle


@given(st.sampled_from(["constant", "warmup", "cyclic"]), st.integers(1, 500), st.integers(0, 10**6))
@settings(deadline=None)
def test_every_schedule_stays_within_zero_and_one(kind, period, step):
    assert 0.0 <= BetaSchedule(kind, period)(step) <= 1.0


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="constant, warmup or cyclic, got 'linear'"):
        BetaSchedule("linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("period", [0, -3])
def test_a_schedule_without_a_period_is_refused(period):
    with pytest.raises(ConfigError, match=str(period)):
        BetaSchedule("warmup", period)
