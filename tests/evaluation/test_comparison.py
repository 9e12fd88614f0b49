import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from noumena.core.errors import ArtifactError, ConfigError
from noumena.evaluation.comparison import Absent, better, compare, letter
from noumena.evaluation.comparison_page import comparison_json, print_comparison, write_comparison
from noumena.evaluation.overlay import overlaid_curves
from noumena.evaluation.runs import BROKEN, FINISHED, INTERRUPTED, Run, best_losses, find_runs, read_run
from noumena.training import History

NASTY = '<script>alert("x")</script>'
VOID = {"meta", "img", "wbr"}


def history(*losses, **others):
    columns = {"train_loss": [value - 0.5 for value in losses], "val_loss": list(losses), "lr": [1e-3] * len(losses)}
    return History(columns={**columns, **others, "seconds": [2.0] * len(losses)})


def a_run(folder, *, data="sha256:aaaaaaaa11", metrics=None, model="density/vae", config=None, **others):
    """A run that was never on disk."""
    sections = {"model": {"name": model}, "data": {"kind": "table", "path": "t.csv"}, "fit": {"lr": 1e-3}}
    found = {"auroc/labels": 0.9, "test_loss": 2.0} if metrics is None else metrics
    trained = others.pop("history", history(3.0, 2.0, 2.5))
    return Run(
        folder,
        others.pop("state", FINISHED),
        model=model,
        config={**sections, **(config or {})},
        history=trained,
        metrics=found,
        data=data,
        **others,
    )


def settings(comparison):
    return {row.key: row.values for row in comparison.settings}


def best(comparison):
    return {row.name: row.best for row in (*comparison.training, *comparison.metrics)}


def test_only_the_keys_that_differ_are_listed_by_their_dotted_paths(tmp_path):
    one = a_run(tmp_path / "a", config={"fit": {"lr": 1e-3, "seed": 0, "schedule": {"warmup": 1, "kind": "cosine"}}})
    two = a_run(tmp_path / "b", config={"fit": {"lr": 1e-3, "seed": None, "schedule": {"warmup": 2, "kind": "cosine"}}})
    assert settings(compare([one, two])) == {"fit.seed": (0, None), "fit.schedule.warmup": (1, 2)}


def test_a_key_that_a_run_does_not_have_is_not_the_same_as_null(tmp_path):
    one = a_run(tmp_path / "a", config={"fit": {"lr": 1e-3, "patience": None}})
    two = a_run(tmp_path / "b")
    found = compare([one, two])
    assert settings(found) == {"fit.patience": (None, Absent.NOT_SET)}
    assert comparison_json(found)["configuration"] == {"fit.patience": {str(one.path): None}}


def test_of_a_model_without_its_run_the_training_is_unknown_and_no_difference(tmp_path):
    model = Run(tmp_path / "b", FINISHED, model="density/vae", config={"model": {"name": "density/vae", "beta": 2.0}})
    one = a_run(tmp_path / "a", config={"model": {"name": "density/vae", "beta": 1.0}})
    assert settings(compare([one, model])) == {"model.beta": (1.0, 2.0)}
    three = a_run(tmp_path / "c", config={"model": {"name": "density/vae", "beta": 1.0}, "fit": {"lr": 1e-2}})
    assert settings(compare([one, model, three]))["fit.lr"] == (1e-3, Absent.UNKNOWN, 1e-2)


def test_one_and_true_are_different_settings(tmp_path):
    runs = [
        a_run(tmp_path / name, config={"evaluate": {"baselines": value}}) for name, value in (("a", 1), ("b", True))
    ]
    assert settings(compare(runs)) == {"evaluate.baselines": (1, True)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_loss", "lower"),
        ("rmse/pose->force", "lower"),
        ("baseline_pca/pair_rmse", "lower"),
        ("mae", "lower"),
        ("test_false_alarm_rate", "lower"),
        ("samples/bad", "lower"),
        ("auroc/shift_0.1", "higher"),
        ("auroc_mahalanobis/labels", "higher"),
        ("true_positive_rate/labels", "higher"),
        ("match_strict", "higher"),
        ("rms_field", "lower"),
        ("type_accuracy", "higher"),
        ("plan/success", "higher"),
        ("standard_valid_unique_novel", "higher"),
        ("accuracy/bad_parts", "higher"),  # the first part decides
        ("accuracy_error", None),
        ("kl", None),
        ("coverage90/a->b", None),
        ("glossy", None),
        ("truth_without_symmetry", None),
    ],
)
def test_the_direction_of_a_metric_is_known_from_the_words_of_its_name(name, expected):
    assert better(name) == expected


