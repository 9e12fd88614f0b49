import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.multimodal.data import open_arrays, read_arrays
from noumena.multimodal.exploring import explore
from noumena.multimodal.exploring_states import Thinned
from noumena.multimodal.modality import Surface
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import from_arrays
from noumena.registry import family, resolve

QUICK = {"max_epochs": 2, "batch_size": 64, "lr": 3e-3, "accelerator": "cpu", "seed": 0}
KINDS = {"pose": "pose", "force": "wrench", "shape": "displacement"}


def tiny():
    return MVAE(z_dim=5, hidden_dims=(16,), components=8, mixture=2)


@pytest.fixture(scope="module")
def robot():
    splits = open_arrays(
        "sample:softrobot",
        modalities=list(KINDS),
        kinds=KINDS,
        units={"shape": "mm"},
        group="path_id",
        max_rows=400,
        missing_fraction=0.0,
    )
    model = tiny()
    model.fit(splits.train, splits.val, **QUICK)
    return explore(model, splits), splits


@pytest.fixture(scope="module")
def vectors():
    """Three views without a surface, one of them wide; some rows lack a view."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(120, 2))
    arrays = {
        "few": hidden @ rng.normal(size=(2, 3)),
        "wide": hidden @ rng.normal(size=(2, 40)),
        "points": hidden @ rng.normal(size=(2, 12)),
    }
    arrays["few"][::5] = np.nan
    data = from_arrays(arrays, kinds={"points": "displacement"}, units={"few": ["V", "A", "<b>"], "points": "mm"})
    model = tiny()
    model.fit(data, data, **QUICK)
    return explore(model, Splits(data, extra={"odd": data.subset(torch.arange(10))})), data


def check(drawing):
    """A drawing that the page can show and fetch quickly."""
    go.Figure(drawing.figure)
    lines = [] if drawing.table is None else drawing.table.rows
    assert len(json.dumps([drawing.figure, lines, drawing.note], allow_nan=False)) < 200_000
    assert all(len(line) == len(drawing.table.columns) for line in lines)
    assert drawing.note


def read(drawing, model, folder):
    place = folder / f"state{drawing.ending}"
    place.write_bytes(drawing.file())
    return read_arrays(place, modalities=model.modalities)


def test_the_family_names_its_explorer():
    assert resolve(family("multimodal").explore) is explore


def test_points_are_the_posterior_means(robot):
    explorer, splits = robot
    with torch.inference_mode():
        expected = explorer.model.embed(splits.test)
    assert explorer.points.vectors.dtype == np.float32
    np.testing.assert_allclose(explorer.points.vectors, expected, rtol=1e-4, atol=1e-5)
    assert explorer.points.names[3] == "test row 3"


def test_states_are_coloured_by_sizes_errors_columns_and_facts(robot):
    explorer, splits = robot
    colours, test = explorer.points.colours, splits.test
    assert next(iter(colours)) == "shape displacement (mm)"
    length = test["shape"].view(len(test), -1, 3).norm(dim=2).square().mean(1).sqrt()
    np.testing.assert_allclose(colours["shape displacement (mm)"], length, rtol=1e-5)
    np.testing.assert_allclose(colours["force torque (N mm)"], test["force"][:, 3:].norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(colours["pose.Dz (mm)"], test["pose"][:, 2])
    inferred = explorer.model.reconstruct(test)["pose"][:, 3:]
    error = (inferred - test["pose"][:, 3:]).square().mean(1).sqrt()
    np.testing.assert_allclose(colours["error of pose rotation (rad)"], error, rtol=1e-3, atol=1e-6)
    assert {"group", "force (N)", "error of force (N)"} <= set(colours)


def test_the_original_is_the_state_of_the_data_on_its_surface(robot, tmp_path):
    explorer, splits = robot
    drawing = explorer.original(4)
    check(drawing)
    (solid,) = drawing.figure["data"]
    moved = explorer.model.mesh.nodes + splits.test["shape"][4].view(-1, 3)
    np.testing.assert_allclose(np.stack([solid[axis] for axis in "xyz"], 1), moved, rtol=1e-4, atol=1e-4)
    assert solid["type"] == "mesh3d"
    assert solid["colorbar"]["title"]["text"] == "displacement (mm)"
    again = read(drawing, explorer.model, tmp_path)
    for name in KINDS:
        assert torch.equal(again[name][0], splits.test[name][4])
    assert torch.equal(again.surface.nodes, explorer.model.mesh.nodes)
    assert drawing.table is None
    beside = {line[0]: line[1:] for line in explorer.reconstruction(4).table.rows}
    assert beside["pose.Rx (rad)"][0] == float(splits.test["pose"][4, 3])


def test_reconstruction_is_that_of_the_model(robot, tmp_path):
    explorer, splits = robot
    drawing = explorer.reconstruction(6)
    check(drawing)
    expected = explorer.model.reconstruct(splits.test.subset(torch.tensor([6])))
    again = read(drawing, explorer.model, tmp_path)
    for name in KINDS:
        torch.testing.assert_close(again[name], expected[name], rtol=1e-4, atol=1e-4)
    line = next(line for line in drawing.table.rows if line[0] == "force.Fy (N)")
    assert line[1] == float(splits.test["force"][6, 1])
    assert line[3] == pytest.approx(line[2] - line[1])


def test_all_drawings_share_one_scale(robot):
    explorer, _ = robot
    drawings = [explorer.original(0), explorer.reconstruction(0), explorer.original(9)]
    assert len({drawing.figure["data"][0]["cmax"] for drawing in drawings}) == 1
    assert drawings[0].figure["layout"]["scene"] == drawings[2].figure["layout"]["scene"]


def test_details_tell_each_view_inferred_from_each_other(robot):
    explorer, splits = robot
    row = splits.test.subset(torch.tensor([5]))
    tables = {table.title: table for table in explorer.details(5)}
    json.dumps([table.rows for table in tables.values()], allow_nan=False)
    errors = {line[0]: line for line in tables["Every modality from every other"].rows}
    shape = explorer.model.infer(row, ["shape"], observed=["pose"])["shape"].mean
    wrong = np.linalg.norm((shape - row["shape"].numpy()).reshape(-1, 3), axis=1)
    assert errors["shape from pose"][1] == pytest.approx(np.sqrt(np.square(wrong).mean()), rel=1e-4)
    assert errors["shape from pose"][-1] == "mm"
    assert errors["pose rotation from all it has"][2] > 0
    force = explorer.model.infer(row, ["force"], observed=["pose"])["force"].mean
    inferred = tables["force, inferred"]
    assert inferred.rows[1][1 + inferred.columns[1:].index("from pose")] == pytest.approx(float(force[0, 1]), rel=1e-4)


def test_sliders_where_they_stand_change_nothing_and_elsewhere_do(robot):
    explorer, _ = robot
    stand = explorer.positions(8)
    assert 0 < len(stand) == len(explorer.sliders) <= 5
    assert all(slider.low <= place <= slider.high for slider, place in zip(explorer.sliders, stand, strict=True))
    still = explorer.moved(8, stand)
    assert (still.figure, still.table, still.note) == _seen(explorer.reconstruction(8))
    moved = explorer.moved(8, [explorer.sliders[0].high, *stand[1:]])
    check(moved)
    assert moved.table != still.table


def _seen(drawing):
    return drawing.figure, drawing.table, drawing.note


def test_a_slider_moves_along_a_principal_axis(robot, tmp_path):
    explorer, _ = robot
    latents, stand = explorer.model.latents, explorer.positions(2)
    place = explorer.moved(2, [stand[0] + 0.5, *stand[1:]])
    z = torch.from_numpy(explorer.points.vectors[2]) + 0.5 * latents.axes[0]
    with torch.inference_mode():
        expected = explorer.model.decode(z[None])
    torch.testing.assert_close(read(place, explorer.model, tmp_path)["pose"], expected["pose"], rtol=1e-4, atol=1e-5)


def test_a_path_begins_and_ends_at_the_reconstructions(robot, tmp_path):
    explorer, _ = robot
    drawings = explorer.path(1, 20, 4)
    assert len(drawings) == 4
    for drawing, index in ((drawings[0], 1), (drawings[-1], 20)):
        check(drawing)
        one, other = (read(each, explorer.model, tmp_path) for each in (drawing, explorer.reconstruction(index)))
        torch.testing.assert_close(one.values, other.values, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_samples(robot):
    explorer, _ = robot
    first, again, other = ([_seen(one) for one in explorer.samples(2, seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    check(explorer.samples(1, 3)[0])


def test_vectors_without_a_surface_are_lines_and_missing_ones_are_said(vectors, tmp_path):
    explorer, data = vectors
    whole, lacking = explorer.original(1), explorer.original(0)
    check(whole)
    check(lacking)
    assert {trace["yaxis"] for trace in whole.figure["data"]} == {"y", "y2", "y3"}
    assert len(lacking.figure["data"]) == 2
    assert "few is missing" in lacking.note
    again = read(lacking, explorer.model, tmp_path)
    assert not bool(again.has("few"))
    assert torch.equal(again["wide"][0], data["wide"][0])
    made = explorer.reconstruction(0)
    check(made)
    assert next(line for line in made.table.rows if line[0].startswith("few.x_0"))[1] is None
    assert np.isnan(explorer.points.colours["error of few"][0])


def test_further_data_sets_are_parts_of_the_map(vectors):
    explorer, data = vectors
    assert set(explorer.points.colours["part"]) == {"train", "odd"}
    assert explorer.points.names[-1] == "odd row 9"
    tables = explorer.details(len(data))
    assert tables[0].rows[-1] == ["part", "odd"]
    json.dumps([table.rows for table in tables], allow_nan=False)


def test_the_limit_is_kept_and_points_are_spread(robot):
    explorer, splits = robot
    some = explore(explorer.model, splits, limit=7)
    assert len(some.points.vectors) == len(some.points.names) == 7
    assert some.points.names[-1] == f"test row {len(splits.test) - 1}"
    assert f"7 of {len(splits.test)} test rows" in some.points.about


def test_latents_that_do_not_vary_have_no_sliders(vectors):
    _, data = vectors
    model = tiny()
    model.fit(data, **{**QUICK, "max_epochs": 1})
    model.latents.spread.zero_()
    explorer = explore(model, Splits(data))
    assert not explorer.sliders
    with pytest.raises(NotSupportedError, match="collapsed"):
        explorer.moved(0, [])
    check(explorer.reconstruction(1))


def test_positions_that_are_no_numbers_are_refused(robot):
    explorer, _ = robot
    for wrong in ([0.0], [float("inf")] * len(explorer.sliders)):
        with pytest.raises(ConfigError, match="positions"):
            explorer.moved(0, wrong)


def test_a_fine_surface_is_drawn_by_fewer_points():
    count = 80
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(count), np.arange(count)))
    corner = (np.arange(count - 1)[:, None] * count + np.arange(count - 1)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + count], 1),
            np.stack([corner + 1, corner + count + 1, corner + count], 1),
        ]
    )
    surface = Surface.of(np.stack([x, y, 0 * x], 1).astype(float), triangles)
    thin = Thinned(surface, most=500)
    assert 200 < len(thin.kept) <= 500
    assert 0 <= thin.triangles.min() <= thin.triangles.max() < len(thin.kept)
    points = surface.nodes.numpy()[thin.kept][thin.triangles]
    area = 0.5 * np.linalg.norm(np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]), axis=1)
    # What is drawn still covers the square, but for a rim of one cell.
    assert 0.85 * (count - 1) ** 2 < area.sum() < 1.05 * (count - 1) ** 2


def test_a_surface_of_points_alone_is_drawn_as_points(robot):
    explorer, splits = robot
    bare = replace(explorer.model.mesh, triangles=torch.zeros(0, 3, dtype=torch.int64))
    views = type(explorer.views)(explorer.model.modalities, bare, explorer.views.box, explorer.views.most)
    drawing = views.draw({"shape": splits.test["shape"][0].numpy()}, "points")
    check(drawing)
    assert drawing.figure["data"][0]["type"] == "scatter3d"
