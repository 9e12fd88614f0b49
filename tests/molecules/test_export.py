import io
import json
import zipfile

import numpy as np
import pytest
import torch

from noumena.core.errors import ArtifactError, NotSupportedError
from noumena.molecules import export
from noumena.molecules.export import METADATA, Encoder, to_onnx, to_program
from noumena.molecules.model import MoleculeVAE
from tests.molecules.conformers import conformations

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def data():
    return conformations("CC(=O)N[C@@H](C)C(=O)NC")


def made(data, **changes):
    model = MoleculeVAE(**{"z_dim": 3, "width": 32, "channels": 16, "layers": 1, "blocks": 1, "mixture": 2, **changes})
    model.prepare(data, seed=1)
    return model.eval()


@pytest.fixture(scope="module", params=["torsions", "visnet"])
def model(request, data):
    return made(data, encoder=request.param)


@pytest.fixture(scope="module")
def program(model):
    return to_program(model)


@pytest.fixture(scope="module")
def onnx_file(model):
    return to_onnx(model)


def by_onnx(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda xyz: session.run(["z"], {"xyz": xyz.numpy()})[0]


def by_torch(content):
    loaded = torch.export.load(io.BytesIO(content)).module()
    return lambda xyz: loaded(xyz).detach().numpy()


def test_both_files_encode_as_the_model_does_any_number_of_frames_anywhere(model, data, program, onnx_file):
    compute = [by_onnx(onnx_file), by_torch(program)]
    for count in (1, 2, 33):
        xyz = data.xyz[:count] + torch.tensor([30.0, -5.0, 12.0])
        expected = model.encode(xyz).mean.detach().numpy()
        assert expected.shape == (count, 3)
        for function in compute:
            # Of the largest latent, as the export promises: single precision alone costs ViSNet half of that.
            np.testing.assert_allclose(function(xyz), expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_the_latents_of_the_file_are_those_of_the_turned_molecule_and_not_of_its_mirror_image(model, data, program):
    compute = by_torch(program)
    xyz = data.xyz[:8]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    turn = turn * torch.linalg.det(turn)  # proper
    np.testing.assert_allclose(compute(xyz @ turn), compute(xyz), rtol=0, atol=2e-5)
    assert np.abs(compute(-xyz) - compute(xyz)).max() > 1e-2


def test_gradients_with_respect_to_coordinates_are_finite_differences(model, data, program):
    xyz = data.xyz[:2].clone().requires_grad_()
    loaded = torch.export.load(io.BytesIO(program)).module()
    (gradient,) = torch.autograd.grad(loaded(xyz)[:, 0].sum(), xyz)
    # In double precision, where differences have digits.
    exact = Encoder(made(data, encoder=model.encoder).double())
    exact.load_state_dict(
        {
            name: value.double() if value.is_floating_point() else value
            for name, value in Encoder(model).state_dict().items()
        }
    )
    frames, step = data.xyz[:2].double(), 1e-5
    for atom, axis in ((0, 0), (4, 1), (11, 2)):
        moved = torch.zeros_like(frames)
        moved[:, atom, axis] = step
        difference = (exact(frames + moved) - exact(frames - moved))[:, 0] / (2 * step)
        np.testing.assert_allclose(gradient[:, atom, axis].numpy(), difference.detach().numpy(), rtol=1e-3, atol=1e-4)
    # A collective variable that does not feel a rotation or a shift exerts no net force and no net torque.
    assert gradient.sum(1).abs().max() < 1e-3
    assert torch.linalg.cross(data.xyz[:2], gradient).sum(1).abs().max() < 1e-2


def test_files_tell_the_molecule_and_nothing_of_the_machine(model, program, onnx_file):
    told = {entry.key: json.loads(entry.value) for entry in onnx.load_from_string(onnx_file).metadata_props}
    extra = {METADATA: ""}
    torch.export.load(io.BytesIO(program), extra_files=extra)
    assert told == json.loads(extra[METADATA])
    assert told["topology"] == model.molecule.to_json()
    assert told["unit"] == "angstrom"
    assert b".py" not in onnx_file
    assert b".py" not in program


def test_a_program_is_loaded_without_unpickling_anything(program, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("something was unpickled")

    for place in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(place, forbidden)
    torch.export.load(io.BytesIO(program))


def test_a_program_with_something_pickled_is_not_handed_out(program):
    export._check_no_pickle(program)
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"x" if name.endswith("sample_inputs/model.pt") else old.read(name))
    with pytest.raises(ArtifactError, match=r"sample_inputs.*no file was written"):
        export._check_no_pickle(changed.getvalue())


def test_a_file_that_computes_something_else_is_not_handed_out(data, monkeypatch):
    model = made(data)
    monkeypatch.setattr(export.Encoder, "forward", lambda self, xyz: self.head(self.network(xyz)).mean + 1e-3)
    for make in (to_onnx, to_program):
        with pytest.raises(ArtifactError, match="differ from the model"):
            make(model)


def test_what_is_lacking_is_named(monkeypatch):
    for make in (to_onnx, to_program):
        with pytest.raises(NotSupportedError, match="fit"):
            make(MoleculeVAE())
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[molecules\]'"):
        to_onnx(MoleculeVAE())