def test_the_best_of_each_row_is_marked_by_its_direction(tmp_path):
    one = a_run(tmp_path / "a", metrics={"auroc/x": 0.9, "test_rmse": 3.0, "kl": 1.0, "mae": 1.0})
    two = a_run(tmp_path / "b", metrics={"auroc/x": 0.8, "test_rmse": 1.0, "kl": 2.0, "mae": 1.00000001})
    three = a_run(tmp_path / "c", metrics={"auroc/x": 0.90000001, "test_rmse": None, "mae": 1.0})
    found = best(compare([one, two, three]))
    assert found["auroc/x"] == {0, 2}  # the same as shown
    assert found["test_rmse"] == {1}
    assert found["kl"] == set()
    assert found["mae"] == set()  # all the same
    assert found["parameters" if "parameters" in found else "epochs"] == set()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": "sha256:bbbbbbbb22"}, "DIFFERENT DATA: trained on A: aaaaaaaa; B: bbbbbbbb"),
        ({"config": {"data": {"kind": "table", "path": "t.csv", "label": "y"}}}, "HELD-OUT DATA MAY DIFFER"),
        ({"data": None, "config": {"data": {"kind": "table", "path": "u.csv"}}}, "DATA NOT KNOWN to be the same: B"),
        ({"model": "crystals/vae"}, "DIFFERENT FAMILIES: A: density; B: crystals"),
    ],
)
def test_no_best_is_marked_across_different_data_and_the_notes_say_why(tmp_path, change, says):
    better_one = {"auroc/labels": 0.95, "test_loss": 1.0}
    found = compare([a_run(tmp_path / "a"), a_run(tmp_path / "b", metrics=better_one, **change)])
    assert [note for note in found.notes if note.startswith(says)], found.notes
    assert not any(best(found).values())


def test_the_same_rows_from_another_place_are_the_same_data(tmp_path):
    moved = a_run(tmp_path / "b", metrics={"auroc/labels": 0.95}, config={"data": {"kind": "table", "path": "u.csv"}})
    found = compare([a_run(tmp_path / "a"), moved])
    assert not found.notes
    assert best(found)["auroc/labels"] == {1}


def test_an_interrupted_run_of_the_same_data_section_may_be_compared(tmp_path):
    stopped = a_run(
        tmp_path / "b", data=None, metrics={}, state=INTERRUPTED, reason="2 of 9 epochs", history=history(1.0, 0.5)
    )
    found = compare([a_run(tmp_path / "a"), stopped])
    assert found.notes == ("B is interrupted: 2 of 9 epochs.", "Without an evaluation: B.")
    assert best(found)["best_epoch/val_loss"] == {1}


def test_losses_of_different_models_are_not_ranked_but_their_scores_are(tmp_path):
    flow = a_run(tmp_path / "b", model="density/flow", metrics={"auroc/labels": 0.95, "test_loss": -3.0})
    found = compare([a_run(tmp_path / "a"), flow])
    assert best(found)["auroc/labels"] == {1}
    assert best(found)["test_loss"] == best(found)["best_epoch/val_loss"] == set()
    assert "losses are different quantities" in " ".join(found.notes)


def test_losses_of_other_hyperparameters_are_not_ranked_those_of_other_training_are(tmp_path):
    metrics = {"auroc/labels": 0.95, "test_loss": 1.0}
    beta = a_run(tmp_path / "b", metrics=metrics, config={"model": {"name": "density/vae", "beta": 0.1}})
    found = best(compare([a_run(tmp_path / "a"), beta]))
    assert (found["auroc/labels"], found["test_loss"]) == ({1}, set())
    faster = a_run(tmp_path / "b", metrics=metrics, config={"fit": {"lr": 0.1}})
    assert best(compare([a_run(tmp_path / "a"), faster]))["test_loss"] == {1}


