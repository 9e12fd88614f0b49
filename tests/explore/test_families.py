"""Every built-in family's explorer in a real browser: a tiny model trained on the sample that the package has."""

import re

import pytest

from noumena.config import compose
from noumena.core.errors import DataError
from noumena.experiment import make_model, open_data
from noumena.explore.opening import make_explorer
from noumena.registry import FAMILIES, family
from tests.explore.conftest import click_point, expect

pytestmark = pytest.mark.browser

TINY = {
    "density": ["density/hopper", "fit.max_epochs=1", "fit.batch_size=256"],
    "multimodal": ["multimodal/softrobot-symmetric", "fit.max_epochs=2"],
    "crystals": [
        "crystals/sample",
        "data.max_atoms=8",
        "model.width=16",
        "model.encoder_layers=1",
        "model.decoder_layers=1",
        "model.heads=2",
        "model.latent_dim=4",
        "fit.max_epochs=1",
    ],
    "molecules": ["molecules/aib9", "model.width=32", "fit.max_epochs=2"],
    "worldmodels": ["worldmodels/jepa-robust", "data.fixed=1.0", "data.sequences=192", "fit.max_epochs=1"],
}
SHOWN = [name for name in FAMILIES if family(name).explore]


def trained(name):
    """A model of a family that has seen its data once or twice, and the data."""
    recipe, *overrides = TINY[name]
    config = compose(recipe, [], overrides)
    splits, model = open_data(config), make_model(config)
    model.fit(splits.train, splits.val, **{**config.fit, "accelerator": "cpu"})
    return model.eval(), splits


def test_every_family_has_an_explorer():
    assert [name for name in FAMILIES if not family(name).explore] == []


def settled(page, slot):
    """Wait until a slot shows something: a figure, a table or a word; what it says."""
    page.wait_for_function(
        """s => document.querySelector(`#${s}-figure .js-plotly-plot`)?.data?.length
            || document.querySelector(`#${s}-table table`) || document.querySelector(`#${s}-note`).innerText""",
        arg=slot,
    )
    page.wait_for_function("() => !document.querySelector('[data-dash-is-loading=true]')")
    kind = page.get_attribute(f"#{slot}-note", "class")
    words = page.inner_text(f"#{slot}-note")
    assert kind != "message", words
    return kind, words


def go_to(page, explorer, index):
    page.fill("#find", f"#{index}")
    page.press("#find", "Enter")
    expect(page, "#chosen-name", " ".join(explorer.points.names[index].split()))


def path_start(explorer):
    """A point from which there is a path to the first: not any two crystals have equally many atoms."""
    for index in range(1, len(explorer.points.names)):
        try:
            explorer.path(index, 0, 2)
        except DataError:
            continue
        return index
    raise AssertionError("no path at all")


@pytest.mark.parametrize("name", SHOWN)
def test_a_family_is_explored_from_the_map_to_a_file(explored, name):
    model, splits = trained(name)
    explorer = make_explorer(model, splits, 60)
    page = explored(explorer)
    settled(page, "original")
    positions = page.evaluate("document.querySelector('#map .js-plotly-plot').data.flatMap(t => t.customdata)")
    index = next(position for position in positions if position != 0)
    before = page.inner_text("#chosen-name")
    click_point(page, index)
    page.wait_for_function("b => document.querySelector('#chosen-name').innerText !== b", arg=before)
    settled(page, "original")
    settled(page, "rebuilt")
    if page.locator("#sliders [role=slider]").count():
        settled(page, "moved")
        page.locator("#sliders [role=slider]").first.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(200)
        settled(page, "moved")
    else:
        assert page.locator("#slider-panel .reason").inner_text()
    if "path" not in explorer.without:
        go_to(page, explorer, path_start(explorer))
        page.click("#use-start")
        go_to(page, explorer, 0)
        page.click("#use-end")
        page.fill("#steps", "3")
        page.wait_for_function("!document.querySelector('#draw-path').disabled")
        page.click("#draw-path")
        page.wait_for_function("!document.querySelector('#play').disabled")
        settled(page, "path")
    if "samples" not in explorer.without:
        page.fill("#n", "2")
        page.click("#draw-samples")
        page.wait_for_function("document.querySelector('#samples-note').innerText")
        assert re.match("2 samples of seed 0", page.inner_text("#samples-note")), page.inner_text("#samples-note")
        assert page.locator(".multiple").count() == 2
    assert page.locator(".message:visible").all_inner_texts() == []
    with page.expect_download() as info:
        page.click("#original-download")
    assert info.value.path().stat().st_size > 0
