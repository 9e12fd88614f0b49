import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from noumena.core.errors import ArtifactError
from noumena.core.evaluation import Evaluation, Page, Picture, Table
from noumena.evaluation import save_figures, summary_table, write_report
from noumena.evaluation.report import format_number, format_seconds, table_cells
from noumena.training import History

NASTY = '<script>alert("x")</script>'
VOID = {"meta", "link", "img", "br", "hr", "input", "source", "wbr"}


def picture(name):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    return Picture(name, f"Picture {name}", figure, f"Caption of {name}")


@pytest.fixture
def evaluation():
    return Evaluation(
        {"test_loss": 1.25, "auroc/labels": 0.875, f"auroc/{NASTY}": 0.5},
        (Table("Areas", ["level", "ours", "theirs"], [[NASTY, 0.9, 0.8], ["b", None, 0.7]], "A caption", best="max"),),
        (picture("scores"), picture("latent_map")),
    )


@pytest.fixture
def history():
    columns = {
        "train_loss": [9.0, 2.0, 1.5],
        "val_loss": [8.0, 2.5, 2.6],
        "train_kl": [0.0, 0.1, 0.2],
        "lr": [1e-3, 1e-3, 5e-4],
    }
    return History(columns=columns, best_epoch=1)


@pytest.fixture
def page(tmp_path, evaluation, history):
    return report(tmp_path, evaluation, history)


def report(folder, evaluation, history):
    path = write_report(
        folder / "report.html",
        title=f"density/table {NASTY}",
        about={"source": NASTY, "rows": {"train": 10, "val": 5}, "left_out": {}},
        history=history,
        evaluation=evaluation,
        config="model:\n  name: density/vae\n",
        model_summary={"model": "density/vae", "parameters": 1234},
        timings={"training": 75.0},
        versions={"noumena": "0.1.0"},
    )
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects what a page asks for, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.references, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "data", "srcset") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def test_the_report_asks_for_nothing_outside_itself(page):
    found = outline(page)
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in found.references)
    assert not re.search(r"@import|url\(", page)
    assert "<script" not in page


def test_the_tags_of_the_report_are_balanced(page):
    found = outline(page)
    assert found.faults == []
    assert found.open == []


def test_the_report_has_every_metric_picture_and_caption(page, evaluation, history):
    text = "".join(outline(page).text)
    for name in evaluation.metrics:
        assert name in text
    for shown in evaluation.pictures:
        assert shown.title in text
        assert shown.caption in text
    assert "Training curves" in text
    assert "A caption" in text
    assert "1,234" in text
    assert "1 min 15 s" in text
    assert page.count("data:image/png;base64,") == len(evaluation.pictures) + 1


def test_names_from_data_cannot_become_markup(page):
    assert NASTY not in page
    assert "&lt;script&gt;" in page


def test_the_best_number_of_a_row_is_marked(evaluation):
    cells = table_cells(evaluation.tables[0])
    assert [[cell.best for cell in row] for row in cells] == [[False, True, False], [False, False, False]]


def test_figures_are_written_as_files(tmp_path, evaluation, history):
    written = save_figures(tmp_path / "figures", evaluation, history)
    assert [path.name for path in written] == ["training_curves.png", "scores.png", "latent_map.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in written)


SCRIPT = "document.title = 'a < b && \"c\"';\n"
VIEW = f"""<!doctype html><title>v</title><p>&amp; {NASTY[8:]}</p>
<script type="application/json">{{"not": "run"}}</script><script>{SCRIPT}</script>"""


class Frames(HTMLParser):
    """The pages in frames, as a browser would read them, and the report's policy."""

    def __init__(self):
        super().__init__()
        self.frames, self.policy = [], ""

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "iframe":
            self.frames.append(values)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]


def frames(text):
    parser = Frames()
    parser.feed(text)
    parser.close()
    return parser


