import io
import json

import numpy as np
import pytest

from noumena.core.seeding import seeded
from noumena.density.model import VAE
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.jepa import JEPA
from tests.cli.test_cli import _modules_after, run

FAST = ("--episodes", "3", "--walks", "64", "--horizon", "3", "--device", "cpu")


def saved(folder, schema, size=32):
    """An untrained model: what is tested is how it is used."""
    with seeded(0):
        model = JEPA(frame=(2, size, size), action_dim=2, encoder="convnet", latent_dim=8, predictor_width=8)
        model.schema = schema
        model.eval().save(folder)
    return folder


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    world = TwoRooms(size=32, wall_x=15.5, door_y=15.5, max_step=9.0, max_steps=6)
    schema = {
        "kind": "two-rooms", "frame": [2, 32, 32], "steps": 17, "actions": ["dx", "dy"], "state": ["dot"],
        "state_dims": 2, "state_unit": "px", "world": world.to_json(),
    }  # fmt: skip
    return saved(tmp_path_factory.mktemp("rooms") / "model", schema)


@pytest.mark.parametrize("planner", ["cem", "mppi", "gradient"])
def test_plan_prints_rates_beside_floor_and_ceiling(capfd, rooms, planner):
    code, out, err = run(capfd, "plan", rooms, *FAST, "--planner", planner, "--goal", "state")
    assert code == 0, err
    for word in ("plans of the model", "random policy", "oracle", "95 %"):
        assert word in out


def test_plan_in_json_is_the_same_for_the_same_seed_and_writes_a_film(capfd, rooms, tmp_path):
    image = pytest.importorskip("PIL.Image")
    film = tmp_path / "film.gif"
    code, out, err = run(capfd, "plan", rooms, *FAST, "--json", "--film", film)
    assert code == 0, err
    one, other = (json.loads(text) for text in (out, run(capfd, "plan", rooms, *FAST, "--json")[1]))
    assert set(one) == set(other)
    assert all(one[name] == other[name] for name in one if "latency" not in name)
    assert 0 <= one["plan/success_low"] <= one["plan/success"] <= one["plan/success_high"] <= 1
    assert one["plan/oracle_success"] >= one["plan/random_success"]
    with image.open(io.BytesIO(film.read_bytes())) as opened:
        assert opened.format == "GIF"
        assert opened.n_frames >= 2


def test_plan_without_a_world_says_what_to_do(capfd, tmp_path):
    schema = {
        "kind": "episodes", "frame": [2, 32, 32], "steps": 5, "actions": ["a", "b"], "state": [], "state_dims": 2,
        "state_unit": "",
    }  # fmt: skip
    code, _, err = run(capfd, "plan", saved(tmp_path / "model", schema), *FAST)
    assert code == 2
    for word in ("episodes", "no world", "plan_metrics", "World"):
        assert word in err


def test_plan_with_a_model_of_another_family_is_refused(capfd, tmp_path):
    vae = VAE(latent_dim=2, hidden_dims=[4])
    vae.fit(np.random.default_rng(0).normal(size=(40, 3)), max_epochs=1, batch_size=20, seed=0)
    vae.save(tmp_path / "vae")
    code, _, err = run(capfd, "plan", tmp_path / "vae")
    assert code == 2
    assert "density/vae" in err
    assert "worldmodels" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--planner", "cme"), ("cme", "Did you mean 'cem'")),
        (("--goal", "video"), ("image or state", "video")),
        (("--horizon", "2", "--replan-every", "3"), ("replan_every", "horizon of 2")),
        (("--film", "film.mp4"), ("film.mp4", ".gif")),
        (("--film", "film.gif", "--film-episode", "3"), ("--film-episode 3", "3 episodes")),
    ],
)
def test_plan_refuses_options_it_cannot_follow(capfd, rooms, options, words):
    code, out, err = run(capfd, "plan", rooms, "--episodes", "3", "--walks", "64", *options)
    assert code == 2, out
    for word in words:
        assert word in err


def test_the_verb_loads_no_torch_before_it_is_used():
    assert "torch" not in _modules_after("import noumena.cli.plan")
