import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.density.data import open_episodes, open_synthetic
from noumena.density.exploring import explore
from noumena.density.flow import Flow
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from noumena.density.neighbours import Neighbours
from noumena.density.stream import stream_rows
from noumena.density.table import Table, as_table
from noumena.registry import family, resolve

QUICK = {"max_epochs": 2, "batch_size": 64, "lr": 3e-3, "accelerator": "cpu", "seed": 0}
MADE = {
    "vae": lambda: VAE(hidden_dims=(16,), latent_dim=3, draws=4, beta=0.01),
    "original": lambda: VAE(hidden_dims=(16,), latent_dim=3, scoring="original", standardize=False, beta=0.01),
    "flow": lambda: Flow(transforms=2, hidden_dims=(8,)),
    "gmm": lambda: GaussianMixture(components=2),
    "knn": lambda: Neighbours(neighbours=3),
}
LATENT = ("vae", "original", "flow")


@pytest.fixture(scope="module")
def hopper():
    return open_episodes("sample:hopper", max_rows=1500)


@pytest.fixture(scope="module")
def explorers(hopper):
    far = as_table(hopper.test, hopper.test.columns).rows[:40] * 20.0
    splits = replace(hopper, extra={"far": Table(far, hopper.test.columns)})
    found = {}
    for name, make in MADE.items():
        model = make()
        model.fit(splits.train, splits.val, **QUICK)
        found[name] = explore(model, splits)
    return found, splits


@pytest.fixture(params=list(MADE))
def shown(request, explorers):
    found, splits = explorers
    return request.param, found[request.param], splits


def check(drawing):
    """A drawing that the page can show and a file that the family reads again; gives the file's row."""
    go.Figure(drawing.figure)
    lines = [] if drawing.table is None else drawing.table.rows
    assert len(json.dumps([drawing.figure, lines, drawing.note], allow_nan=False)) < 200_000
    assert drawing.note
    assert all(len(line) == len(drawing.table.columns) for line in lines)


def row_of(drawing, model, folder):
    place = folder / f"row{drawing.ending}"
    place.write_bytes(drawing.file())
    (rows,) = stream_rows(str(place), model.schema)
    return rows[0]


def test_the_family_names_its_explorer():
    assert resolve(family("density").explore) is explore


def test_points_are_latents_or_standardised_rows(shown):
    name, explorer, splits = shown
    rows = torch.cat([splits.test.rows, splits.extra["far"].rows])
    model = explorer.model
    with torch.inference_mode():
        expected = model.embed(rows) if name in LATENT else model.standardizer(rows)
    assert explorer.points.vectors.dtype == np.float32
    np.testing.assert_allclose(explorer.points.vectors, expected, rtol=1e-4, atol=1e-4)
    assert len(explorer.points.names) == len(set(explorer.points.names)) == len(rows)
    assert explorer.points.names[-1] == "far row 39"


def test_rows_are_coloured_by_score_first_then_verdict_p_value_and_part(shown):
    _, explorer, splits = shown
    colours = explorer.points.colours
    score, verdict, p_value, part = list(colours)[:4]
    assert (score, verdict, p_value, part) == (f"score ({explorer.model.score_unit})", "verdict", "p-value", "part")
    assert all(len(values) == len(explorer.points.vectors) for values in colours.values())
    assert np.isfinite(colours[score]).all()
    np.testing.assert_allclose(colours[score][: len(splits.test)], explorer.model.score_samples(splits.test), rtol=1e-6)
    assert (colours[verdict][-40:] == "anomaly").mean() > (colours[verdict][:-40] == "anomaly").mean()
    assert set(colours[part]) == {"test", "far"}
    assert sum(name.startswith("column ") for name in colours) == 6


def test_the_original_is_the_row_of_the_data(shown, tmp_path):
    _, explorer, splits = shown
    drawing = explorer.original(7)
    check(drawing)
    listed = {line[0]: line[1] for line in explorer.details(7)[1].rows}
    assert [listed[name] for name in explorer.columns] == splits.test.rows[7].tolist()
    assert torch.equal(row_of(drawing, explorer.model, tmp_path), splits.test.rows[7])


