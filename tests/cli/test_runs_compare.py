import json
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import noumena
from noumena.density.model import VAE
from noumena.files import busy, is_busy
from noumena.registry import model_names
from tests.cli.test_cli import _modules_after, run
from tests.multimodal import files

TINY = ["model.hidden_dims=[8]", "model.latent_dim=2", "fit.batch_size=64", "evaluate.baselines=false"]


@contextmanager
def without_pictures():
    """Runs inside write no report, which nothing here reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noumena.evaluation.report.save_figures", lambda *_: [])
        patch.setattr("noumena.evaluation.report.write_report", lambda path, **_: path)
        yield


def make(recipe, overrides, out):
    with without_pictures():
        noumena.run_recipe(recipe, overrides, out=out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs: two VAEs and a mixture on one table, a VAE on another, a multimodal one in a sweep's folder, an
    interrupted one, a broken one, a training from Python, and a saved model."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for name, rows in (("one", 240), ("two", 200)):
        np.savetxt(folder / f"{name}.csv", rng.normal(size=(rows, 3)), delimiter=",", header="a,b,c", comments="")
    one, two = f"data.path={folder / 'one.csv'}", f"data.path={folder / 'two.csv'}"
    table = ["fit.max_epochs=2", *TINY]
    make("density/table", [one, *table], folder / "a")
    make("density/table", [one, *table, "fit.max_epochs=3", "fit.lr=0.01"], folder / "b")
    make("density/table", [two, *table], folder / "other")
    make("density/table-gmm", [one, "model.components=2", "evaluate.baselines=false"], folder / "gmm")
    arrays = files.write(folder, "npz", files.arrays(120), None)
    options = [f"data.path={arrays}", "data.group=path_id", "data.modalities=[pose,force]", "model.hidden_dims=[8]"]
    make("multimodal/table", [*options, "fit.max_epochs=1", "evaluate.baselines=false"], folder / "sweep" / "trial-0")
    # What a kill in the last epoch leaves.
    shutil.copytree(folder / "a", folder / "killed")
    shutil.rmtree(folder / "killed" / "model")
    (folder / "killed" / "evaluation.json").unlink()
    shutil.copytree(folder / "a", folder / "damaged")
    weights = folder / "damaged" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    model = VAE(latent_dim=2, hidden_dims=[8])
    model.fit(rng.normal(size=(100, 3)).astype(np.float32), max_epochs=1, run_dir=folder / "python")
    model.save(folder / "saved")
    return folder


def listed(capfd, *arguments):
    code, out, err = run(capfd, "runs", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def names(entries):
    return [entry["run"].rpartition("/")[2] for entry in entries]


def test_runs_tells_the_state_of_each_and_why(runs, capfd):
    found = {entry["run"].removeprefix(f"{runs}/"): entry for entry in listed(capfd, runs)}
    states = {name: (entry["state"], entry["reason"]) for name, entry in found.items()}
    size = (runs / "a" / "model" / "model.safetensors").stat().st_size
    assert states == {
        **dict.fromkeys(("a", "b", "other", "gmm", "sweep/trial-0"), ("finished", "")),
        "killed": ("interrupted", "2 of 2 epochs"),
        "damaged": ("broken", f"model/model.safetensors has {size - 8} bytes instead of {size}"),
        "python": ("finished", "made in Python: not evaluated"),
    }
    assert found["a"]["model"] == "density/vae"
    assert found["a"]["recipe"] == "density/table"
    assert found["a"]["epochs"] == 2
    assert found["a"]["data"] == found["b"]["data"] == found["gmm"]["data"] != found["other"]["data"]
    metrics = json.loads((runs / "a" / "evaluation.json").read_text())
    assert metrics.items() <= found["a"]["metrics"].items()
    assert "best_epoch/val_loss" in found["killed"]["metrics"]


def test_a_run_listed_as_interrupted_can_be_resumed(runs, tmp_path, capfd):
    shutil.copytree(runs / "killed", tmp_path / "killed")
    with without_pictures():
        code, _, err = run(capfd, "fit", "--resume", tmp_path / "killed", "--json")
    assert code == 0, err
    (resumed,) = listed(capfd, tmp_path)
    (straight,) = listed(capfd, runs / "a")
    assert resumed["state"] == "finished"
    assert resumed["metrics"] == straight["metrics"]


def test_a_run_that_a_process_is_at_is_listed_as_training_and_not_resumed(runs, tmp_path, capfd):
    shutil.copytree(runs / "killed", tmp_path / "killed")
    with busy(tmp_path / "killed"):
        [entry] = listed(capfd, tmp_path / "killed")
        assert entry["state"] == "training"
        code, _, err = run(capfd, "fit", "--resume", tmp_path / "killed")
        assert code == 4
        assert "is being trained by another process" in err
    [entry] = listed(capfd, tmp_path / "killed")
    assert entry["state"] == "interrupted"


def test_the_mark_of_a_killed_process_is_gone(tmp_path):
    code = f"from noumena.files import busy\nwith busy({str(tmp_path)!r}):\n    print(flush=True)\n    input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert is_busy(tmp_path)
    process.kill()
    process.communicate()
    assert not is_busy(tmp_path)


def test_runs_sorts_by_a_metric_with_those_that_lack_it_last(runs, capfd):
    def sorted_by(*options):
        return listed(capfd, runs, "--family", "density", "--best", *options)

    found = sorted_by("auroc/shift_1")
    values = [entry["metrics"].get("auroc/shift_1") for entry in found]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [None, None]
    assert set(names(found)[len(known) :]) == {"killed", "python"}
    losses = [entry["metrics"]["best_epoch/train_loss"] for entry in sorted_by("best_epoch/train_loss")]
    assert losses == sorted(losses)
    for short, full in (("train_loss", "train_loss"), ("val_loss", "val_loss"), ("loss", "val_loss")):
        assert names(sorted_by(short)) == names(sorted_by(f"best_epoch/{full}"))
    turned = [entry["metrics"]["best_epoch/train_loss"] for entry in sorted_by("best_epoch/train_loss", "--higher")]
    assert turned == losses[::-1]


def test_runs_of_one_family(runs, capfd):
    assert names(listed(capfd, runs, "--family", "multimodal")) == ["trial-0"]
    assert listed(capfd, runs, "--family", "crystals") == []


def test_the_list_on_the_terminal_warns_of_different_data(runs, capfd):
    code, text, err = run(capfd, "runs", runs, "--best", "test_loss", "--family", "density")
    assert code == 0, err
    assert "2 different data sets" in text
    assert "interrupted" in text
    assert "Traceback" not in text + err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--best", "auroc/shft_1"], 2, "Nearest: auroc/shift_1"),
        (["--best", "test_score_mean"], 2, "--lower or --higher"),
        (["--lower"], 2, "--best METRIC"),
        (["--family", "densty"], 2, "Did you mean 'density'?"),
    ],
)
def test_wrong_options_of_runs_get_one_readable_block(runs, capfd, options, code, says):
    found, _, err = run(capfd, "runs", runs, *options)
    assert found == code
    assert says in err


def test_no_folder_is_an_error_and_no_runs_is_none(tmp_path, capfd):
    code, _, err = run(capfd, "runs", tmp_path / "gone")
    assert code == 4
    assert "is no folder" in err
    code, out, err = run(capfd, "runs", tmp_path)
    assert (code, out) == (0, "")
    assert "no runs" in err


def compared(capfd, *arguments):
    code, out, err = run(capfd, "compare", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_compare_shows_what_was_set_and_what_came_out(runs, capfd):
    a, b = (str(runs / name) for name in "ab")
    found = compared(capfd, a, b)
    assert found["notes"] == []
    assert set(found["configuration"]) == {"fit.max_epochs", "fit.lr"}
    assert found["configuration"]["fit.max_epochs"] == {a: 2, b: 3}
    assert found["training"]["epochs"]["values"] == {a: 2, b: 3}
    parameters = sum(parameter.numel() for parameter in noumena.load(a).parameters())
    assert found["training"]["parameters"]["values"] == {a: parameters, b: parameters}
    auroc = found["metrics"]["auroc/shift_1"]
    assert auroc["values"][a] == json.loads((runs / "a" / "evaluation.json").read_text())["auroc/shift_1"]
    if auroc["values"][a] != auroc["values"][b]:
        assert auroc["best"] == [max((a, b), key=auroc["values"].get)]
    assert found["metrics"]["test_loss"]["best"] == [min((a, b), key=found["metrics"]["test_loss"]["values"].get)]


def test_compare_marks_nothing_across_data_and_families(runs, capfd):
    for other, says in (("other", "DIFFERENT DATA"), ("sweep/trial-0", "DIFFERENT FAMILIES")):
        found = compared(capfd, runs / "a", runs / other)
        assert any(note.startswith(says) for note in found["notes"])
        assert not any(row["best"] for part in ("training", "metrics") for row in found[part].values())


def test_compare_takes_models_without_a_run_and_broken_and_interrupted_runs(runs, tmp_path, capfd):
    folders = [runs / name for name in ("a", "killed", "damaged", "python", "saved", "gmm", "sweep/trial-0")]
    page = tmp_path / "page.html"
    code, text, err = run(capfd, "compare", *folders, "-o", page)
    assert code == 0, err
    for words in ("B is interrupted: 2 of 2 epochs.", "C is broken: model/model.safetensors", "Without an evaluation"):
        assert words in text
        assert words in page.read_text(encoding="utf-8")
    found = compared(capfd, runs / "a", runs / "saved")
    assert str(runs / "saved") in found["training"]["parameters"]["values"]
    assert str(runs / "saved") not in found["metrics"]["test_loss"]["values"]


def test_compare_chooses_metrics(runs, capfd):
    found = compared(capfd, runs / "a", runs / "b", "-m", "auroc/*", "-m", "test_loss")
    assert set(found["metrics"]) >= {"test_loss", "auroc/shift_1"}
    assert all(name == "test_loss" or name.startswith("auroc/") for name in found["metrics"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["a"], 2, "two or more"),
        (["a", "a"], 2, "given twice"),
        (["a", "gone"], 4, "it is no folder"),
        (["a", "b", "-m", "aurok/*"], 2, "Nearest: auroc"),
        (["a", "b", "-o", "page.pdf"], 2, "unknown ending '.pdf'"),
    ],
)
def test_wrong_arguments_of_compare_get_one_readable_block(runs, capfd, monkeypatch, arguments, code, says):
    monkeypatch.chdir(runs)
    found, _, err = run(capfd, "compare", *arguments)
    assert found == code
    assert says in err


def test_the_verbs_import_nothing_heavy_before_they_run():
    found = _modules_after("import noumena.cli.runs, noumena.cli.compare")
    assert not found & {"torch", "rich", "noumena.evaluation", "matplotlib"}


def test_models_are_listed_with_a_line_of_their_own_and_without_importing_them(capfd):
    code, out, _ = run(capfd, "models", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == set(model_names())
    assert len(set(found.values())) == len(found)
    assert all(line == line.strip() and "\n" not in line and "``" not in line for line in found.values())
    assert "torch" not in _modules_after("from noumena.cli.listings import models; models()")
