"""``noumena demo``: one family or all, what it replaces, what stops it and what does not."""

import dataclasses
import importlib.util
import json
import shlex
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from noumena import plugins
from noumena.cli.demo import demo
from noumena.core.errors import NotSupportedError, TrainingInterrupted
from noumena.core.family import Headline
from noumena.files import busy
from noumena.registry import families, family
from tests.cli.test_cli import run
from tests.test_plugin import install_spectra

TINY = ("density/synthetic", "fit.max_epochs=1", "model.hidden_dims=[8]", "evaluate.samples=50")
LINE = Headline(
    "auroc/anomalies", "auroc_knn/anomalies", "AUROC", "ten nearest neighbours", better="higher", picture="scores"
)


@pytest.fixture(scope="module", autouse=True)
def empty_pictures():
    """Drawing those of a report takes longer than everything else; other tests look at them."""
    save = Figure.savefig

    def save_empty(_, *places, **options):
        options.pop("bbox_inches", None)
        save(Figure(figsize=(1, 1)), *places, **{**options, "dpi": 10})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_empty)
        yield


@pytest.fixture
def take_part(monkeypatch):
    """Have these families, and no others, take part in demos."""

    def set_families(*entries):
        monkeypatch.setattr("noumena.registry.families", lambda: list(entries))

    return set_families


@pytest.fixture
def spectra(tmp_path, monkeypatch):
    """The plug-in family, installed for the test."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    install_spectra(tmp_path / "site")
    for cached in (plugins.plugins, plugins.load):
        cached.cache_clear()
    yield dataclasses.replace(family("spectra"), demo=("spectra/peaks", "fit.max_epochs=1"))
    for cached in (plugins.plugins, plugins.load):
        cached.cache_clear()


def tiny(name="density", **changes):
    """The density family under another name, with a recipe that takes a second."""
    return dataclasses.replace(family("density"), name=name, **{"demo": TINY, "headline": LINE, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a demo of two families leaves, to be copied."""
    out = tmp_path_factory.mktemp("made") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noumena.registry.families", lambda: [tiny(), tiny("other")])
        demo(out=out)
    return out


@pytest.fixture
def earlier(made, take_part, tmp_path):
    """An earlier demo of the families density and other, to be run again."""
    take_part(tiny(), tiny("other"))
    return Path(shutil.copytree(made, tmp_path / "demo"))


def test_all_families_give_one_page_beside_their_reports(take_part, spectra, tmp_path, capfd):
    bare = dataclasses.replace(spectra, headline=None)
    take_part(tiny(), bare)
    out = tmp_path / "demo"
    code, text, err = run(capfd, "demo", "--out", out, "--json")
    assert code == 0, err
    first, second = json.loads(text)
    assert (first["family"], second["family"]) == ("density", "spectra")
    for one in (first, second):
        assert one["state"] == "done"
        assert one["report"] == str(out / one["family"] / "report.html")
        assert (out / one["family"] / "report.html").is_file()
        assert one["seconds"] > 0
        assert one["samples"] > 0
        assert one["parameters"] > 0
        assert one["epochs"] == 1
    metrics = json.loads((out / "density" / "evaluation.json").read_text())
    assert first["headline"]["value"] == metrics["auroc/anomalies"]
    assert first["headline"]["baseline_value"] == metrics["auroc_knn/anomalies"]
    assert second["headline"]["metric"] == "val_loss"
    assert "[1/2] density" in err
    assert "[2/2] spectra" in err
    page = (out / "index.html").read_text()
    assert 'href="density/report.html"' in page
    assert 'href="spectra/report.html"' in page


def test_a_plug_in_is_shown_by_its_headline(take_part, spectra, tmp_path, capfd):
    take_part(tiny(), spectra)
    code, text, err = run(capfd, "demo", "spectra", "--out", tmp_path / "demo", "--json")
    assert code == 0, err
    [one] = json.loads(text)
    metrics = json.loads((tmp_path / "demo" / "spectra" / "evaluation.json").read_text())
    assert one["headline"]["value"] == metrics["reconstruction_rmse"]
    assert one["headline"]["baseline_value"] == metrics["pca_rmse"]
    page = (tmp_path / "demo" / "index.html").read_text()
    assert "principal component analysis" in page
    assert "density" not in page  # it was not asked for


def test_one_family_replaces_its_own_folder_and_keeps_the_others(earlier, capfd):
    kept = (earlier / "other" / "model" / "model.safetensors").read_bytes()
    (earlier / "density" / "old").write_text("of the first demo")
    (earlier / "mine.csv").write_text("1,2")
    code, text, err = run(capfd, "demo", "density", "--out", earlier)
    assert code == 0, err
    assert str(earlier / "index.html") in text
    assert not (earlier / "density" / "old").exists()
    assert (earlier / "other" / "model" / "model.safetensors").read_bytes() == kept
    assert (earlier / "mine.csv").read_text() == "1,2"
    page = (earlier / "index.html").read_text()
    assert 'href="density/report.html"' in page
    assert 'href="other/report.html"' in page


def test_a_family_that_fails_does_not_stop_the_others(take_part, tmp_path, capfd):
    broken = tiny("broken", demo=(*TINY, "fit.lr=1e18", "fit.max_epochs=30"))
    take_part(broken, tiny())
    out = tmp_path / "demo"
    code, text, err = run(capfd, "demo", "--out", out, "--json")
    assert code == 5
    assert "Traceback" not in err
    assert "broken: failed. TrainingDiverged" in err
    first, second = json.loads(text)
    assert (first["state"], second["state"]) == ("failed", "done")
    assert "lr=" in first["message"]
    page = (out / "index.html").read_text()
    assert "Failed: TrainingDiverged" in page
    assert 'href="density/report.html"' in page
    assert 'href="broken/report.html"' not in page
    assert run(capfd, "demo", "broken", "--out", out)[0] == 5


