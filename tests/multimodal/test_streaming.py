import itertools
import timeit

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.multimodal.model import MVAE
from noumena.multimodal.streaming import Streamer
from tests.multimodal.bodies import SMALL, observations

NAMES = ("pose", "force", "shape")
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(NAMES, size)]
MODELS = {
    "default": {},
    "at rest": {"zero_at_rest": True},
    "gelu": {"activation": "gelu", "fusion": "mopoe", "zero_at_rest": True},
    "tanh": {"activation": "tanh", "fusion": "mvtcae", "skip": False, "hidden_dims": (16, 12, 8)},
    "elu": {"activation": "elu", "fusion": "moe", "hidden_dims": (24,)},
    "relu": {"activation": "relu", "components": None, "zero_at_rest": True},
    "linear": {"hidden_dims": (), "zero_at_rest": True},
    "prosoro": {"fusion": "align", "activation": "relu", "skip": False, "activate_last": False, "components": None},
    "wide skip": {"activate_last": False, "components": {"shape": 5, "pose": 4}, "scale": "modality"},
}


def made(**changes):
    """With the statistics and calibration of the toy body and random weights, which hide no term behind another."""
    model = MVAE(**{**SMALL, **changes})
    model.prepare(observations(300), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim:
                weight += 0.3 / weight.shape[-1] ** 0.5 * torch.randn(weight.shape, generator=generator)
    model.after_fit(observations(300), observations(60, seed=4))
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def rows():
    data = observations(40, seed=6)
    return {name: data[name].numpy() for name in NAMES}


def only(rows, names, i):
    return {name: rows[name][i] for name in names}


@pytest.mark.parametrize("name", MODELS)
def test_samples_one_by_one_are_inferred_as_rows_together(name, rows):
    model = made(**MODELS[name])
    for inputs in SUBSETS:
        streamer = Streamer(model, inputs, NAMES)
        together = model.infer({name: rows[name] for name in inputs}, NAMES)
        for i in range(len(rows["pose"])):
            found, std = streamer(only(rows, inputs, i)), streamer.std()
            for target, (means, deviations) in together.items():
                assert found[target].dtype == std[target].dtype == np.float32
                np.testing.assert_allclose(found[target], means[i], rtol=0, atol=1e-5 * np.abs(means).max())
                np.testing.assert_allclose(std[target], deviations[i], rtol=0, atol=1e-5 * np.abs(deviations).max())


def test_rest_gives_exactly_zero_where_the_model_says_so(rows):
    model = made(zero_at_rest=True)
    streamer = Streamer(model, ["pose"], ["force", "shape"])
    assert np.abs(streamer(rows["pose"][0])["force"]).max() > 0
    found = streamer(np.zeros(6))
    assert not found["force"].any()
    assert not found["shape"].any()
    nearly = streamer(np.full(6, 1e-3))
    assert 0 < np.abs(nearly["shape"]).max() < 0.1


def test_constant_columns_come_back_exactly(rows):
    for components in (12, None):
        model = made(components=components)
        front = model.fronts[2]
        assert front.constant.any()
        found = Streamer(model, ["pose"], ["shape"])(rows["pose"][0])["shape"]
        np.testing.assert_array_equal(found[front.constant.numpy()], front.mean[front.constant].numpy())


def test_numbers_far_from_zero_lose_no_digits():
    far = observations(300)
    far.values[:, :6] += 1e4
    model = MVAE(**SMALL)
    model.prepare(far, seed=0)
    streamer = Streamer(model.eval(), ["pose"], ["force"])
    together = model.infer({"pose": far["pose"][:20]}, ["force"])["force"].mean
    one_by_one = np.stack([streamer(row)["force"] for row in far["pose"][:20].numpy()])
    np.testing.assert_allclose(one_by_one, together, rtol=0, atol=1e-5 * np.abs(together).max())


def test_smoothing_keeps_a_share_of_the_former_output(model, rows):
    plain, smooth = Streamer(model, ["pose"], ["force"]), Streamer(model, ["pose"], ["force"], smoothing=0.75)
    expected = None
    for pose in rows["pose"][:5]:
        now = plain(pose)["force"]
        expected = now if expected is None else 0.75 * expected + 0.25 * now
        found = smooth(pose)["force"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        found[:] = np.nan  # the caller's own
    with pytest.raises(DataError):
        smooth(np.full(6, np.nan))
    expected = 0.75 * expected + 0.25 * now
    np.testing.assert_allclose(smooth(rows["pose"][4])["force"], expected, rtol=1e-5)
    smooth.reset()
    np.testing.assert_array_equal(smooth(rows["pose"][0])["force"], plain(rows["pose"][0])["force"])


def test_outputs_belong_to_the_caller(model, rows):
    streamer = Streamer(model, ["pose"], ["force", "shape"])
    first = streamer(rows["pose"][0])
    kept = {name: values.copy() for name, values in first.items()}
    streamer(rows["pose"][1])
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name])


