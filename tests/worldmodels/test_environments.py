import json
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from noumena.core.batches import BatchLoader
from noumena.core.data import Dataset, FreshDataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.dots.noise import Overlays, Scene
from noumena.worldmodels.dots.world import DotWorld
from noumena.worldmodels.environments.data import fresh, open_two_rooms
from noumena.worldmodels.environments.dots import DotReaching
from noumena.worldmodels.environments.gym import WorldEnv, register
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.environments.worlds import World, reached, world_of

WORLDS = {
    "dots": DotReaching(),
    "noisy dots": DotReaching(Scene(DotWorld(), Overlays(fixed=1.0, changing=0.5))),
    "rooms": TwoRooms(),
    "doors": TwoRooms(vary_door=True),
    "thick": TwoRooms(size=48, wall_x=20, wall_width=7, door_y=14, door_size=9, goals="any"),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def same_room(world, first, second):
    return (first[..., 0] < world.wall_x) == (second[..., 0] < world.wall_x)


def inside_wall(world, positions, scenes, slack=0.0):
    """By plain coordinates: within the columns of the wall and not within the door, for positions (n, 2)."""
    door = torch.full((len(positions),), world.door_y) if scenes is None else scenes[:, 0]
    beside = (positions[:, 0] - world.wall_x).abs() < world.wall_width / 2 + world.dot_std - slack
    return beside & ((positions[:, 1] - door).abs() > world.door_size / 2 - world.dot_std + slack)


# What holds for every world


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_oracle_reaches_every_goal_well_within_the_budget(world):
    draw = generator()
    scenes = world.scenes(500, draw)
    positions, goals = world.reset(500, draw, scenes)
    done = torch.zeros(500, dtype=torch.bool)
    for _ in range(world.max_steps * 2 // 3):
        positions = world.move(positions, world.oracle_action(positions, goals, scenes), scenes)
        done |= reached(world, positions, goals)
    assert done.all()


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_chance_reaches_few_goals_and_steps_are_never_longer_than_the_longest(world):
    draw = generator(1)
    scenes = world.scenes(300, draw)
    positions, goals = world.reset(300, draw, scenes)
    done = torch.zeros(300, dtype=torch.bool)
    for _ in range(world.max_steps):
        actions = world.random_actions(300, draw)
        assert (actions.norm(dim=-1) <= world.max_step * (1 + 1e-6)).all()
        after = world.move(positions, actions, scenes)
        assert ((after - positions).norm(dim=-1) <= world.max_step + 1e-4).all()
        positions = after
        done |= reached(world, positions, goals)
    assert done.float().mean() < 0.5
    longest = actions * (world.max_step / actions.norm(dim=-1, keepdim=True))
    far = world.move(positions, 1e6 * longest, scenes)
    assert torch.allclose(far, world.move(positions, longest, scenes), atol=1e-4)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_frames_are_a_function_of_position_scene_and_time(world):
    draw = generator(2)
    scenes = world.scenes(4, draw)
    positions, _ = world.reset(4, draw, scenes)
    frames = world.render(positions, scenes, time=3)
    assert frames.shape == (4, *world.frame)
    assert frames.dtype == torch.float32
    assert frames.min() >= 0
    assert frames.max() <= world.brightest + 1e-6
    assert torch.equal(frames, world.render(positions, scenes, time=3))
    path = torch.stack([positions, positions + 1], dim=1)
    assert torch.allclose(world.render(path, scenes, time=3)[:, 0], frames)
    assert torch.allclose(world.render(path, scenes, time=2)[:, 1], world.render(positions + 1, scenes, time=3))


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_worlds_keep_the_protocol_and_the_seed(world):
    assert isinstance(world, World)
    json.dumps(world.to_json())
    first, second = (world.reset(5, generator(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "splits",
    [open_dots(fixed=1.0, size=24), open_dots(noise="uniform"), open_two_rooms(vary_door=True, door_size=14)],
)
def test_the_world_of_a_schema_shows_what_the_data_show(splits):
    schema = json.loads(json.dumps(splits.test.schema))
    world = world_of(schema)
    batch = splits.test.batch(torch.arange(3))
    assert world.frame == tuple(schema["frame"])
    if schema["kind"] == "dots":
        assert torch.allclose(world.move(batch.state[:, 0, 0], batch.actions[:, 0]), batch.state[:, 1, 0], atol=1e-5)
    scenes = world.scenes(3, generator())
    assert world.render(batch.state[:, :, 0], scenes).shape == batch.frames.shape


def test_data_without_a_world_cannot_be_acted_in():
    with pytest.raises(DataError, match="no world to act in"):
        world_of({"kind": "episodes"})
    with pytest.raises(DataError, match="missing: size"):
        world_of({"kind": "two-rooms", "world": {"dot_std": 2.0}})
    with pytest.raises(NotSupportedError, match="one dot"):
        world_of(open_dots(dots="multiple").train.schema)


# Two rooms


def brute_force(world, start, action, scenes, pieces=20_000):
    """Walks in tiny pieces and stops before the first one inside the wall."""
    action = action * min(1.0, world.max_step / float(action.norm()))
    low, high = world.wall_width - 0.5 + world.dot_std, world.size - 0.5 - world.wall_width - world.dot_std
    target = (start + action).clamp(low, high)
    share = torch.linspace(0, 1, pieces + 1, dtype=torch.float64)[:, None]
    path = start.double() + share * (target - start).double()
    each = None if scenes is None else scenes.double().expand(len(path), 1)
    bad = inside_wall(world, path, each, slack=1e-4)
    return path[int(bad.double().argmax()) - 1] if bad.any() else path[-1]


@pytest.mark.parametrize("name", ["rooms", "doors", "thick"])
def test_collisions_are_those_of_walking_in_tiny_steps(name):
    world = WORLDS[name]
    draw = generator(4)
    n = 400
    scenes = world.scenes(n, draw)
    door = torch.full((n,), float(world.door_y)) if scenes is None else scenes[:, 0]
    # Near the wall and around the door, in the door too, where it matters.
    positions = torch.stack([world.wall_x + 9 * (2 * torch.rand(n, generator=draw) - 1), door], dim=-1)
    positions[:, 1] += 12 * (2 * torch.rand(n, generator=draw) - 1)
    positions = positions.clamp(*world.bounds)
    free = ~inside_wall(world, positions, scenes)
    angle = 2 * math.pi * torch.rand(n, generator=draw)
    actions = 6 * torch.stack([angle.cos(), angle.sin()], dim=-1)
    found = world.move(positions, actions, scenes)
    stopped = 0
    for i in free.nonzero().flatten().tolist():
        own = None if scenes is None else scenes[i : i + 1]
        expected = brute_force(world, positions[i], actions[i], own)
        assert (found[i].double() - expected).norm() < 5e-3
        stopped += (found[i] - positions[i]).norm() < world.max_step - 1e-2
    assert free.sum() > 150
    assert 30 < stopped < free.sum() - 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nobody_ever_gets_into_the_wall_or_through_it(dtype):
    world = TwoRooms(vary_door=True)
    draw = generator(5)
    scenes = world.scenes(2000, draw).to(dtype)
    positions = world.reset(2000, draw, scenes)[0].to(dtype)
    for step in range(60):
        side = same_room(world, positions, positions.new_tensor([0.0, 0.0]))
        actions = world.random_actions(2000, draw).to(dtype)
        actions[:, 0] += torch.where(side, 2.0, -2.0)  # against the wall
        if step % 3 == 0:
            actions[:, 1] = 0  # along it, or straight into it
        after = world.move(positions, actions, scenes)
        assert not inside_wall(world, after, scenes, slack=1e-4).any()
        crossed = ~same_room(world, positions, after)
        assert ((after - scenes).abs()[crossed][:, 1] <= 4 + world.max_step).all()
        positions = after
        assert (positions >= world.bounds[0]).all()
        assert (positions <= world.bounds[1]).all()


def test_a_body_may_move_along_the_wall_and_away_from_it():
    world = TwoRooms()
    face = world.wall_x - world.wall_width / 2 - world.dot_std
    at_wall = world.move(torch.tensor([[face - 1, 10.0]]), torch.tensor([[4.0, 0.0]]))
    assert at_wall.tolist() == [[face, 10.0]]
    assert world.move(at_wall, torch.tensor([[0.0, 3.0]])).tolist() == [[face, 13.0]]
    assert world.move(at_wall, torch.tensor([[-2.0, 0.0]])).tolist() == [[face - 2, 10.0]]
    assert torch.equal(world.move(at_wall, torch.tensor([[1.0, 1.0]])), at_wall)  # it does not slide


def test_the_way_of_the_oracle_is_the_shortest_over_a_grid_of_ways():
    world = TwoRooms(vary_door=True, max_step=0.5, wall_width=6.0)
    draw = generator(6)
    n = 40
    scenes = world.scenes(n, draw)
    start, goal = world.reset(n, draw, scenes)
    length, positions = torch.zeros(n), start
    for _ in range(400):
        after = world.move(positions, world.oracle_action(positions, goal, scenes), scenes)
        length += (after - positions).norm(dim=-1)
        positions = after
    assert torch.allclose(positions, goal, atol=1e-3)
    half = world.wall_width / 2 + world.dot_std
    gap = torch.linspace(-1, 1, 201) * (world.door_size / 2 - world.dot_std)
    left_first = (start[:, 0] < world.wall_x)[:, None]
    enter_x = torch.where(left_first, world.wall_x - half, world.wall_x + half)
    leave_x = torch.where(left_first, world.wall_x + half, world.wall_x - half)
    height = scenes + gap  # (n, 201)
    to = torch.stack([enter_x.expand_as(height), height], -1)
    out = torch.stack([leave_x.expand_as(height), height], -1)
    legs = (to - start[:, None]).norm(dim=-1)[:, :, None] + (out - goal[:, None]).norm(dim=-1)[:, None, :]
    shortest = (legs + torch.cdist(to, out)).flatten(1).amin(1)
    assert torch.allclose(length, shortest, atol=0.15)


def test_a_frame_shows_the_dot_and_the_walls():
    world = TwoRooms(wall_x=30.0, wall_width=3.0, door_y=20.0, door_size=10.0)
    frame = world.render(torch.tensor([[12.0, 40.0]]))[0]
    assert frame[0, 40, 12] == 1
    assert frame[0, 40, 14] == pytest.approx(math.exp(-0.5), rel=1e-5)
    assert frame[0, 43, 12] == pytest.approx(math.exp(-9 / 8), rel=1e-5)
    walls = torch.zeros(64, 64)
    walls[:, 29:32] = 1
    walls[15:26, 29:32] = 0
    walls[15, 29:32] = walls[25, 29:32] = 0.5  # the door is from 15 to 25, through the middles of these pixels
    walls[:3] = walls[-3:] = walls[:, :3] = walls[:, -3:] = 1
    assert torch.allclose(frame[1], walls)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"door_size": 3.0}, "cannot pass"),
        ({"door_y": 2.0}, "not inside the rooms"),
        ({"wall_x": 3.0}, "no room on one side"),
        ({"goals": "none"}, "other-room"),
        ({"max_step": 0.0}, "above 0"),
    ],
)
def test_impossible_rooms_are_refused_in_words(option, words):
    with pytest.raises(ConfigError, match=words):
        TwoRooms(**option)
    if "goals" not in option:
        with pytest.raises(ConfigError, match=words):
            open_two_rooms(**option)


