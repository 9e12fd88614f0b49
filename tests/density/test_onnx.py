import copy
import json

import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ArtifactError, NotSupportedError
from noumena.density import onnx as export
from noumena.density.flow import Flow
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from noumena.density.neighbours import Neighbours
from noumena.density.onnx import Verdict, to_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

MODELS = {
    "importance": lambda: VAE(hidden_dims=(8,), latent_dim=2, draws=4),
    "fixed": lambda: VAE(hidden_dims=(8,), latent_dim=2, decoder_scale="fixed", standardize=False),
    "nsf": lambda: Flow(architecture="nsf", transforms=1, hidden_dims=(8,), bins=3),
    "gmm": lambda: GaussianMixture(components=2),
    "knn": lambda: Neighbours(method="density", neighbours=3),
}
QUICK = {"max_epochs": 1, "batch_size": 64, "accelerator": "cpu"}


def table(n, seed=0):
    """Rows with a constant column and repeated values."""
    rows = np.random.default_rng(seed).normal(size=(n, 4)).astype("float32") * [1.0, 10.0, 0.1, 1.0]
    rows[:, 3] = 7.0
    return rows.astype("float32")


@pytest.fixture(scope="module", params=MODELS)
def exported(request):
    """A model and a session of its file."""
    model = MODELS[request.param]()
    model.fit(table(200), **(QUICK if model.trains_by_gradient else {}))
    model.calibrate(table(99, seed=1), 0.05)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    content = to_onnx(model.double())
    # Exporting leaves the model as it was.
    assert all(torch.equal(before[name].to(value), value) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert model.dtype == torch.float64
    model.float()
    return model, onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), content


def test_the_file_scores_judges_and_gives_p_values_as_the_model_does(exported):
    model, session, _ = exported
    shifted = table(40, seed=3) + np.linspace(0, 8, 40, dtype="float32")[:, None]
    for rows in (table(1, seed=2), shifted, table(130, seed=4)):
        score, is_anomaly, p_value = session.run(["score", "is_anomaly", "p_value"], {"rows": rows})
        wanted = model.score_samples(rows)
        np.testing.assert_allclose(score, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).mean())
        np.testing.assert_array_equal(is_anomaly, model.is_anomaly(score.astype(float)))
        np.testing.assert_allclose(p_value, model.p_value_of(score.astype(float)), rtol=1e-6)
        assert (score.dtype, is_anomaly.dtype, p_value.dtype) == (np.float32, np.bool_, np.float32)


def test_the_metadata_say_what_the_file_is_and_nothing_of_where_it_was_made(exported):
    model, _, content = exported
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto)
    facts = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert facts == {
        "model": type(model).__name__,
        "columns": ["x_0", "x_1", "x_2", "x_3"],
        "score_unit": model.score_unit,
        "threshold": float(model.threshold),
        "calibration_rows": 99,
        "noumena_version": noumena.__version__,
    }
    assert b"/src/" not in content
    assert b".py" not in content


@pytest.mark.parametrize("count", [1, 2, 7, 8, 100])
def test_p_values_are_those_of_a_sorted_search_at_ties_and_beyond_all_numbers(count):
    model = GaussianMixture(input_dim=1, components=1)
    scores = np.sort(np.random.default_rng(count).integers(-5, 5, count)).astype(float)
    model.calibration, model.calibration_rows = torch.from_numpy(scores), count
    asked = np.array([*scores, *(scores + 0.5), -99.0, 99.0, np.inf, -np.inf, np.nan], dtype="float32")
    verdict = Verdict(model)
    verdict.model = torch.nn.Flatten(0)
    assert verdict.outputs == ["score", "p_value"]
    found, p_value = verdict(torch.from_numpy(asked[:, None]))
    np.testing.assert_allclose(p_value, model.p_value_of(asked.astype(float)), rtol=1e-6)
    assert found[-1] == -np.inf


def test_a_file_that_computes_something_else_is_not_given_out(exported, monkeypatch):
    model, _, content = exported
    monkeypatch.setattr(export, "_exported", lambda model, rows: content)
    assert to_onnx(model) == content
    for name, change, words in (
        ("log_density", lambda score: score * 1.0001, "scores differ"),
        ("is_anomaly", lambda found: ~found, "verdicts"),
        ("p_value_of", lambda p: p * 1.001, "p-values"),
    ):
        other = copy.deepcopy(model)
        monkeypatch.setattr(type(other), name, changed(getattr(type(other), name), change))
        with pytest.raises(ArtifactError, match=words):
            to_onnx(other)
        monkeypatch.undo()
        monkeypatch.setattr(export, "_exported", lambda model, rows: content)


def changed(method, change):
    return lambda self, values: change(method(self, values))


def test_what_cannot_be_exported_is_refused_in_words(monkeypatch):
    with pytest.raises(NotSupportedError, match="scoring='reconstruction'"):
        to_onnx(VAE(input_dim=3, scoring="original"))
    with pytest.raises(NotSupportedError, match="no weights"):
        to_onnx(VAE())
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[onnx\]'"):
        to_onnx(VAE(input_dim=3))