def test_a_fault_in_the_code_of_a_family_is_told_in_one_line(take_part, tmp_path, capfd, monkeypatch):
    take_part(tiny(), tiny("other"))
    steps = iter([ValueError("no such thing")])
    from noumena import experiment

    start = experiment.start_run

    def fail_first(*arguments, **options):
        for error in steps:
            raise error
        return start(*arguments, **options)

    monkeypatch.setattr("noumena.experiment.start_run", fail_first)
    code, text, err = run(capfd, "demo", "--out", tmp_path / "demo", "--json")
    assert code == 1
    assert "density: failed. ValueError: no such thing" in err
    assert [one["state"] for one in json.loads(text)] == ["failed", "done"]


def test_a_family_that_lacks_a_package_is_left_out_with_the_command(take_part, tmp_path, capfd):
    lacking = tiny("lacking", demo_needs=("json", "a_package_that_is_not_there"))
    take_part(lacking, tiny())
    out = tmp_path / "demo"
    code, text, err = run(capfd, "demo", "--out", out, "--json")
    assert code == 0, err
    assert [one["state"] for one in json.loads(text)] == ["missing", "done"]
    for told in (err, (out / "index.html").read_text().replace("&#39;", "'")):
        assert "a_package_that_is_not_there" in told
        assert "pip install 'noumena[lacking]'" in told
    code, _, err = run(capfd, "demo", "lacking", "--out", out)
    assert code == 2
    assert err.startswith("NotSupportedError: ")
    assert "pip install 'noumena[lacking]'" in err


def test_a_package_that_is_missed_on_the_way_counts_as_missing_too(take_part, tmp_path, capfd, monkeypatch):
    def lacking(config):
        raise NotSupportedError("needs 'absent': pip install 'noumena[density]'") from ImportError("absent")

    monkeypatch.setattr("noumena.experiment.open_data", lacking)
    take_part(tiny())
    code, text, err = run(capfd, "demo", "--out", tmp_path / "demo", "--json")
    assert code == 0, err
    assert json.loads(text)[0]["state"] == "missing"
    assert "pip install" in err


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), TrainingInterrupted("stopped in epoch 1; all of it is saved.")])
def test_an_interruption_ends_all_and_the_page_shows_what_is_finished(take_part, tmp_path, capfd, monkeypatch, stop):
    take_part(tiny(), tiny("second"), tiny("third"))
    from noumena import experiment

    start = experiment.start_run

    def stop_second(config, out, **options):
        if out.name == "second":
            raise stop
        return start(config, out, **options)

    monkeypatch.setattr("noumena.experiment.start_run", stop_second)
    out = tmp_path / "demo"
    code, _, err = run(capfd, "demo", "--out", out)
    assert code == 130
    page = (out / "index.html").read_text()
    assert 'href="density/report.html"' in page
    assert "Stopped before it was finished" in page
    assert "third" not in page
    assert str(out / "index.html") in err
    assert "Traceback" not in err


@pytest.mark.parametrize("place", [".", "density"])
def test_what_no_demo_wrote_is_not_replaced(earlier, capfd, place):
    (earlier / place / ".demo").unlink()
    mine = earlier / place / "precious.txt"
    mine.write_text("data")
    for arguments in (["demo"], ["demo", "density"]):
        code, _, err = run(capfd, *arguments, "--out", earlier)
        assert code == 4
        assert "ArtifactError" in err
        assert mine.read_text() == "data"
    assert (earlier / "other" / "report.html").is_file()


def test_a_demo_that_was_killed_can_be_run_again(earlier, capfd):
    (earlier / "density" / ".demo").write_text('{"state": "started"}')
    (earlier / "density" / "evaluation.json").unlink()
    assert run(capfd, "demo", "density", "--out", earlier)[0] == 0
    assert (earlier / "density" / "evaluation.json").is_file()


def test_a_folder_that_is_being_trained_is_not_replaced(earlier, capfd):
    with busy(earlier / "density"):
        code, _, err = run(capfd, "demo", "--out", earlier)
    assert code == 4
    assert "being trained by another process" in err
    assert (earlier / "density" / "report.html").is_file()


def test_a_damaged_record_is_refused_in_words(earlier, capfd):
    (earlier / "other" / ".demo").write_text('{"state": "done", "seconds": "long"}')
    code, _, err = run(capfd, "demo", "density", "--out", earlier)
    assert code == 4
    assert "no record of a demo" in err


@pytest.mark.parametrize("entry", families(), ids=lambda entry: entry.name)
def test_each_family_has_all_that_its_card_needs(entry, capfd):
    assert entry.headline is not None
    assert entry.purpose.endswith(".")
    assert entry.headline.shows.endswith(".")
    assert {command.split()[1] for command in entry.tries} >= {"explore", "fit"}
    for name in entry.demo_needs:
        assert importlib.util.find_spec(name) is not None
    recipe, *overrides = entry.demo
    code, _, err = run(capfd, "fit", recipe, *overrides, "--dry-run")
    assert code == 0, err
    for command in entry.tries:
        verb = shlex.split(command)[1]
        assert run(capfd, verb, "--help")[0] == 0
