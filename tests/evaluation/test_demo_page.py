"""The page of a demo: made from folders alone, offline, with the numbers that the folders hold."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from noumena.core.errors import ArtifactError
from noumena.core.family import Headline
from noumena.evaluation.demo_page import Record, Shown, read_results, write_demo_page
from noumena.experiment import run_recipe
from noumena.registry import family

LINE = Headline(
    "auroc/anomalies",
    "auroc_knn/anomalies",
    "AUROC <of anomalies>",
    "ten nearest neighbours",
    better="higher",
    picture="latent_map",
    shows="A map.",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder as a demo leaves it, with one family that is finished and one that failed."""
    out = tmp_path_factory.mktemp("demo")
    options = ["fit.max_epochs=1", "model.hidden_dims=[8]", "evaluate.samples=50"]
    run_recipe("density/synthetic", options, out=out / "density")
    Record("done", 83.4, 3500, 1234).write(out / "density")
    (out / "other").mkdir()
    Record("failed", message="DataError: <b>rows</b> are missing. Add them.").write(out / "other")
    entry = dataclasses.replace(
        family("density"), headline=LINE, purpose="For <tables>.", tries={"noumena score {run} x.csv": "Score."}
    )
    return out, [entry, dataclasses.replace(entry, name="other"), dataclasses.replace(entry, name="absent")]


def page_of(demo, entries=None):
    out, known = demo
    entries = entries or known
    path = write_demo_page(
        out / "index.html", read_results(out, entries), {entry.name: f"demo/{entry.name}" for entry in entries}
    )
    return path.read_text(encoding="utf-8")


class Links(HTMLParser):
    """What a page refers to."""

    def __init__(self):
        super().__init__()
        self.links, self.ids, self.sources = [], set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        self.ids |= {found["id"]} if "id" in found else set()
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []


def test_the_page_needs_nothing_but_itself_and_its_links_lead_somewhere(demo):
    out, _ = demo
    text = page_of(demo)
    links = Links()
    links.feed(text)
    assert not re.search(r"https?:", text)
    assert links.sources
    assert all(source.startswith("data:image/png;base64,") for source in links.sources)
    assert "density/report.html" in links.links
    for link in links.links:
        assert link[1:] in links.ids if link.startswith("#") else (out / link).is_file()
    assert len(text.encode()) < 1_500_000


def test_the_numbers_are_those_of_the_evaluation(demo):
    out, _ = demo
    metrics = json.loads((out / "density" / "evaluation.json").read_text())
    text = page_of(demo)
    for name in ("auroc/anomalies", "auroc_knn/anomalies"):
        assert f"<b>{metrics[name]:#.3g}</b>" in text
    assert "1 min 23 s" in text
    assert "3,500" in text
    assert "1,234" in text
    assert "noumena score demo/density x.csv" in text


def test_text_is_escaped_and_families_without_a_folder_are_left_out(demo):
    text = page_of(demo)
    assert "AUROC &lt;of anomalies&gt;" in text
    assert "For &lt;tables&gt;." in text
    assert "&lt;b&gt;rows&lt;/b&gt; are missing. Add them." in text
    assert "absent" not in text


def test_a_family_without_a_headline_has_its_validation_loss_and_a_picture(demo):
    out, known = demo
    [result] = read_results(out, [dataclasses.replace(known[0], headline=None, purpose="")])
    assert result.shown.says == "lowest validation loss"
    assert result.shown.value == result.run.all_metrics()["best_epoch/val_loss"]
    assert result.shown.verdict == ""
    text = page_of(demo, [result.family])
    assert "<img" in text
    assert "Tables and state-action pairs" in text


def test_a_metric_that_the_run_does_not_have_is_a_dash_and_no_error(demo):
    out, known = demo
    line = dataclasses.replace(LINE, metric="nothing", picture="nothing")
    [result] = read_results(out, [dataclasses.replace(known[0], headline=line)])
    assert result.shown.text == "–"
    assert result.shown.verdict == "Not measured in this run."
    page_of(demo, [result.family])


@pytest.mark.parametrize(
    ("value", "baseline", "better", "words"),
    [
        (0.9, 0.8, "higher", "Better than chance."),
        (0.9, 0.8, "lower", "Worse than chance after this short training."),
        (0.7, 0.8, "higher", "Worse than chance after this short training."),
        (0.8, 0.8, "higher", "The same as chance."),
        (None, 0.8, "higher", "Not measured in this run."),
    ],
)
def test_a_model_that_is_worse_than_its_baseline_is_said_to_be(value, baseline, better, words):
    assert Shown("x", value, str(value), "chance", baseline, str(baseline), better).verdict == words


def test_shares_are_shown_as_percent_and_lengths_with_their_unit(demo):
    out, known = demo
    texts = []
    for unit in ("%", "mm"):
        line = dataclasses.replace(LINE, unit=unit)
        [result] = read_results(out, [dataclasses.replace(known[0], headline=line)])
        texts.append((result.shown.value, result.shown.text))
    (value, percent), (_, length) = texts
    assert percent == f"{100 * value:.1f} %"
    assert length == f"{value:#.3g} mm"


def test_a_run_that_was_stopped_and_then_resumed_is_shown(demo):
    out, known = demo
    kept = (out / "density" / ".demo").read_bytes()
    Record("started").write(out / "density")
    [result] = read_results(out, known[:1])
    (out / "density" / ".demo").write_bytes(kept)
    assert result.is_finished
    assert result.as_json()["state"] == "done"


@pytest.mark.parametrize("text", ["[]", "{", '{"state": "gone"}', '{"state": "done", "seconds": true}', '{"other": 1}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / ".demo").write_text(text)
    with pytest.raises(ArtifactError, match="no record of a demo"):
        Record.read(tmp_path)
