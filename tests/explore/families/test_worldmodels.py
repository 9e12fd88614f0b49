import base64
import io
import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.registry import family, resolve
from noumena.worldmodels.baselines import Random, Supervised
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.episodes.data import open_episodes
from noumena.worldmodels.exploring import explore
from noumena.worldmodels.exploring_films import Light, Line, strip
from noumena.worldmodels.exploring_latents import on_simplex
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.rssm import RSSM

QUICK = {"max_epochs": 1, "batch_size": 16, "lr": 1e-3, "accelerator": "cpu", "seed": 0}
SIZES = {"deter": 12, "hidden": 12, "variables": 4, "classes": 3, "decoder_width": 4}
MADE = {
    "jepa": lambda: JEPA(latent_dim=8, episode_dim=3),
    "rssm": lambda: RSSM(**SIZES),
    "study": lambda: RSSM(variant="study", deter=12),
    "supervised": lambda: Supervised(latent_dim=8),
    "random": lambda: Random(latent_dim=8),
}
STEPS, TESTS = 6, 10


@pytest.fixture(scope="module")
def explorers():
    splits = open_dots(steps=STEPS, sequences=48, test_sequences=TESTS, noise="structured", fixed=0.4)
    found = {}
    for name, make in MADE.items():
        model = make()
        model.fit(splits.train, **QUICK)
        found[name] = explore(model, splits)
    return found, splits


@pytest.fixture(params=list(MADE))
def shown(request, explorers):
    found, splits = explorers
    return request.param, found[request.param], splits


def check(drawing):
    """A drawing that the page can show and fetch quickly."""
    go.Figure(drawing.figure)
    table = [] if drawing.table is None else drawing.table.rows
    assert len(json.dumps([drawing.figure, table, drawing.note], allow_nan=False)) < 200_000
    assert drawing.note
    if drawing.table is not None:
        assert all(len(line) == len(drawing.table.columns) for line in table)


def arrays(drawing):
    assert drawing.ending == ".npz"
    with np.load(io.BytesIO(drawing.file()), allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name])[0] for name in file}


