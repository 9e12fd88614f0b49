import importlib.util
import inspect
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from noumena.config.schema import check_section
from noumena.core.errors import ConfigError
from noumena.multimodal.data import count_rows, open_arrays, read_arrays, stream_rows
from noumena.multimodal.observations import as_observations
from noumena.multimodal.prosoro import open_prosoro
from tests.multimodal.files import FACTS, FORMATS, NAMES, ORDER, POSE, WHOLE, arrays, refused, surface, write


def parts(splits):
    return [part for part in (splits.train, splits.val, splits.test) if part is not None]


def rows_of(splits):
    return sorted(map(tuple, torch.cat([part.values for part in parts(splits)]).tolist()))


@pytest.mark.parametrize("opener", [open_arrays, open_prosoro])
def test_signatures_are_a_schema_of_json_able_options(opener):
    hints = typing.get_type_hints(opener)
    for name, option in inspect.signature(opener).parameters.items():
        assert name in hints
        if name != "path":
            assert option.kind is option.KEYWORD_ONLY
            json.dumps(option.default)
    check_section("data", {"path": "x", "split": "group", "max_rows": 3, "mesh": "m.npz"}, opener)


def test_a_recipe_may_say_everything_about_the_arrays():
    said = {"modalities": ["a"], "kinds": {"a": "pose"}, "columns": {"a": ["b"]}, "units": {"a": "mm", "b": ["m", "s"]}}
    check_section("data", {"path": "x", **said, "side": ["energy"], "group": "g"}, open_arrays)
    for wrong in ({"modalities": "pose"}, {"units": {"a": 3}}, {"split": "path"}, {"max_rows": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            check_section("data", {"path": "x", **wrong}, open_arrays)


def test_importing_the_readers_imports_no_file_library():
    code = "import noumena.multimodal.data, sys; print({'pyarrow', 'h5py', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# Formats


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_back_what_was_written(inside, form, missing):
    data = arrays(missing=missing)
    path = write(inside, form, data, FACTS)
    found = open_arrays(path, **WHOLE).train
    assert found.names == tuple(ORDER)
    for name in ORDER:
        np.testing.assert_array_equal(found[name].numpy(), data[name])
    assert [modality.kind for modality in found.modalities] == ["pose", "wrench", "displacement"]
    assert found.modalities[0].columns == tuple(POSE)
    assert set(found.modalities[2].units) == {"mm"}
    assert (found.present is not None) == missing
    np.testing.assert_array_equal(found.side["energy"].numpy(), data["energy"])
    np.testing.assert_array_equal(found.groups.numpy(), data["path_id"])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("form", FORMATS)
def test_streaming_gives_the_rows_of_reading_all_at_once(inside, form):
    whole = open_arrays(write(inside, form, arrays(missing=True), FACTS), **WHOLE).train
    (inside / "other").mkdir()
    path = write(inside / "other", form, arrays(seed=1, missing=True))
    expected = read_arrays(path, modalities=whole.modalities)
    for batch_rows in (1, 7, 1000):
        batches = list(stream_rows(path, whole.schema, batch_rows=batch_rows))
        assert torch.equal(torch.cat([batch.values for batch in batches]), expected.values)
        marks = [torch.ones(len(b), 3, dtype=torch.bool) if b.present is None else b.present for b in batches]
        assert torch.equal(torch.cat(marks), expected.present)
        assert len({len(batch) for batch in batches[:-1]}) <= 1
        assert max(map(len, batches)) <= batch_rows
    for name in ORDER:
        np.testing.assert_array_equal(expected[name].numpy(), arrays(seed=1, missing=True)[name])
    assert count_rows(path, whole.schema) == (None if "csv" in form else 43)
    assert torch.equal(as_observations(path, whole.modalities).values, expected.values)


def test_arrays_without_metadata_are_modalities_side_quantities_or_masks(inside):
    data = {**arrays(), "force_present": np.arange(43) % 4 > 0, "words": np.array(["a"] * 43)}
    splits = open_arrays(write(inside, "npz", data), **WHOLE)
    assert splits.train.names == tuple(NAMES)
    assert set(splits.train.side) == {"energy", "path_id"}
    assert splits.train.has("force").tolist() == data["force_present"].tolist()
    assert splits.about["rows_without_force"] == {"train": 11}
    assert splits.about["not_used"] == ["words"]
    assert "group=" in splits.about["note"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_mask_of_any_format_hides_rows(inside, form):
    there = np.arange(43) % 3 > 0
    found = open_arrays(write(inside, form, {**arrays(), "pose_mask": there}, FACTS), **WHOLE).train
    assert found.has("pose").tolist() == there.tolist()
    assert found.has("force").all()


def test_options_go_before_metadata_and_choose_order_and_sides(inside):
    path = write(inside, "npz", arrays(), FACTS)
    splits = open_arrays(
        path, modalities=["shape", "pose"], side=["force"], units={"shape": "m"}, kinds={"pose": "vector"}
    )
    assert splits.train.names == ("shape", "pose")
    assert splits.train.side["force"].shape == (len(splits.train), 6)
    assert set(splits.train.modalities[0].units) == {"m"}
    assert splits.train.modalities[1].kind == "vector"
    assert splits.about["modalities"]["shape"] == "12 numbers, displacement in m"


def test_older_metadata_describe_modalities_by_entries_with_columns(inside):
    facts = {"samples": 43, "pose": {"columns": POSE, "units": "mm", "low": [0]}, "shape": "displacements"}
    found = open_arrays(write(inside, "folder-npy", arrays(), facts), **WHOLE).train
    assert found.names == ("pose", "force", "shape")
    assert found.modalities[0].kind == "pose"
    assert set(found.modalities[0].units) == {"mm"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_plain_columns_make_up_a_modality_when_named(inside, form):
    data = arrays()
    table = pa.table({"": np.arange(43), "energy": data["energy"], **dict(zip(POSE, data["pose"].T, strict=True))})
    path = str(inside / f"t.{form}")
    pa.csv.write_csv(table, path) if form == "csv" else pa.parquet.write_table(table, path)
    found = open_arrays(path, columns={"move": ["Dx", "Rz"], "turn": ["Ry"]}, **WHOLE).train
    np.testing.assert_array_equal(found["move"].numpy(), data["pose"][:, [0, 5]])
    np.testing.assert_array_equal(found["turn"].numpy(), data["pose"][:, [4]])
    assert set(found.side) == {"energy", "Dy", "Dz", "Rx"}
    assert torch.equal(next(stream_rows(path, found.schema)).values, found.values)
    refused(["found no modality", "pose.Dx", "columns="], path)
    refused(["'move'", "no column 'Rw'"], path, columns={"move": ["Dx", "Rw"]})


def test_columns_of_a_group_are_in_the_order_of_their_numbers(inside):
    with h5py.File("t.h5", "w") as file:
        for number in range(12):
            file[f"speed/s{number}"] = np.full(4, number)
            file[f"mass/{chr(97 + number)}"] = np.full(4, number)
    found = open_arrays("t.h5", columns={"mass": ["c", "a"]}, **WHOLE).train
    assert found["speed"][0].tolist() == list(range(12))
    assert found["mass"][0].tolist() == [2, 0]


def test_groups_of_words_are_kept_whole(inside):
    table = pa.table({"a.x": np.arange(20.0), "b.x": np.arange(20.0), "site": [*"abcd" * 5]})
    pa.csv.write_csv(table, "t.csv")
    splits = open_arrays("t.csv", group="site")
    assert splits.about["groups"] == {"train": 2, "val": 1, "test": 1}
    np.savez("t.npz", a=np.zeros((20, 2)), site=np.array([*"abcd" * 5]))
    assert open_arrays("t.npz", group="site").about["groups"] == splits.about["groups"]


def test_points_of_three_numbers_are_displacements_of_a_mesh_of_as_many(inside):
    nodes, triangles = surface()
    quads = np.array([[0, 1, 2, 3]])
    data = {**arrays(), "shape": arrays()["shape"].reshape(43, 4, 3)}
    path = Path(write(inside, "folder-npy", data))
    np.savez(path / "surface_mesh.npz", nodes=nodes, triangles=triangles, node_ids=[1])
    np.savez("other.npz", nodes=nodes, quads=quads)
    found = open_arrays(str(path), **WHOLE).train
    assert found.modalities[2].kind == "displacement"
    assert torch.equal(found.surface.triangles, torch.from_numpy(triangles))
    assert open_arrays(str(path), mesh="other.npz", **WHOLE).train.surface.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    inner = write(inside, "h5", {**data, "mesh_nodes": nodes, "mesh_triangles": triangles})
    assert torch.equal(open_arrays(inner, **WHOLE).train.surface.nodes, torch.from_numpy(nodes).float())
    assert open_arrays(inner, modalities=["pose"], kinds={"shape": "displacement"}, **WHOLE).train.names == ("pose",)
    np.savez("small.npz", nodes=nodes[:3])
    refused(["3 points"], path, mesh="small.npz")
    refused(["nodes", "pose"], path, mesh=write(inside, "npz", arrays()))


# Splits


def test_whole_groups_are_dealt_at_random_by_seed_whatever_the_order_of_rows(inside):
    data = arrays(rows=200)
    splits = open_arrays(write(inside, "npz", data, FACTS), seed=3)
    owners = [set(part.groups.tolist()) for part in parts(splits)]
    assert sum(map(len, owners)) == 40 == len(set.union(*owners))
    assert splits.about["rows"] == {"train": 130, "val": 30, "test": 40}
    assert splits.about["groups"] == {"train": 26, "val": 6, "test": 8}
    (inside / "other").mkdir()
    order = np.random.default_rng(0).permutation(200)
    shuffled = open_arrays(write(inside / "other", "csv", {n: a[order] for n, a in data.items()}, FACTS), seed=3)
    assert [set(part.groups.tolist()) for part in parts(shuffled)] == owners
    assert splits.train.fingerprint() == open_arrays(str(inside / "set.npz"), seed=3).train.fingerprint()
    assert splits.train.fingerprint() != open_arrays(str(inside / "set.npz"), seed=4).train.fingerprint()


def test_rows_are_dealt_at_random_or_in_time_when_asked(inside):
    path = write(inside, "npz", arrays(), FACTS)
    timely = open_arrays(path, split="time")
    assert np.array_equal(torch.cat([part["pose"] for part in parts(timely)]).numpy(), arrays()["pose"])
    chance = open_arrays(path, split="random")
    assert rows_of(chance) == rows_of(timely)
    assert "random" in chance.about["split"]


@pytest.mark.parametrize("split", ["group", "random", "time"])
def test_max_rows_takes_whole_groups_or_rows(inside, split):
    splits = open_arrays(write(inside, "npz", arrays(), FACTS), max_rows=33, split=split)
    used = sum(len(part) for part in parts(splits))
    assert (28 <= used <= 33) if split == "group" else used == 33
    assert splits.about["left_out"] == {"rows beyond max_rows": 43 - used}


def test_hidden_entries_are_of_training_rows_and_leave_each_row_one(inside):
    path = write(inside, "npz", arrays(rows=200, missing=True), FACTS)
    whole, hidden, again = (open_arrays(path, missing_fraction=share) for share in (0.0, 0.3, 0.3))
    before, after = whole.train.present, hidden.train.present
    assert after.any(1).all()
    assert not (after & ~before).any()
    assert int(after.sum()) == int(before.sum()) - round(0.3 * int(before.sum()))
    assert torch.equal(hidden.train.present, again.train.present)
    assert hidden.test.fingerprint() == whole.test.fingerprint()
    for number, (name, size) in enumerate(hidden.train.sizes.items()):
        gone = ~after[:, number]
        start = {"pose": 0, "force": 6, "shape": 12}[name]
        assert (hidden.train.values[gone, start : start + size] == 0).all()
    refused(["missing_fraction=0.9", "at most"], path, missing_fraction=0.9)


def test_opening_data_leaves_the_global_generator_alone(inside):
    path = write(inside, "npz", arrays(), FACTS)
    state = torch.random.get_rng_state()
    open_arrays(path, missing_fraction=0.2, max_rows=30)
    assert torch.equal(torch.random.get_rng_state(), state)


# The shipped sample


def test_the_sample_is_small_whole_and_symmetric():
    data = read_arrays("sample:softrobot")
    assert Path(inspect.getfile(open_arrays)).with_name("samples").joinpath("softrobot.npz").stat().st_size < 400_000
    assert data.sizes == {"pose": 6, "force": 6, "shape": 360}
    assert len(data) > 400
    assert len(data.groups.unique()) >= 40
    nodes, triangles = data.surface.nodes.double(), data.surface.triangles
    # A closed surface, turned outwards, of the volume of a hollow 12-gon.
    volume = torch.linalg.det(nodes[triangles]).sum() / 6
    assert volume == pytest.approx(12 * 0.5 * np.sin(np.pi / 6) * (20**2 - 13**2) * 40, rel=1e-5)
    turned = torch.stack([-nodes[:, 1], nodes[:, 0], nodes[:, 2]], 1)
    mirrored = nodes * torch.tensor([1.0, -1.0, 1.0])
    for image in (turned, mirrored):
        assert torch.cdist(image, nodes).min(1).values.max() < 1e-4


def test_the_nodes_of_the_sample_follow_the_pose():
    data = read_arrays("sample:softrobot")
    shape = data["shape"].reshape(len(data), -1, 3)
    nodes = data.surface.nodes
    assert (shape[:, nodes[:, 2] == 0] == 0).all()
    top = nodes[:, 2] == 40
    assert (shape[:, top].mean(1) - data["pose"][:, :3]).abs().max() < 0.01


def test_the_sample_opens_by_its_name_split_by_path():
    splits = open_arrays("sample:softrobot")
    assert splits.about["groups"]["train"] >= 30
    assert set(splits.train.side) == {"energy"}
    batches = list(stream_rows("sample:softrobot", splits.train.schema, batch_rows=100))
    assert torch.equal(torch.cat([batch.values for batch in batches]), read_arrays("sample:softrobot").values)


@pytest.mark.slow
def test_the_sample_is_what_its_tool_makes_of_the_reference_data(tmp_path, monkeypatch):
    source = Path(os.environ.get("NOUMENA_DATA", "")) / "multimodal"
    if not (source / "pose.npy").is_file():
        pytest.skip("NOUMENA_DATA points at no folder with multimodal/pose.npy")
    tool = Path(__file__).parents[2] / "tools" / "make_multimodal_sample.py"
    spec = importlib.util.spec_from_file_location("tool", tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["tool", str(source), str(tmp_path)])
    module.main()
    assert read_arrays(tmp_path / "softrobot.npz").fingerprint() == read_arrays("sample:softrobot").fingerprint()
