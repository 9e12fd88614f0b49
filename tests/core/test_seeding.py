import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.seeding import Noise, fold, seeded

quick = settings(max_examples=100, deadline=None)


def test_seeds_of_neighbouring_epochs_and_batches_are_all_different():
    seeds = [fold(seed, epoch, batch) for seed in range(-2, 8) for epoch in range(40) for batch in range(40)]
    assert len(set(seeds)) == len(seeds)


@quick
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_a_folded_seed_is_one_that_torch_accepts(parts):
    seed = fold(*parts)
    assert 0 <= seed < 2**63
    assert torch.Generator().manual_seed(seed).initial_seed() == seed


@quick
@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_the_order_of_what_is_folded_matters(a, b):
    assert fold(a, b) == fold(a, b)
    if a != b:
        assert fold(a, b) != fold(b, a)


def test_folding_one_more_part_gives_another_seed():
    assert len({fold(), fold(0), fold(0, 0), fold(0, 0, 0)}) == 4


def test_streams_of_neighbouring_seeds_are_uncorrelated():
    draws = torch.stack([Noise(fold(0, epoch)).normal_like(torch.zeros(10_000)) for epoch in range(8)])
    correlation = torch.corrcoef(draws) - torch.eye(8)
    assert correlation.abs().max() < 0.05  # five standard errors


@quick
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32), st.sampled_from(["normal_like", "uniform_like"]))
def test_shares_of_a_minibatch_laid_side_by_side_are_the_whole(total, processes, seed, kind):
    whole = Noise(seed)
    edges = [total * rank // processes for rank in range(processes + 1)]
    shares = [Noise(seed, start=edges[rank], total=total) for rank in range(processes)]
    for width in (3, 5):  # the second draw of a step as well as the first
        together = [
            getattr(share, kind)(torch.zeros(edges[rank + 1] - edges[rank], width)) for rank, share in enumerate(shares)
        ]
        assert torch.equal(torch.cat(together), getattr(whole, kind)(torch.zeros(total, width)))


def test_uniform_noise_fills_the_unit_interval_evenly():
    draws = Noise(4).uniform_like(torch.zeros(20_000))
    assert 0.0 <= float(draws.min()) < 0.01
    assert 0.99 < float(draws.max()) < 1.0
    assert (draws.histc(10, 0.0, 1.0) - 2000).abs().max() < 5 * 2000**0.5


def test_noise_of_one_seed_is_the_same_again_and_its_second_draw_is_another():
    x = torch.zeros(4, 3)
    noise = Noise(5)
    first, second = noise.normal_like(x), noise.normal_like(x)
    assert not torch.equal(first, second)
    again = Noise(5)
    assert torch.equal(again.normal_like(x), first)
    assert torch.equal(again.normal_like(x), second)


def test_noise_follows_the_type_of_what_it_is_for():
    assert Noise(0).normal_like(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Noise(3).normal_like(torch.zeros(10, 2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_seeded_block_draws_the_same_and_gives_the_state_back():
    torch.manual_seed(123)
    expected = torch.rand(4)
    torch.manual_seed(123)
    with seeded(9):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    with seeded(9):
        assert torch.equal(torch.rand(4), inside)


def draw_and_fail():
    with seeded(1):
        torch.rand(3)
        raise ZeroDivisionError


def test_a_seeded_block_gives_the_state_back_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        draw_and_fail()
    assert torch.equal(before, torch.get_rng_state())