def test_other_settings_of_the_evaluation_are_said(tmp_path):
    found = compare([a_run(tmp_path / "a"), a_run(tmp_path / "b", config={"evaluate": {"samples": 9}})])
    assert "evaluate.samples" in " ".join(found.notes)


def test_best_losses_are_those_of_the_epoch_of_the_lowest_validation_loss():
    trained = History(columns={"train_loss": [3.0, 2.0, 1.0], "val_loss": [float("nan"), 2.0, 2.5]})
    assert best_losses(trained) == {"best_epoch/train_loss": 2.0, "best_epoch/val_loss": 2.0}
    assert best_losses(History(columns={"train_loss": [3.0, 1.0]})) == {"best_epoch/train_loss": 1.0}
    assert best_losses(History()) == {}


def test_patterns_choose_metrics_and_an_unknown_one_names_the_nearest(tmp_path):
    metrics = {"auroc/shift_1": 0.9, "auroc/shift_2": 0.95, "rmse": 1.0}
    runs = [a_run(tmp_path / name, metrics=metrics) for name in "ab"]
    assert [row.name for row in compare(runs, ["auroc/*", "rmse"]).metrics] == list(metrics)
    assert [row.name for row in compare(runs, ["*_2"]).metrics] == ["auroc/shift_2"]
    with pytest.raises(ConfigError, match=r"no run has the metric 'auroc/shft\*'. Nearest: auroc/shift"):
        compare(runs, ["auroc/shft*"])


def test_a_comparison_needs_two_different_runs(tmp_path):
    with pytest.raises(ConfigError, match="two or more"):
        compare([a_run(tmp_path)])
    with pytest.raises(ConfigError, match="given twice"):
        compare([a_run(tmp_path), a_run(tmp_path / "x" / "..")])