def test_a_sample_may_come_in_any_form(model, rows):
    streamer = Streamer(model, ["pose"], ["force"])
    pose = rows["pose"][0]
    expected = streamer(pose)["force"]
    for sample in (pose.tolist(), pose.astype(np.float64), torch.from_numpy(pose), {"pose": pose, "other": None}):
        np.testing.assert_array_equal(streamer(sample)["force"], expected)
    huge = streamer(np.full(6, 1e30))  # finite, though its square is not
    assert huge["force"].shape == (6,)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"pose": np.zeros(6)}, ["'force'", "pose"]),
        (np.zeros(6), ["mapping", "pose, force"]),
        ({"pose": np.zeros(5), "force": np.zeros(6)}, ["'pose'", "6 numbers", "(5,)"]),
        ({"pose": np.zeros((1, 6)), "force": np.zeros(6)}, ["'pose'", "(1, 6)", "reshape"]),
        ({"pose": np.zeros(6), "force": [1, 2, 3, 4, np.nan, 6]}, ["'force'", "'Ty'", "nan"]),
        ({"pose": [0, np.inf, 0, 0, 0, 0], "force": np.zeros(6)}, ["'pose'", "'Dy'", "inf"]),
        ({"pose": list("abcdef"), "force": np.zeros(6)}, ["'pose'", "6 numbers"]),
        ({"pose": [[1], [2, 3]], "force": np.zeros(6)}, ["'pose'"]),
    ],
)
def test_unusable_samples_are_refused_in_words(model, sample, words):
    streamer = Streamer(model, ["pose", "force"], ["shape"])
    with pytest.raises(DataError) as caught:
        streamer(sample)
    for word in words:
        assert word in str(caught.value)


def test_unusable_options_are_refused_in_words(model):
    for inputs, targets, smoothing, word in [
        (["poes"], ["force"], None, "'pose'"),
        (["pose"], ["forces"], None, "'force'"),
        ([], ["force"], None, "at least one"),
        (["pose"], ["force"], 1.0, "smoothing"),
        (["pose"], ["force"], float("nan"), "smoothing"),
    ]:
        with pytest.raises(ConfigError, match=word):
            Streamer(model, inputs, targets, smoothing=smoothing)
    with pytest.raises(NotSupportedError, match="fit"):
        Streamer(MVAE(), ["pose"], ["force"])
    with pytest.raises(NotSupportedError, match="sample"):
        Streamer(model, ["pose"], ["force"]).std()


def test_deviations_of_a_model_without_calibration_are_nan(rows):
    model = MVAE(**SMALL)
    model.prepare(observations(300))
    streamer = Streamer(model, ["pose"], ["force"])
    streamer(rows["pose"][0])
    assert np.isnan(streamer.std()["force"]).all()


def test_a_call_is_several_times_faster_than_one_of_the_model(rows):
    model = made(hidden_dims=(128, 128, 128), z_dim=32)
    streamer = Streamer(model, ["pose"], ["force", "shape"])
    pose = rows["pose"][0]

    def best(call):
        return min(timeit.repeat(call, number=20, repeat=10))

    assert 5 * best(lambda: streamer(pose)) < best(lambda: model.infer({"pose": pose[None]}, ["force", "shape"]))
