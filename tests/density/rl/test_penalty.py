import copy
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.calibration import p_values
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from noumena.density.neighbours import Neighbours
from noumena.density.penalty import DensityPenalty
from noumena.density.rl import gormpo
from noumena.density.rl.formulas import FORMULAS, SmoothPValue, conformal_p_values
from tests.density.rl.conftest import small

KINDS = ("linear", "inverse", "tanh", "softplus", "conformal")
GORMPO = ("linear", "inverse", "tanh", "tanh_reg", "softplus")
finite = st.floats(-1e6, 1e6)


def depth_and_scale(model, rows):
    """How far the scores of rows lie below the threshold, in inter-quartile ranges of the calibration scores."""
    calibration = model.calibration.numpy()
    scale = np.subtract(*np.percentile(calibration[np.isfinite(calibration)], [75, 25]))
    return (float(model.threshold) - model.score_samples(rows)) / scale, scale


WRITTEN = {
    "linear": lambda u: np.clip(u, 0, 10),
    "inverse": lambda u: np.minimum(np.exp(np.clip(u, 0, 5)) - 1, 10),
    "tanh": lambda u: np.maximum(np.tanh(u), 0),
    "softplus": lambda u: np.minimum(np.log(1 + np.exp(4 * np.minimum(u, 20))) / 4, 10),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_penalty_is_its_formula_in_units_of_the_calibration_spread(hopper, kind):
    depth, scale = depth_and_scale(hopper.model, hopper.far)
    penalty = DensityPenalty(hopper.model, kind, coefficient=0.3)
    assert penalty.scale == pytest.approx(scale)
    assert (depth > 0).any()
    assert (depth < 0).any()
    np.testing.assert_allclose(penalty(hopper.far), 0.3 * WRITTEN[kind](depth), rtol=1e-5, atol=1e-12)


def test_the_conformal_penalty_is_one_minus_the_p_value_relative_to_the_threshold(hopper):
    calibration = np.sort(hopper.model.calibration.numpy())
    n, threshold = len(calibration), float(hopper.model.threshold)
    scale = np.subtract(*np.percentile(calibration, [75, 25]))

    def p(score):
        if score < calibration[0]:
            return math.exp((score - calibration[0]) / scale) / (n + 1)
        return float(np.interp(score, calibration, np.arange(1, n + 1) / (n + 1)))

    scores = hopper.model.score_samples(hopper.far)
    expected = [max(0.0, 1.0 - p(score) / p(threshold)) for score in scores]
    found = DensityPenalty(hopper.model, "conformal")(hopper.far)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (found[scores < threshold] > 0).all()
    assert (found[scores >= threshold] == 0).all()


@given(a=finite, b=finite, limit=st.floats(0.01, 1e4))
def test_formulas_rise_with_the_depth_within_their_limit(a, b, limit):
    depths = torch.tensor([min(a, b), max(a, b), math.inf], dtype=torch.float64)
    for formula in FORMULAS.values():
        found = formula(depths, limit)
        assert (found >= 0).all()
        assert (found <= limit).all()
        assert (found.diff() >= 0).all()


@given(step=st.floats(1e-12, 1e-4))
def test_formulas_are_continuous_at_the_threshold(step):
    depths = torch.tensor([-step, 0.0, step], dtype=torch.float64)
    for name, formula in FORMULAS.items():
        found = formula(depths, 10.0)
        assert float(found.diff().max()) <= 4.0 * step
        assert float(found[1]) == pytest.approx(math.log(2) / 4 if name == "softplus" else 0.0)


@given(
    calibration=st.lists(st.one_of(finite, st.just(-math.inf)), min_size=2, max_size=30),
    scores=st.lists(st.one_of(finite, st.just(-math.inf)), min_size=1, max_size=20),
)
def test_the_smooth_p_value_rises_with_the_score_and_is_nowhere_above_the_conformal_one(calibration, scores):
    calibration = np.sort(np.array([*calibration, 0.0]))
    scores = np.sort(np.array(scores))
    smooth = SmoothPValue(calibration, 1.0)(torch.from_numpy(scores)).numpy()
    assert (np.diff(smooth) >= -1e-12).all()
    assert (smooth <= p_values(scores, calibration) + 1e-12).all()
    assert (smooth >= 0).all()


def test_the_smooth_p_value_is_continuous_between_and_below_the_calibration_scores():
    smooth = SmoothPValue(np.array([-np.inf, 0.0, 1.0, 1.0, 3.0]), 0.5)
    at = torch.linspace(-4.0, 4.0, 80_001, dtype=torch.float64)
    assert float(smooth(at).diff().abs().max()) < 1e-4


@given(st.lists(st.one_of(finite, st.just(-math.inf), st.just(math.inf), st.just(math.nan)), min_size=1))
def test_p_values_on_tensors_are_those_of_the_calibration(scores):
    calibration = np.array([-np.inf, -2.0, 0.0, 0.0, 5.0])
    found = conformal_p_values(torch.tensor(scores, dtype=torch.float64), torch.from_numpy(calibration))
    np.testing.assert_array_equal(found.numpy(), p_values(np.array(scores), calibration))


@pytest.mark.parametrize("kind", KINDS)
def test_penalties_are_never_negative_always_finite_and_fall_with_the_score(hopper, kind):
    far = np.concatenate([hopper.far, hopper.far[:3] * 1e6, hopper.far[:3] * 1e30, np.full((1, 14), 3e38)])
    penalty = DensityPenalty(hopper.model, kind)(far)
    assert np.isfinite(penalty).all()
    assert (penalty >= 0).all()
    order = np.argsort(hopper.model.score_samples(far), kind="stable")
    assert (np.diff(penalty[order]) <= 0).all()
    most = 1.0 if kind in ("tanh", "conformal") else 10.0
    np.testing.assert_allclose(penalty[-1], most, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_of_a_row_does_not_depend_on_its_batch(hopper, kind):
    penalty = DensityPenalty(hopper.model, kind)
    together = penalty(hopper.far)
    np.testing.assert_array_equal(together[::7], penalty(hopper.far[::7]))
    np.testing.assert_array_equal(together[5], penalty(hopper.far[5]))


@pytest.mark.parametrize("kind", KINDS)
def test_normal_rows_pay_nothing(hopper, kind):
    depth, _ = depth_and_scale(hopper.model, hopper.far)
    assert (DensityPenalty(hopper.model, kind)(hopper.far[depth < -2]) < 1e-4).all()


def test_arrays_and_tensors_keep_their_type_and_leading_axes(hopper):
    penalty = DensityPenalty(hopper.model, "linear")
    wide = hopper.far[:6].reshape(2, 3, 14)
    for array in (wide, wide.astype(np.float64)):
        found = penalty(array[..., :11], array[..., 11:])
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype) == ((2, 3), array.dtype)
        tensor = torch.from_numpy(array)
        same = penalty(tensor[..., :11], tensor[..., 11:])
        assert (same.dtype, same.shape) == (tensor.dtype, (2, 3))
        np.testing.assert_array_equal(same.numpy(), found)
    assert penalty(np.zeros((2, 14), np.int64)).dtype == np.float64
    assert penalty(torch.zeros(0, 14)).shape == (0,)
    assert penalty(np.zeros((0, 14), np.float32)).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_written_formula(hopper, kind):
    rows = torch.from_numpy(hopper.far).requires_grad_()
    penalty = DensityPenalty(hopper.model, kind)
    penalty(rows).sum().backward()
    other = torch.from_numpy(hopper.far).requires_grad_()
    score = hopper.model.log_density(other)
    if kind == "conformal":
        at = torch.tensor(penalty.threshold, dtype=torch.float64)
        smooth = SmoothPValue(hopper.model.calibration.numpy(), penalty.scale)
        expected = torch.relu(1 - smooth(score.double()) / smooth(at))
    else:
        u = (penalty.threshold - score.double()) / penalty.scale
        expected = {
            "linear": u.clamp(0, 10),
            "inverse": (u.clamp(0, 4).exp() - 1).clamp(max=10),
            "tanh": u.clamp(min=0).tanh(),
            "softplus": torch.nn.functional.softplus(u, beta=4.0).clamp(max=10),
        }[kind]
    expected.sum().backward()
    assert rows.grad.abs().max() > 0
    np.testing.assert_allclose(rows.grad.numpy(), other.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_gradients_agree_with_differences(hopper):
    model = DensityPenalty(hopper.model, "tanh")
    depth, _ = depth_and_scale(hopper.model, hopper.far)
    row = torch.from_numpy(hopper.far[np.abs(depth - 0.7).argmin()])
    leaf = row.clone().requires_grad_()
    model(leaf).backward()
    direction = leaf.grad / leaf.grad.norm()
    step = 0.02 / float(leaf.grad.norm())
    difference = (model(row + step * direction) - model(row - step * direction)) / (2 * step)
    assert float(difference) == pytest.approx(float(leaf.grad.norm()), rel=0.1)


def test_gradients_stay_finite_far_away_and_leave_the_model_alone(hopper):
    hopper.model.zero_grad(set_to_none=True)
    rows = torch.from_numpy(np.concatenate([hopper.far[:3], hopper.far[:3] * 1e30]))
    for kind in KINDS:
        leaf = rows.clone().requires_grad_()
        DensityPenalty(hopper.model, kind)(leaf[:, :11], leaf[:, 11:]).sum().backward()
        assert leaf.grad.isfinite().all()
    assert all(weight.grad is None for weight in hopper.model.parameters())
    leaf = rows[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(DensityPenalty(hopper.model, "softplus")(leaf).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_evaluate_tells_score_and_p_value_of_the_model(hopper):
    found = DensityPenalty(hopper.model).evaluate(hopper.far.astype(np.float64))
    np.testing.assert_array_equal(found.log_density, hopper.model.score_samples(hopper.far))
    np.testing.assert_array_equal(found.p_value, hopper.model.p_value(hopper.far))
    np.testing.assert_array_equal(found.penalty > 0, hopper.model.predict_anomaly(hopper.far))


def test_a_false_alarm_rate_sets_the_threshold(hopper):
    normal = hopper.splits.test.rows
    model = hopper.model
    strict = DensityPenalty(model, false_alarm_rate=0.1)
    assert strict.threshold > DensityPenalty(model).threshold
    np.testing.assert_array_equal(strict(normal).numpy() > 0, model.score_samples(normal) < strict.threshold)
    assert (model.p_value(normal)[strict(normal).numpy() > 0] <= 0.1).all()


def test_a_saved_model_gives_the_same_penalties(hopper, tmp_path):
    hopper.model.save(tmp_path / "model")
    for model in (tmp_path / "model", noumena.load(tmp_path / "model")):
        np.testing.assert_array_equal(DensityPenalty(model)(hopper.far), DensityPenalty(hopper.model)(hopper.far))


def test_rows_follow_the_layout_of_the_model(hopper):
    next_obs, action = hopper.far[:, :11], hopper.far[:, 11:]
    penalty = DensityPenalty(hopper.model)
    assert penalty.layout.parts == ("next_observation", "action")
    np.testing.assert_array_equal(penalty(next_obs, action), penalty(hopper.far))
    np.testing.assert_array_equal(penalty(next_obs, action, next_obs * np.nan), penalty(hopper.far))
    with pytest.raises(ConfigError, match="in this order"):
        DensityPenalty(hopper.model, on=("action", "next_observation"))
    with pytest.raises(ConfigError, match="Did you mean 'observation'"):
        DensityPenalty(hopper.model, on=("observations",))
    with pytest.raises(DataError, match=r"next_obs: expected shape \(\.\.\., 11\), found \(.*, 3\)"):
        penalty(action, next_obs)
    with pytest.raises(DataError, match="action is missing"):
        penalty(next_obs, obs=next_obs)
    with pytest.raises(DataError, match=r"expected shape \(\.\.\., 14\)"):
        penalty(next_obs)
    with pytest.raises(DataError, match="leading axes"):
        penalty(next_obs, action[:-1])
    with pytest.raises(DataError, match="found both"):
        penalty(next_obs, torch.from_numpy(action))
    with pytest.raises(DataError, match="expected numbers"):
        penalty(np.full((2, 11), "far"), action[:2])
    with pytest.raises(DataError, match="NaN"):
        penalty(next_obs * np.float32(np.nan), action)


def test_a_model_of_plain_rows_takes_the_parts_that_are_named(hopper):
    rows = hopper.splits.train.rows
    model = small()
    model.fit(rows[:800].numpy(), rows[800:1600].numpy(), max_epochs=1, batch_size=128, seed=0)
    obs, action = rows[:5, :11], rows[:5, 11:]
    penalty = DensityPenalty(model, on=("observation", "action"))
    np.testing.assert_array_equal(penalty(None, action, obs).numpy(), penalty(rows[:5]).numpy())
    with pytest.raises(DataError, match="have 22 together"):
        penalty(None, obs, obs)


@pytest.mark.parametrize("make", [partial(GaussianMixture, components=2, shrinkage=0.1), Neighbours])
def test_any_model_of_the_family_has_penalties_and_gradients(hopper, make):
    model = make()
    model.fit(hopper.splits.train.rows[:600], hopper.splits.val.rows[:400], seed=0)
    rows = torch.from_numpy(np.concatenate([hopper.far, hopper.far[:3] * 1e20])).requires_grad_()
    for kind in KINDS:
        penalty = DensityPenalty(model, kind)(rows)
        assert penalty.isfinite().all()
        assert (penalty >= 0).all()
        assert (penalty > 0).any()
        (slope,) = torch.autograd.grad(penalty.sum(), rows)
        assert slope.isfinite().all()
        assert slope.abs().max() > 0


def test_a_score_with_noise_has_penalties_but_no_gradient(hopper):
    model = small(decoder_scale="fixed", scoring="original", standardize=False)
    model.fit(hopper.splits.train.rows[:600], hopper.splits.val.rows[:400], max_epochs=1, batch_size=100, seed=0)
    rows = torch.from_numpy(hopper.far).requires_grad_()
    penalty = DensityPenalty(model)(rows)
    np.testing.assert_array_equal(penalty.detach().numpy(), DensityPenalty(model)(hopper.far))
    with pytest.raises(NotSupportedError, match="no gradient"):
        penalty.sum().backward()


def test_tensors_of_rollouts_without_gradients_and_of_half_precision_are_scored(hopper):
    penalty = DensityPenalty(hopper.model)
    expected = penalty(hopper.far)
    with torch.inference_mode():
        rows = torch.from_numpy(hopper.far).clone()
        np.testing.assert_array_equal(penalty(rows).numpy(), expected)
    np.testing.assert_array_equal(penalty(rows).numpy(), expected)
    half = penalty(rows.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_stay_on_their_device(hopper):
    expected = DensityPenalty(hopper.model, "softplus")(hopper.far)
    rows = torch.from_numpy(hopper.far)
    moved = copy.deepcopy(hopper.model).cuda()
    for model, device in ((hopper.model, "cuda"), (moved, "cuda"), (moved, "cpu")):
        leaf = rows.to(device).requires_grad_()
        found = DensityPenalty(model, "softplus").evaluate(leaf)
        assert {value.device.type for value in found} == {device}
        np.testing.assert_allclose(found.penalty.detach().cpu().numpy(), expected, rtol=1e-2, atol=1e-3)
        found.penalty.sum().backward()
        assert leaf.grad.device.type == device


def test_what_cannot_be_calibrated_is_refused_in_words(hopper, uncalibrated):
    with pytest.raises(NotSupportedError, match="no threshold is set"):
        DensityPenalty(uncalibrated)
    uncalibrated.set_threshold(hopper.far)
    with pytest.raises(NotSupportedError, match="no calibration scores"):
        DensityPenalty(uncalibrated)
    assert DensityPenalty(uncalibrated, scale=2.0).evaluate(hopper.far).p_value is None
    with pytest.raises(NotSupportedError, match="calibrat"):
        DensityPenalty(uncalibrated, "conformal", scale=2.0)
    uncalibrated.calibrate(hopper.far[:1].repeat(300, axis=0))
    with pytest.raises(DataError, match="no scale"):
        DensityPenalty(uncalibrated)
    with pytest.raises(NotSupportedError, match="call fit"):
        DensityPenalty(VAE())
    with pytest.raises(NotSupportedError, match="of the density family"):
        DensityPenalty(SimpleNamespace())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "tan"}, "Did you mean 'tanh'"),
        ({"kind": "tanh_reg"}, "tanh_reg"),
        ({"coefficient": -1.0}, "coefficient"),
        ({"coefficient": math.nan}, "coefficient"),
        ({"limit": 0.0}, "limit"),
        ({"scale": math.inf}, "scale"),
        ({"compat": "mopo"}, "compat"),
        ({"score_mean": 0.0, "score_std": 1.0}, "gormpo"),
        ({"compat": "gormpo", "score_mean": 0.0}, "both or neither"),
        ({"compat": "gormpo", "score_mean": 0.0, "score_std": 0.0}, "positive"),
        ({"compat": "gormpo", "kind": "conformal"}, "with compat"),
        ({"compat": "gormpo", "limit": 3.0}, "limit"),
        ({"false_alarm_rate": 1.5}, "false_alarm_rate"),
        ({"on": ()}, "at least one part"),
    ],
)
def test_wrong_options_are_refused_by_name(hopper, options, words):
    with pytest.raises(ConfigError, match=words):
        DensityPenalty(hopper.model, **options)


# The original's formulas


def of_gormpo(kind, L, thr):
    """What the original computes of a batch of scores, in numpy."""
    if kind == "linear":
        gap = thr - L
        q1, q3 = np.percentile(gap, 25), np.percentile(gap, 75)
        return np.clip(gap, 0, q3 + 1.5 * (q3 - q1))
    if kind == "inverse":
        return np.where(thr > L, np.exp(thr) / (np.exp(L) + 1e-6), 0.0)
    if kind == "tanh":
        return np.maximum(0, np.tanh(0.1 * (thr - L)))
    if kind == "tanh_reg":
        return np.tanh(0.1 * (thr - L))
    return np.log(1 + np.exp(-L))


@pytest.mark.parametrize("kind", GORMPO)
@given(scores=st.lists(st.floats(-300, 300), min_size=1, max_size=30), threshold=st.floats(-50, 50))
def test_the_formulas_of_gormpo_are_reproduced(kind, scores, threshold):
    scores = np.array(scores)
    found = gormpo.FORMULAS[kind](torch.from_numpy(scores), threshold).numpy()
    np.testing.assert_allclose(found, of_gormpo(kind, scores, threshold), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", GORMPO)
@pytest.mark.parametrize("statistics", [{}, {"score_mean": -3.0, "score_std": 4.0}])
def test_compat_gormpo_compares_the_score_as_the_original_does(hopper, kind, statistics):
    rows = hopper.far[:40].astype(np.float64)
    scores = hopper.model.score_samples(rows)
    if statistics:
        scores = (scores + 3.0) / 4.0
    penalty = DensityPenalty(hopper.model, kind, compat="gormpo", coefficient=0.5, **statistics)
    expected = 0.5 * of_gormpo(kind, scores, float(hopper.model.threshold))
    np.testing.assert_allclose(penalty(rows), expected, rtol=1e-9)


def test_compat_gormpo_needs_a_threshold_but_no_calibration(hopper, uncalibrated):
    uncalibrated.set_threshold(hopper.far)
    found = DensityPenalty(uncalibrated, compat="gormpo").evaluate(hopper.far)
    assert (found.penalty > 0).any()
    assert found.p_value is None
