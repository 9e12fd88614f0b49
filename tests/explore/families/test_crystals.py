import json
from dataclasses import replace

import gemmi
import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.cells3d import cell_drawing
from noumena.crystals.data import open_crystals, read_crystals
from noumena.crystals.drawing import aligned
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.exploring import explore
from noumena.crystals.generator import CrystalPrior
from noumena.crystals.geometry import wrapped
from noumena.crystals.model import CrystalVAE
from noumena.crystals.regression import PropertyHead
from noumena.registry import family, resolve
from tests.crystals.models import crystals

QUICK = {"max_epochs": 2, "batch_size": 32, "lr": 2e-3, "accelerator": "cpu", "seed": 0}
TINY = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "latent_dim": 4}
KINDS = ("vae", "original", "told", "prior", "property")


@pytest.fixture(scope="module")
def splits():
    return open_crystals("sample:mp20", max_atoms=8)


@pytest.fixture(scope="module")
def models(splits, tmp_path_factory):
    found = {
        "vae": CrystalVAE(**TINY),
        "original": CrystalVAE(**TINY, representation="original", vector_dim=0),
        "told": CrystalVAE(**TINY, predict_types=False),
    }
    for model in found.values():
        model.fit(splits.train, splits.val, **QUICK)
    folder = tmp_path_factory.mktemp("crystals") / "vae"
    found["vae"].save(folder)
    head = PropertyHead(autoencoder=str(folder), width=8, depth=1, members=2)
    small = {"width": 8, "layers": 1, "heads": 1, "formula_width": 8, "formula_layers": 1, "formula_heads": 1}
    prior = CrystalPrior(autoencoder=str(folder), steps=2, **small)
    for model in (head, prior):
        model.fit(splits.train, splits.val, **QUICK)
    return found | {"property": head, "prior": prior}


@pytest.fixture(scope="module")
def explorers(models, splits):
    return {kind: explore(models[kind], splits) for kind in KINDS}


@pytest.fixture(params=KINDS)
def shown(request, models, explorers):
    return request.param, models[request.param], explorers[request.param]


def check(drawing, folder):
    """A drawing that the page can show, and the crystal in its file as the family reads it."""
    go.Figure(drawing.figure)
    rows = [] if drawing.table is None else drawing.table.rows
    found = [drawing.figure, rows, drawing.note, drawing.ending]
    assert len(json.dumps(found, allow_nan=False)) < 200_000
    assert drawing.note
    assert all(len(row) == len(drawing.table.columns) for row in rows)
    return read(drawing.file(), folder)


def read(content, folder):
    """What a CIF file holds; the family's reader refuses atoms that lie on each other, as of a hardly trained model."""
    path = folder / "shown.cif"
    path.write_bytes(content)
    found = gemmi.read_small_structure(str(path))
    cell = torch.tensor(found.cell.parameters, dtype=torch.float64)[None]
    frac = torch.tensor([site.fract.tolist() for site in found.sites], dtype=torch.float64)
    types = torch.tensor([site.element.atomic_number for site in found.sites])
    return CrystalBatch.from_lengths_angles(cell[:, :3], cell[:, 3:], frac, types, torch.tensor([len(types)]))


def same(one, other, *, atol=1e-4):
    """Whether two crystals of one order of atoms are the same but for a common translation and a turn."""
    assert one.atom_types.tolist() == other.atom_types.tolist()
    torch.testing.assert_close(one.lengths, other.lengths.to(one.lengths), rtol=0.0, atol=atol)
    torch.testing.assert_close(one.angles, other.angles.to(one.angles), rtol=0.0, atol=50 * atol)
    apart = wrapped(one.frac_coords - aligned(one, other).frac_coords.to(one.frac_coords))
    assert float(apart.abs().max()) < atol


def equal_numbers(explorer):
    """Two shown crystals of equally many atoms, and one of another number."""
    sizes = explorer._shown.crystals.num_atoms.tolist()
    first = next(i for i, size in enumerate(sizes) if sizes.count(size) > 1)
    other = next(i for i in range(first + 1, len(sizes)) if sizes[i] == sizes[first])
    return first, other, next(i for i, size in enumerate(sizes) if size != sizes[first])


def test_points_are_what_the_model_embeds(shown, splits):
    _, model, explorer = shown
    points = explorer.points
    assert points.vectors.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(points.vectors), model.embed(splits.test).cpu(), rtol=1e-4, atol=1e-5)
    assert len(points.names) == len(splits.test)
    assert all(name.split()[0] == own for name, own in zip(points.names, splits.test.crystals.names, strict=True))
    assert all(len(values) == len(points.names) for values in points.colours.values())
    assert f"{len(splits.test):,} crystals of test" in points.about


