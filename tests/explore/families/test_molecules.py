import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.molecules.data import open_trajectory, read_trajectory
from noumena.molecules.exploring import explore
from noumena.molecules.geometry import aligned_square_deviation
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.sticks3d import Stage
from noumena.molecules.topology import Topology
from noumena.registry import family, resolve
from tests.molecules.chains import alanine, conformations, data, peptide

QUICK = {"max_epochs": 3, "batch_size": 64, "lr": 3e-3, "accelerator": "cpu", "seed": 0}
TINY = {"width": 16, "blocks": 1, "z_dim": 4, "channels": 8, "layers": 1, "neighbours": 4, "mixture": 2, "beta": 1e-5}
KINDS = {
    "torsions": {"encoder": "torsions", "decoder": "internal"},
    "E3": {"encoder": "torsions", "decoder": "internal", "symmetry": "E3", "posterior": "isotropic"},
    "visnet": {"encoder": "visnet", "decoder": "internal", "channels": 16},
    "egnn": {"encoder": "torsions", "decoder": "egnn"},
}


@pytest.fixture(scope="module")
def splits():
    return open_trajectory("sample:alanine-dipeptide", max_frames=150)


@pytest.fixture(scope="module")
def explorers(splits):
    found = {}
    for kind, options in KINDS.items():
        model = MoleculeVAE(**{**TINY, **options})
        # Latents of message passing take longer to vary over the frames.
        model.fit(splits.train, splits.val, **QUICK | ({"max_epochs": 7, "lr": 1e-2} if kind == "visnet" else {}))
        found[kind] = model, explore(model, splits)
    return found


@pytest.fixture(params=list(KINDS))
def shown(request, explorers):
    return explorers[request.param]


@pytest.fixture(scope="module")
def helix():
    """A model of a peptide that has hands, and its explorer."""
    whole = data(peptide(7), 120)
    whole = whole.__class__(**{**vars(whole), "side": {"energy (kJ/mol)": torch.arange(120.0)}})
    parts = [whole.subset(torch.arange(start, end)) for start, end in ((0, 80), (80, 120))]
    model = MoleculeVAE(**TINY)
    model.fit(parts[0], **QUICK)
    return explore(model, Splits(parts[0], None, parts[1])), parts[1]


def check(drawing, folder):
    """A drawing that the page can show, and the frame in its file as the family reads it, shape (atoms, 3)."""
    go.Figure(drawing.figure)
    assert len(json.dumps([drawing.figure, drawing.note], allow_nan=False)) < 200_000
    assert drawing.note
    assert drawing.ending == ".pdb"
    return read(drawing.file(), folder)


def read(content, folder):
    path = folder / "shown.pdb"
    path.write_bytes(content)
    return read_trajectory(str(path), broken="refuse").xyz[0]


def places(content):
    """Coordinates of a PDB file whose bonds may be as a hardly trained model makes them, shape (atoms, 3)."""
    rows = [line for line in content.decode().splitlines() if line.startswith(("ATOM", "HETATM"))]
    return torch.tensor([[float(row[i : i + 8]) for i in (30, 38, 46)] for row in rows])


def off(one, other):
    """RMSD after superposition in angstrom."""
    return float(aligned_square_deviation(one[None], other[None])[0]) ** 0.5


def shown_places(drawing):
    """Places of all markers of a figure, shape (atoms, 3), sorted by x."""
    balls = [trace for trace in drawing.figure["data"] if trace["mode"] == "markers"]
    found = np.concatenate([np.array([trace[axis] for axis in "xyz"]).T for trace in balls])
    return found[np.argsort(found[:, 0])]


def test_points_are_what_the_model_embeds(shown, splits):
    model, explorer = shown
    points = explorer.points
    assert points.vectors.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(points.vectors), model.embed(splits.test).cpu(), rtol=1e-4, atol=1e-5)
    assert len(points.names) == len(splits.test)
    assert points.names[1] == f"trajectory {int(splits.test.trajectory[1])}, frame {int(splits.test.frame[1])}"
    assert f"of the {len(splits.test):,} frames of test" in points.about