def test_rooms_with_many_doors_need_their_scenes():
    world = TwoRooms(vary_door=True)
    with pytest.raises(ConfigError, match="scenes"):
        world.render(torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="scenes"):
        WORLDS["noisy dots"].render(torch.zeros(1, 2))


# Data of two rooms


def test_the_same_seed_gives_the_same_walks_in_any_batch():
    first, again = (open_two_rooms(seed=3, vary_door=True).train for _ in range(2))
    assert first.fingerprint() == again.fingerprint() != open_two_rooms(seed=4, vary_door=True).train.fingerprint()
    whole, some = first.batch(torch.arange(8)), again.batch(torch.tensor([5, 2]))
    assert torch.equal(whole.frames[[5, 2]], some.frames)
    assert torch.equal(whole.actions[[5, 2]], some.actions)
    assert not torch.equal(first.at_epoch(1).batch(torch.arange(8)).actions, whole.actions)
    assert torch.equal(first.at_epoch(0).batch(torch.arange(8)).actions, whole.actions)


def test_parts_and_fresh_sequences_have_nothing_in_common():
    splits = open_two_rooms(val_sequences=10, test_sequences=10, sequences=10)
    more = [fresh(splits.train.schema, side=side, sequences=10, seed=0) for side in ("train", "test")]
    starts = [part.batch(torch.arange(10)).state[:, 0, 0] for part in (splits.train, splits.val, splits.test, *more)]
    assert len(torch.cat(starts).unique(dim=0)) == 50


