import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from noumena.core.data import Splits
from noumena.molecules.evaluate import evaluate
from noumena.molecules.structures import viewing_axes
from noumena.molecules.view import page
from tests.molecules.chains import data, peptide
from tests.molecules.standin import Linear


@pytest.fixture(scope="module")
def evaluation():
    whole = data(peptide(5), 120)
    splits = Splits(whole.subset(torch.arange(80)), None, whole.subset(torch.arange(80, 120)))
    return evaluate(Linear(splits.train, 8), splits, samples=30, interpolation_steps=6)


class Blocks(HTMLParser):
    """Scripts by their type, references, and the title of a page."""

    def __init__(self):
        super().__init__()
        self.kind, self.scripts, self.references, self.tag, self.title = None, {}, [], "", ""

    def handle_starttag(self, tag, attributes):
        self.tag = tag
        self.kind = dict(attributes).get("type", "run") if tag == "script" else None
        self.references += [value for name, value in attributes if name in ("src", "href", "data", "srcset")]

    def handle_data(self, data):
        if self.kind is not None:
            self.scripts[self.kind] = self.scripts.get(self.kind, "") + data
        elif self.tag == "title":
            self.title += data

    def handle_endtag(self, tag):
        self.kind, self.tag = None, ""


def blocks(html):
    parser = Blocks()
    parser.feed(html)
    parser.close()
    return parser


def read_back(text, scale, atoms):
    return np.frombuffer(base64.b64decode(text), "<i2").reshape(-1, atoms, 3) * scale


def test_every_picture_has_its_own_name_a_caption_and_something_drawn(evaluation):
    names = [picture.name for picture in evaluation.pictures]
    assert len(set(names)) == len(names)
    expected = {
        "overlays",
        "ramachandran",
        "handedness",
        "bond_lengths",
        "torsions",
        "path",
        "path_torsions",
        "latent_map",
    }
    assert set(names) == expected
    for picture in evaluation.pictures:
        assert picture.caption
        for axis in picture.figure.axes:
            assert axis.has_data() or axis.collections or axis.images, picture.name


def test_all_structures_of_a_picture_have_one_scale(evaluation):
    for name in ("overlays", "path"):
        figure = next(picture.figure for picture in evaluation.pictures if picture.name == name)
        widths = {round(float(np.ptp(axis.get_xlim())), 6) for axis in figure.axes}
        assert len(widths) == 1


def test_the_histograms_of_bonds_are_of_all_bonds(evaluation):
    figure = next(picture.figure for picture in evaluation.pictures if picture.name == "bond_lengths")
    counts = [int(re.search(r"(\d+) bonds?$", axis.get_title(loc="left")).group(1)) for axis in figure.axes]
    assert sum(counts) == len(peptide(5).bonds)


def test_molecules_are_seen_from_their_broad_side_and_not_in_a_mirror():
    generator = torch.Generator().manual_seed(0)
    xyz = (torch.randn(50, 3, generator=generator) * torch.tensor([1.0, 5.0, 2.0])).numpy()
    axes = viewing_axes(xyz)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    spread = (xyz @ axes).std(0)
    assert spread[0] > spread[1] > spread[2]


def test_the_view_holds_originals_reconstructions_samples_and_the_path(evaluation):
    (shown,) = evaluation.pages
    found = json.loads(blocks(shown.html).scripts["application/json"])
    topology = peptide(5)
    assert found["elements"] == list(topology.symbols)
    assert [one["name"] for one in found["sets"]] == ["Reconstructions", "Samples", "Path"]
    assert [len(one["notes"]) for one in found["sets"]] == [40, 30, 6]
    for one in found["sets"]:
        for layer in one["layers"]:
            xyz = read_back(layer["xyz"], found["scale"], len(topology))
            assert len(xyz) == len(one["notes"])
            i, j = np.transpose(found["bonds"])
            assert np.linalg.norm(xyz[:, i] - xyz[:, j], axis=-1).max() < 4.0


def test_the_view_shows_originals_unmirrored_with_their_own_distances(evaluation):
    found = json.loads(blocks(evaluation.pages[0].html).scripts["application/json"])
    topology = peptide(5)
    original = torch.from_numpy(read_back(found["sets"][0]["layers"][0]["xyz"], found["scale"], len(topology))).float()
    truth = data(topology, 120).xyz[80:]
    assert torch.allclose(torch.cdist(original, original), torch.cdist(truth, truth), atol=0.05)
    triples = [torch.linalg.det(xyz[:, [5, 20, 30]] - xyz[:, [0]]) for xyz in (original, truth)]
    assert torch.allclose(*triples, atol=2.0)


def test_the_view_asks_for_nothing_outside_itself(evaluation):
    found = blocks(evaluation.pages[0].html)
    assert found.references == []
    assert "default-src 'none'" in evaluation.pages[0].html
    assert not re.search(r"https?://|@import|url\(|fetch\(|import\(", evaluation.pages[0].html)


def test_names_cannot_leave_the_data_of_a_view():
    nasty = '</script><script>alert("x")</script>{{data}}'
    layer = {"name": nasty, "xyz": torch.zeros(1, 2, 3)}
    html = page(
        nasty, ["C", nasty], [(0, 1)], [{"name": nasty, "milliseconds": 1, "notes": [nasty], "layers": [layer]}]
    )
    found = blocks(html)
    assert found.title == nasty
    assert "alert" not in found.scripts["run"]
    assert json.loads(found.scripts["application/json"])["sets"][0]["notes"] == [nasty]


def test_large_molecules_are_stored_at_a_coarser_step():
    xyz = 1000.0 * torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0))
    html = page(
        "t",
        ["C", "C"],
        [(0, 1)],
        [{"name": "a", "milliseconds": 1, "notes": [""], "layers": [{"name": "b", "xyz": xyz}]}],
    )
    found = json.loads(blocks(html).scripts["application/json"])
    stored = read_back(found["sets"][0]["layers"][0]["xyz"], found["scale"], 2)
    assert np.abs(stored - xyz.numpy()).max() <= found["scale"]
