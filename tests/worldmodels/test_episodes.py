import inspect
import json
import shutil
import sys
import typing

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from noumena.config.schema import check_section
from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.worldmodels.episodes.data import as_dataset, open_episodes
from noumena.worldmodels.episodes.stream import stream_sequences
from noumena.worldmodels.sequences import Sequences

LENGTHS = (9, 12, 7, 15, 10)
WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0, "steps": 5}


def recording(lengths=LENGTHS, shape=(16, 20, 3), seed=0, equal=False):
    """Frames whose first pixel says their number, actions that say the frame they start from, and a state."""
    rng = np.random.default_rng(seed)
    frames, actions, state = [], [], []
    number = 0
    for length in lengths:
        pictures = rng.integers(0, 255, (length, *shape), dtype=np.uint8)
        pictures.reshape(length, -1)[:, 0] = np.arange(number, number + length)
        rows = np.arange(number, number + length, dtype=np.float32)
        frames.append(pictures)
        actions.append(np.stack([rows, -rows], axis=1)[: length if equal else length - 1])
        state.append(np.stack([rows, rows / 2, rows / 3], axis=1))
        number += length
    return frames, actions, state


def write_groups(path, data, names=("frames", "actions", "state"), group="episode_{}"):
    with h5py.File(path, "w") as file:
        for number, arrays in enumerate(zip(*data, strict=True)):
            for name, array in zip(names, arrays, strict=True):
                file[f"{group.format(number)}/{name}"] = array
    return path


def write_flat(path, data, marks):
    frames, actions, state = (np.concatenate(part) for part in data)
    lengths = [len(part) for part in data[0]]
    ends = np.cumsum(lengths)
    last = np.zeros(len(frames), bool)
    last[ends - 1] = True
    extra = {
        "episode_ends": {"episode_ends": ends},
        "episode": {"episode": np.repeat(np.arange(len(ends)) + 3, lengths)},
        "terminals": {"terminals": last},
        "timeouts": {"terminals": np.zeros(len(frames), bool), "timeouts": last},
    }[marks]
    arrays = {"frames": frames, "actions": actions, "state": state, **extra}
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def write_minari(folder, data):
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "metadata.json").write_text(json.dumps({"data_format": "hdf5"}))
    write_groups(folder / "data" / "main_data.hdf5", data, ("observations/pixels", "actions", "observations/state"))
    return folder


def write_images(folder, data, actions="npy"):
    for number, (frames, rows, state) in enumerate(zip(*data, strict=True)):
        place = folder / f"episode_{number}"
        place.mkdir(parents=True)
        for step, picture in enumerate(frames):
            Image.fromarray(picture).save(place / f"{step}.png")  # no leading zeros: 10 comes after 9
        if actions == "npy":
            np.save(place / "actions.npy", rows)
        elif actions == "npz":
            np.savez(place / "actions.npz", actions=rows)
        else:
            np.savetxt(place / "actions.csv", rows, delimiter=",", header="left,right", comments="")
        np.save(place / "state.npy", state)
    return folder


FORMS = {
    "groups": lambda at, data: write_groups(at / "a.hdf5", data),
    "ends npz": lambda at, data: write_flat(at / "a.npz", data, "episode_ends"),
    "ends hdf5": lambda at, data: write_flat(at / "a.h5", data, "episode_ends"),
    "index npz": lambda at, data: write_flat(at / "a.npz", data, "episode"),
    "minari": lambda at, data: write_minari(at / "set-v0", data),
    "images npy": lambda at, data: write_images(at / "set", data),
    "images npz": lambda at, data: write_images(at / "set", data, "npz"),
    "images csv": lambda at, data: write_images(at / "set", data, "csv"),
}
OPTIONS = {"minari": {"state": "observations/state"}}


def first_pixels(batch):
    return batch.frames[:, :, 0, 0, 0].long()


# Formats


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_back_every_window(tmp_path, form):
    data = recording()
    splits = open_episodes(str(FORMS[form](tmp_path, data)), **WHOLE, **OPTIONS.get(form, {}))
    train = splits.train
    assert isinstance(train, Dataset)
    assert train.schema["frame"] == [3, 16, 20]
    json.dumps([train.schema, splits.about])
    batch = train.batch(torch.arange(len(train)))
    assert batch.frames.dtype == torch.uint8
    stored = np.concatenate(data[0]).transpose(0, 3, 1, 2)
    numbers = first_pixels(batch)
    assert numbers[:, 0].tolist() == [
        start + offset
        for start, length in zip(np.cumsum((0, *LENGTHS)), LENGTHS, strict=False)
        for offset in range(length - 4)
    ]
    np.testing.assert_array_equal(batch.frames.numpy(), stored[numbers.numpy()])
    assert torch.equal(batch.actions[..., 0], numbers[:, :-1].float())
    assert torch.equal(batch.actions[..., 1], -numbers[:, :-1].float())
    np.testing.assert_array_equal(batch.state[..., 0].numpy(), np.concatenate(data[2])[numbers.numpy()])


