"""Ray Data on two workers of this machine gives the file that one process gives."""

import json
import logging
import sys

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from noumena.density.model import VAE
from noumena.density.table import as_table
from noumena.engines.ray_data import _chunks, _connected, _noted, _ray, _row, chunks_by_ray
from noumena.engines.work import Work
from noumena.multimodal.model import MVAE
from tests.cli.test_cli import run
from tests.multimodal.bodies import SMALL, observations

pytest.importorskip("ray")

NAMES = ["height", "width", "mass"]
SIZES = (300, 170, 411, 64)
RAY = ("--engine", "ray", "--workers", 2)


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine for all tests here; afterwards nothing of it is left."""
    ray = _ray()
    with _connected(ray, 2):
        yield ray
    left = [other.info["cmdline"] for other in processes_of_ray()]
    assert left == []


def processes_of_ray():
    """Those that this process has started, and theirs."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "ray" in " ".join(child.cmdline()[:4])
    ]


def write(path, rows):
    pyarrow.parquet.write_table(pa.table({name: rows[:, i] for i, name in enumerate(NAMES)}), path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A calibrated model, and a folder of tables of several lengths."""
    folder = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(0)
    normal = torch.from_numpy(rng.normal(size=(1300, 3)).astype(np.float32))
    model = VAE(hidden_dims=[8], latent_dim=2, draws=4)
    model.fit(as_table(normal[:400], NAMES), max_epochs=1, batch_size=100, seed=0, progress=False)
    model.calibrate(as_table(normal[400:], NAMES), 0.05)
    model.save(folder / "model")
    (folder / "rows").mkdir()
    for number, size in enumerate(SIZES):
        rows = rng.normal(size=(size, 3))
        rows[-9:] += 9.0
        write(folder / "rows" / f"part-{number}.parquet", rows)
    return folder


def result(capfd, *arguments):
    """The summary that a verb prints; it prints nothing else."""
    code, out, err = run(capfd, *arguments, "--json", "--chunk-rows", 128)
    assert code == 0, err
    assert err == ""
    return {**json.loads(out), "output": ""}


@pytest.mark.usefixtures("cluster")
def test_scores_of_many_files_are_those_of_one_process_to_the_byte(saved, tmp_path, capfd):
    options = (saved / "model", saved / "rows", "--fdr", 0.1)
    alone = result(capfd, "score", *options, "-o", tmp_path / "alone.parquet")
    shared = result(capfd, "score", *options, "-o", tmp_path / "shared.parquet", *RAY)
    assert alone == shared
    assert alone["rows"] == sum(SIZES)
    assert (tmp_path / "alone.parquet").read_bytes() == (tmp_path / "shared.parquet").read_bytes()


@pytest.mark.usefixtures("cluster")
def test_latents_in_a_folder_of_files_are_those_of_one_file(saved, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("noumena.cli.output.PART_BYTES", 5000)
    options = ("encode", saved / "model", f"{saved}/rows/part-*.parquet", "--time-step", 0.5)
    result(capfd, *options, "-o", tmp_path / "alone.parquet")
    result(capfd, *options, "-o", f"{tmp_path}/shared.parquet/", *RAY)
    parts = sorted((tmp_path / "shared.parquet").iterdir())
    assert len(parts) > 2
    shared = pa.concat_tables(map(pyarrow.parquet.read_table, parts))
    alone = pyarrow.parquet.read_table(tmp_path / "alone.parquet")
    assert shared.equals(alone)
    assert alone.column_names == ["time", "z0", "z1"]
    np.testing.assert_array_equal(alone["time"], 0.5 * np.arange(sum(SIZES)))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_another_family_is_encoded_the_same(tmp_path, capfd):
    model = MVAE(**SMALL)
    model.fit(observations(100), max_epochs=1, batch_size=50, seed=0, progress=False)
    model.save(tmp_path / "model")
    for number in range(3):
        data = observations(40 + number, seed=number)
        np.savez(tmp_path / f"{number}.npz", **{name: data[name].numpy() for name in data.names})
    for options, target in (((), "alone.npz"), (RAY, "shared.npz")):
        result(capfd, "encode", tmp_path / "model", f"{tmp_path}/?.npz", "-o", tmp_path / target, *options)
    with np.load(tmp_path / "alone.npz") as alone, np.load(tmp_path / "shared.npz") as shared:
        assert alone.files == shared.files
        assert len(alone["z0"]) == 123
        for name in alone.files:
            np.testing.assert_array_equal(alone[name], shared[name], strict=True)


def faulty(saved, folder, fault):
    """Tables of which the third, and behind it the last, is faulty; and what is said of the third."""
    folder.mkdir()
    for number, file in enumerate(sorted((saved / "rows").iterdir())):
        table = pyarrow.parquet.read_table(file)
        rows = np.column_stack([table[name].to_numpy() for name in NAMES])
        if fault == "column" and number >= 2:
            pyarrow.parquet.write_table(table.drop_columns(["mass"]), folder / file.name)
            continue
        if number >= 2:
            rows[60 - number, 1] = np.nan
        write(folder / file.name, rows)
    return folder


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("fault", "words"), [("nan", "row 58"), pytest.param("column", "'mass'", marks=pytest.mark.slow)]
)
def test_the_first_fault_in_the_order_of_the_files_is_named_and_nothing_is_left(saved, tmp_path, capfd, fault, words):
    folder = faulty(saved, tmp_path / "rows", fault)
    said = []
    for options in ((), RAY):
        target = tmp_path / "out" / "scores.parquet"
        code, _, err = run(capfd, "score", saved / "model", folder, "-o", target, "--chunk-rows", 128, *options)
        assert code == 3
        assert list(target.parent.iterdir()) == []
        said.append(err)
    assert said[0] == said[1]
    assert str(folder / "part-2.parquet") in said[1]
    assert words in said[1]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(saved, cluster):
    files = [str(file) for file in sorted((saved / "rows").iterdir())] * 6
    found = chunks_by_ray(saved / "model", files, Work("scores"), workers=2, chunk_rows=2)
    first = next(found)
    workers = [child for child in processes_of_ray() if "_Worker" in " ".join(child.cmdline())]
    assert workers
    workers[0].kill()
    scores = np.concatenate([first["score"], *(columns["score"] for columns in found)])
    expected = np.concatenate(
        [c["score"] for c in chunks_by_ray(saved / "model", files[:4], Work("scores"), workers=2, chunk_rows=2)]
    )
    np.testing.assert_array_equal(scores, np.tile(expected, 6))


@pytest.mark.usefixtures("cluster")
def test_more_workers_than_the_cluster_has_processors_are_refused(saved, capfd):
    code, _, err = run(capfd, "score", saved / "model", saved / "rows", "--engine", "ray", "--workers", 3)
    assert code == 2
    assert "--workers 3" in err
    assert "has 2" in err


def test_what_a_worker_logs_is_logged_here(caplog):
    with _noted() as notes:
        logging.getLogger("noumena").warning("3 structures skipped")
        (found,) = _chunks(_row(notes, columns={"score": np.arange(3.0)}))
    np.testing.assert_array_equal(found["score"], np.arange(3.0))
    assert [record.getMessage() for record in caplog.records] == ["3 structures skipped"] * 2


def test_without_ray_the_command_that_installs_it_is_named(saved, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run(capfd, "encode", saved / "model", saved / "rows", *RAY)
    assert code == 2
    assert "pip install 'noumena[ray]'" in err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--engine", "rya"), 2, "Did you mean 'ray'?"),
        (("--workers", 2), 2, "--engine ray"),
        (("-o", "{there}/"), 4, "exists already"),
        (("-o", "{there}"), 4, "is a folder"),
        (("-o", "{there}/new/"), 2, "new.parquet/"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_computed(saved, tmp_path, capfd, options, code, words):
    there = tmp_path / "there.parquet"
    there.mkdir()
    filled = [str(option).format(there=there) for option in options]
    found, _, err = run(capfd, "encode", saved / "model", saved / "rows", *filled)
    assert found == code
    assert words in err
    assert list(there.iterdir()) == []
