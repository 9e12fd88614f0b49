import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import noumena
from noumena.density.model import VAE
from noumena.multimodal.model import MVAE
from tests.cli.test_cli import _modules_after, run
from tests.multimodal.bodies import SMALL, observations

NAMES = ("pose", "force", "shape")
WEIGHTS = Path(__file__).parents[1] / "multimodal" / "prosoro" / "mvae_cylinder_1.0_1.0_0.1_8.pth"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder, and rows of all its modalities in an .npz file."""
    folder = tmp_path_factory.mktemp("multimodal")
    model = MVAE(**SMALL)
    model.fit(observations(300), observations(60, seed=4), max_epochs=2, batch_size=64, lr=2e-3, seed=0)
    model.save(folder / "model")
    data = observations(50, seed=5)
    np.savez(folder / "rows.npz", **{name: data[name].numpy() for name in NAMES})
    return folder / "model", folder / "rows.npz"


def arrays(path, names):
    """The modalities of a written file, by the names of their columns where it has them."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pyarrow.parquet.read_table(path)
    return {
        name: np.column_stack(
            [table[c].to_numpy() for c in table.column_names if c.partition(".")[0] == name]  # in their order
        )
        for name in names
    }


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_infer_writes_means_and_deviations_in_every_format(saved, tmp_path, capfd, ending):
    folder, rows = saved
    target = tmp_path / f"out.{ending}"
    options = ["--inputs", "pose", "--targets", "force", "--targets", "shape", "--chunk-rows", 16]
    code, text, err = run(capfd, "infer", folder, rows, *options, "-o", target)
    assert code == 0, err
    assert "50 rows" in text
    with np.load(rows) as archive:
        expected = noumena.load(folder).infer({"pose": archive["pose"]}, ["force", "shape"])
    found = arrays(target, ["force", "force_std", "shape", "shape_std"])
    for name, (mean, std) in expected.items():
        np.testing.assert_allclose(found[name], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[f"{name}_std"], std, rtol=1e-4, atol=1e-5)
    if ending == "parquet":
        columns = pyarrow.parquet.read_table(target).column_names
        assert {"force.Fx", "force_std.Tz", "shape.ux0", "shape_std.uz23"} <= set(columns)
        assert len(columns) == 2 * (6 + 72)


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_what_infer_wrote_can_be_read_as_data(saved, tmp_path, capfd, ending):
    folder, rows = saved
    first, second = tmp_path / f"first.{ending}", tmp_path / "second.npz"
    assert run(capfd, "infer", folder, rows, "--inputs", "pose", "--targets", "force", "-o", first)[0] == 0
    code, text, err = run(capfd, "infer", folder, first, "-o", second, "--json")
    assert code == 0, err
    assert json.loads(text) == {"rows": 50, "targets": ["pose", "shape"], "output": str(second)}
    expected = noumena.load(folder).infer({"force": arrays(first, ["force"])["force"]}, ["pose"])["pose"]
    np.testing.assert_allclose(arrays(second, ["pose"])["pose"], expected.mean, rtol=1e-4, atol=1e-5)


def test_infer_takes_all_modalities_of_the_data_and_infers_all(saved, tmp_path, capfd):
    folder, rows = saved
    target = tmp_path / "out.npz"
    assert run(capfd, "infer", folder, rows, "--no-std", "-o", target)[0] == 0
    with np.load(target) as found, np.load(rows) as archive:
        assert set(found.files) == set(NAMES)
        expected = noumena.load(folder).infer(dict(archive), NAMES)
        np.testing.assert_allclose(found["shape"], expected["shape"].mean, rtol=1e-4, atol=1e-5)


def test_encode_reconstruct_and_sample_agree_with_the_library(saved, tmp_path, capfd):
    folder, rows = saved
    model = noumena.load(folder)
    with np.load(rows) as archive:
        data = dict(archive)
    code, _, err = run(capfd, "encode", folder, rows, "-o", tmp_path / "z.parquet")
    assert code == 0, err
    z = pyarrow.parquet.read_table(tmp_path / "z.parquet")
    mean = model.encode(data).mean.detach().numpy()
    np.testing.assert_allclose(np.column_stack([z[f"z{i}"] for i in range(8)]), mean, rtol=1e-4, atol=1e-5)
    code, _, err = run(capfd, "reconstruct", folder, rows, "-o", tmp_path / "r.csv", "--chunk-rows", 20)
    assert code == 0, err
    found = arrays(tmp_path / "r.csv", NAMES)
    for name, values in model.reconstruct(data).items():
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, atol=1e-5)
    code, _, err = run(capfd, "sample", folder, "-n", 30, "-o", tmp_path / "s.npz")
    assert code == 0, err
    drawn = arrays(tmp_path / "s.npz", NAMES)
    assert {name: array.shape for name, array in drawn.items()} == {
        "pose": (30, 6),
        "force": (30, 6),
        "shape": (30, 72),
    }
    assert run(capfd, "encode", folder, tmp_path / "s.npz", "-o", tmp_path / "again.npz")[0] == 0
    code, text, _ = run(capfd, "sample", folder, "-n", 2)
    assert text.splitlines()[0].startswith('"pose.Dx","pose.Dy"')