@pytest.mark.parametrize("form", FORMS)
def test_streaming_gives_each_frame_once_in_the_order_of_the_file(tmp_path, form):
    data = recording()
    path = str(FORMS[form](tmp_path, data))
    schema = open_episodes(path, **WHOLE, **OPTIONS.get(form, {})).train.schema
    for rows in (7, 65536):
        chunks = list(stream_sequences(path, schema, batch_rows=rows))
        assert max(map(len, chunks)) <= rows
        np.testing.assert_array_equal(torch.cat(chunks).numpy(), np.concatenate(data[0]).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("marks", ["terminals", "timeouts"])
def test_the_layout_of_d4rl_has_as_many_actions_as_frames(tmp_path, form, marks):
    path = write_flat(tmp_path / f"a.{form}", recording(equal=True), marks)
    splits = open_episodes(str(path), **WHOLE)
    assert "5 episodes have as many actions" in splits.about["last_actions"]
    batch = splits.train.batch(torch.arange(len(splits.train)))
    assert torch.equal(batch.actions[..., 0], first_pixels(batch)[:, :-1].float())
    assert len(splits.train) == sum(length - 4 for length in LENGTHS)


@pytest.mark.parametrize("shape", [(16, 20), (16, 20, 1), (3, 16, 20), (2, 16, 20)])
def test_an_axis_of_episodes_and_any_layout_of_channels_are_told_by_shape(tmp_path, shape):
    frames, actions, state = (np.stack(part) for part in recording((8,) * 6, shape))
    np.savez(tmp_path / "a.npz", frames=frames, actions=actions, positions=state)
    splits = open_episodes(str(tmp_path / "a.npz"), **WHOLE, state="positions")
    batch = splits.train.batch(torch.arange(len(splits.train)))
    assert len(splits.train) == 6 * 4
    channels = {2: 1, 3: shape[0] if shape[0] < 5 else 1}[len(shape)]
    assert splits.train.schema["frame"] == [channels, 16, 20]
    assert torch.equal(batch.actions[..., 0], first_pixels(batch)[:, :-1].float())
    assert torch.equal(batch.state[..., 0, 0], first_pixels(batch).float())


def test_float_frames_stay_float(tmp_path):
    frames, actions, _ = recording((8, 8), (16, 20))
    np.savez(
        tmp_path / "a.npz", frames=np.concatenate(frames) / 255.0, actions=np.concatenate(actions), episode_ends=[8, 16]
    )
    train = open_episodes(str(tmp_path / "a.npz"), **WHOLE).train
    assert train.frames.dtype == torch.float32
    assert torch.allclose(train.frames[3, 0, 0, 0], torch.tensor(3 / 255))


def test_a_single_folder_of_images_is_one_episode_cut_into_blocks_of_time(tmp_path):
    write_images(tmp_path, recording((40,)))
    splits = open_episodes(str(tmp_path / "episode_0"), steps=5, val_fraction=0.2, test_fraction=0.25)
    batches = [part.batch(torch.arange(len(part))) for part in (splits.train, splits.val, splits.test)]
    seen = [set(first_pixels(batch).flatten().tolist()) for batch in batches]
    assert seen == [set(range(22)), set(range(22, 30)), set(range(30, 40))]
    assert "blocks of time" in splits.about["split"]


# Windows, splits, options


def test_windows_never_cross_episodes_and_parts_share_no_episode(tmp_path):
    lengths = tuple(np.random.default_rng(1).integers(5, 12, 24))
    data = recording(lengths)
    path = write_groups(tmp_path / "a.h5", data)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    splits = open_episodes(str(path), steps=5, stride=2, seed=3, val_fraction=0.2, test_fraction=0.2)
    seen = []
    for part in (splits.train, splits.val, splits.test):
        numbers = first_pixels(part.batch(torch.arange(len(part))))
        assert (numbers.diff(dim=1) == 1).all()
        episodes = owner[numbers.numpy()]
        assert (episodes == episodes[:, :1]).all()
        seen.append(set(episodes[:, 0].tolist()))
    assert sorted(episode for part in seen for episode in part) == list(range(len(lengths)))
    assert sum(map(len, (splits.train, splits.val, splits.test))) == sum((n - 5) // 2 + 1 for n in lengths)
    again, other = (open_episodes(str(path), steps=5, stride=2, seed=seed) for seed in (0, 1))
    same = open_episodes(str(path), steps=5, stride=2, seed=0)
    assert again.train.fingerprint() == same.train.fingerprint() != other.train.fingerprint()


def test_kept_frames_have_the_actions_between_them_side_by_side(tmp_path):
    path = write_groups(tmp_path / "a.h5", recording())
    train = open_episodes(str(path), val_fraction=0, test_fraction=0, steps=3, frame_skip=3).train
    batch = train.batch(torch.arange(len(train)))
    numbers = first_pixels(batch)
    assert (numbers.diff(dim=1) == 3).all()
    assert batch.actions.shape[2] == 6
    for step in range(3):
        assert torch.equal(batch.actions[..., 2 * step], (numbers[:, :-1] + step).float())
    assert train.schema["actions"] == [f"actions_{i}@{step}" for step in range(3) for i in range(2)]
    assert len(train) == sum(-(-length // 3) - 2 for length in LENGTHS)


def test_frames_are_made_smaller_and_grey(tmp_path):
    frames, actions, state = recording()
    flat = [np.broadcast_to(np.array([200, 100, 50], np.uint8), part.shape) for part in frames]
    path = write_groups(tmp_path / "a.h5", (flat, actions, state))
    train = open_episodes(str(path), **WHOLE, size=[8, 12], gray=True).train
    assert train.schema["frame"] == [1, 8, 12]
    assert train.frames.dtype == torch.uint8
    assert set(train.frames.unique().tolist()) == {round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)}
    assert next(stream_sequences(str(path), train.schema)).shape[1:] == (1, 8, 12)
    assert open_episodes(str(path), **WHOLE, size=8).train.schema["frame"] == [3, 8, 8]


def test_whole_numbers_are_choices_among_actions(tmp_path):
    frames, _, state = recording()
    kinds = [np.arange(length - 1) % 4 for length in LENGTHS]
    path = write_groups(tmp_path / "a.h5", (frames, kinds, state))
    splits = open_episodes(str(path), **WHOLE)
    batch = splits.train.batch(torch.tensor([0]))
    assert torch.equal(batch.actions[0], torch.eye(4))
    assert splits.train.schema["actions"] == [f"actions={number}" for number in range(4)]
    # A further file in which one kind does not occur is read with the kinds that the model knows.
    fewer = write_groups(tmp_path / "b.h5", (frames, [part % 2 for part in kinds], state))
    assert as_dataset(str(fewer), splits.train.schema).batch(torch.tensor([0])).actions.shape[2] == 4
    more = write_groups(tmp_path / "c.h5", (frames, [part + 1 for part in kinds], state))
    with pytest.raises(DataError, match="found 1 to 4, expected 0 to 3"):
        as_dataset(str(more), splits.train.schema)


def test_short_episodes_are_left_out_and_counted(tmp_path):
    path = write_groups(tmp_path / "a.h5", recording())
    splits = open_episodes(str(path), steps=10, val_fraction=0, test_fraction=0)
    assert splits.about["too_short"].startswith("2 episodes")
    assert len(splits.train) == 3 + 6 + 1
    with pytest.raises(DataError, match="longest of 5 episodes has 15 frames; a window needs 16"):
        open_episodes(str(path), steps=16)
    assert len(open_episodes(str(path), **WHOLE, max_episodes=2).train) == 5 + 8


def test_places_of_things_keep_their_axes(tmp_path):
    frames, actions, _ = recording()
    places = [np.random.default_rng(0).random((length, 3, 2)) for length in LENGTHS]
    path = write_groups(tmp_path / "a.h5", (frames, actions, places))
    train = open_episodes(str(path), **WHOLE).train
    assert train.batch(torch.tensor([0])).state.shape == (1, 5, 3, 2)
    assert (train.schema["state"], train.schema["state_dims"]) == (["state_0", "state_1", "state_2"], 2)


# Data sets


def test_a_data_set_moves_counts_and_hashes_itself(tmp_path):
    path = write_groups(tmp_path / "a.h5", recording())
    train = open_episodes(str(path), **WHOLE).train
    frames = sum(LENGTHS) * 16 * 20 * 3
    assert frames < train.nbytes < frames + 4000
    assert train.to(torch.device("cpu")) is train
    assert train.fingerprint() == open_episodes(str(path), **WHOLE).train.fingerprint()
    meta = train.to(torch.device("meta"))
    assert meta.batch(torch.zeros(2, dtype=torch.int64, device="meta")).frames.shape == (2, 5, 3, 16, 20)


def test_anything_that_holds_sequences_is_a_data_set(tmp_path):
    path = write_groups(tmp_path / "a.h5", recording())
    train = open_episodes(str(path), **WHOLE).train
    assert as_dataset(train) is train
    batch = train.batch(torch.arange(6))
    wrapped = as_dataset(batch, train.schema)
    assert isinstance(wrapped, Dataset)
    assert torch.equal(wrapped.batch(torch.tensor([4])).frames, batch.frames[4:5])
    assert wrapped.schema["actions"] == train.schema["actions"]
    assert wrapped.fingerprint() == as_dataset(batch).fingerprint()
    bare = as_dataset(Sequences(torch.rand(2, 3, 1, 8, 8), torch.rand(2, 2, 1)))
    assert (bare.schema["frame"], bare.schema["actions"], bare.schema["state"]) == ([1, 8, 8], ["action_0"], [])
    read = as_dataset(str(path), train.schema)
    assert read.fingerprint() == train.fingerprint()
    with pytest.raises(DataError, match="found list"):
        as_dataset([1, 2])


def test_options_are_a_schema_of_a_recipe():
    hints = typing.get_type_hints(open_episodes)
    for name, option in inspect.signature(open_episodes).parameters.items():
        assert name in hints
        assert name == "path" or option.kind is option.KEYWORD_ONLY
    check_section("data", {"path": "x", "size": [8, 9], "channels": "last", "episode_axis": True}, open_episodes)
    with pytest.raises(ConfigError, match="channels"):
        check_section("data", {"path": "x", "channels": "middle"}, open_episodes)


# Faults


def refuse(path, *words, error=DataError, **options):
    with pytest.raises(error) as found:
        open_episodes(str(path), **{**WHOLE, **options})
    for word in words:
        assert word in str(found.value)


def test_frames_and_actions_that_do_not_fit_are_refused(tmp_path):
    frames, actions, state = recording()
    actions[3] = actions[3][:9]
    path = write_groups(tmp_path / "a.h5", (frames, actions, state))
    refuse(path, "a.h5: episode_3: 'actions' has 9 rows but there are 15 frames", "one action fewer")
    flat = {"frames": np.concatenate(frames), "actions": np.concatenate(actions)}
    np.savez(tmp_path / "b.npz", **flat, episode_ends=np.cumsum(LENGTHS))
    refuse(tmp_path / "b.npz", "'actions' has 43 rows but 'frames' has 53", "expected as many (53)", "(48)")
    np.savez(tmp_path / "c.npz", **flat)
    refuse(tmp_path / "c.npz", "one action fewer than frames")
    np.savez(tmp_path / "d.npz", **flat, episode_ends=[9, 8, 53])
    refuse(tmp_path / "d.npz", "'episode_ends' must rise and end with the number of frames, 53")
    np.savez(tmp_path / "e.npz", **flat, terminals=np.zeros(5))
    refuse(tmp_path / "e.npz", "'terminals' has 5 values for 53 frames")


def test_values_that_teach_nothing_are_refused(tmp_path):
    frames, actions, state = recording()
    broken = [part.copy() for part in actions]
    broken[1][4, 1] = np.nan
    refuse(write_groups(tmp_path / "a.h5", (frames, broken, state)), "episode_1: 'actions'", "row 4", "NaN")
    still = [np.ones_like(part) for part in actions]
    refuse(write_groups(tmp_path / "b.h5", (frames, still, state)), "[1.0, 1.0] in every step")
    floats = [part.astype(np.float32) for part in frames]
    floats[2][3, 0, 0] = np.inf
    path = write_groups(tmp_path / "c.h5", (floats, actions, state))
    refuse(path, "episode_2: 'frames' has NaN or infinity in frame 3")
    schema = {**open_episodes(str(path), **WHOLE, max_episodes=2).train.schema}
    with pytest.raises(DataError, match="frame 3"):
        list(stream_sequences(str(path), schema))
    refuse(write_groups(tmp_path / "d.h5", (frames, actions, [part[1:] for part in state])), "one row for each frame")


def test_what_cannot_be_told_is_asked_for(tmp_path):
    frames, actions, _ = recording((20,), (3, 16, 4))
    np.savez(tmp_path / "a.npz", frames=frames[0], actions=actions[0])
    refuse(tmp_path / "a.npz", "both the first and the last axis could be", "channels='first' or 'last'")
    assert open_episodes(str(tmp_path / "a.npz"), **WHOLE, channels="last").train.schema["frame"] == [4, 3, 16]
    refuse(tmp_path / "a.npz", "'none' for two", error=ConfigError, channels="none")
    seen = np.zeros((20, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "b.npz", left=seen, right=seen, actions=actions[0])
    refuse(tmp_path / "b.npz", "several: left, right", "frames=...")
    assert len(open_episodes(str(tmp_path / "b.npz"), **WHOLE, frames="left").train) == 16
    grey = np.zeros((8, 3, 16, 16), np.uint8)
    np.savez(tmp_path / "c.npz", frames=grey, actions=np.random.default_rng(0).random((8, 2)))
    refuse(tmp_path / "c.npz", "episode_axis=true or false")
    assert len(open_episodes(str(tmp_path / "c.npz"), **WHOLE, episode_axis=False).train) == 4
    np.savez(
        tmp_path / "d.npz", frames=np.zeros((9, 12, 13, 14), np.uint8), actions=np.random.default_rng(0).random((9, 2))
    )
    refuse(tmp_path / "d.npz", "neither the first nor the last axis can be")


def test_nothing_that_could_run_code_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    frames, actions, _ = recording((20,))
    trap = np.array([Trap()] * 19, dtype=object)
    np.savez(tmp_path / "a.npz", frames=frames[0], actions=trap)
    refuse(tmp_path / "a.npz", "Python objects")
    np.savez(tmp_path / "b.npz", frames=np.array([Trap()] * 20, dtype=object), actions=actions[0])
    refuse(tmp_path / "b.npz", "frames")
    folder = write_images(tmp_path / "set", recording((20,))) / "episode_0"
    np.save(folder / "actions.npy", trap)
    refuse(tmp_path / "set", "Python objects")
    (tmp_path / "c.pkl").write_bytes(b"x")
    refuse(tmp_path / "c.pkl", "can run code")
    assert not (tmp_path / "ran").exists()


def test_missing_and_damaged_files_are_named(tmp_path):
    refuse(tmp_path / "none.h5", "no such file")
    path = write_groups(tmp_path / "a.h5", recording())
    refuse(path, "no array 'pixels'", "'frames'", frames="pixels")
    refuse(path, "no array 'forces'", "actions=...", actions="forces")
    refuse(path, "no array 'places' for the state", state="places")
    content = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    refuse(tmp_path / "cut.h5", "cut.h5: cannot be read")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "found neither")
    with h5py.File(path, "a") as file:
        del file["episode_2/frames"]
    refuse(path, "no array 'episode_2/frames'")


def test_faulty_folders_of_images_are_refused(tmp_path):
    folder = write_images(tmp_path / "set", recording((9, 9)))
    shutil.copytree(folder, tmp_path / "sizes")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "sizes" / "episode_1" / "3.png")
    refuse(tmp_path / "sizes", "3.png: is 8 x 8 pixels, RGB, the first image is 20 x 16 pixels, RGB")
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "episode_0" / "2.png").write_bytes(b"no picture")
    refuse(tmp_path / "damaged", "2.png")
    (folder / "episode_1" / "actions.npy").unlink()
    refuse(folder, "expected actions.npy or actions.npz or actions.csv")
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(deep / "0.png")
    refuse(deep, "8 bits per channel")


def test_a_missing_pillow_is_named_with_its_extra(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "set", recording((9,)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    refuse(folder, "noumena[worldmodels]", error=NotSupportedError)


def test_options_out_of_range_are_refused(tmp_path):
    path = write_groups(tmp_path / "a.h5", recording())
    refuse(path, "data.steps", error=ConfigError, steps=1)
    refuse(path, "data.stride", error=ConfigError, stride=0)
    refuse(path, "data.size", error=ConfigError, size=[1, 2, 3])
    refuse(path, "test_fraction", error=ConfigError, test_fraction=1.0)
    refuse(path, "max_memory_gib", "size=", max_memory_gib=1e-6)
    refuse(path, "2 episodes cannot be dealt", max_episodes=2, val_fraction=0.1, test_fraction=0.1)
    two = write_groups(tmp_path / "b.h5", recording(shape=(2, 16, 20)))
    refuse(two, "no colours", error=ConfigError, gray=True)
    with pytest.raises(DataError, match="trained on"):
        stream_sequences(str(path), {"frame": [1, 28, 28]})
    with pytest.raises(ConfigError, match="batch_rows"):
        stream_sequences(str(path), {"frame": [3, 16, 20]}, batch_rows=0)
