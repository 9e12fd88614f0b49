"""The tables of docs/benchmarks.md are those that its tool makes from the stored results."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "benchmark_tables.py"


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


tool = _load(TOOL)
shared = _load(ROOT / "benchmarks" / "benchmark_results.py")


@pytest.fixture
def page(tmp_path):
    return Path(shutil.copy(tool.PAGE, tmp_path / "page.md"))


@pytest.fixture
def results(tmp_path):
    return Path(shutil.copytree(tool.RESULTS, tmp_path / "results"))


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def check(page, *further):
    return tool.main(["--check", "--page", str(page), *map(str, further)])


def test_the_page_has_what_the_results_say(capsys):
    assert tool.main(["--check"]) == 0, capsys.readouterr()


def test_a_check_needs_no_torch():
    code = (
        "import runpy, sys; tool = runpy.run_path(sys.argv[1]);"
        "assert tool['main'](['--check']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(TOOL)], check=True)


def test_an_edited_number_is_found_named_and_written_back(page, capsys):
    was = page.read_bytes()
    replace(page, "| 0.01 | 480 | 10 |", "| 0.01 | 480 | 11 |")
    edited = page.read_bytes()
    assert check(page) == 1
    said = capsys.readouterr().out
    assert "density_calibration" in said
    assert sum(name in said for name in tool.TABLES) == 1
    assert page.read_bytes() == edited, "a check writes nothing"
    assert tool.main(["--page", str(page)]) == 0
    assert page.read_bytes() == was


@pytest.mark.parametrize("name", list(tool.TABLES))
def test_each_table_is_found_when_it_is_emptied(name, page, capsys):
    text = page.read_text(encoding="utf-8")
    head, mark, rest = text.partition(f"<!-- table: {name} -->\n")
    page.write_text(head + mark + rest[rest.index(tool.END) :], encoding="utf-8")
    assert check(page) == 1
    assert f"table {name}:" in capsys.readouterr().out
    tool.main(["--page", str(page)])
    assert page.read_text(encoding="utf-8") == text


def test_other_results_make_another_table(page, results, capsys):
    path = results / "density_levels.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["shift_1"] = 0.123
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert check(page, "--results", results) == 1
    assert "density_levels" in capsys.readouterr().out
    tool.main(["--page", str(page), "--results", str(results)])
    written = [line for line in page.read_text(encoding="utf-8").splitlines() if "| 0.123 |" in line]
    assert len(written) == 5


def test_a_name_that_is_not_known_is_refused_with_those_that_are(page, capsys):
    replace(page, "<!-- table: density_levels -->", "<!-- table: os.system -->")
    was = page.read_bytes()
    assert tool.main(["--page", str(page)]) == 2
    said = capsys.readouterr().err
    assert "'os.system'" in said
    assert all(name in said for name in tool.TABLES)
    assert page.read_bytes() == was


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<!-- table: density_levels -->", "", "ends no table"),
        (f"{tool.END}", "", "before another mark"),
        ("<!-- table: density_levels -->", "<!-- table: density_adbench -->", "stands twice"),
    ],
)
def test_marks_that_do_not_fit_are_refused(old, new, said, page, capsys):
    replace(page, old, new)
    assert check(page) == 2
    assert said in capsys.readouterr().err


def test_a_table_does_not_leave_the_page_unseen(page, capsys):
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition("<!-- table: worldmodels_planning -->")
    page.write_text(head + rest.partition(tool.END)[2], encoding="utf-8")
    assert check(page) == 2
    assert "the page has no worldmodels_planning" in capsys.readouterr().err


def test_a_table_without_an_end_is_refused(page, capsys):
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.rpartition(tool.END)
    page.write_text(head + rest, encoding="utf-8")
    assert check(page) == 2
    assert "has no end" in capsys.readouterr().err


def test_a_missing_result_file_is_named(page, results, capsys):
    (results / "worldmodels_planning.jsonl").unlink()
    assert check(page, "--results", results) == 2
    said = capsys.readouterr().err
    assert str(results / "worldmodels_planning.jsonl") in said
    assert "benchmarks/worldmodels_planning.py" in said


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("density_levels", lambda row: None if row["method"] == "knn" else row, "there is no result of method 'knn'"),
        ("density_levels", lambda row: {**row, "mean": None}, "density_levels"),
        ("density_adbench", lambda row: None if row["method"] == "PyOD KNN" else row, "'PyOD KNN'"),
        ("worldmodels_noise", lambda row: None if row["method"] == "study" else row, "worldmodels_study"),
        ("crystals_accuracy", lambda row: None if row["stage"] == "prior" else row, "stage 'prior'"),
        (
            "crystals_accuracy",
            lambda row: {key: value for key, value in row.items() if key != "coord_error"},
            "lacks 'coord_error'",
        ),
    ],
)
def test_results_that_lack_what_a_table_shows_are_named(file, change, said, page, results, capsys):
    path = results / f"{file}.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows if row is not None))
    assert check(page, "--results", results) == 2
    assert said in capsys.readouterr().err


def test_a_line_that_is_cut_off_is_named(page, results, capsys):
    path = results / "density_adbench.jsonl"
    path.write_text(path.read_text() + '{"set": "gl')
    assert check(page, "--results", results) == 2
    assert "density_adbench.jsonl, line 209" in capsys.readouterr().err


def test_all_that_are_written_like_the_best_of_a_column_are_bold():
    assert shared.bold_best(["0.957 ± 0.003", "–", "0.957 ± 0.010", "0.9"]) == [
        "**0.957 ± 0.003**",
        "–",
        "**0.957 ± 0.010**",
        "0.9",
    ]


def test_rows_of_a_table_have_as_many_cells_as_its_header():
    with pytest.raises(ValueError, match="another number of cells"):
        shared.markdown(["a", "b"], [["1"]])