def test_a_page_is_shown_whole_in_a_frame_that_may_only_run_its_scripts(tmp_path, evaluation, history):
    more = dataclasses.replace(evaluation, pages=(Page("view", f"View {NASTY}", VIEW, "Turn it", height=321),))
    text = report(tmp_path, more, history)
    found = frames(text)
    (frame,) = found.frames
    assert frame["srcdoc"] == VIEW
    assert frame["sandbox"] == "allow-scripts"
    assert frame["height"] == "321"
    assert frame["title"] == f"View {NASTY}"
    parsed = outline(text)
    assert parsed.faults == parsed.open == []
    assert "Turn it" in "".join(parsed.text)
    assert "<script" not in text


def test_the_policy_names_the_scripts_of_pages_by_their_hashes_and_no_others(tmp_path, evaluation, history):
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    views = (Page("one", "One", VIEW), Page("two", "Two", VIEW))
    policy = frames(report(tmp_path, dataclasses.replace(evaluation, pages=views), history)).policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 1
    assert policy.startswith("default-src 'none'")


def test_a_report_without_pages_lets_no_script_run(page):
    assert frames(page).frames == []
    assert "script-src" not in frames(page).policy
    assert "#interactive" not in outline(page).references


def test_pages_are_written_as_files(tmp_path, evaluation, history):
    more = dataclasses.replace(evaluation, pages=(Page("view", "View", VIEW),))
    written = save_figures(tmp_path / "figures", more, history)
    assert (tmp_path / "figures" / "view.html").read_text() == VIEW
    assert tmp_path / "figures" / "view.html" in written
    with pytest.raises(ArtifactError, match="plain name"):
        save_figures(tmp_path, dataclasses.replace(evaluation, pages=(Page("../view", "View", VIEW),)), history)


def test_further_files_are_written_beside_the_pictures(tmp_path, evaluation, history):
    more = dataclasses.replace(evaluation, files={"surface.vtu": b"\x00mesh"})
    written = save_figures(tmp_path / "figures", more, history)
    assert (tmp_path / "figures" / "surface.vtu").read_bytes() == b"\x00mesh"
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in written)


@pytest.mark.parametrize("name", ["../a.vtu", "a/b.vtu", "a\\b.vtu", "..", "", "c:a"])
def test_a_file_cannot_leave_the_figures_folder(tmp_path, evaluation, history, name):
    with pytest.raises(ArtifactError, match="plain name"):
        save_figures(tmp_path / "figures", dataclasses.replace(evaluation, files={name: b""}), history)
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_shows_the_same_numbers_and_no_markup_of_names(evaluation):
    console = Console(file=io.StringIO(), width=120)
    named = Table("[bold]t[/bold]", ["a", "b"], [["[red]x[/red]", 1.5]])
    summary_table(Evaluation({}, (*evaluation.tables, named)), console)
    text = console.file.getvalue()
    assert "[red]x[/red]" in text
    assert "0.900" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_wider_than_the_terminal_is_printed_in_parts_and_no_number_is_cut(width):
    numbers = [[12345.678 * 10.0 ** (column - row) for column in range(9)] for row in range(3)]
    table = Table("Axes", ["axis", *(f"a heading of column {i}" for i in range(9))], [["z", *row] for row in numbers])
    console = Console(file=io.StringIO(), width=width)
    summary_table(Evaluation({}, [table]), console)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    assert all(format_number(value) in printed.split() for row in numbers for value in row)
    assert "…" not in printed


def test_a_report_that_cannot_be_written_names_the_place(tmp_path, evaluation, history):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"report\.html"):
        write_report(
            tmp_path / "file" / "report.html",
            title="t",
            about={},
            history=history,
            evaluation=evaluation,
            config="",
            model_summary={},
            timings={},
            versions={},
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (3, "3"),
        (12345, "12,345"),
        (0.5, "0.500"),
        (-1.0, "−1.000"),
        (1e-7, "1e−07"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_are_shown_with_few_digits(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "250 ms"), (12.34, "12.3 s"), (3725, "1 h 2 min")])
def test_durations_are_shown_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text
