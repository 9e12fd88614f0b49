from dataclasses import replace

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.baselines import fit_polynomial, fit_regression
from noumena.multimodal.modality import Surface
from noumena.multimodal.observations import from_arrays
from noumena.multimodal.symmetry import Action, PointGroup


def rows(n=300, seed=0, missing=0.0, wide=90):
    """A cubic map from 3 numbers to 2 and to many, the many within a space of a few dimensions."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (n, 3)).astype("f4")
    b = np.stack([a[:, 0] ** 3 - a[:, 1], 100.0 * a[:, 1] * a[:, 2]], 1)
    c = np.concatenate([a, a**2], 1) @ np.random.default_rng(9).normal(size=(6, wide))
    if missing:
        b[rng.random(n) < missing] = np.nan
    return from_arrays({"a": a, "b": b, "c": c.astype("f4")})


TRAIN, VAL, TEST = rows(), rows(80, 1), rows(80, 2)


def relative(fitted, name, data=TEST, source="a"):
    truth = data[name].numpy()
    error = fitted.predict(data[source])[name] - truth
    return float(np.sqrt(np.square(error).sum() / np.square(truth - truth.mean(0)).sum()))


def test_a_polynomial_map_is_found_exactly():
    fitted = fit_polynomial(TRAIN, VAL, "a", ["b", "c"])
    assert relative(fitted, "b") < 1e-4
    assert relative(fitted, "c") < 1e-4


def test_the_degree_is_chosen_on_held_out_rows():
    noisy = from_arrays({"a": TRAIN["a"], "b": 3.0 * TRAIN["a"] + 0.5 * torch.randn(300, 3)})
    held = from_arrays({"a": VAL["a"], "b": 3.0 * VAL["a"]})
    fitted = fit_polynomial(noisy, held, "a", ["b"])
    assert fitted.fitted["b"][2].degree == 1


def test_a_wide_source_enters_by_fewer_components_at_higher_degrees():
    fitted = fit_polynomial(TRAIN, VAL, "c", ["a"])
    assert relative(fitted, "a", source="c") < 0.05


@pytest.mark.parametrize("components", [16, None])
def test_a_network_learns_all_targets_at_their_own_scale(components):
    fitted = fit_regression(TRAIN, VAL, "a", ["b", "c"], hidden_dims=(32, 32), components=components, steps=600)
    assert relative(fitted, "b") < 0.15
    assert relative(fitted, "c") < 0.15


def test_the_same_seed_gives_the_same_network():
    first, again, other = (
        fit_regression(TRAIN, VAL, "a", ["b"], hidden_dims=(8,), steps=20, seed=seed).predict(TEST["a"])["b"]
        for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_fitting_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_regression(TRAIN, VAL, "a", ["b"], hidden_dims=(8,), steps=3)
    assert torch.equal(torch.rand(3), expected)


def test_rows_without_a_target_do_not_teach_it():
    gaps = rows(missing=0.4)
    spoilt = gaps.values.clone()
    spoilt[~gaps.has("b"), 3:5] = 1e6
    for fit in (fit_polynomial, lambda *a: fit_regression(*a, hidden_dims=(32,), steps=200)):
        plain, other = (fit(data, VAL, "a", ["b", "c"]) for data in (gaps, replace(gaps, values=spoilt)))
        assert np.array_equal(plain.predict(TEST["a"])["b"], other.predict(TEST["a"])["b"])
    assert relative(fit_polynomial(gaps, VAL, "a", ["b"]), "b") < 1e-3


def test_without_validation_rows_whole_groups_are_held_out():
    fitted = fit_polynomial(rows(), None, "a", ["b"])
    assert relative(fitted, "b") < 1e-3


def test_images_under_the_group_make_the_network_nearly_equivariant():
    rng = np.random.default_rng(0)
    angle = np.arange(4) * np.pi / 2
    nodes = np.stack([np.cos(angle), np.sin(angle), np.ones(4)], 1)
    pose = np.concatenate([rng.uniform(0.5, 1, (200, 1)), rng.normal(size=(200, 5)) * 0.05], 1)  # one side only
    wrench = np.concatenate([np.tanh(pose[:, :3]) * 4.0, 2.0 * pose[:, 3:]], 1)
    data = from_arrays(
        {"pose": pose, "wrench": wrench, "u": np.tile(pose[:, :3], (1, 4))},
        kinds={"pose": "pose", "wrench": "wrench", "u": "displacement"},
        surface=Surface.of(nodes),
    )
    action = Action(PointGroup.parse("C4v"), "pose", None)
    turned = action(2, data["pose"])
    expected = Action(PointGroup.parse("C4v"), "wrench", None)(2, data["wrench"]).numpy()

    def error(symmetry):
        options = {"hidden_dims": (32,), "steps": 400, "components": 8, "symmetry": symmetry}
        fitted = fit_regression(data, data, "pose", ["wrench", "u"], **options)
        return np.abs(fitted.predict(turned)["wrench"] - expected)[:, 0].mean()

    assert error("C4v") < 0.3
    assert error("C4v") < 0.3 * error(None)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ConfigError, match="steps"):
        fit_regression(TRAIN, VAL, "a", ["b"], steps=0)
    with pytest.raises(DataError, match="no modality 'z'"):
        fit_regression(TRAIN, VAL, "a", ["z"])
    alone = from_arrays({"a": np.ones((4, 2)), "b": np.full((4, 2), np.nan)})
    with pytest.raises(DataError, match="together with"):
        fit_polynomial(alone, None, "a", ["b"])