def test_colours_are_torsions_deviations_and_what_the_data_know(shown, splits, helix):
    _, explorer = shown
    colours = explorer.points.colours
    assert {"phi:2 (°)", "psi:2 (°)", "RMSD of the reconstruction (Å)", "frame", "trajectory"} <= set(colours)
    assert np.abs(colours["phi:2 (°)"]).max() <= 180.0
    assert colours["frame"].tolist() == splits.test.frame.tolist()
    handed, held = helix
    first = next(iter(handed.points.colours))
    assert first.startswith("ζ")
    assert set(handed.points.colours["hand"].tolist()) <= {"left", "right", "neither"}
    assert handed.points.colours["energy (kJ/mol)"].tolist() == held.side["energy (kJ/mol)"].tolist()
    assert re.search(r"ζ = .*\((left|right|neither)\)", handed.original(0).note)


def test_an_original_is_the_frame_of_the_data(shown, splits, tmp_path):
    _, explorer = shown
    drawing = explorer.original(3)
    torch.testing.assert_close(check(drawing, tmp_path), splits.test.xyz[3], rtol=0.0, atol=2e-3)
    found, expected = shown_places(drawing), splits.test.xyz[3].numpy()
    assert len(found) == len(expected)
    # Turned as a whole: the distances from the middle are kept.
    radii = [np.sort(np.linalg.norm(each - each.mean(0), axis=1)) for each in (found, expected)]
    np.testing.assert_allclose(*radii, atol=3e-3)


def test_a_reconstruction_is_that_of_the_model_over_its_original(shown, splits):
    model, explorer = shown
    drawing = explorer.reconstruction(4)
    expected = model.reconstruct(splits.test.xyz[4:5])[0]
    torch.testing.assert_close(places(drawing.file()), expected, rtol=0.0, atol=2e-3)
    go.Figure(drawing.figure)
    found = float(re.search(r"RMSD ([\d.]+) Å", drawing.note)[1])
    assert found == pytest.approx(explorer.points.colours["RMSD of the reconstruction (Å)"][4], abs=0.01)
    assert found == pytest.approx(off(expected, splits.test.xyz[4]), abs=0.01)
    under = next(trace for trace in drawing.figure["data"] if trace["name"] == "original")
    # The grey sticks are the atoms of the original, seen from the same side.
    ends = np.array([[value for value in under[axis] if value is not None] for axis in "xyz"]).T
    atoms = shown_places(explorer.original(4))
    gaps = np.linalg.norm(ends[:, None] - atoms, axis=-1)
    assert gaps.min(1).max() < 2e-3
    cameras = [each.figure["layout"]["scene"]["camera"] for each in (drawing, explorer.original(4))]
    assert cameras[0] == cameras[1]


def test_sliders_where_a_frame_stands_give_its_reconstruction_and_elsewhere_another(shown):
    _, explorer = shown
    assert explorer.sliders
    at = list(explorer.positions(2))
    assert all(slider.low <= value <= slider.high for slider, value in zip(explorer.sliders, at, strict=True))
    latents = [int(slider.name[1:]) for slider in explorer.sliders]
    np.testing.assert_array_equal(np.float32(at), explorer.points.vectors[2, latents])
    still = places(explorer.moved(2, at).file())
    torch.testing.assert_close(still, places(explorer.reconstruction(2).file()), rtol=0.0, atol=2e-3)
    at[0] = explorer.sliders[0].high + 1.0
    assert off(places(explorer.moved(2, at).file()), still) > 1e-3
    for wrong in (at[1:], [float("inf")] * len(at)):
        with pytest.raises(ConfigError, match="finite numbers"):
            explorer.moved(2, wrong)


def test_a_path_leads_from_one_reconstruction_to_the_other(shown):
    _, explorer = shown
    steps = explorer.path(0, 5, 4)
    assert len(steps) == 4
    for step in steps:
        go.Figure(step.figure)
    ends = [places(steps[i].file()) for i in (0, -1)]
    assert off(ends[0], places(explorer.reconstruction(0).file())) < 3e-3
    assert off(ends[1], places(explorer.reconstruction(5).file())) < 3e-3
    with pytest.raises(ConfigError, match="2 steps"):
        explorer.path(0, 5, 1)


def test_the_same_seed_gives_the_same_samples(shown):
    model, explorer = shown
    first, again, other = (explorer.samples(3, seed) for seed in (7, 7, 8))
    assert [one.file() for one in first] == [one.file() for one in again]
    assert [one.file() for one in first] != [one.file() for one in other]
    expected = model.sample(3, torch.Generator().manual_seed(7))
    assert max(off(places(one.file()), truth) for one, truth in zip(first, expected, strict=True)) < 3e-3
    assert "samples" not in explorer.without


