import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import noumena
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from tests.cli.test_cli import run
from tests.molecules.conformers import conformations

NAMES = ("height", "width", "mass")


def table(n, seed):
    rng = np.random.default_rng(seed)
    height = rng.normal(size=n)
    return np.stack([height, 2 * height + 0.2 * rng.normal(size=n), rng.normal(size=n)], 1).astype("float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A calibrated model, a file of rows of which 3, 17 and 30 are anomalies, and a file of normal rows."""
    folder = tmp_path_factory.mktemp("explain")
    rows = table(40, seed=2)
    rows[3] += [0, 9, 0]
    rows[17] += [0, 0, 25]
    rows[30] += [4, 0, 0]
    for name, values in (("data", rows), ("normal", table(150, seed=3))):
        text = [",".join(NAMES), *(",".join(str(value) for value in row) for row in values)]
        (folder / f"{name}.csv").write_text("\n".join(text) + "\n")
    model = GaussianMixture(components=1)
    splits = noumena.registry.resolve("noumena.density.data:open_table")(str(folder / "normal.csv"))
    model.fit(splits.train, splits.val)
    model.calibrate(table(99, seed=4), 0.02)
    model.save(folder / "model")
    return folder, model, rows


def test_the_most_unusual_rows_are_explained_lowest_first(saved, tmp_path, capfd):
    folder, model, rows = saved
    target = tmp_path / "why.parquet"
    arguments = ("explain", folder / "model", folder / "data.csv", "--top", 3, "-o", target, "--chunk-rows", 7)
    code, _, err = run(capfd, *arguments)
    assert code == 0, err
    found = {
        name: column.to_numpy() for name, column in zip(*_columns(pyarrow.parquet.read_table(target)), strict=True)
    }
    assert set(found["row"]) == {3, 17, 30}
    scores = model.score_samples(rows[found["row"]])
    np.testing.assert_allclose(found["score"], scores, rtol=1e-6)
    assert (np.diff(found["score"]) >= 0).all()
    np.testing.assert_allclose(found["p_value"], model.p_value_of(scores))
    total = sum(found[f"contribution.{name}"] for name in NAMES) + found["base"] + found["residual"]
    np.testing.assert_allclose(total, scores, rtol=1e-4)
    heaviest = found["row"].tolist().index(17)
    assert min(NAMES, key=lambda name: found[f"contribution.{name}"][heaviest]) == "mass"
    # The nearest normal row comes from the file, and the changed row is normal.
    nearest = np.stack([found[f"nearest.{name}"] for name in NAMES], 1)
    np.testing.assert_array_equal(nearest, rows[found["nearest_row"]])
    change = np.stack([found[f"change.{name}"] for name in NAMES], 1)
    assert found["change_reached"].all()
    assert (model.score_samples(rows[found["row"]] + change) >= float(model.threshold) - 1e-3).all()


def _columns(read):
    return read.column_names, read.columns


def test_rows_asked_for_come_in_the_order_asked_for_with_what_may_not_change(saved, tmp_path, capfd):
    folder, model, _ = saved
    picture = tmp_path / "why.png"
    arguments = ("--rows", "30,3", "--keep", "mass", "--reference", folder / "normal.csv", "--target-p", 0.1)
    code, text, err = run(
        capfd, "explain", folder / "model", folder / "data.csv", *arguments, "--figure", picture, "--json"
    )
    assert code == 0, err
    rows = json.loads(text)["rows"]
    assert [row["row"] for row in rows] == [30, 3]
    assert all(row["change_by_column"]["mass"] == 0.0 for row in rows)
    assert all(model.p_value_of(np.array([row["change_score"]])) >= 0.1 for row in rows)
    assert all(row["nearest_row"] < 150 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
def test_a_row_that_is_its_own_reference_has_a_picture_without_bars(saved, tmp_path, capfd):
    folder, _, _ = saved
    picture = tmp_path / "why.png"
    code, _, err = run(capfd, "explain", folder / "model", folder / "data.csv", "--rows", "0", "--figure", picture)
    assert code == 0, err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_terminal_shows_a_table(saved, capfd, monkeypatch):
    folder, model, rows = saved
    monkeypatch.setenv("COLUMNS", "240")
    code, text, err = run(capfd, "explain", folder / "model", folder / "data.csv", "--top", 1)
    assert code == 0, err
    lowest = int(model.score_samples(rows).argmin())
    assert f" {lowest} " in text
    assert {3: "width -", 17: "mass -", 30: "height -"}[lowest] in text


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        (("--rows", "3,x"), 2, "--rows 3,17"),
        (("--rows", "40"), 3, "there is no row 40; it has 40"),
        (("--keep", "weight"), 2, "no column 'weight'"),
        (("--space", "latent"), 2, "space='data'"),
        (("--figure", "why.gif"), 2, ".png"),
        (("--top", "21", "--figure", "why.png"), 2, "at most 20"),
        (("-o", "why.txt"), 2, ".parquet"),
    ],
)
def test_faults_are_named(saved, capfd, monkeypatch, tmp_path, options, expected, words):
    folder, _, _ = saved
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capfd, "explain", folder / "model", folder / "data.csv", *options)
    assert (code, words in err) == (expected, True), err
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_family_is_refused_in_words(tmp_path, capfd):
    pytest.importorskip("rdkit.Chem")
    from noumena.molecules.model import MoleculeVAE

    data = conformations("CC(=O)N[C@@H](C)C(=O)NC", frames=10)
    model = MoleculeVAE(z_dim=2, width=8, blocks=1, mixture=1)
    model.prepare(data, seed=0)
    model.save(tmp_path / "molecule")
    code, _, err = run(capfd, "explain", tmp_path / "molecule", "any.npz")
    assert code == 2
    assert "density family" in err


def test_a_model_is_exported_with_its_threshold(saved, tmp_path, capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, model, rows = saved
    code, text, err = run(capfd, "export", folder / "model", "-o", tmp_path / "scorer.onnx")
    assert code == 0, err
    assert "density/gmm" in text
    session = onnxruntime.InferenceSession(str(tmp_path / "scorer.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(["is_anomaly"], {"rows": rows})[0]
    np.testing.assert_array_equal(found, model.predict_anomaly(rows))


def test_a_model_without_latents_or_threshold_is_explained_as_far_as_it_goes(saved, tmp_path, capfd):
    folder, _, _ = saved
    model = VAE(hidden_dims=(4,), latent_dim=1, scoring="reconstruction")
    model.fit(table(60, seed=1), max_epochs=1, accelerator="cpu")
    model.schema["columns"] = list(NAMES)
    model.save(tmp_path / "vae")
    code, _, err = run(
        capfd, "explain", tmp_path / "vae", folder / "data.csv", "--method", "terms", "-o", tmp_path / "why.csv"
    )
    assert code == 0, err
    names = pyarrow.csv.read_csv(tmp_path / "why.csv").column_names
    assert names == ["row", "score", "base", "residual", *(f"contribution.{name}" for name in NAMES)]
