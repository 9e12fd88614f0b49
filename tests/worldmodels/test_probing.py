import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from noumena.core.errors import ConfigError, DataError
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.probing.baselines import baselines
from noumena.worldmodels.probing.metrics import errors, r2
from noumena.worldmodels.probing.readout import Readout
from noumena.worldmodels.probing.ridge import RidgeProbe
from noumena.worldmodels.probing.sgd import SGDProbe

N, TIME, LATENT = 120, 5, 7


def draw(n=N, time=TIME, latent=LATENT, things=2, dims=2, noise=0.3, seed=0):
    """Correlated features, and targets that are a noisy linear function of them."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(latent, latent, generator=g)
    x = torch.randn(n, time, latent, generator=g) @ mixing + 10 * torch.randn(latent, generator=g)
    y = x @ torch.randn(latent, things * dims, generator=g) + torch.randn(things * dims, generator=g)
    y = y + noise * torch.randn(y.shape, generator=g)
    return x.double(), y.unflatten(-1, (things, dims)).double()


# Ridge


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_ridge_is_scikit_learns_with_alpha_n_times_ridge_on_standardised_features(ridge):
    x, y = draw()
    rows, wanted = x.flatten(0, 1).numpy(), y.flatten(0, 1).flatten(1).numpy()
    standard = (rows - rows.mean(0)) / rows.std(0)
    known = Ridge(alpha=ridge * len(rows)).fit(standard, wanted).predict(standard)
    found = RidgeProbe.fit(x, y, ridge=ridge).predict(x).flatten(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-8)


def test_ridge_minimises_what_it_says():
    x, y = draw()
    probe = RidgeProbe.fit(x, y, ridge=0.1)
    weight, bias = (p.clone().requires_grad_() for p in (probe.weight, probe.bias))
    standard = (x.flatten(0, 1) - probe.shift) / probe.scale
    error = (standard @ weight + bias - y.flatten(0, 1).flatten(1)).square().sum(1).mean()
    (error + 0.1 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-10
    assert bias.grad.abs().max() < 1e-10


def test_ridge_does_not_depend_on_the_scale_and_origin_of_each_feature():
    x, y = draw()
    scale = torch.logspace(-3, 3, LATENT, dtype=torch.float64)
    other = x * scale + 100 * scale
    one, two = (RidgeProbe.fit(z, y, ridge=0.1).predict(z) for z in (x, other))
    torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-7)


def test_ridge_without_much_penalty_does_not_depend_on_an_affine_map_of_the_features():
    x, y = draw()
    g = torch.Generator().manual_seed(1)
    other = x @ torch.randn(LATENT, LATENT, generator=g).double() + 3
    one, two = (RidgeProbe.fit(z, y, ridge=1e-12).predict(z) for z in (x, other))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_ridge_does_not_depend_on_the_chunks_the_rows_are_read_in(monkeypatch):
    x, y = draw()
    whole = RidgeProbe.fit(x, y).state()
    monkeypatch.setattr("noumena.worldmodels.probing.ridge._ROWS", 37)
    parts = RidgeProbe.fit(x, y).state()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-9)


def test_float32_features_far_from_zero_lose_no_digits():
    x, y = draw(noise=0.0)
    far = (x.float() + 1e4).double()
    exact = RidgeProbe.fit(far, y).predict(far)
    single = RidgeProbe.fit(far.float(), y.float()).predict(far.float())
    assert single.dtype == torch.float32
    assert (single.double() - exact).abs().max() < 1e-4 * y.std()


def test_features_that_never_vary_have_no_weight():
    x, y = draw()
    constant = torch.full((N, TIME, 2), 1234.567, dtype=torch.float64)
    probe = RidgeProbe.fit(torch.cat([x, constant], dim=-1), y)
    assert (probe.weight[LATENT:] == 0).all()
    torch.testing.assert_close(probe.predict(torch.cat([x, constant + 5], -1)), RidgeProbe.fit(x, y).predict(x))
    only = RidgeProbe.fit(constant, y).predict(constant)
    torch.testing.assert_close(only, y.mean((0, 1)).expand_as(only))


def test_a_readout_can_be_kept_as_tensors_and_is_differentiable():
    x, y = draw()
    probe = RidgeProbe.fit(x, y)
    again = Readout.from_state(probe.state())
    assert torch.equal(again.predict(x), probe.predict(x))
    latents = x[0].clone().requires_grad_()
    again(latents).sum().backward()
    assert latents.grad.abs().sum() > 0
    with pytest.raises(DataError, match="bias missing"):
        Readout.from_state({name: value for name, value in probe.state().items() if name != "bias"})
    with pytest.raises(DataError, match="expected latents of 7 numbers, got 6"):
        probe.predict(x[..., :6])


@pytest.mark.parametrize("probe", [RidgeProbe, SGDProbe])
def test_probes_refuse_what_cannot_be_fitted(probe):
    x, y = draw()
    with pytest.raises(DataError, match="same sequences"):
        probe.fit(x[:, :4], y)
    broken = x.clone()
    broken[3, 2, 1] = math.nan
    with pytest.raises(DataError, match="features: sequence 3, step 2"):
        probe.fit(broken, y)


def test_options_out_of_range_are_refused():
    x, y = draw()
    with pytest.raises(ConfigError, match="ridge: expected a number above 0"):
        RidgeProbe.fit(x, y, ridge=0.0)
    with pytest.raises(ConfigError, match="epochs"):
        SGDProbe.fit(x, y, epochs=0)


# SGD


def test_the_sgd_probe_approaches_least_squares_without_bias():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, TIME, 3, generator=g, dtype=torch.float64)
    y = (x @ torch.randn(3, 4, generator=g, dtype=torch.float64)).unflatten(-1, (2, 2))
    y = y + 0.1 * torch.randn(y.shape, generator=g, dtype=torch.float64)
    probe = SGDProbe.fit(x, y, epochs=400, batch_size=40, lr=1e-2, centre=0.0, unit=5.0)
    exact = torch.linalg.lstsq(x.flatten(0, 1), y.flatten(0, 1).flatten(1)).solution
    torch.testing.assert_close(probe.weight, exact, atol=0.05, rtol=0.02)


def test_the_sgd_probe_is_a_function_of_its_seed():
    x, y = draw()
    fits = [SGDProbe.fit(x, y, epochs=2, seed=seed).state()["weight"] for seed in (0, 0, 1)]
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_the_sgd_probe_takes_fresh_sequences_and_its_first_step_is_adams():
    x, y = draw(n=20)
    centre, unit = torch.full((4,), 2.0).double(), torch.full((4,), 3.0).double()
    one = SGDProbe.fit_fresh(iter([(x, y)]), centre=centre, unit=unit, lr=1e-3)
    none = SGDProbe.fit_fresh(iter([(x, y)]), centre=centre, unit=unit, lr=1e-12)
    # Adam's first step is lr in the direction of the sign of the gradient.
    weight = none.weight / unit
    residual = x.flatten(0, 1) @ weight - (y.flatten(0, 1).flatten(1) - centre) / unit
    gradient = x.flatten(0, 1).T @ residual
    torch.testing.assert_close((one.weight / unit - weight), -1e-3 * gradient.sign(), atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(none.bias, centre)
    with pytest.raises(ConfigError, match="at least one batch"):
        SGDProbe.fit_fresh(iter([]), centre=centre, unit=unit)


# Errors


def test_rmse_is_the_root_of_the_mean_squared_euclidean_distance():
    truth = torch.zeros(2, 3, 2, 2)
    guess = truth.clone()
    guess[0, 1, 0] = torch.tensor([3.0, 4.0])  # 5 px off, one of two sequences, one of three steps, one of two things
    found = errors(guess, truth)
    assert found.rmse == pytest.approx(math.sqrt(25 / 12))
    assert found.per_step.tolist() == pytest.approx([0.0, math.sqrt(25 / 4), 0.0])
    assert found.per_thing.tolist() == pytest.approx([math.sqrt(25 / 6), 0.0])
    assert found.per_step_and_thing[1].tolist() == pytest.approx([math.sqrt(25 / 2), 0.0])
    assert found.rmse == pytest.approx(float(found.per_step.square().mean().sqrt()))
    assert math.isnan(found.r2)


def test_r2_is_one_for_the_truth_zero_for_its_mean_and_not_a_number_for_constants():
    _, y = draw()
    y[..., 1, :] = 4.0
    assert errors(y, y).r2 == pytest.approx(1.0)
    assert errors(y.mean((0, 1)).expand_as(y), y).r2 == pytest.approx(0.0)
    assert math.isnan(errors(y, y).r2_per_thing[1])
    assert r2(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(0.5)


def test_errors_refuse_unlike_shapes():
    with pytest.raises(DataError, match="of one shape"):
        errors(torch.zeros(2, 3, 1, 2), torch.zeros(2, 4, 1, 2))


# Baselines


def parts(n, **options):
    splits = open_dots(sequences=n, test_sequences=n, **options)
    index = torch.arange(n)
    return splits.train.batch(index), splits.test.batch(index), splits.test.schema


def test_baselines_have_the_known_errors_on_moving_dots():
    train, test, schema = parts(4000)
    found = baselines(train.state, train.actions, test.state, test.actions, schema)
    rmse = {name: errors(guess, test.state).rmse for name, guess in found.items()}
    # Measured on 20,000 sequences of the world of Sobal et al. 2022.
    known = {
        "constant": 9.38,
        "repeat": 5.80,
        "linear": 5.71,
        "actions": 2.97,
        "actions_clamped": 1.17,
        "regression": 1.87,
    }
    assert rmse == pytest.approx(known, rel=0.03)
    constant = errors(found["constant"], test.state).per_step
    assert (float(constant[0]), float(constant[-1])) == pytest.approx((8.91, 9.65), rel=0.03)


def test_only_the_first_of_three_dots_is_pushed_by_the_actions():
    train, test, schema = parts(400, dots="multiple")
    found = baselines(train.state, train.actions, test.state, test.actions, schema)
    assert torch.equal(found["actions"][:, :, 1:], found["repeat"][:, :, 1:])
    pushed, still = (errors(found[name], test.state).per_thing for name in ("actions_clamped", "repeat"))
    assert pushed[0] < 0.3 * still[0]
    assert still[2] == 0


def test_actions_are_only_added_up_where_they_are_displacements():
    train, test, schema = parts(30)
    other = {**schema, "actions": ["torque", "force"]}
    found = baselines(train.state, train.actions, test.state, test.actions, other)
    assert set(found) == {"constant", "repeat", "linear", "regression"}
    longer = baselines(train.state[:, :9], train.actions[:, :8], test.state, test.actions, other)
    assert "regression" not in longer
    bare = {name: value for name, value in schema.items() if name != "world"}
    assert "actions_clamped" not in baselines(train.state, train.actions, test.state, test.actions, bare)