def test_walks_obey_the_world_and_pass_the_door():
    splits = open_two_rooms(test_sequences=600)
    batch = splits.test.batch(torch.arange(600))
    world = world_of(splits.test.schema)
    positions = batch.state[:, :, 0]
    assert torch.equal(world.move(positions[:, :-1], batch.actions), positions[:, 1:])
    assert torch.equal(world.render(positions), batch.frames)
    crossed = ~same_room(world, positions[:, 1:], positions[:, :-1]).all(1)
    assert 0.05 < crossed.float().mean() < 0.4
    assert (batch.actions.norm(dim=-1) <= world.max_step * (1 + 1e-6)).all()


def test_walks_are_data_for_training():
    made, drawn_once = open_two_rooms(sequences=10), open_two_rooms(sequences=10, materialise=True)
    assert isinstance(made.train, FreshDataset)
    assert isinstance(drawn_once.train, Dataset)
    assert not isinstance(drawn_once.train, FreshDataset)
    sizes = [batch.size for batch in BatchLoader(made.train, 4, shuffle=True)]
    assert sizes == [4, 4, 2]
    with pytest.raises(IndexError, match="0 to 9"):
        made.train.batch(torch.tensor([10]))
    assert open_two_rooms(val_sequences=0, test_sequences=0).test is None