def test_columns_are_lettered_as_in_a_spreadsheet():
    assert [letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


class Outline(HTMLParser):
    """Collects what a page asks for, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.references, self.strong = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "data", "srcset") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "strong":
            self.strong.append(data)


def test_the_page_is_whole_by_itself_and_text_from_files_cannot_run(tmp_path):
    one = a_run(tmp_path / "a", metrics={f"auroc/{NASTY}": 0.8}, config={"fit": {NASTY: NASTY}}, recipe=NASTY)
    two = a_run(tmp_path / NASTY.replace("/", ""), metrics={f"auroc/{NASTY}": 0.9})
    page = write_comparison(tmp_path / "page.html", compare([one, two])).read_text(encoding="utf-8")
    found = Outline()
    found.feed(page)
    found.close()
    assert found.faults == []
    assert found.open == []
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in found.references)
    assert any(reference.startswith("data:image") for reference in found.references)
    assert "<script" not in page
    assert not re.search(r"@import|url\(", page)
    assert found.strong == ["0.900"]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_page_of_runs_without_any_epoch_or_metric_can_be_written(tmp_path):
    runs = [a_run(tmp_path / name, metrics={}, history=History(), state=BROKEN, reason="empty") for name in "ab"]
    page = write_comparison(tmp_path / "page.html", compare(runs)).read_text(encoding="utf-8")
    assert "No epoch was recorded." in page
    assert "A is broken: empty." in page
    assert "<img" not in page


def test_the_terminal_marks_the_best_and_shows_runs_that_do_not_fit_below(tmp_path, capsys):
    runs = [a_run(tmp_path / str(i), metrics={"auroc/[red]": 0.5 + i / 100}) for i in range(6)]
    print_comparison(compare(runs), Console(width=80))
    text = capsys.readouterr().out
    assert text.count(" *") == text.count("0.550 *") == 1
    assert text.count("auroc/[red]") == 2
    assert max(map(len, text.splitlines()[6:])) <= 80


def test_curves_overlay_validation_of_each_run_and_leave_out_the_terms_of_one(tmp_path):
    one = history(3.0, 2.0, 1.0, train_kl=[1.0, 2.0, 3.0], val_kl=[1.0, 2.0, 3.0], train_own=[1.0, 1.0, 1.0])
    two = History(columns={"train_loss": [5.0], "train_kl": [1.0]})
    three = history(3.0, 2.0, 1.0, val_kl=[1.0, 2.0, 3.0])
    picture = overlaid_curves([("_a $x$", one), ("b", two), ("c", three)])
    axes = {axis.get_title(loc="left"): [len(line.get_xdata()) for line in axis.lines] for axis in picture.figure.axes}
    assert axes == {"loss (training)": [3, 1, 3], "loss (validation)": [3, 3], "kl (validation)": [3, 3]}
    colours = {line.get_label(): line.get_color() for axis in picture.figure.axes for line in axis.lines}
    assert len(set(colours.values())) == 3
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["a $x$", "b", "c"]
    assert overlaid_curves([("a", History())]) is None


# Run folders on disk; those that real trainings make are in tests/cli/test_runs_compare.py.


def write_run(folder, text="model:\n  name: density/vae\ndata:\n  kind: table\nfit:\n  max_epochs: 9\n"):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"# recipe: density/table\n{text}")
    return folder


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.yaml", b"model: [", "config.yaml is no configuration"),
        ("config.yaml", b"\xff\xfe", "config.yaml is no configuration"),
        ("config.yaml", b"data:\n  kind: table\n", "config.yaml names no model"),
        ("config.yaml", b"x: 1\n" * 300_000, "config.yaml is no configuration"),
        ("metrics.csv", b"", "metrics.csv is damaged"),
        ("metrics.csv", b"epoch,train_loss\n0,one\n", "metrics.csv is damaged"),
        ("evaluation.json", b'{"rmse": ', "evaluation.json is damaged"),
        ("evaluation.json", b'{"rmse": "0.1"}', "evaluation.json is damaged"),
        ("evaluation.json", b"[" * 100_000, "evaluation.json is damaged"),
        ("checkpoints/last.safetensors", b"half", "the checkpoint is damaged"),
        ("model/manifest.json", b"{}", "model/manifest.json is missing or damaged"),
        ("model/config.json", b"{}", "model/manifest.json is missing or damaged"),
    ],
)
def test_a_damaged_file_makes_a_run_broken_with_a_reason(tmp_path, file, content, reason):
    folder = write_run(tmp_path / "run")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    (run,) = find_runs(tmp_path)
    assert (run.state, run.reason) == (BROKEN, reason)


def test_a_run_before_its_first_checkpoint_is_interrupted(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert (run.state, run.reason, run.recipe) == (INTERRUPTED, "before its first checkpoint", "density/table")
    assert run.when is not None


def test_numbers_that_are_not_finite_are_none(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "evaluation.json").write_text('{"rmse": NaN, "mae": null, "n": 3}')
    assert read_run(folder).metrics == {"rmse": None, "mae": None, "n": 3}


def test_runs_are_found_in_folders_of_folders_and_not_inside_runs(tmp_path):
    for name in ("a", "b", "sweep/trial-1", "sweep/trial-0", "deep/trials/0", "a/inner", ".hidden", "1/2/3/4"):
        write_run(tmp_path / name)
    (tmp_path / "note.txt").write_text("no run")
    (tmp_path / "empty").mkdir()
    names = [run.path.relative_to(tmp_path).as_posix() for run in find_runs(tmp_path)]
    assert names == ["a", "b", "deep/trials/0", "sweep/trial-0", "sweep/trial-1"]
    assert [run.path.name for run in find_runs(tmp_path / "a")] == ["a"]


def test_a_folder_that_is_neither_run_nor_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="neither a run nor a model folder: it holds none"):
        read_run(tmp_path)
    with pytest.raises(ArtifactError, match="it is no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="is no folder"):
        find_runs(tmp_path / "nowhere")


def test_json_of_a_comparison_has_no_number_that_json_lacks(tmp_path):
    trained = History(columns={"train_loss": [float("inf")], "val_loss": [float("nan")], "seconds": [1.0]})
    runs = [a_run(tmp_path / name, metrics={"rmse": None}, history=trained) for name in "ab"]
    assert json.loads(json.dumps(comparison_json(compare(runs)), allow_nan=False))