def test_colours_say_what_is_known_and_what_the_model_says(explorers, models, splits):
    test = splits.test
    for explorer in explorers.values():
        assert explorer.points.colours["atoms"].tolist() == test.crystals.num_atoms.tolist()
        np.testing.assert_array_equal(explorer.points.colours["band_gap (eV)"], test.properties["band_gap"].numpy())
    first = next(iter(explorers["property"].points.colours))
    assert first == "formation_energy_per_atom (eV/atom), predicted"
    predicted = explorers["property"].points.colours[first]
    np.testing.assert_allclose(predicted, models["property"].predict(test).numpy(), rtol=1e-4)
    nats = explorers["prior"].points.colours["composition under the prior (nats per atom)"]
    assert (nats > 0).all()


def test_an_original_is_the_crystal_of_the_data(shown, splits, tmp_path):
    _, _, explorer = shown
    drawing = explorer.original(2)
    same(splits.test.crystals.select(torch.tensor([2])), check(drawing, tmp_path), atol=1e-6)
    same(
        splits.test.crystals.select(torch.tensor([2])), read_crystals(tmp_path / "shown.cif", reduction="none").crystals
    )


def test_a_figure_has_every_atom_of_the_cell_where_it_is(explorers, splits):
    one = splits.test.crystals.select(torch.tensor([1]))
    drawing = explorers["vae"].original(1)
    balls = [trace for trace in drawing.figure["data"] if trace["mode"] == "markers"]
    words = [text.split() for trace in balls for text in trace["text"]]
    assert {trace["name"] for trace in balls} == {SYMBOLS[number] for number in one.atom_types.tolist()}
    shown = torch.tensor([[float(number) for number in numbers] for _, *numbers in words], dtype=torch.float64)
    for number, frac in zip(one.atom_types.tolist(), one.frac_coords, strict=True):
        near = wrapped(shown - frac).abs().amax(1) < 2e-3
        assert {words[i][0] for i in near.nonzero()[:, 0].tolist()} == {SYMBOLS[number]}
    # Edges of the drawn box are as long as the cell's vectors.
    edges = drawing.figure["data"][0]
    points = np.array([edges[axis] for axis in "xyz"], dtype=float).T.reshape(-1, 3, 3)
    lengths = np.linalg.norm(points[:, 1] - points[:, 0], axis=1).reshape(3, 4)
    np.testing.assert_allclose(lengths, np.repeat(one.lengths.numpy().T, 4, axis=1), atol=3e-3)


def test_a_reconstruction_is_that_of_the_model_seen_like_its_original(shown, splits, tmp_path):
    _, model, explorer = shown
    drawing = explorer.reconstruction(3)
    expected = model.reconstruct(splits.test.crystals.select(torch.tensor([3]))).to("cpu", torch.float64)
    same(expected, check(drawing, tmp_path))
    camera = [each.figure["layout"]["scene"]["camera"] for each in (drawing, explorer.original(3))]
    assert camera[0] == camera[1]
    assert "Å" in drawing.note
    assert "element" in drawing.note


def test_sliders_where_a_crystal_stands_give_its_reconstruction_and_elsewhere_another(shown, tmp_path):
    _, _, explorer = shown
    assert 0 < len(explorer.sliders) <= 16
    at = list(explorer.positions(4))
    assert all(slider.low <= value <= slider.high for slider, value in zip(explorer.sliders, at, strict=True))
    still = check(explorer.moved(4, at), tmp_path)
    same(check(explorer.reconstruction(4), tmp_path), still)
    at[0] = explorer.sliders[0].high
    elsewhere = check(explorer.moved(4, at), tmp_path)
    assert (elsewhere.lengths - still.lengths).abs().max() > 1e-3 or (
        wrapped(elsewhere.frac_coords - still.frac_coords).abs().max() > 1e-4
    )
    with pytest.raises(ConfigError, match="finite numbers"):
        explorer.moved(4, at[1:])
    with pytest.raises(ConfigError, match="finite numbers"):
        explorer.moved(4, [float("nan")] * len(at))


