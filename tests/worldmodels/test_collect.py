import importlib
import sys
from typing import ClassVar

import gymnasium
import h5py
import numpy as np
import pytest
import torch

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.episodes.collect import collect
from noumena.worldmodels.episodes.data import open_episodes
from noumena.worldmodels.episodes.stream import stream_sequences


class Counter(gymnasium.Env):
    """Shows how often it was stepped; ends after as many steps as the seed says."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, observation, action, render_mode=None):
        self.observation_space = observation
        self.action_space = action
        self.render_mode = render_mode
        self.canvas = np.zeros((12, 16, 3), np.uint8)

    def _observe(self):
        self.canvas[:] = self.steps
        spaces = getattr(self.observation_space, "spaces", {"": self.observation_space})
        values = {
            key: self.canvas if len(space.shape) == 3 else np.full(space.shape, self.steps, np.float32)
            for key, space in spaces.items()
        }
        return values.get("", values)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.last = 0, 6 + int(self.np_random.integers(10))
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self._observe(), 0.0, self.steps == self.last, False, {}

    def render(self):
        self.canvas[:] = self.steps
        return self.canvas


PICTURE = gymnasium.spaces.Box(0, 255, (12, 16, 3), np.uint8)
VECTOR = gymnasium.spaces.Box(-100, 100, (4,), np.float32)
BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "pictures": (PICTURE, None),
    "vectors": (VECTOR, 4),
    "both": (gymnasium.spaces.Dict({"pixels": PICTURE, "state": VECTOR}), 4),
    "goals": (gymnasium.spaces.Dict({"observation": VECTOR, "desired_goal": VECTOR}), 4),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("action", [BOX, gymnasium.spaces.Discrete(3)], ids=["box", "discrete"])
def test_what_is_collected_is_what_was_seen(tmp_path, name, action):
    space, width = SPACES[name]
    env = Counter(space, action, None if name in ("pictures", "both") else "rgb_array")
    out = tmp_path / "new" / "a.hdf5"
    facts = collect(env, out, episodes=6, seed=1)
    splits = open_episodes(str(out), steps=5, val_fraction=0.2, test_fraction=0.2)
    assert (facts["episodes"], facts["shape"]) == (6, [3, 12, 16])
    assert splits.about["episodes"] == 6
    batch = splits.train.batch(torch.arange(len(splits.train)))
    shown = batch.frames[:, :, 0, 0, 0].long()
    assert (shown.diff(dim=1) == 1).all()
    assert (shown[:, 0] == 0).any()
    assert batch.actions.shape[2] == (2 if action is BOX else 3)
    assert (batch.state is None) == (width is None)
    if width is not None:
        assert torch.equal(batch.state[..., 0], shown[..., None].expand(-1, -1, width).float())
    assert sum(map(len, stream_sequences(str(out), splits.train.schema))) == facts["frames"]


def test_the_same_seed_collects_the_same_and_episodes_do_not_depend_on_each_other(tmp_path):
    env = Counter(VECTOR, BOX, "rgb_array")
    options = {"policy": lambda seen, rng: (np.tanh(seen[:2]) * rng.random(2)).astype(np.float32)}
    for policy in ({}, options):
        collect(env, tmp_path / "a.h5", episodes=2, seed=3, **policy)
        collect(env, tmp_path / "b.h5", episodes=3, seed=3, **policy)
        collect(env, tmp_path / "c.h5", episodes=2, seed=4, **policy)
        with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b, h5py.File(tmp_path / "c.h5") as c:
            for number in range(2):
                first, second = (file[f"episode_{number}/actions"][()] for file in (a, b))
                np.testing.assert_array_equal(first, second)
            assert not np.array_equal(a["episode_0/actions"][:3], c["episode_0/actions"][:3])


def test_episodes_of_two_rooms_are_those_of_its_world(tmp_path):
    collect("noumena/TwoRooms-v0", tmp_path / "a.h5", episodes=3, max_steps=12, options={"door_size": 20.0})
    train = open_episodes(str(tmp_path / "a.h5"), steps=10, val_fraction=0, test_fraction=0).train
    batch = train.batch(torch.arange(len(train)))
    world = TwoRooms(door_size=20.0)
    positions = batch.state[..., 0]
    moved = world.move(positions[:, :-1], world.max_step * batch.actions)
    assert torch.allclose(moved, positions[:, 1:], atol=1e-4)
    assert torch.allclose(batch.frames / 255, world.render(positions), atol=0.003)


def test_frames_are_made_smaller_and_grey(tmp_path):
    facts = collect(Counter(PICTURE, BOX), tmp_path / "a.h5", episodes=2, size=8, gray=True)
    assert facts["shape"] == [1, 8, 8]
    train = open_episodes(str(tmp_path / "a.h5"), steps=4, val_fraction=0, test_fraction=0).train
    assert train.schema["frame"] == [1, 8, 8]
    assert (train.frames[1] == 1).all()


def test_a_recording_that_fails_leaves_nothing_behind(tmp_path):
    collect(Counter(PICTURE, BOX), tmp_path / "a.h5", episodes=1)
    before = (tmp_path / "a.h5").read_bytes()

    def stumble(seen, rng):
        raise RuntimeError("stumbled")

    with pytest.raises(RuntimeError, match="stumbled"):
        collect(Counter(PICTURE, BOX), tmp_path / "a.h5", policy=stumble)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        collect(Counter(PICTURE, BOX), tmp_path / "file" / "a.h5", episodes=1)


def test_progress_is_told(tmp_path):
    told = []
    collect(Counter(PICTURE, BOX), tmp_path / "a.h5", episodes=3, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("env", "options", "error", "words"),
    [
        ("noumena/Nowhere-v0", {}, ConfigError, "cannot be made"),
        ("noumena/TwoRooms-v0", {"options": {"doors": 3}}, ConfigError, "doors"),
        (Counter(VECTOR, BOX), {}, NotSupportedError, "render_mode='rgb_array'"),
        (Counter(PICTURE, gymnasium.spaces.MultiBinary(3)), {}, NotSupportedError, "Box or Discrete"),
        (Counter(PICTURE, BOX), {"episodes": 0}, ConfigError, "episodes=0"),
        (Counter(PICTURE, BOX), {"out": "a.npz"}, ConfigError, ".hdf5"),
    ],
)
def test_what_cannot_be_collected_is_refused_in_words(tmp_path, env, options, error, words):
    options = {"out": "a.h5", **options}
    with pytest.raises(error, match=words):
        collect(env, tmp_path / options.pop("out"), **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_gymnasium_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(NotSupportedError, match="noumena\\[rl\\]"):
        collect("CartPole-v1", tmp_path / "a.h5")
    monkeypatch.delitem(sys.modules, "noumena.worldmodels.environments.gym", raising=False)
    with pytest.raises(NotSupportedError, match="noumena\\[rl\\]"):
        importlib.import_module("noumena.worldmodels.environments.gym")


def test_a_package_that_an_environment_asks_for_at_its_first_picture_is_named(tmp_path):
    class DependencyNotInstalled(Exception):
        pass

    class Hungry(Counter):
        def render(self):
            raise DependencyNotInstalled("pygame is not installed, run `pip install pygame`")

    with pytest.raises(NotSupportedError, match="needs a package that is missing: pygame is not installed"):
        collect(Hungry(VECTOR, BOX, "rgb_array"), tmp_path / "a.h5", episodes=1)
    assert not list(tmp_path.iterdir())
