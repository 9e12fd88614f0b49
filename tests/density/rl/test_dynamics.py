import gymnasium
import numpy as np
import pytest
import torch

from noumena.core.errors import DataError, NotSupportedError
from noumena.density.penalty import DensityPenalty
from noumena.density.rl import DensityPenaltyWrapper, PenalisedDynamics
from tests.density.rl.conftest import small


class Drifting:
    """Every step moves the observation by a constant and gives the same reward."""

    def __init__(self, drift, reward_axes=0):
        self.drift, self.axes = drift, reward_axes

    def step(self, obs, action):
        ones = obs[..., 0] * 0 + 1
        ones = ones.reshape(*ones.shape, *[1] * self.axes)
        return obs + self.drift, ones, ones < 0, {"made_by": "drift"}


@pytest.mark.parametrize("axes", [0, 1])
@pytest.mark.parametrize("tensors", [False, True])
def test_rewards_are_less_by_the_penalty_which_info_tells(hopper, axes, tensors):
    penalty = DensityPenalty(hopper.model, "linear", coefficient=0.3)
    obs, action = hopper.far[:9, :11], hopper.far[:9, 11:]
    if tensors:
        obs, action = torch.from_numpy(obs), torch.from_numpy(action)
    dynamics = PenalisedDynamics(Drifting(0.5, axes), penalty)
    next_obs, reward, terminal, info = dynamics.step(obs, action)
    expected = np.asarray(penalty(obs + 0.5, action)).reshape(9, *[1] * axes)
    assert (expected > 0).any()
    np.testing.assert_array_equal(np.asarray(next_obs), np.asarray(obs) + 0.5)
    np.testing.assert_array_equal(np.asarray(info["penalty"]), expected)
    np.testing.assert_array_equal(np.asarray(reward), 1 - expected)
    np.testing.assert_array_equal(np.asarray(info["raw_reward"]), np.ones_like(expected))
    assert not terminal.any()
    assert info["made_by"] == "drift"
    rows = np.concatenate([np.asarray(obs) + 0.5, np.asarray(action)], axis=1)
    np.testing.assert_allclose(np.asarray(info["p_value"]).ravel(), hopper.model.p_value(rows), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(info["log_density"]).ravel(), hopper.model.score_samples(rows), rtol=1e-6)


def test_a_termination_function_decides_who_has_fallen(hopper):
    def fallen(obs, action, next_obs):
        return next_obs[:, 0] < np.median(next_obs[:, 0])

    dynamics = PenalisedDynamics(Drifting(0.0, 1), DensityPenalty(hopper.model), termination=fallen)
    obs, action = hopper.far[:8, :11], hopper.far[:8, 11:]
    _, reward, terminal, _ = dynamics.step(obs, action)
    assert terminal.shape == reward.shape == (8, 1)
    np.testing.assert_array_equal(terminal[:, 0], obs[:, 0] < np.median(obs[:, 0]))


def test_gradients_flow_through_penalised_rewards_to_actions(hopper):
    action = torch.from_numpy(hopper.far[-5:, 11:]).requires_grad_()
    obs = torch.from_numpy(hopper.far[-5:, :11])
    _, reward, _, _ = PenalisedDynamics(Drifting(0.0), DensityPenalty(hopper.model, "softplus", limit=1e6)).step(
        obs, action
    )
    reward.sum().backward()
    assert (action.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("reward", "words"), [(torch.ones(4), "the reward a Tensor"), (np.ones(2), "one for each transition")]
)
def test_rewards_of_another_kind_or_shape_are_refused(hopper, reward, words):
    class Odd:
        def step(self, obs, action):
            return obs, reward, np.zeros(4, bool), {}

    with pytest.raises(DataError, match=words):
        PenalisedDynamics(Odd(), DensityPenalty(hopper.model)).step(hopper.far[:4, :11], hopper.far[:4, 11:])


# gymnasium


def test_hopper_tells_the_penalty_of_every_step(hopper):
    pytest.importorskip("mujoco")
    penalty = DensityPenalty(hopper.model, "tanh", coefficient=0.3)
    told = []
    for subtract in (False, True):
        env = DensityPenaltyWrapper(gymnasium.make("Hopper-v5"), penalty, subtract=subtract)
        plain = gymnasium.make("Hopper-v5")
        seen, _ = env.reset(seed=3)
        np.testing.assert_array_equal(seen, plain.reset(seed=3)[0])
        env.action_space.seed(0)
        for _ in range(25):
            action = env.action_space.sample()
            seen, reward, terminated, truncated, info = env.step(action)
            same, raw, *ends, _ = plain.step(action)
            np.testing.assert_array_equal(seen, same)
            assert [terminated, truncated] == ends
            assert info["penalty"] == float(penalty(seen, action))
            assert info["p_value"] == hopper.model.p_value(np.concatenate([seen, action])[None])[0]
            assert reward == pytest.approx(raw - info["penalty"] if subtract else raw, abs=1e-12)
            assert not subtract or info["raw_reward"] == raw
            told.append(info["penalty"])
            if terminated:
                break
        env.close()
    half = len(told) // 2
    assert told[:half] == told[half:]
    # A random policy leaves the data of a trained one.
    assert max(told) > 0.1


class Walk(gymnasium.Env):
    """One observation, changed in place."""

    observation_space = gymnasium.spaces.Box(-9, 9, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        self.place = np.zeros(2)
        return self.place, {}

    def step(self, action):
        self.place += action
        return self.place, 1.0, False, False, {}


def test_the_wrapper_gives_the_observation_before_the_step_to_a_model_of_it():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(300, 2))
    action = rng.uniform(-1, 1, size=(300, 1))
    rows = np.concatenate([before, action], axis=1)
    model = small()
    model.fit(rows[:200], rows[200:], max_epochs=1, batch_size=50, seed=0)
    penalty = DensityPenalty(model, "linear", on=("observation", "action"))
    env = DensityPenaltyWrapper(Walk(), penalty)
    env.reset()
    for number in range(6):
        *_, info = env.step(np.ones(1))
        assert info["penalty"] == float(penalty(np.array([number, number, 1.0])))


def test_environments_the_model_cannot_score_are_refused(hopper):
    penalty = DensityPenalty(hopper.model)
    with pytest.raises(DataError, match="Is it a model of this task"):
        DensityPenaltyWrapper(Walk(), penalty)
    with pytest.raises(NotSupportedError, match="actions in a Box"):
        DensityPenaltyWrapper(gymnasium.make("CartPole-v1"), penalty)