def test_export_writes_a_file_that_infers(saved, tmp_path, capfd):
    runtime = pytest.importorskip("onnxruntime")
    folder, rows = saved
    target = tmp_path / "model.onnx"
    options = ["--inputs", "force", "--targets", "pose"]
    code, text, err = run(capfd, "export", folder, "-o", target, *options, "--json")
    assert code == 0, err
    assert json.loads(text)["bytes"] == target.stat().st_size
    assert not err
    with np.load(rows) as archive:
        force = archive["force"]
    found = runtime.InferenceSession(target, providers=["CPUExecutionProvider"]).run(["pose"], {"force": force})[0]
    expected = noumena.load(folder).infer({"force": force}, ["pose"])["pose"].mean
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert run(capfd, "export", folder, "-o", tmp_path / "model.pt", *options)[0] == 2
    assert run(capfd, "export", folder, "-o", target, "--inputs", "force", "--targets", "posse")[0] == 2


def test_weights_of_prosoro_become_a_model_folder(tmp_path, capfd, caplog):
    code, text, err = run(capfd, "import", "prosoro", WEIGHTS, "-o", tmp_path / "model", "--json")
    assert code == 0, err
    assert "standardised" in caplog.text
    facts = json.loads(text)
    assert facts["sizes"] == {"pose": 6, "force": 6, "shape": 60}
    assert facts["physical_units"] is False
    assert noumena.load(tmp_path / "model").fusion == "align"
    assert run(capfd, "verify", tmp_path / "model")[0] == 0
    code, _, err = run(capfd, "import", "prosoro", WEIGHTS, "-o", tmp_path / "model")
    assert code == 4
    assert "exists" in err
    names = ["--names", "motion", "wrench", "nodes"]
    assert run(capfd, "import", "prosoro", WEIGHTS, "-o", tmp_path / "other", *names)[0] == 0
    assert noumena.load(tmp_path / "other").names == ("motion", "wrench", "nodes")
    unnamed = shutil.copy(WEIGHTS, tmp_path / "best.pth")
    code, _, err = run(capfd, "import", "prosoro", unnamed, "-o", tmp_path / "best")
    assert code == 2
    assert "mvae_" in err


def test_verbs_of_another_family_are_refused_in_words(saved, tmp_path, capfd):
    folder, rows = saved
    code, _, err = run(capfd, "score", folder, rows, "-o", tmp_path / "out.csv")
    assert code == 2
    assert "density" in err
    vae = VAE(latent_dim=2, hidden_dims=[4])
    table = np.random.default_rng(0).normal(size=(40, 3))
    vae.fit(table, max_epochs=1, batch_size=20, seed=0)
    vae.save(tmp_path / "vae")
    np.save(tmp_path / "table.npy", table)
    code, _, err = run(capfd, "infer", tmp_path / "vae", tmp_path / "table.npy", "-o", tmp_path / "out.csv")
    assert code == 2
    assert "multimodal" in err
    options = ["--inputs", "x", "--targets", "x"]
    code, _, err = run(capfd, "export", tmp_path / "vae", "-o", tmp_path / "out.onnx", *options)
    assert code == 2
    assert "modalities" in err
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--inputs", "poes"], 2, ["'pose'"]),
        (["--targets", "forse"], 2, ["'force'"]),
        (["--inputs", "pose", "-o", "out.xls"], 2, [".xls", ".npz"]),
    ],
)
def test_unusable_requests_to_infer_are_refused_in_words(saved, capfd, arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capfd, "infer", *saved, *arguments)
    assert found == code, err
    for word in words:
        assert word in err
    assert run(capfd, "infer", saved[0], "gone.npz", "-o", "out.npz")[0] == 3
    assert not list(tmp_path.iterdir())


def test_help_of_the_verbs_imports_no_torch():
    for verb in ("infer", "export", "import_model"):
        assert "torch" not in _modules_after(f"import noumena.cli.{verb}")