@pytest.mark.parametrize("option", [{"steps": 1}, {"sequences": 0}, {"kappa": -1.0}, {"near_door": 2.0}])
def test_options_of_walks_are_checked(option):
    with pytest.raises(ConfigError, match=f"data.{next(iter(option))}"):
        open_two_rooms(**option)


# Gymnasium


@pytest.mark.parametrize("name", ["DotReaching", "TwoRooms"])
def test_gymnasium_accepts_the_environments(name, recwarn):
    register()
    register()
    env = gymnasium.make(f"noumena/{name}-v0", render_mode="rgb_array")
    check_env(env.unwrapped)
    assert not [str(warning.message) for warning in recwarn]
    assert env.observation_space["observation"].dtype == np.uint8
    assert env.reset(seed=1)[0]["state"].tolist() == env.reset(seed=1)[0]["state"].tolist()
    height, width, _ = env.observation_space["goal"].shape
    assert env.render().shape == (height, width, 3)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_an_episode_by_the_oracle_ends_in_success(world):
    env = WorldEnv(world)
    observation, info = env.reset(seed=5)
    done = info["success"]
    for _ in range(world.max_steps):
        state, goal = (torch.from_numpy(observation[key])[None] for key in ("state", "goal_state"))
        action = world.oracle_action(state, goal, env._scenes)[0].numpy() / world.max_step
        observation, reward, done, _, info = env.step(action)
        assert reward == pytest.approx(-info["distance"] / world.max_step)
        if done:
            break
    assert done
    assert info["success"]


def test_episodes_are_truncated_at_the_budget():
    env = WorldEnv(TwoRooms(max_steps=3))
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(ConfigError, match="rgb_array"):
        WorldEnv(TwoRooms(), render_mode="human")