def sequence(splits, index):
    return splits.test.batch(torch.tensor([index // STEPS]))


def seen(drawing):
    return drawing.figure, drawing.table, drawing.note


def test_the_family_names_its_explorer():
    assert resolve(family("worldmodels").explore) is explore


def test_points_are_the_latents_of_the_frames_of_whole_sequences(shown):
    _, explorer, splits = shown
    with torch.inference_mode():
        expected = explorer.model.encode(splits.test.batch(torch.arange(TESTS))).mean.flatten(0, 1)
    assert explorer.points.vectors.dtype == np.float32
    np.testing.assert_allclose(explorer.points.vectors, expected, rtol=1e-4, atol=1e-5)
    assert explorer.points.names[STEPS + 2] == "test sequence 1, step 2"
    assert explorer.points.about.startswith("60 frames of 10 of 10 test sequences")


def test_frames_are_coloured_by_true_position_step_and_action(shown):
    name, explorer, splits = shown
    colours, every = explorer.points.colours, splits.test.batch(torch.arange(TESTS))
    assert list(colours)[:2] == ["x of dot (px)", "y of dot (px)"]
    np.testing.assert_allclose(colours["y of dot (px)"], every.state[:, :, 0, 1].flatten())
    assert colours["step"].tolist() == list(range(STEPS)) * TESTS
    np.testing.assert_allclose(colours["dx of the action before"].reshape(TESTS, STEPS)[:, 1:], every.actions[:, :, 0])
    assert ("error of the decoded frame" in colours) == (name in ("rssm", "study"))
    assert all(len(values) == TESTS * STEPS and np.isfinite(values).all() for values in colours.values())


def test_the_original_is_the_sequence_of_the_data(shown, tmp_path):
    _, explorer, splits = shown
    drawing = explorer.original(STEPS + 2)
    check(drawing)
    one = sequence(splits, STEPS + 2)
    place = tmp_path / "film.npz"
    place.write_bytes(drawing.file())
    again = open_episodes(str(place), steps=STEPS, val_fraction=0.0, test_fraction=0.0).train.batch(torch.tensor([0]))
    assert torch.equal(again.frames, one.frames)
    assert torch.equal(again.actions, one.actions)
    assert torch.equal(again.state.flatten(), one.state.flatten())
    assert drawing.table.rows[2] == ["2 ◂", *one.actions[0, 2].tolist(), *one.state[0, 2, 0].tolist()]
    assert drawing.table.rows[-1][1:3] == [None, None]


def test_the_picture_shows_the_frames_and_rings_the_positions(explorers):
    explorer, splits = explorers[0]["jepa"], explorers[1]
    figure = explorer.original(3).figure
    image, ring = figure["data"]
    picture = Image.open(io.BytesIO(base64.b64decode(image["source"].partition(",")[2])))
    assert picture.size == (STEPS * 28 + (STEPS - 1) * 2, 28)
    pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0)
    frame, light = sequence(splits, 0).frames[0, 3, 0], explorer._survey.light
    expected = (frame - light.low) / (light.high - light.low) * 255
    torch.testing.assert_close(pixels[0, :, 90:118].float(), expected, atol=0.6, rtol=0)
    assert pixels[3, :, 88:90].max() == 0
    assert ring["x"][3] == pytest.approx(float(sequence(splits, 0).state[0, 3, 0, 0]) + 90, abs=0.01)
    arrows = [word for word in figure["layout"]["annotations"] if word.get("arrowhead")]
    assert len(arrows) == STEPS - 1
    dx = float(sequence(splits, 0).actions[0, 3, 0])
    assert arrows[3]["x"] - arrows[3]["ax"] == pytest.approx(dx, abs=0.02)


@pytest.mark.parametrize("name", ["rssm", "study"])
def test_reconstruction_and_imagination_are_those_of_the_model(name, explorers):
    explorer, splits = explorers[0][name], explorers[1]
    drawing = explorer.reconstruction(STEPS)
    check(drawing)
    one, found = sequence(splits, STEPS), arrays(drawing)
    torch.testing.assert_close(found["frames"], explorer.model.reconstruct(one)[0], rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(found["imagined"], explorer.model.imagine(one)[0, 1:], rtol=1e-3, atol=1e-4)
    wrong = (found["frames"][4] - one.frames[0, 4]).square().mean().sqrt()
    assert drawing.table.rows[4][1] == pytest.approx(float(wrong), rel=1e-4)
    assert drawing.table.rows[0][2] is None
    assert drawing.table.columns[1] == "decoded"


@pytest.mark.parametrize("name", ["jepa", "supervised", "random"])
def test_without_a_decoder_the_nearest_training_frames_stand_in_and_are_called_that(name, explorers):
    explorer, splits = explorers[0][name], explorers[1]
    drawing = explorer.reconstruction(STEPS + 1)
    check(drawing)
    train = splits.train.batch(torch.arange(len(splits.train)))
    moving = explorer.model.latent_size - explorer.model.constant_size
    with torch.inference_mode():
        latents, one = (explorer.model.encode(batch).mean[..., :moving] for batch in (train, sequence(splits, STEPS)))
    nearest = torch.cdist(one[0], latents.flatten(0, 1)).argmin(1)
    assert torch.equal(arrays(drawing)["frames"], train.frames.flatten(0, 1)[nearest])
    texts = [word["text"] for word in drawing.figure["layout"]["annotations"]]
    assert "nearest in training data" in texts
    assert "nearest in training data" in drawing.note
    assert "decodes nothing" in explorer.points.about


def test_sliders_where_they_stand_change_nothing_and_elsewhere_do(shown):
    _, explorer, _ = shown
    stand = explorer.positions(9)
    assert 0 < len(stand) == len(explorer.sliders) <= 16
    assert all(slider.low <= place <= slider.high for slider, place in zip(explorer.sliders, stand, strict=True))
    still = explorer.moved(9, stand)
    assert seen(still) == seen(explorer.reconstruction(9))
    moved = explorer.moved(9, [slider.low - 5 for slider in explorer.sliders])
    check(moved)
    assert seen(moved) != seen(still)


def test_what_comes_before_the_moved_frame_stays(shown):
    _, explorer, _ = shown
    still, moved = (
        arrays(one)["frames"]
        for one in (explorer.reconstruction(9), explorer.moved(9, [slider.high + 3 for slider in explorer.sliders]))
    )
    others = [step for step in range(STEPS) if step != 9 % STEPS]
    torch.testing.assert_close(still[others], moved[others])


def test_a_last_frame_has_no_future(shown):
    _, explorer, _ = shown
    drawing = explorer.reconstruction(STEPS - 1)
    check(drawing)
    assert "imagined" not in arrays(drawing)
    assert all(line[2] is None for line in drawing.table.rows)


def test_a_path_begins_and_ends_at_the_frames_of_the_reconstructions(shown):
    _, explorer, _ = shown
    drawings = explorer.path(4, 31, 5)
    assert len(drawings) == 5
    for drawing, index in ((drawings[0], 4), (drawings[-1], 31)):
        check(drawing)
        made = arrays(explorer.reconstruction(index))["frames"][index % STEPS]
        torch.testing.assert_close(arrays(drawing)["frames"][0], made, rtol=1e-3, atol=1e-4)


def test_details_tell_the_state_and_what_is_read_from_the_latent(shown):
    name, explorer, splits = shown
    facts, state = explorer.details(STEPS + 3)
    json.dumps([facts.rows, state.rows], allow_nan=False)
    values = dict(facts.rows)
    assert (values["sequence"], values["step"]) == (1, 3)
    one = sequence(splits, STEPS)
    assert [line[1] for line in state.rows] == one.state[0, 3, 0].tolist()
    assert "own linear map" in state.caption if name == "supervised" else "probe" in state.caption
    if name == "supervised":
        with torch.inference_mode():
            read = explorer.model.read(explorer.model.predict(one))[0, 3, 0]
        assert [line[3] for line in state.rows] == pytest.approx(read.tolist(), rel=1e-4)


@pytest.mark.parametrize("name", ["rssm", "study"])
def test_the_same_seed_imagines_the_same_films(name, explorers):
    explorer = explorers[0][name]
    first, again, other = ([seen(one) for one in explorer.samples(2, seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    drawing = explorer.samples(2, 1)[1]
    check(drawing)
    assert arrays(drawing)["frames"].shape == (STEPS, 1, 28, 28)


@pytest.mark.parametrize("name", ["jepa", "supervised", "random"])
def test_what_there_is_not_is_said_in_words(name, explorers):
    explorer = explorers[0][name]
    assert set(explorer.without) == {"samples"}
    with pytest.raises(NotSupportedError, match="no decoder"):
        explorer.samples(1, 0)


@pytest.mark.parametrize(("limit", "points"), [(25, 24), (4, 4)])
def test_the_limit_is_kept_in_whole_sequences(limit, points, explorers):
    found, splits = explorers
    explorer = explore(found["random"].model, splits, limit=limit)
    assert len(explorer.points.vectors) == len(explorer.points.names) == points
    check(explorer.reconstruction(points - 1))
    last = explorer.points.names[-1]
    assert last == (f"test sequence {TESTS - 1}, step 5" if limit == 25 else "test sequence 0, step 3")


def test_recorded_films_in_colour_without_state(tmp_path):
    rng = np.random.default_rng(0)
    place = tmp_path / "films.npz"
    frames = rng.integers(0, 255, (4, 7, 20, 24, 3), dtype=np.uint8)
    np.savez(place, frames=frames, actions=rng.normal(size=(4, 6, 3)).astype(np.float32))
    splits = open_episodes(str(place), steps=5, val_fraction=0.0, test_fraction=0.25)
    model = JEPA(latent_dim=6, encoder="convnet")
    model.fit(splits.train, **{**QUICK, "batch_size": 4})
    explorer = explore(model, splits)
    assert next(iter(explorer.points.colours)) == "step"
    assert len(explorer.details(1)) == 1
    drawing = explorer.original(1)
    check(drawing)
    assert arrays(drawing)["frames"].dtype == torch.uint8
    assert torch.equal(arrays(drawing)["frames"], splits.test.batch(torch.tensor([0])).frames[0])
    check(explorer.reconstruction(1))
    check(explorer.path(0, 3, 3)[1])


def test_latents_that_do_not_vary_have_no_sliders(explorers):
    _, splits = explorers
    model = Random(latent_dim=4)
    model.fit(splits.train, **QUICK)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    explorer = explore(model, splits, limit=30)
    assert not explorer.sliders
    with pytest.raises(NotSupportedError, match="collapsed"):
        explorer.moved(0, [])
    check(explorer.reconstruction(0))


def test_without_held_out_data_training_frames_are_shown_and_that_is_said(explorers):
    found, splits = explorers
    explorer = explore(found["jepa"].model, Splits(splits.train), limit=12)
    assert "training frames themselves" in explorer.points.about
    assert arrays(explorer.reconstruction(0))["frames"].shape == (STEPS, 1, 28, 28)


def test_positions_that_are_no_numbers_are_refused(explorers):
    explorer = explorers[0]["jepa"]
    for wrong in ([0.0], [float("nan")] * len(explorer.sliders)):
        with pytest.raises(ConfigError, match="positions"):
            explorer.moved(0, wrong)


def test_large_frames_are_made_smaller_for_the_page():
    frames = torch.rand(7, 3, 200, 240)
    figure = strip([Line("data", frames), Line("again", frames)], ["t"] * 7, Light(0.0, 1.0), chosen=6)
    go.Figure(figure)
    assert len(json.dumps(figure)) < 200_000
    image = figure["data"][0]
    picture = Image.open(io.BytesIO(base64.b64decode(image["source"].partition(",")[2])))
    # In pixels of the frames the picture is as large as they are.
    right = image["x0"] + image["dx"] * (picture.width - 0.5)
    assert figure["layout"]["shapes"][-1]["x1"] == pytest.approx(right, abs=image["dx"])


def test_sliders_of_a_categorical_state_decode_probabilities_and_say_so(explorers):
    explorer = explorers[0]["rssm"]
    seen = []
    decode = explorer.model.decode
    explorer.model.decode = lambda z: seen.append(z) or decode(z)
    try:
        still = explorer.moved(9, explorer.positions(9))
        far = explorer.moved(9, [slider.high + 5 for slider in explorer.sliders])
    finally:
        del explorer.model.decode
    assert "probabilities" not in still.note
    assert "to the nearest probabilities" in far.note
    groups = torch.cat(seen)[:, SIZES["deter"] :].unflatten(-1, (SIZES["variables"], SIZES["classes"]))
    assert (groups >= 0).all()
    torch.testing.assert_close(groups.sum(-1), torch.ones(groups.shape[:-1]), rtol=0, atol=1e-4)


def test_the_nearest_probabilities_are_nearer_than_any_others():
    generator = torch.Generator().manual_seed(0)
    points = 2.0 * torch.randn(50, 4, generator=generator, dtype=torch.float64)
    nearest = on_simplex(points)
    torch.testing.assert_close(nearest.sum(-1), torch.ones(50, dtype=torch.float64))
    assert (nearest >= 0).all()
    others = torch.rand(2000, 4, generator=generator, dtype=torch.float64).pow(3)
    others = torch.cat([others / others.sum(-1, keepdim=True), torch.eye(4, dtype=torch.float64)])
    best = torch.cdist(points, others).min(1).values
    assert ((points - nearest).norm(dim=-1) <= best + 1e-12).all()
    torch.testing.assert_close(on_simplex(nearest), nearest)


@pytest.mark.parametrize("limit", [1, 4])
def test_of_a_few_frames_nobody_says_that_the_latents_have_collapsed(limit, explorers):
    found, splits = explorers
    explorer = explore(found["jepa"].model, splits, limit=limit)
    assert "collapsed" not in explorer.without.get("moved", "")
