import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals import plots
from noumena.crystals.drawing import aligned, contrast, element_colours, mismatch, scenes
from noumena.crystals.histograms import distributions
from noumena.crystals.view import cells_page
from tests.crystals.models import real


def data_of(page):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_a_page_has_both_cells_of_every_crystal_and_asks_for_nothing_outside():
    truth = real(3).crystals
    page = cells_page(truth, truth)
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", page)
    found = data_of(page)
    assert found["panels"] == ["original", "reconstruction"]
    for number, one in enumerate(found["crystals"]):
        assert len(one["panels"]) == 2
        single, many = one["panels"][0]
        # Copies on the faces come on top of the atoms of the cell.
        assert len(single["types"]) >= int(truth.num_atoms[number])
        assert len(many["types"]) >= 8 * int(truth.num_atoms[number])
        assert set(map(str, single["types"])) <= set(one["colours"])
        edges = np.array(single["corners"])[[4, 2, 1]] - np.array(single["corners"])[0]
        torch.testing.assert_close(
            torch.tensor(np.linalg.norm(edges, axis=1)), truth.lengths[number], rtol=0.0, atol=5e-3
        )


def test_names_from_files_cannot_leave_the_data_of_a_page():
    truth = dataclasses.replace(real(1).crystals, names=("</script><script>alert(1)</script>",))
    page = cells_page(truth)
    assert "<script>alert" not in page
    assert "alert(1)" in data_of(page)["crystals"][0]["note"]


def test_pages_of_nothing_and_wrong_captions_are_refused():
    truth = real(2).crystals
    with pytest.raises(DataError, match="no crystals"):
        cells_page(truth.select(torch.zeros(0, dtype=torch.long)))
    with pytest.raises(DataError, match="one each"):
        cells_page(truth, captions=["one"])


def test_reconstructions_are_moved_onto_their_originals():
    truth = real(5).crystals
    shift = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=truth.dtype)
    moved = dataclasses.replace(truth, frac_coords=(truth.frac_coords + shift[truth.crystal]) % 1.0)
    assert all(words.startswith("atoms 0.000 Å") for words in mismatch(truth, aligned(truth, moved)))


def test_colours_are_seen_on_white_and_told_apart():
    colours = element_colours([1, 6, 8, 9, 15, 16, 79])
    assert len(set(colours.values())) == 7
    for colour in colours.values():
        assert contrast(np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])) >= 1.6


def test_atoms_on_a_corner_are_shown_on_all_eight():
    one = real(1).crystals
    single = dataclasses.replace(
        one, atom_types=one.atom_types[:1], frac_coords=torch.zeros(1, 3).double(), num_atoms=torch.tensor([1])
    )
    ((scene,),) = scenes(single)
    assert len(scene.types) == 8


def test_distributions_show_what_both_sets_have():
    truth = real(40).crystals
    one, other = truth.select(torch.arange(20)), truth.select(torch.arange(20, 40))
    figure = distributions(one, other)
    assert [axis.get_xlabel() for axis in figure.axes][:4] == [
        "density (g/cm³)",
        "volume per atom (Å³)",
        "atoms per cell",
        "elements per crystal",
    ]
    counts = torch.bincount(one.num_atoms).double() / 20
    bars = figure.axes[2].containers[0]
    assert [bar.get_height() for bar in bars][: len(counts)] == pytest.approx((100 * counts).tolist())
    with pytest.raises(DataError, match="one of each"):
        distributions(one, one.select(torch.zeros(0, dtype=torch.long)))


def test_a_map_has_a_panel_for_each_colouring():
    truth = real(30)
    vectors = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    figure = plots.latent_map(vectors, {"chemistry": plots.chemistry(truth.crystals), "number": torch.arange(30.0)})
    assert [axis.get_title(loc="left") for axis in figure.axes][:2] == ["chemistry", "number"]
    with pytest.raises(DataError, match="one each"):
        plots.latent_map(vectors, {"number": torch.arange(3.0)})
