import json

import numpy as np
import pytest
import torch

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.multimodal import export
from noumena.multimodal.export import to_onnx
from noumena.multimodal.model import MVAE
from tests.multimodal.bodies import SMALL, observations

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def made(*, calibrated=True, **changes):
    model = MVAE(**{**SMALL, **changes})
    model.prepare(observations(300), seed=1)
    if calibrated:
        model.after_fit(observations(300), observations(60, seed=4))
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return made(zero_at_rest=True)


@pytest.fixture(scope="module")
def pose_to_others(model):
    return to_onnx(model, ["pose"], ["force", "shape"])


def computed(content, rows):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, rows), strict=True))


@pytest.mark.parametrize("count", [1, 7, 50])
def test_the_file_infers_what_the_model_infers_for_any_number_of_rows(model, pose_to_others, count):
    poses = observations(count, seed=9)["pose"].numpy()
    poses[0] = 0.0
    found = computed(pose_to_others, {"pose": poses})
    assert list(found) == ["force", "force_std", "shape", "shape_std"]
    for name, (mean, std) in model.infer({"pose": poses}, ["force", "shape"]).items():
        np.testing.assert_allclose(found[name], mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found[f"{name}_std"], std, rtol=0, atol=1e-5)
    assert not found["force"][0].any()


@pytest.mark.parametrize("fusion", ["poe", "moe"])
def test_several_inputs_may_be_fused_and_be_targets_too(fusion):
    model = made(fusion=fusion, activation="gelu", calibrated=False, skip=False)
    data = observations(20, seed=9)
    rows = {name: data[name].numpy() for name in ("shape", "force")}
    found = computed(to_onnx(model, ["shape", "force"], ["pose", "force"]), rows)
    assert list(found) == ["pose", "pose_std", "force_mean", "force_std"]
    expected = model.infer(rows, ["pose", "force"])
    np.testing.assert_allclose(found["pose"], expected["pose"].mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["force_mean"], expected["force"].mean, rtol=0, atol=1e-5)
    assert np.isnan(found["pose_std"]).all()  # not calibrated


def test_metadata_tell_names_units_and_kinds_and_nothing_of_the_machine(model, pose_to_others):
    told = onnx.load_from_string(pose_to_others)
    facts = {entry.key: json.loads(entry.value) for entry in told.metadata_props}
    assert facts["inputs"] == ["pose"]
    assert facts["outputs"] == {"force": "force", "force_std": "force", "shape": "shape", "shape_std": "shape"}
    known = {entry["name"]: entry for entry in facts["modalities"]}
    assert known["force"]["units"] == ["N"] * 3 + ["N mm"] * 3
    assert {name: entry["kind"] for name, entry in known.items()} == {
        modality.name: modality.kind for modality in model.modalities
    }
    assert known["shape"]["columns"] == list(model.modalities[2].columns)
    assert b".py" not in pose_to_others
    axes = [graph.type.tensor_type.shape.dim[0].dim_param for graph in (*told.graph.input, *told.graph.output)]
    assert set(axes) == {"rows"}


def test_a_file_that_computes_something_else_is_not_handed_out(model, monkeypatch):
    monkeypatch.setattr(export._Inference, "_latents", lambda self, rows: torch.ones(len(rows[0]), 8) * rows[0][:, :1])
    with pytest.raises(ArtifactError, match="differs from the model"):
        to_onnx(model, ["pose"], ["force"], std=False)


def test_unusable_requests_are_refused_in_words(model, monkeypatch):
    with pytest.raises(ConfigError, match="'force'"):
        to_onnx(model, ["pose"], ["forse"])
    with pytest.raises(NotSupportedError, match="fit"):
        to_onnx(MVAE(), ["pose"], ["force"])
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[multimodal\]'"):
        to_onnx(model, ["pose"], ["force"])
