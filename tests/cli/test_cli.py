import json
import subprocess
import sys

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import noumena
from noumena.cli.main import main


def run(capfd, *arguments):
    """Run the command line in this process; its exit code, output and error output."""
    old = sys.argv
    sys.argv = ["noumena", *map(str, arguments)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = old
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a CSV table with named columns and labels, and that table."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3))
    labels = rng.random(400) < 0.1
    rows[labels] += 8.0
    table = folder / "table.csv"
    header = "height,width,mass,y\n"
    table.write_text(header + "".join(f"{a},{b},{c},{int(y)}\n" for (a, b, c), y in zip(rows, labels, strict=True)))
    out = folder / "run"
    noumena.run_recipe(
        "density/table",
        [f"data.path={table}", "data.label=y", "fit.max_epochs=3", "model.hidden_dims=[16]", "model.latent_dim=2"],
        out=out,
    )
    return out, table


def test_a_run_folder_has_everything(trained):
    out, _ = trained
    names = {path.name for path in out.iterdir()}
    assert {"config.yaml", "metrics.csv", "log.txt", "checkpoints", "model", "figures", "report.html"} <= names
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    assert f"noumena explore {out.name}" in (out / "report.html").read_text()


def test_score_encode_and_reconstruct_agree_with_the_library(trained, tmp_path, capfd):
    out, table = trained
    model = noumena.load(out)
    rows = np.column_stack([pyarrow.csv.read_csv(table)[name].to_numpy() for name in ("height", "width", "mass")])
    expected = {
        "score": model.score_samples(rows),
        "encode": model.encode(rows).mean.detach().numpy(),
        "reconstruct": model.reconstruct(rows).numpy(),
    }
    for verb, values in expected.items():
        target = tmp_path / f"{verb}.parquet"
        code, _, err = run(capfd, verb, out, table, "-o", target, "--chunk-rows", 64)
        assert code == 0, err
        found = pyarrow.parquet.read_table(target)
        first = np.column_stack(
            [found[name].to_numpy() for name in found.column_names if name not in ("is_anomaly", "p_value")]
        )
        np.testing.assert_allclose(first.squeeze(), values.squeeze(), rtol=1e-5, atol=1e-6)
    assert pyarrow.parquet.read_table(tmp_path / "reconstruct.parquet").column_names == ["height", "width", "mass"]


@pytest.mark.parametrize("ending", ["csv", "npz", "parquet"])
def test_scores_are_the_same_in_every_format(trained, tmp_path, capfd, ending):
    out, table = trained
    target = tmp_path / f"scores.{ending}"
    assert run(capfd, "score", out, table, "-o", target)[0] == 0
    if ending == "npz":
        with np.load(target, allow_pickle=False) as archive:
            scores, flags = archive["score"], archive["is_anomaly"]
    else:
        read = pyarrow.csv.read_csv if ending == "csv" else pyarrow.parquet.read_table
        scores, flags = (read(target)[name].to_numpy(zero_copy_only=False) for name in ("score", "is_anomaly"))
    model = noumena.load(out)
    table_rows = pyarrow.csv.read_csv(table)
    rows = np.column_stack([table_rows[name].to_numpy() for name in ("height", "width", "mass")])
    np.testing.assert_array_equal(scores, model.score_samples(rows))
    np.testing.assert_array_equal(flags, model.predict_anomaly(rows))


def test_scores_go_to_the_terminal_without_a_file(trained, capfd):
    out, table = trained
    code, text, _ = run(capfd, "score", out, table)
    assert code == 0
    assert text.splitlines()[0] == '"score","is_anomaly","p_value"'
    assert len(text.splitlines()) == 401


def test_sample_is_the_same_for_the_same_seed(trained, tmp_path, capfd):
    out, _ = trained
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(capfd, "sample", out, "-n", 20, "--seed", seed, "-o", tmp_path / f"{name}.csv")[0] == 0
        texts.append((tmp_path / f"{name}.csv").read_text())
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].splitlines()[0] == '"height","width","mass"'


def test_evaluate_repeats_the_numbers_of_the_run(trained, capfd):
    out, _ = trained
    code, text, err = run(capfd, "evaluate", out, "--json")
    assert code == 0, err
    recorded = json.loads((out / "evaluation.json").read_text())
    assert json.loads(text) == pytest.approx(recorded, nan_ok=True)


def test_evaluate_takes_data_of_another_kind(tmp_path, capfd):
    episodes = tmp_path / "run"
    noumena.run_recipe("density/hopper", ["fit.max_epochs=1", "evaluate.baselines=false"], out=episodes)
    run(capfd, "sample", episodes, "-n", 50, "-o", tmp_path / "rows.csv")
    code, text, err = run(capfd, "evaluate", episodes, tmp_path / "rows.csv", "data.kind=table", "--json")
    assert code == 0, err
    assert "auroc/shift_1" in json.loads(text)


def test_evaluate_takes_other_data_and_a_model_without_its_run(trained, tmp_path, capfd):
    out, table = trained
    code, text, err = run(capfd, "evaluate", out, table, "--json")
    assert code == 0, err
    everything = json.loads(text)
    noumena.load(out).save(tmp_path / "model")
    code, text, err = run(capfd, "evaluate", tmp_path / "model", table, "data.label=y", "--json")
    assert code == 0, err
    alone = json.loads(text)
    assert alone["test_loss"] == pytest.approx(everything["test_loss"])
    assert {key for key in alone if key.startswith("auroc/")}