def test_details_name_the_verdict_and_add_up_to_the_score(shown):
    name, explorer, splits = shown
    tables = explorer.details(3)
    json.dumps([table.rows for table in tables], allow_nan=False)
    values = dict(tables[0].rows)
    score = float(explorer.model.score_samples(splits.test.rows[3:4])[0])
    assert values[f"score ({explorer.model.score_unit})"] == pytest.approx(score)
    assert values["p-value"] == pytest.approx(float(explorer.model.p_value(splits.test.rows[3:4])[0]))
    assert values["verdict"] in ("normal", "anomaly")
    if name == "original":
        assert "no gradient" in tables[1].caption
        return
    parts = [line[-1] for line in tables[1].rows]
    assert parts == sorted(parts)
    start = float(explorer.model.score_samples(torch.tensor([_by_column(tables[1], explorer.columns)]))[0])
    assert sum(parts) == pytest.approx(score - start, rel=2e-2, abs=2e-2)


def _by_column(table, columns):
    found = {line[0]: line[-2] for line in table.rows}
    return [found[name] for name in columns]


@pytest.mark.parametrize("name", LATENT)
def test_reconstruction_is_that_of_the_model(name, explorers, tmp_path):
    explorer = explorers[0][name]
    row = explorers[1].test.rows[5:6]
    drawing = explorer.reconstruction(5)
    check(drawing)
    made = row_of(drawing, explorer.model, tmp_path)
    torch.testing.assert_close(made, explorer.model.reconstruct(row)[0], rtol=1e-4, atol=1e-4)
    listed = {line[0]: line[1:4] for line in explorer.details(5)[1].rows}
    value, rebuilt, difference = listed[explorer.columns[2]]
    assert (value, rebuilt) == (float(row[0, 2]), pytest.approx(float(made[2]), rel=1e-4))
    assert difference == pytest.approx((rebuilt - value) / float(explorer._scale.scale[2]), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", LATENT)
def test_sliders_where_they_stand_change_nothing_and_elsewhere_do(name, explorers):
    explorer = explorers[0][name]
    stand = explorer.positions(9)
    assert len(stand) == len(explorer.sliders) <= 16
    assert all(slider.low <= place <= slider.high for slider, place in zip(explorer.sliders, stand, strict=True))
    assert explorer.moved(9, stand).file() == explorer.reconstruction(9).file()
    moved = explorer.moved(9, [slider.high for slider in explorer.sliders])
    check(moved)
    assert moved.file() != explorer.reconstruction(9).file()


def test_sliders_of_a_vae_are_ordered_by_their_divergence(explorers):
    found, splits = explorers
    with torch.inference_mode():
        posterior = found["vae"].model.encode(splits.test.rows)
    kl = posterior.kl_per_dimension().mean(0)
    order = [int(slider.name[1:]) for slider in found["vae"].sliders]
    assert order == sorted(order, key=lambda k: -kl[k])


@pytest.mark.parametrize("name", LATENT)
def test_a_path_begins_and_ends_at_the_reconstructions(name, explorers, tmp_path):
    explorer = explorers[0][name]
    drawings = explorer.path(2, 30, 5)
    assert len(drawings) == 5
    for drawing, index in ((drawings[0], 2), (drawings[-1], 30)):
        check(drawing)
        one, other = (row_of(each, explorer.model, tmp_path) for each in (drawing, explorer.reconstruction(index)))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vae", "flow", "gmm"])
def test_the_same_seed_gives_the_same_samples(name, explorers):
    explorer = explorers[0][name]
    first, again, other = (explorer.samples(3, seed) for seed in (1, 1, 2))
    assert [one.file() for one in first] == [one.file() for one in again] != [one.file() for one in other]
    for drawing in first:
        check(drawing)


@pytest.mark.parametrize("name", ["gmm", "knn"])
def test_what_there_is_not_is_said_in_words(name, explorers):
    explorer = explorers[0][name]
    assert set(explorer.without) == {"reconstruction", "moved", "path", *(["samples"] if name == "knn" else [])}
    assert not explorer.sliders
    asked = {
        "reconstruction": lambda: explorer.reconstruction(0),
        "moved": lambda: explorer.moved(0, []),
        "path": lambda: explorer.path(0, 1, 3),
        "samples": lambda: explorer.samples(1, 0),
    }
    for what, reason in explorer.without.items():
        with pytest.raises(NotSupportedError, match=r"no latents|draws no rows") as error:
            asked[what]()
        assert str(error.value) == reason
    assert "standardised columns" in explorer.points.about


def test_the_limit_is_kept_and_every_part_is_there(explorers):
    found, splits = explorers
    some = explore(found["gmm"].model, splits, limit=50)
    assert len(some.points.vectors) == len(some.points.names) == 50
    assert set(some.points.colours["part"]) == {"test", "far"}
    assert "of 40 far rows" in some.points.about


def test_labels_colour_the_map_and_missing_calibration_is_no_fault():
    splits = open_synthetic(n=200, dim=2, test_fraction=0.3)
    model = VAE(hidden_dims=(8,), latent_dim=1)
    model.fit(splits.train, **{**QUICK, "max_epochs": 1})
    explorer = explore(model, splits)
    assert set(explorer.points.colours["label"]) == {"normal", "anomaly"}
    assert not {"verdict", "p-value"} & set(explorer.points.colours)
    assert len(explorer.details(0)) == 2
    check(explorer.original(0))


def test_a_collapsed_latent_has_no_sliders_and_says_so(hopper):
    model = VAE(hidden_dims=(8,), latent_dim=2, draws=2)
    model.prepare(hopper.train)
    for weight in model.encoder.parameters():
        torch.nn.init.zeros_(weight)
    explorer = explore(model, hopper, limit=30)
    assert not explorer.sliders
    with pytest.raises(NotSupportedError, match="collapsed"):
        explorer.moved(0, [])
    check(explorer.reconstruction(0))


def test_positions_that_are_no_numbers_are_refused(explorers):
    explorer = explorers[0]["vae"]
    for wrong in ([0.0] * (len(explorer.sliders) + 1), [float("nan")] * len(explorer.sliders)):
        with pytest.raises(ConfigError, match="positions"):
            explorer.moved(0, wrong)


@pytest.mark.parametrize("name", ["vae", "flow", "gmm", "knn"])
def test_a_row_beyond_all_measure_is_drawn_all_the_same(name, explorers):
    found, splits = explorers
    rows = splits.test.rows[:3].clone()
    rows[0] = 1e30
    far = replace(splits.test.subset(torch.arange(3)), rows=rows)
    explorer = explore(found[name].model, replace(splits, test=far, extra={}))
    check(explorer.original(0))
    assert np.isfinite(explorer.points.vectors).all()
    assert np.isfinite(explorer.points.colours[next(iter(explorer.points.colours))]).all()
    json.dumps([table.rows for table in explorer.details(0)], allow_nan=False)
    if name in LATENT:
        check(explorer.reconstruction(0))


def test_no_number_is_listed_twice_on_the_page(shown):
    name, explorer, _ = shown
    assert explorer.original(3).table is None
    columns = explorer.details(3)[1].columns
    assert len(set(columns)) == len(columns)
    if name in LATENT:
        assert explorer.reconstruction(3).table is None
        assert columns[:4] == ["column", "value", "rebuilt", "difference (sd)"]
        assert explorer.moved(3, explorer.positions(3)).table is not None


def test_of_a_few_points_nobody_says_that_the_latent_has_collapsed(hopper):
    model = VAE(hidden_dims=(8,), latent_dim=2, draws=2)
    model.prepare(hopper.train)
    with pytest.raises(NotSupportedError, match=r"a single point, too few to tell.*it takes 10"):
        explore(model, hopper, limit=1).moved(0, [])
