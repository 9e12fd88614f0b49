"""Moving dots: walks, frames, noise, randomness and data sets."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from noumena.core.batches import BatchLoader
from noumena.core.data import Dataset, FreshDataset
from noumena.core.errors import ConfigError, DataError
from noumena.core.seeding import fold
from noumena.worldmodels.dots.data import fresh, open_dots, open_scene
from noumena.worldmodels.dots.noise import Overlays, Scene, rolled
from noumena.worldmodels.dots.randomness import advanced, folded, random_index, random_words, uniform, von_mises
from noumena.worldmodels.dots.sequences import Dots, FreshDots, StoredDots, sequence_keys
from noumena.worldmodels.dots.world import DotWorld, move, render, walk
from noumena.worldmodels.sequences import Sequences

KINDS = {
    "none": {},
    "fixed uniform": {"fixed": 1.25},
    "changing uniform": {"changing": 1.0},
    "fixed structured": {"noise": "structured", "fixed": 1.0},
    "changing structured": {"noise": "structured", "changing": 1.0},
    "both, rolling": {"fixed": 1.0, "changing": 0.5, "drift": [0.7, -0.3]},
    "three dots": {"dots": "multiple", "fixed": 1.0, "changing": 1.0},
    "three channels": {"dots": "multiple", "channels": 3, "noise": "structured", "fixed": 1.0, "changing": 1.0},
}


def keys_of(count: int, seed: int = 0) -> Tensor:
    return sequence_keys(seed, 0, 0, torch.arange(count))


def same(a: Sequences, b: Sequences) -> bool:
    assert a.state is not None
    assert b.state is not None
    pairs = ((a.frames, b.frames), (a.actions, b.actions), (a.state, b.state))
    return all(torch.equal(x, y) for x, y in pairs)


def by_pixel(world: DotWorld, positions: Tensor) -> Tensor:
    """The formula of a dot pixel by pixel, one dot a channel: (..., dots, 2) to (..., dots, size, size)."""
    row, column = torch.meshgrid(torch.arange(world.size), torch.arange(world.size), indexing="ij")
    x, y = positions[..., 0, None, None], positions[..., 1, None, None]
    return torch.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * world.dot_std**2))


class TestRandomness:
    def test_keys_are_folded_as_seeds_are(self):
        index = torch.tensor([0, 1, 77, 2**40, -3])
        expected = [fold(fold(5, 1, 2), int(i), 9) for i in index]
        assert folded(fold(5, 1, 2), index, 9).tolist() == expected

    def test_words_are_those_of_splitmix64(self):
        # The published sequence of the generator for seed 1234567.
        words = random_words(torch.tensor([1234567]), 5)[0]
        known = [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ]
        assert [int(word) % 2**64 for word in words] == known

    def test_numbers_are_uniform(self):
        numbers = uniform(keys_of(200), 1000)
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert stats.kstest(numbers.flatten().double().numpy(), "uniform").pvalue > 1e-3
        pairs = (numbers[:, :-1] * 16).long() * 16 + (numbers[:, 1:] * 16).long()
        assert stats.chisquare(pairs.flatten().bincount(minlength=256)).pvalue > 1e-3

    @pytest.mark.parametrize("lag", [1, 2, 3, 28, 784])
    def test_numbers_do_not_depend_on_earlier_ones(self, lag: int):
        numbers = uniform(keys_of(100), 2000).double() - 0.5
        correlation = float((numbers[:, lag:] * numbers[:, :-lag]).mean() * 12)
        assert abs(correlation) < 4 / math.sqrt(100 * (2000 - lag))

    def test_streams_have_nothing_in_common(self):
        keys = torch.cat([sequence_keys(s, t, e, torch.arange(50)) for s in (0, 1) for t in (0, 1) for e in (0, 1)])
        streams = torch.cat([folded(keys, stream) for stream in range(3)])
        words = random_words(streams, 100).flatten()
        assert len(words.unique()) == len(words)
        numbers = uniform(streams, 1000).double() - 0.5
        correlation = numbers @ numbers.T / 1000 * 12
        off = correlation[~torch.eye(len(streams), dtype=torch.bool)]
        assert off.abs().max() < 6 / math.sqrt(1000)

    def test_a_stream_goes_on_where_it_stopped(self):
        keys = keys_of(3)
        assert torch.equal(random_words(keys, 10)[:, 4:], random_words(advanced(keys, 4), 6))
        each = advanced(keys, torch.tensor([0, 1, 2]))
        assert torch.equal(random_words(each, 1)[:, 0], random_words(keys, 3).diagonal())

    def test_many_words_are_the_same_as_few(self):
        assert torch.equal(random_words(keys_of(3), 50_000)[:, :7], random_words(keys_of(3), 7))

    def test_indices_are_uniform(self):
        index = random_index(keys_of(100), 1000, 7)
        assert stats.chisquare(index.flatten().bincount(minlength=7)).pvalue > 1e-3

    @pytest.mark.parametrize("kappa", [0.0, 0.2, 3.0, 200.0])
    def test_directions_are_von_mises(self, kappa: float):
        evenly = (torch.arange(100_000) + 0.5) / 100_000
        angles = von_mises(evenly, kappa).double().numpy()
        known = stats.vonmises(kappa) if kappa else stats.uniform(-np.pi, 2 * np.pi)
        assert np.abs(known.cdf(angles) - evenly.numpy()).max() < 1 / 4096

    def test_drawn_directions_are_von_mises(self):
        angles = von_mises(uniform(keys_of(100, seed=1), 500), 0.2).flatten().double().numpy()
        assert stats.kstest(angles, stats.vonmises(0.2).cdf).pvalue > 1e-3


class TestWorld:
    def test_a_frame_is_the_formula_of_a_dot(self):
        world = DotWorld()
        positions = torch.tensor([[[3.25, 20.5]], [[24.4, 2.6]]])
        assert torch.allclose(render(world, positions), by_pixel(world, positions), atol=1e-6)

    def test_x_is_the_column_and_y_the_row(self):
        frame = render(DotWorld(), torch.tensor([[20.0, 5.0]]))[0]
        assert (frame == 1).nonzero().tolist() == [[5, 20]]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_three_dots_are_summed_or_one_a_channel(self, channels: int):
        world = DotWorld("multiple", channels)
        positions = torch.rand(4, 5, 3, 2) * 20 + 4
        expected = by_pixel(world, positions)
        if channels == 1:
            expected = expected.sum(-3, keepdim=True)
        assert torch.allclose(render(world, positions), expected, atol=1e-6)

    def test_walks_follow_the_actions_and_stop_at_the_border(self):
        world = DotWorld()
        positions, commanded = walk(world, keys_of(2000), 17)
        low, high = 2 * 1.3, 27 - 2 * 1.3
        assert (positions.min(), positions.max()) == (pytest.approx(low), pytest.approx(high))
        place = positions[:, 0]
        for step in range(16):
            place = (place + commanded[:, step]).clamp(low, high)
            assert torch.equal(place, positions[:, step + 1])
        assert torch.equal(move(world, positions[:, :-1], commanded), positions[:, 1:])

    def test_walks_have_the_statistics_of_the_study(self):
        world = DotWorld()
        positions, commanded = walk(world, keys_of(5000), 17)
        lengths = commanded.norm(dim=-1).flatten().double()
        assert stats.kstest(lengths.numpy() / 4.0, "uniform").pvalue > 1e-3
        starts = (positions[:, 0].flatten().double().numpy() - world.low) / (world.high - world.low)
        assert stats.kstest(starts, "uniform").pvalue > 1e-3
        # Directions have the mean cosine of kappa = 0.2 among themselves: (I1(k) / I0(k))^2.
        units = commanded[:, :, 0] / commanded[:, :, 0].norm(dim=-1, keepdim=True)
        between = ((units.sum(1) ** 2).sum(-1) - 16) / (16 * 15)
        assert float(between.mean()) == pytest.approx((0.0995**2), abs=0.004)
        # Measured of the original: 17.2 % of the steps are shortened by a border.
        shortened = (positions[:, 1:] - positions[:, :-1] - commanded).abs().amax(-1) > 1e-4
        assert float(shortened.double().mean()) == pytest.approx(0.172, abs=0.006)
        # And the deviation of an action's component, 0.4102 * 4 px.
        assert float(commanded.std()) == pytest.approx(1.6408, abs=0.02)

    def test_simple_guesses_err_as_much_as_in_the_study(self):
        # RMSE in pixels, measured of the original on 20,000 sequences.
        positions, commanded = (x[:, :, 0].double() for x in walk(DotWorld(), keys_of(20_000), 17))
        start = positions[:, :1]
        summed = torch.cat([start, start + commanded.cumsum(1)], 1)
        guesses = {9.38: positions.mean((0, 1)), 5.80: start, 2.97: summed, 1.17: summed.clamp(2.6, 24.4)}
        for known, guess in guesses.items():
            assert float((positions - guess).square().sum(-1).mean().sqrt()) == pytest.approx(known, rel=0.015)

    def test_of_three_dots_two_walk(self):
        positions, commanded = walk(DotWorld("multiple"), keys_of(50), 9)
        moved = (positions[:, 1:] - positions[:, :-1]).abs().sum((1, 3)) > 0
        assert moved.all(0).tolist() == [True, True, False]
        assert not moved[:, 2].any()
        assert commanded.shape == (50, 8, 2, 2)

    def test_a_longer_walk_begins_like_a_shorter_one(self):
        long, short = (walk(DotWorld("multiple"), keys_of(5), steps)[0] for steps in (20, 7))
        assert torch.equal(long[:, :7], short)

    def test_a_world_is_known_by_its_json(self):
        world = DotWorld("multiple", 3, size=40, dot_std=2.0, max_step=3.0, kappa=1.5)
        assert DotWorld.from_json(json.loads(json.dumps(world.to_json()))) == world

    def test_an_incomplete_world_is_refused(self):
        with pytest.raises(DataError, match="missing: kappa"):
            DotWorld.from_json({k: v for k, v in DotWorld().to_json().items() if k != "kappa"})


class TestNoise:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_uniform_noise_is_added_at_its_level(self, channels: int):
        world = DotWorld("multiple", channels)
        positions, keys = walk(world, keys_of(40), 9)[0], keys_of(40)
        scene = Scene(world, Overlays("uniform", fixed=0.5, changing=2.0))
        noise = (scene.frames(positions, keys) - render(world, positions)).double()
        overlays = 3 if channels == 1 else 1
        assert float(noise.mean()) == pytest.approx(overlays * 1.25, abs=0.01)
        within = noise.var(1).mean()  # over time
        assert float(within) == pytest.approx(overlays * 4 / 12, rel=0.02)
        assert float(noise.var()) == pytest.approx(overlays * (4 + 0.25) / 12, rel=0.02)

    def test_fixed_noise_stays_and_changing_noise_changes(self):
        world = DotWorld()
        positions, keys = walk(world, keys_of(6), 5)[0], keys_of(6)
        clean = render(world, positions)
        fixed = Scene(world, Overlays("uniform", fixed=1.0)).frames(positions, keys) - clean
        assert torch.allclose(fixed, fixed[:, :1].expand_as(fixed), atol=1e-6)
        assert not torch.allclose(fixed[0], fixed[1], atol=0.1)
        changing = (Scene(world, Overlays("uniform", changing=1.0)).frames(positions, keys) - clean).flatten(2)
        assert torch.corrcoef(changing.flatten(0, 1)).fill_diagonal_(0).abs().max() < 0.2

    def test_structured_noise_is_the_photographs(self):
        images = torch.randint(0, 256, (9, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        world = DotWorld()
        positions, keys = walk(world, keys_of(300), 4)[0], keys_of(300)
        for level in ({"fixed": 2.0}, {"changing": 2.0}):
            noise = Scene(world, Overlays("structured", **level), images).frames(positions, keys)
            noise = (noise - render(world, positions)).flatten(2)
            distance, nearest = torch.cdist(noise.flatten(0, 1), images * (2 / 255)).min(1)
            assert distance.max() < 0.05  # two of the images are about 23 apart
            assert stats.chisquare(nearest.view(300, 4)[:, 0].bincount(minlength=9)).pvalue > 1e-3
            assert bool((nearest.view(300, 4) == nearest.view(300, 4)[:, :1]).all()) == ("fixed" in level)

    @pytest.mark.parametrize(("drift", "shifts"), [((0.7, 0.0), [0, 0, 1, 2, 2]), ((-1.5, 0.0), [0, -1, -3, -4, -6])])
    def test_a_drifting_overlay_rolls_by_whole_pixels_along_x(self, drift: tuple[float, float], shifts: list[int]):
        overlay = torch.rand(2, 1, 3, 8, 8)
        expected = torch.cat([overlay.roll(shift, -1) for shift in shifts], 1)
        assert torch.equal(rolled(overlay, drift, 5, 0), expected)
        down = rolled(overlay, (drift[1], drift[0]), 5, 0)
        assert torch.equal(down, torch.cat([overlay.roll(shift, -2) for shift in shifts], 1))

    @pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
    @pytest.mark.parametrize("size", [28, 27])
    def test_a_frame_is_the_same_by_itself(self, options: dict[str, object], size: int):
        data = open_dots(**options, size=size, steps=6).train
        index = torch.arange(4)
        whole = data.batch(index)
        scene = open_scene(data.schema["world"], "train")
        keys = sequence_keys(0, 0, 0, index)
        for time in range(6):
            frame = scene.frames(whole.state[:, time : time + 1], keys, first=time)
            assert torch.equal(frame, whole.frames[:, time : time + 1])
        each = torch.tensor([0, 5, 2, 3])
        frames = scene.frames(whole.state[index, each][:, None], keys, first=each)
        assert torch.equal(frames[:, 0], whole.frames[index, each])

    def test_structured_noise_without_images_is_refused(self):
        with pytest.raises(ConfigError, match="images"):
            Scene(DotWorld(), Overlays("structured", fixed=1.0))


class TestDataSets:
    @pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
    def test_a_sequence_does_not_depend_on_its_batch(self, options: dict[str, object]):
        data = open_dots(**options).train
        index = torch.tensor([17, 3, 9_999, 3])
        whole = data.batch(index)
        for place, i in enumerate(index):
            assert same(whole[place : place + 1], data.batch(i[None]))
        again = open_dots(**options).train
        assert same(again.batch(index), whole)
        assert again.fingerprint() == data.fingerprint()

    @pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
    def test_a_batch_is_as_the_schema_says(self, options: dict[str, object]):
        data = open_dots(**options, steps=5).train
        schema = json.loads(json.dumps(data.schema))
        batch = data.batch(torch.arange(3))
        assert batch.state is not None
        assert batch.frames.shape == (3, schema["steps"], *schema["frame"])
        assert batch.actions.shape == (3, 4, len(schema["actions"]))
        assert batch.state.shape == (3, 5, len(schema["state"]), schema["state_dims"])
        assert {batch.frames.dtype, batch.actions.dtype, batch.state.dtype} == {torch.float32}
        free = (batch.state[:, 1:, 0] - batch.state[:, :-1, 0] - batch.actions).abs() < 1e-5
        assert free.double().mean() > 0.5

    def test_noise_does_not_change_the_walks(self):
        plain, noisy = (open_dots(**KINDS[kind]).train.batch(torch.arange(5)) for kind in ("none", "changing uniform"))
        assert torch.equal(plain.state, noisy.state)

    def test_epochs_of_training_are_new_and_the_test_is_not(self):
        splits = open_dots(sequences=20, val_sequences=10, test_sequences=10, fixed=1.0)
        assert isinstance(splits.train, FreshDataset)
        assert not isinstance(splits.val, FreshDataset)
        assert not isinstance(splits.test, FreshDataset)
        index = torch.arange(10)
        parts = [splits.train.at_epoch(0), splits.train.at_epoch(1), splits.train.at_epoch(2), splits.val, splits.test]
        assert same(parts[0].batch(index), splits.train.batch(index))
        starts = torch.cat([part.batch(index).state[:, 0, 0] for part in parts])
        assert len(starts.unique(dim=0)) == 50
        assert len({part.fingerprint() for part in parts}) == 5

    def test_a_loader_draws_new_sequences_in_each_epoch(self):
        loader = BatchLoader(open_dots(sequences=8).train, 8, shuffle=True)
        first = next(iter(loader)).data.state
        loader.sampler.set_epoch(1)
        assert not torch.isin(next(iter(loader)).data.state[:, 0], first[:, 0]).any()

    def test_materialised_sequences_are_those_of_epoch_0(self):
        options = {"sequences": 300, "changing": 1.0}
        fly, kept = open_dots(**options).train, open_dots(**options, materialise=True).train
        assert isinstance(fly, FreshDots)
        assert isinstance(kept, StoredDots)
        assert not isinstance(kept, FreshDataset)
        index = torch.tensor([299, 0, 5])
        assert same(kept.batch(index), fly.batch(index))
        assert kept.schema == fly.schema
        assert kept.nbytes > 300 * 17 * 784 * 4

    def test_the_fingerprint_tells_what_was_drawn(self):
        options = [
            {},
            {"seed": 1},
            {"sequences": 5},
            {"steps": 5},
            {"kappa": 1.0},
            {"materialise": True, "sequences": 5},
        ]
        options += [*KINDS.values()][1:]
        assert len({open_dots(**each).train.fingerprint() for each in options}) == len(options)

    def test_train_and_test_have_photographs_of_their_own(self):
        splits = open_dots(noise="structured", fixed=1.0, val_sequences=3)
        assert isinstance(splits.test, Dots)
        train, val, test = (part.scene.images for part in (splits.train, splits.val, splits.test))
        assert torch.equal(train, val)
        assert not {bytes(row) for row in train.numpy()} & {bytes(row) for row in test.numpy()}
        assert 0.15 <= splits.about["images"]["test_share"] <= 0.2

    def test_further_sequences_are_like_the_data_sets_but_new(self):
        splits = open_dots(noise="structured", fixed=1.0)
        more = fresh(splits.train.schema, side="train", sequences=50, seed=0)
        test = fresh(splits.train.schema, side="test", sequences=50, seed=0, steps=9)
        index = torch.arange(50)
        known = torch.cat([part.batch(index).state[:, 0, 0] for part in (splits.train, splits.test, more, test)])
        assert len(known.unique(dim=0)) == 200
        assert torch.equal(more.scene.images, splits.train.scene.images)
        assert torch.equal(test.scene.images, splits.test.scene.images)
        assert test.batch(index).steps == 9
        assert more.schema == splits.train.schema

    def test_other_images_than_those_of_the_training_are_refused(self, tmp_path):
        rng = np.random.default_rng(0)
        path = tmp_path / "images.npz"
        np.savez(path, images=rng.integers(0, 256, (20, 32, 32), dtype=np.uint8))
        world = open_dots(noise="structured", changing=1.0, images=str(path)).train.schema["world"]
        open_scene(world)
        np.savez(path, images=rng.integers(0, 256, (20, 32, 32), dtype=np.uint8))
        with pytest.raises(DataError, match="other images"):
            open_scene(world)

    def test_data_sets_keep_the_contract(self):
        splits = open_dots(sequences=5, val_sequences=5, materialise=True)
        for part in (splits.train, splits.val, splits.test, open_dots().train):
            assert isinstance(part, Dataset)
            assert part.to(torch.device("cpu")) is part

    def test_parts_without_sequences_are_left_out(self):
        splits = open_dots(val_sequences=0, test_sequences=0)
        assert splits.val is None
        assert splits.test is None

    def test_a_sequence_that_does_not_exist_is_refused(self):
        with pytest.raises(IndexError, match="0 to 4"):
            open_dots(sequences=5).train.batch(torch.tensor([5]))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"dots": "two"}, "data.dots: unknown 'two'.*single, multiple"),
            ({"noise": "structure"}, "Did you mean 'structured'"),
            ({"channels": 3}, "data.channels: expected 1 or 1"),
            ({"dots": "multiple", "channels": 2}, "data.channels: expected 1 or 3"),
            ({"steps": 1}, "data.steps: expected 2"),
            ({"fixed": -0.1}, "data.fixed"),
            ({"changing": math.inf}, "data.changing"),
            ({"fixed": math.nan}, "data.fixed"),
            ({"drift": [1.0]}, "data.drift"),
            ({"drift": math.nan}, "data.drift"),
            ({"sequences": 0}, "data.sequences"),
            ({"val_sequences": -1}, "data.val_sequences"),
            ({"dot_std": 7.0}, "leaves no room"),
            ({"dot_std": 0.0}, "data.dot_std"),
            ({"max_step": -1.0}, "data.max_step"),
            ({"kappa": -1.0}, "data.kappa"),
            ({"size": 0}, "data.size"),
            ({"noise": "structured", "fixed": 1.0, "images": "sample:patch"}, "Did you mean 'sample:patches'"),
        ],
    )
    def test_an_option_out_of_range_is_named(self, options: dict[str, object], words: str):
        with pytest.raises(ConfigError, match=words):
            open_dots(**options)