def test_dry_run_checks_and_trains_nothing(trained, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, table = trained
    code, text, err = run(
        capfd, "fit", "density/table", f"data.path={table}", "data.exclude=[y]", "--dry-run", "--json"
    )
    assert code == 0, err
    facts = json.loads(text)
    assert facts["batch"] == "(64, 3) of 4 per epoch"
    assert not list(tmp_path.iterdir())
    for recipe in ("walker2d", "halfcheetah", "table", "synthetic", "hopper"):
        assert run(capfd, "fit", f"density/{recipe}", "--dry-run")[0] == 0


def test_verify_tells_a_whole_model_from_a_changed_one(trained, tmp_path, capfd):
    out, _ = trained
    assert run(capfd, "verify", out)[0] == 0
    noumena.load(out).save(tmp_path / "model")
    with (tmp_path / "model" / "card.md").open("a") as file:
        file.write("x")
    code, _, err = run(capfd, "verify", tmp_path / "model")
    assert code == 4
    assert "card.md" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "density/nothing"], 2, ["unknown recipe", "density/"]),
        (["fit", "density/synthetic", "fit.lrr=1"], 2, ["fit.lrr", "'lr'"]),
        (["fit", "density/table"], 2, ["data.path"]),
        (["fit", "density/table", "data.path=gone.csv"], 3, ["gone.csv"]),
        (["fit", "--resume", "gone"], 4, ["gone"]),
        (["fit", "density/synthetic", "--resume", "gone"], 2, ["--resume"]),
        (["score", "gone", "x.csv"], 4, ["gone"]),
        (["verify", "gone"], 4, ["gone"]),
        (["frobnicate"], 2, ["frobnicate"]),
        (["demo", "weather"], 2, ["weather", "density"]),
        (["fit", "density/synthetic", "fit.lr=1e18", "fit.max_epochs=30"], 5, ["step", "lr="]),
    ],
)
def test_every_kind_of_error_has_its_exit_code_and_one_readable_block(
    arguments, code, words, capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capfd, "-q", *arguments)
    assert found == code, err
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_unusable_data_and_output_are_refused_by_name(trained, tmp_path, capfd):
    out, _ = trained
    bad = tmp_path / "bad.csv"
    bad.write_text("height,width,mass\n1,2,3\n1,oops,3\n")
    target = tmp_path / "scores.parquet"
    target.write_bytes(b"older")
    code, _, err = run(capfd, "score", out, bad, "-o", target)
    assert code == 3
    assert "width" in err
    assert target.read_bytes() == b"older"
    good = tmp_path / "good.csv"
    good.write_text("mass,width,extra,height\n1,2,3,4\n")
    assert run(capfd, "score", out, good, "-o", tmp_path / "scores.xls")[0] == 2
    assert run(capfd, "score", out, good, "-o", target)[0] == 0
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_run_folder_that_holds_something_is_not_overwritten(tmp_path, capfd):
    (tmp_path / "precious.txt").write_text("data")
    for verb in (["fit", "density/synthetic"], ["demo"]):
        code, _, err = run(capfd, *verb, "--out", tmp_path)
        assert code == 4, err
    assert (tmp_path / "precious.txt").read_text() == "data"


def test_a_demo_replaces_no_other_run(trained, capfd):
    out, _ = trained
    assert run(capfd, "demo", "--out", out)[0] == 4
    assert (out / "report.html").is_file()


def test_a_device_that_is_not_there_is_refused_in_words(trained, capfd):
    out, table = trained
    code, _, err = run(capfd, "score", out, table, "--device", "warp")
    assert code == 2
    assert "'warp'" in err


def test_paths_may_begin_at_home_and_other_values_may_be_names_of_files(trained, tmp_path, capfd, monkeypatch):
    _, table = trained
    monkeypatch.setenv("HOME", str(table.parent))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "y").write_text("a file that is called as the label column is")
    options = [f"data.path=~/{table.name}", "data.label=y", "fit.max_epochs=1", "model.hidden_dims=[4]"]
    code, _, err = run(capfd, "-q", "fit", "density/table", *options, "--out", "run")
    assert code == 0, err
    assert run(capfd, "fit", "density/table", *options, "--dry-run")[0] == 0


def test_resuming_a_finished_run_changes_no_weight(trained, capfd):
    out, _ = trained
    before = (out / "model" / "model.safetensors").read_bytes()
    code, _, err = run(capfd, "fit", "--resume", out)
    assert code == 0, err
    assert (out / "model" / "model.safetensors").read_bytes() == before


def _modules_after(statement):
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_help_imports_no_torch_and_scoring_imports_no_lightning(trained):
    assert "torch" not in _modules_after("import noumena")
    assert "torch" not in _modules_after("import noumena.cli.main")
    out, table = trained
    heavy = {"pytorch_lightning", "sklearn", "matplotlib"}
    call = (
        f"from noumena.cli.data_verbs import score; from pathlib import Path; score(Path({str(out)!r}), {str(table)!r})"
    )
    code = f"import sys; {call}; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stderr.split())
