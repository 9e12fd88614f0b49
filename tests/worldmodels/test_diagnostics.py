import math
import re

import pytest
import torch

from noumena.core.errors import DataError
from noumena.worldmodels.diagnostics import (
    action_decodability,
    diagnose,
    participation_ratio,
    rankme,
    rollout_errors,
    slow_index,
    warning,
)
from noumena.worldmodels.jepa import JEPA
from tests.worldmodels.standin_linear import walks

N, TIME, LATENT = 400, 8, 16


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def diagnosed(latents, actions=None):
    actions = normal(len(latents), latents.shape[1] - 1, 2, seed=9) if actions is None else actions
    return diagnose(latents, latents, actions)


# Slow-feature index


def test_a_latent_that_is_constant_in_each_sequence_has_slow_index_one():
    assert slow_index(normal(N, 1, LATENT).expand(-1, TIME, -1)) == pytest.approx(1.0)


def test_the_slow_index_of_white_noise_is_one_over_time_and_not_zero():
    # E[between] / E[total] of independent frames: (batch - 1) / (batch time - 1).
    expected = (N - 1) / (N * TIME - 1)
    assert slow_index(normal(N, TIME, LATENT)) == pytest.approx(expected, rel=0.03)
    few = [slow_index(normal(3, 2, LATENT, seed=seed)) for seed in range(300)]
    assert sum(few) / len(few) == pytest.approx(2 / 5, rel=0.03)


def test_the_slow_index_is_the_share_of_variance_between_sequences():
    between, within = 3.0, 4.0
    latents = between * normal(2000, 1, LATENT) + within * normal(2000, TIME, LATENT, seed=1)
    expected = (between**2 + within**2 / TIME) / (between**2 + within**2)
    assert slow_index(latents) == pytest.approx(expected, rel=0.03)
    assert slow_index(5 * latents - 3) == pytest.approx(slow_index(latents))


def test_a_latent_without_any_variance_has_no_slow_index():
    assert math.isnan(slow_index(torch.ones(4, 3, 2)))


# Rank


def test_rankme_of_known_spectra():
    basis = torch.linalg.qr(normal(N, LATENT).double()).Q
    assert rankme(basis) == pytest.approx(LATENT, rel=1e-5)
    assert rankme(basis[:, :1].expand(-1, LATENT)) == pytest.approx(1.0, abs=1e-4)
    sigma = torch.linspace(1, 3, LATENT).double()
    p = sigma / sigma.sum()
    rotation = torch.linalg.qr(normal(LATENT, LATENT, seed=1).double()).Q
    assert rankme(basis * sigma @ rotation) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-4)
    assert rankme(torch.zeros(5, 3)) == 1.0


def test_the_participation_ratio_counts_directions_of_equal_variance():
    for count in (1, 4, LATENT):
        latents = normal(20_000, count) @ torch.linalg.qr(normal(LATENT, count, seed=1)).Q.T + 7
        assert participation_ratio(latents) == pytest.approx(count, rel=0.01)


# Actions and roll-outs


def test_actions_are_read_from_latents_that_hold_positions():
    data = walks(300, seed=1)
    both, difference = action_decodability(data.state[:, :, 0], data.actions)
    assert both > 0.99
    assert difference > 0.99


def test_actions_are_not_read_from_latents_that_do_not_move_or_know_nothing():
    data = walks(600, seed=1)
    for latents in (normal(600, 1, 4).expand(-1, 6, -1), normal(600, 6, 4)):
        assert all(abs(value) < 0.05 for value in action_decodability(latents, data.actions))


def test_actions_are_measured_on_other_sequences_than_they_are_fitted_to():
    # As many columns as rows: a fit that is judged on its own rows would be perfect.
    latents, actions = normal(40, 3, 40), normal(40, 2, 1, seed=1)
    assert action_decodability(latents, actions)[0] < 0.3


def test_roll_out_errors_are_in_units_of_the_latent_variance():
    latents = normal(N, TIME, LATENT)
    mean = latents.mean((0, 1)).expand_as(latents)
    assert rollout_errors(latents, latents)[0] == 0
    rolled, kept = rollout_errors(latents, mean)
    assert rolled == pytest.approx(1.0, rel=0.02)
    assert kept == pytest.approx(2.0, rel=0.05)  # variance of the difference of two independent latents
    assert rollout_errors(10 * latents, 10 * mean) == pytest.approx((rolled, kept), rel=1e-5)


# Warning


def background_and_dot(share):
    """Latents of 2 numbers that move and 14 that stay the same in a sequence; ``share`` is the size of the former."""
    data = walks(500, seed=2)
    place = data.state[:, :, 0]
    place = (place - place.mean()) / place.std()
    still = normal(500, 1, 14).expand(-1, 6, -1)
    return torch.cat([share * place, still], dim=-1), data.actions


def test_a_latent_that_holds_the_background_alone_is_warned_of():
    latents, actions = background_and_dot(0.0)
    # Not exactly constant, as no network's latent is.
    text = warning(diagnosed(latents + 0.01 * normal(*latents.shape, seed=5), actions)) or ""
    assert "collapsed onto the background" in text
    assert "slow_index" in text
    options = dict(re.findall(r"model\.(\w+)=(\w+)", text))
    assert JEPA(swap=options["swap"], idm=float(options["idm"])).swap == "auto"
    assert "jepa-robust" in text


def test_positions_and_positions_beside_a_background_are_not_warned_of():
    for latents, actions in ((walks(500).state[:, :, 0], walks(500).actions), background_and_dot(1.0)):
        assert warning(diagnosed(latents, actions)) is None


def test_white_noise_is_no_collapse():
    assert warning(diagnosed(normal(N, TIME, LATENT))) is None


def test_a_latent_that_is_the_same_for_all_frames_is_warned_of():
    still = torch.ones(50, 5, 4)
    assert "all frames have the same" in warning(diagnosed(still))
    assert "all frames have the same" in warning(diagnosed(still + 1e-5 * normal(50, 5, 4)))
    assert diagnosed(still).dead_dimensions == 4


def test_a_latent_on_a_line_is_warned_of_where_actions_have_more_components():
    line = normal(N, TIME, 1) * normal(LATENT, seed=1)
    assert "onto a line" in warning(diagnosed(line))
    assert warning(diagnosed(line, normal(N, TIME - 1, 1))) is None


def test_dimensions_that_hardly_vary_are_counted():
    latents = normal(N, TIME, LATENT)
    latents[..., :3] *= 1e-4
    assert diagnosed(latents).dead_dimensions == 3


def test_one_sequence_or_one_frame_says_nothing():
    with pytest.raises(DataError, match="two sequences of two frames"):
        diagnosed(normal(1, 5, 3))
