import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

import noumena
from noumena.cli.data_scoring import scored_by_workers
from noumena.core.errors import ArtifactError
from noumena.density.model import VAE
from noumena.density.selection import select_anomalies
from noumena.density.table import as_table
from tests.cli.test_cli import run

NAMES = ["height", "width", "mass"]
WORKERS = ("--workers", 2)


@pytest.fixture(scope="module")
def mixed():
    """Normal rows and, at the end, anomalies: shape (700, 3)."""
    rows = np.random.default_rng(1).normal(size=(700, 3)).astype(np.float32)
    rows[-60:] += 9.0
    return rows


@pytest.fixture(scope="module")
def saved(tmp_path_factory, mixed):
    """A calibrated model, one without calibration, and a file to score."""
    folder = tmp_path_factory.mktemp("score")
    normal = torch.from_numpy(np.random.default_rng(0).normal(size=(1300, 3)).astype(np.float32))
    model = VAE(hidden_dims=[8], latent_dim=2, draws=4)
    model.fit(as_table(normal[:400], NAMES), max_epochs=1, batch_size=100, seed=0, progress=False)
    model.save(folder / "bare")
    model.calibrate(as_table(normal[400:], NAMES), 0.05)
    model.save(folder / "model")
    table = pa.table({name: mixed[:, i] for i, name in enumerate(NAMES)})
    pa.parquet.write_table(table, folder / "rows.parquet")
    return folder


def columns(path):
    """The columns of a Parquet file as arrays."""
    table = pa.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def score(capfd, saved, target, *options, model="model"):
    """Columns and summary of ``noumena score``."""
    code, out, err = run(capfd, "score", saved / model, saved / "rows.parquet", "-o", target, "--json", *options)
    assert code == 0, err
    return columns(target), json.loads(out)


def test_a_calibrated_model_gives_the_p_values_of_the_library(saved, mixed, tmp_path, capfd):
    found, summary = score(capfd, saved, tmp_path / "a.parquet", "--chunk-rows", 128)
    model = noumena.load(saved / "model")
    assert list(found) == ["score", "is_anomaly", "p_value"]
    np.testing.assert_array_equal(found["p_value"], model.p_value(mixed))
    np.testing.assert_array_equal(found["is_anomaly"], model.predict_anomaly(mixed))
    assert summary["rows"] == 700
    assert summary["anomalies"] == found["is_anomaly"].sum() >= 60
    assert summary["threshold"] == float(model.threshold)
    assert summary["calibration_rows"] == 900


def test_another_false_alarm_rate_is_that_of_the_p_values(saved, tmp_path, capfd):
    found, summary = score(capfd, saved, tmp_path / "a.parquet", "--false-alarm-rate", 0.2)
    np.testing.assert_array_equal(found["is_anomaly"], found["p_value"] <= 0.2)
    assert summary["false_alarm_rate"] == 0.2
    assert summary["threshold"] > float(noumena.load(saved / "model").threshold)


@pytest.mark.parametrize("target", [0.01, 0.1, 0.5])
def test_rows_selected_from_a_file_are_those_selected_in_memory(saved, mixed, tmp_path, capfd, target):
    found, summary = score(capfd, saved, tmp_path / "a.parquet", "--fdr", target, "--chunk-rows", 64)
    expected = select_anomalies(noumena.load(saved / "model"), mixed, target)
    np.testing.assert_array_equal(found["selected"], expected.mask)
    assert summary["selected"] == len(expected)
    assert summary["fdr"] == target


def test_a_target_that_the_calibration_rows_cannot_reach_selects_nothing_and_says_how_many_it_takes(
    saved, tmp_path, capfd
):
    found, summary = score(capfd, saved, tmp_path / "a.parquet", "--fdr", 0.001)
    assert not found["selected"].any()
    assert summary["least_selected"] == np.ceil(700 / (901 * 0.001))


def test_several_processes_give_the_same_file_to_the_last_bit(saved, tmp_path, capfd):
    options = ("--chunk-rows", 64, "--fdr", 0.1)
    alone, facts = score(capfd, saved, tmp_path / "alone.parquet", *options)
    shared, same = score(capfd, saved, tmp_path / "shared.parquet", *options, *WORKERS)
    assert (tmp_path / "alone.parquet").read_bytes() == (tmp_path / "shared.parquet").read_bytes()
    assert {**facts, "output": ""} == {**same, "output": ""}
    assert len(shared["score"]) == len(alone["score"]) == 700


def test_why_nothing_could_be_selected_is_said(saved, tmp_path, capfd, caplog):
    score(capfd, saved, tmp_path / "a.parquet", "--fdr", 0.0016)
    assert "it takes at least 486 of these 700 rows below all of them" in caplog.text


@pytest.mark.parametrize("options", [(), WORKERS])
def test_a_row_that_is_not_finite_is_named_and_no_file_is_left(saved, mixed, tmp_path, capfd, options):
    rows = mixed.copy()
    rows[613, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    target = tmp_path / "out.parquet"
    arguments = ("score", saved / "model", tmp_path / "rows.npy", "-o", target, "--chunk-rows", 50)
    code, _, err = run(capfd, *arguments, *options)
    assert code == 3
    assert "row 613" in err
    assert "NaN" in err
    assert not target.exists()


def test_an_error_in_a_worker_is_raised_here(tmp_path):
    with pytest.raises(ArtifactError, match="gone"):
        list(scored_by_workers(tmp_path / "gone", "density", iter([torch.zeros(2, 3)]), 1))


def test_a_file_of_other_columns_is_refused(saved, tmp_path, capfd):
    np.save(tmp_path / "rows.npy", np.zeros((10, 4), np.float32))
    code, _, err = run(capfd, "score", saved / "model", tmp_path / "rows.npy", *WORKERS)
    assert code == 3
    assert "expected 3 columns" in err


@pytest.mark.parametrize(
    ("options", "model", "words"),
    [
        (("--fdr", 0.1), "bare", ["--fdr", "calibrate"]),
        (("--false-alarm-rate", 0.1), "bare", ["--false-alarm-rate", "calibrate"]),
        (("--fdr", 1.5), "model", ["--fdr", "1.5"]),
        (("--false-alarm-rate", 0), "model", ["--false-alarm-rate"]),
        (("--workers", -1), "model", ["--workers"]),
        (("--workers", 2, "--device", "meta"), "model", ["--workers", "meta"]),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(saved, capfd, options, model, words):
    code, _, err = run(capfd, "score", saved / model, saved / "rows.parquet", *options)
    assert code == 2, err
    for word in words:
        assert word in err


def test_a_model_without_calibration_gives_scores_alone(saved, tmp_path, capfd):
    found, summary = score(capfd, saved, tmp_path / "a.parquet", model="bare")
    assert list(found) == ["score"]
    assert set(summary) == {"rows", "output"}