def test_a_path_leads_from_one_reconstruction_to_the_other(shown, tmp_path):
    kind, _, explorer = shown
    first, last, unlike = equal_numbers(explorer)
    if kind == "told":
        assert "does not predict elements" in explorer.without["path"]
        with pytest.raises(NotSupportedError, match="predict elements"):
            explorer.path(first, last, 3)
        return
    steps = explorer.path(first, last, 4)
    assert len(steps) == 4
    found = [check(step, tmp_path) for step in steps]
    same(check(explorer.reconstruction(first), tmp_path), found[0])
    if kind != "original":  # which decodes another crystal when the atoms are in the order of the first one
        end = check(explorer.reconstruction(last), tmp_path)
        assert sorted(found[-1].atom_types.tolist()) == sorted(end.atom_types.tolist())
        torch.testing.assert_close(found[-1].lengths, end.lengths, rtol=0.0, atol=1e-4)
    with pytest.raises(DataError, match="equally many atoms"):
        explorer.path(first, unlike, 3)


def test_only_a_prior_samples_and_the_same_seed_gives_the_same(shown, tmp_path):
    kind, _, explorer = shown
    if kind != "prior":
        assert explorer.without["samples"]
        with pytest.raises(NotSupportedError):
            explorer.samples(2, 0)
        return
    assert "samples" not in explorer.without
    first, again, other = (explorer.samples(3, seed) for seed in (5, 5, 6))
    assert [one.file() for one in first] == [one.file() for one in again]
    assert [one.file() for one in first] != [one.file() for one in other]
    assert all(len(check(one, tmp_path)) == 1 for one in first)


def test_details_are_tables_of_the_crystal(shown, splits):
    kind, _, explorer = shown
    tables = {table.title: table for table in explorer.details(0)}
    for table in tables.values():
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
        json.dumps([list(row) for row in table.rows], allow_nan=False)
    assert sum(row[1] for row in tables["Composition"].rows) == int(splits.test.crystals.num_atoms[0])
    lattice = {row[0]: row[1] for row in tables["Lattice"].rows}
    assert lattice["a (Å)"] == pytest.approx(float(splits.test.crystals.lengths[0, 0]), abs=1e-3)
    distances = [row[1] for row in tables["Nearest in the latent space"].rows]
    assert distances == sorted(distances)
    assert explorer.points.names[0] not in [row[0] for row in tables["Nearest in the latent space"].rows]
    assert ("formation_energy_per_atom, predicted (eV/atom)" in dict(tables["Properties"].rows)) == (kind == "property")


def test_points_are_at_most_the_limit_and_of_validation_or_training_data_without_a_test_part(models, splits):
    few = explore(models["vae"], splits, limit=5)
    assert len(few.points.names) == 5
    assert few.points.names[0].startswith(splits.test.crystals.names[0])
    assert few.points.names[-1].startswith(splits.test.crystals.names[-1])
    assert "of val" in explore(models["vae"], Splits(splits.train, splits.val), limit=3).points.about
    assert "of train" in explore(models["vae"], Splits(splits.train), limit=3).points.about


def test_a_single_crystal_has_nothing_to_move_along_and_says_so(models, splits):
    explorer = explore(models["vae"], splits, limit=1)
    assert not explorer.sliders
    for ask in (lambda: explorer.positions(0), lambda: explorer.moved(0, [])):
        with pytest.raises(NotSupportedError, match="no direction"):
            ask()
    assert explorer.details(0)


def test_exploring_leaves_model_and_data_as_they_can_be_trained_on(models, splits):
    model = CrystalVAE(**TINY)
    model.fit(splits.train, splits.val, **QUICK)
    explore(model, splits).reconstruction(0)
    model.fit(splits.train, splits.val, **QUICK)


def test_what_is_no_cell_is_said_and_not_drawn():
    one = crystals(3)
    flat = replace(one, lattice=one.lattice * torch.tensor([1.0, 1.0, 1e-9]))
    drawing = cell_drawing(flat, one, "moved")
    assert drawing.figure is None
    assert drawing.file is None
    assert "no cell" in drawing.note


def test_a_very_large_cell_is_drawn_without_bonds_in_a_small_figure():
    atoms = 1500
    frac = torch.rand(atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lattice = 30.0 * torch.eye(3, dtype=torch.float64)
    one = CrystalBatch.of(lattice, frac, torch.full((atoms,), 14), None, ["large"])
    drawing = cell_drawing(one, one, "large")
    assert "bonds are left out" in drawing.note
    assert len(json.dumps(drawing.figure)) < 200_000


def test_the_family_offers_its_explorer_and_refuses_other_models():
    assert resolve(family("crystals").explore) is explore
    with pytest.raises(NotSupportedError, match="no model of crystals"):
        explore(torch.nn.Identity(), None)