def test_details_are_tables_of_the_frame(shown, splits, helix):
    model, explorer = shown
    for each in (explorer, helix[0]):
        for table in each.details(1):
            assert table.rows
            assert all(len(row) == len(table.columns) for row in table.rows)
            json.dumps([list(row) for row in table.rows], allow_nan=False)
    tables = {table.title: table for table in explorer.details(1)}
    latents = {row[0]: row[1] for row in tables["Latents"].rows}
    expected = model.embed(splits.test)[1].tolist()
    assert [latents[f"z{i}"] for i in range(len(expected))] == pytest.approx(expected, abs=1e-3)
    near = tables["Nearest in the latent space"].rows
    assert explorer.points.names[1] not in [row[0] for row in near]
    assert [row[1] for row in near] == sorted(row[1] for row in near)
    torsions = {row[0]: row[1] for row in tables["Torsions"].rows}
    assert torsions["phi:2"] == pytest.approx(float(explorer.points.colours["phi:2 (°)"][1]), abs=0.06)
    own = {row[0]: row[1:] for row in helix[0].details(1)[0].rows}
    assert own["energy (kJ/mol)"] == [81.0, None]
    assert own["hand"][0] == str(helix[0].points.colours["hand"][1])


def test_points_are_at_most_the_limit_and_of_validation_or_training_data_without_a_test_part(explorers, splits):
    model, _ = explorers["torsions"]
    few = explore(model, splits, limit=4)
    assert len(few.points.names) == 4
    assert few.points.names[-1].endswith(f"frame {int(splits.test.frame[-1])}")
    assert "of val" in explore(model, Splits(splits.train, splits.val), limit=3).points.about
    assert "of train" in explore(model, Splits(splits.train), limit=3).points.about


def test_a_model_without_active_latents_has_nothing_to_move_along_and_says_so(explorers, splits):
    explorer = explore(explorers["torsions"][0], splits, limit=1)
    assert not explorer.sliders
    for ask in (lambda: explorer.positions(0), lambda: explorer.moved(0, [])):
        with pytest.raises(NotSupportedError, match="no latent is active"):
            ask()
    assert explorer.details(0)


def test_hydrogens_are_left_out_of_large_molecules_and_the_note_says_so():
    carbons = 120
    bonds = [(i, i + 1) for i in range(carbons - 1)]
    bonds += [(i, carbons + 2 * i + k) for i in range(carbons) for k in range(2)]
    chain = Topology.make([6] * carbons + [1] * (2 * carbons), bonds)
    xyz = torch.randn(len(chain), 3, generator=torch.Generator().manual_seed(0))
    drawing = Stage.of(xyz, chain).drawing(xyz, "large", xyz)
    assert drawing.note == "large; hydrogens are not drawn"
    assert len(shown_places(drawing)) == carbons
    assert len(places(drawing.file())) == len(chain)
    assert len(json.dumps(drawing.figure)) < 200_000


def test_a_very_large_molecule_is_drawn_by_its_bonds_in_a_small_figure():
    atoms = 900
    chain = Topology.make([6] * atoms, [(i, i + 1) for i in range(atoms - 1)])
    xyz = 10.0 * torch.randn(atoms, 3, generator=torch.Generator().manual_seed(0))
    drawing = Stage.of(xyz, chain).drawing(xyz, "large", xyz)
    assert "ends of their bonds" in drawing.note
    assert all(trace["mode"] == "lines" for trace in drawing.figure["data"])
    assert len(json.dumps(drawing.figure)) < 200_000


def test_names_of_atoms_cannot_bring_marks_of_html():
    topology = alanine()
    named = Topology.make(topology.elements, topology.bonds, names=["<a href='javascript:x'>N"] * len(topology))
    xyz = conformations(named, 1)[0]
    texts = [text for trace in Stage.of(xyz, named).drawing(xyz, "").figure["data"] for text in trace.get("text", ())]
    assert texts
    assert not any("<" in text for text in texts)


def test_another_molecule_and_other_models_are_refused(explorers):
    assert resolve(family("molecules").explore) is explore
    other = data(peptide(3), 10)
    with pytest.raises(DataError, match="another molecule"):
        explore(explorers["torsions"][0], Splits(other))
    with pytest.raises(NotSupportedError, match="no model of conformations"):
        explore(torch.nn.Identity(), Splits(other))
