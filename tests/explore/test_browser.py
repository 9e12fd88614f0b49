"""The page in a real browser, with an explorer whose answers are known."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from noumena.core.evaluation import Table
from tests.explore.conftest import click_point, expect
from tests.explore.curves import Curves

pytestmark = pytest.mark.browser

MISSING = {
    "reconstruction": "it has no decoder.",
    "moved": "it has no single latent.",
    "path": "it has no straight line.",
    "samples": "it has no prior.",
}


def curve_of(page, slot):
    """The heights of the curve that a slot shows."""
    return np.asarray(page.evaluate(f"Array.from(document.querySelector('#{slot}-figure .js-plotly-plot').data[0].y)"))


def downloaded(page, selector):
    with page.expect_download() as info:
        page.click(selector)
    return info.value.suggested_filename, info.value.path().read_bytes()


def test_a_click_on_a_point_shows_it_and_its_reconstruction(explored):
    curves = Curves()
    page = explored(curves)
    expect(page, "#chosen-name", "curve 0")
    buttons = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert buttons
    assert not [title for title in buttons if re.search("share|cloud|studio", title or "", re.I)]
    click_point(page, 7)
    expect(page, "#chosen-name", "curve 7")
    expect(page, "#original-note", "curve 7")
    expect(page, "#rebuilt-note", "RMSE 0 m")
    expect(page, "#details", f"{curves.latents[7, 0]:.3f}".replace("-", "−"))
    np.testing.assert_allclose(curve_of(page, "original"), curves.latents[7] @ curves.waves, atol=1e-6)
    notes = page.evaluate("document.querySelector('#map .js-plotly-plot').layout.annotations.map(a => a.text)")
    assert notes == ["chosen"]


def test_a_point_is_found_by_its_name_with_the_keyboard_alone(explored):
    page = explored(Curves())
    page.focus("#find")
    page.keyboard.type("curve 12")
    page.wait_for_selector("#suggestions option[value='curve 123']", state="attached")
    page.keyboard.press("Enter")
    expect(page, "#chosen-name", "curve 12")
    page.fill("#find", "nobody")
    page.keyboard.press("Enter")
    expect(page, "#find-note", "no point has a name with 'nobody'")
    assert "curve 12" in page.inner_text("#chosen-name")


def test_sliders_decode_as_they_move_and_go_back(explored):
    curves = Curves()
    page = explored(curves)
    expect(page, "#moved-note", f"moved to {curves.latents[0, 0]:.2f}")
    handle = page.locator("#sliders [role=slider]").first
    handle.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    step = 6 * 2.0 / 200
    expect(page, "#moved-note", f"moved to {curves.latents[0, 0] + 10 * step:.1f}"[:-1])
    _, content = downloaded(page, "#moved-download")
    rows = list(csv.reader(io.StringIO(content.decode())))
    np.testing.assert_allclose([float(y) for _, y in rows[1:]], curve_of(page, "moved"), atol=1e-4)
    assert abs(curve_of(page, "moved") - curves.latents[0] @ curves.waves).max() > 0.1
    page.click("#reset")
    expect(page, "#moved-note", f"moved to {curves.latents[0, 0]:.2f}")
    np.testing.assert_allclose(curve_of(page, "moved"), curves.latents[0] @ curves.waves, atol=1e-4)


def test_a_path_goes_from_one_point_to_another_by_steps_and_by_itself(explored):
    curves = Curves()
    page = explored(curves)
    expect(page, "#path-ends", "start: none yet, end: none yet")
    assert page.is_disabled("#draw-path")
    click_point(page, 3)
    expect(page, "#chosen-name", "curve 3")
    page.click("#use-start")
    expect(page, "#path-ends", "start: curve 3")
    click_point(page, 9)
    expect(page, "#chosen-name", "curve 9")
    page.click("#use-end")
    expect(page, "#path-ends", "end: curve 9")
    page.fill("#steps", "5")
    page.click("#draw-path")
    expect(page, "#path-note", "step 1 of 5")
    np.testing.assert_allclose(curve_of(page, "path"), curves.latents[3] @ curves.waves, atol=1e-6)
    page.focus("#step [role=slider]") if page.locator("#step [role=slider]").count() else page.focus(
        ".step [role=slider]"
    )
    page.keyboard.press("End")
    expect(page, "#path-note", "step 5 of 5")
    np.testing.assert_allclose(curve_of(page, "path"), curves.latents[9] @ curves.waves, atol=1e-6)
    page.click("#play")
    expect(page, "#play", "Pause")
    expect(page, "#path-note", "step 3 of 5")
    page.click("#play")
    expect(page, "#play", "Play")


def test_samples_are_drawn_and_others_by_another_seed(explored):
    curves = Curves()
    page = explored(curves)
    page.fill("#n", "3")
    page.fill("#seed", "41")
    page.click("#draw-samples")
    expect(page, "#samples-note", "3 samples of seed 41")
    assert page.locator(".multiple").count() == 3
    page.click("#other-samples")
    expect(page, "#samples-note", "3 samples of seed 42")
    name, content = downloaded(page, ".multiple:nth-child(2) button.small")
    assert name == "sample-seed42-1.csv"
    assert content == curves.samples(3, 42)[1].file()
    page.fill("#n", "999")
    page.click("#draw-samples")
    page.wait_for_timeout(100)
    assert page.locator(".multiple").count() in (0, 3)


def test_the_map_takes_another_colour_and_keeps_the_marked_points(explored):
    page = explored(Curves())
    assert page.evaluate("document.querySelector('#map .js-plotly-plot').data.length") == 3
    page.click("#colour")
    page.get_by_text("energy", exact=True).last.click()
    page.wait_for_function("document.querySelector('#map .js-plotly-plot').data.length === 1")
    state = page.evaluate(
        "(() => { const gd = document.querySelector('#map .js-plotly-plot');"
        " return [gd.data[0].marker.colorbar.title.text, gd.layout.annotations.map(a => a.text)] })()"
    )
    assert state == ["energy", ["chosen"]]


def test_map_and_latents_are_downloaded(explored):
    page = explored(Curves())
    name, content = downloaded(page, "#download-map")
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert (name, rows[0], len(rows)) == ("map.csv", ["name", "pca1", "pca2", "kind", "energy"], 201)
    name, content = downloaded(page, "#download-latents")
    assert name == "latents.npz"
    assert content[:2] == b"PK"
    name, content = downloaded(page, "#original-download")
    assert name == "curve-0.csv"


def test_what_the_model_cannot_do_is_said_in_its_panel(explored):
    page = explored(Curves(without=MISSING, sliders=False))
    for place, reason in (
        ("#rebuilt-note", MISSING["reconstruction"]),
        ("#slider-panel", MISSING["moved"]),
        ("#path-ends", MISSING["path"]),
        ("#samples-note", MISSING["samples"]),
    ):
        expect(page, place, reason)
    assert page.is_disabled("#draw-samples")
    expect(page, "#original-note", "curve 0")


def test_an_error_of_the_family_stays_in_its_panel(explored):
    class Broken(Curves):
        def reconstruction(self, index):
            raise ZeroDivisionError("of a kind")

    page = explored(Broken())
    expect(page, "#rebuilt-note", "this did not work: ZeroDivisionError: of a kind")
    expect(page, "#original-note", "curve 0")
    assert not re.search(r"Traceback|File \"", page.content())


def test_without_umap_its_map_gives_the_command_and_the_other_stays(explored, monkeypatch):
    monkeypatch.setattr("noumena.explore.maps.find_spec", lambda name: None)
    page = explored(Curves())
    page.get_by_text("UMAP", exact=True).click()
    expect(page, "#map-note", "pip install 'noumena[umap]'")
    assert page.evaluate("document.querySelector('#map .js-plotly-plot').data.length") == 3


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_as_wide_as_its_window(explored, width):
    page = explored(Curves(), width=width)
    expect(page, "#original-note", "curve 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [page.locator(f"#{name}-section").bounding_box() for name in ("map", "point")]
    beside = boxes[1]["x"] > boxes[0]["x"] + boxes[0]["width"] - 1
    assert beside == (width == 1280)
    for name in ("map", "point", "move", "path"):
        section = page.locator(f"#{name}-section").bounding_box()
        bottoms = page.evaluate(
            f"[...document.querySelectorAll('#{name}-section *')].map(e => e.getBoundingClientRect().bottom)"
        )
        assert max(bottoms) <= section["y"] + section["height"] + 24, name


class Listed(Curves):
    """Samples with one number for each wave."""

    def samples(self, n, seed):
        tables = [Table("Row", ("wave", "metres"), [["a", k], ["b", 2]]) for k in range(n)]
        return [replace(one, table=table) for one, table in zip(super().samples(n, seed), tables, strict=True)]


def test_the_numbers_of_all_samples_are_one_table(explored):
    page = explored(Listed())
    page.click("#draw-samples")
    page.wait_for_selector("#samples .across table")
    assert page.locator("#samples table").count() == 1
    assert page.locator("#samples .multiple").count() == 6
    assert page.locator("#samples th").all_inner_texts() == ["wave", *(f"sample {k}" for k in range(1, 7))]
    assert page.locator("#samples tbody tr").first.inner_text().split() == ["a", "0", "1", "2", "3", "4", "5"]
