from pathlib import Path

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.data import open_arrays, read_arrays, stream_rows
from noumena.multimodal.prosoro import open_prosoro
from tests.multimodal.files import WHOLE, arrays, surface


def stacked(rows=40, seed=0):
    data = arrays(rows, seed)
    return np.concatenate([data[name] for name in ("pose", "force", "shape")], 1).astype(np.float64)


@pytest.fixture
def folder(inside):
    place = inside / "cylinder"
    place.mkdir()
    np.save(place / "data.npy", stacked())
    return place


def template(folder, *, separator=",", index=True, first=0):
    nodes, triangles = surface()
    lines = [[*([n + 1] if index else []), *node] for n, node in enumerate(nodes)]
    for name, rows in (("surf_node.txt", lines), ("surf_triangles.txt", triangles + first)):
        (folder / name).write_text("\n".join(separator.join(f"  {number}" for number in row) for row in rows) + "\n")


def refused(words, path, **options):
    with pytest.raises((ConfigError, DataError)) as caught:
        open_prosoro(str(path), **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_columns_are_pose_force_and_displacements(folder):
    splits = open_prosoro(str(folder), **WHOLE)
    assert splits.train.sizes == {"pose": 6, "force": 6, "shape": 12}
    assert [modality.kind for modality in splits.train.modalities] == ["pose", "wrench", "displacement"]
    np.testing.assert_array_equal(splits.train.values.numpy(), stacked().astype(np.float32))
    assert splits.train.surface is None
    assert "rows of one path may be in several splits" in splits.about["note"]
    assert splits.about["split"].startswith("rows at random")


def test_the_original_split_is_kept_where_it_is_there(folder):
    np.save(folder / "training_data.npy", stacked()[:30])
    np.save(folder / "testing_data.npy", stacked()[30:])
    splits = open_prosoro(str(folder), val_fraction=0.125)
    assert splits.about["rows"] == {"train": 26, "val": 4, "test": 10}
    np.testing.assert_array_equal(splits.test.values.numpy(), stacked()[30:].astype(np.float32))
    assert splits.about["files"] == ["training_data.npy", "testing_data.npy"]


def test_groups_named_by_a_further_file_are_kept_whole(folder):
    np.save(folder / "path_id.npy", np.arange(40) // 5)
    splits = open_prosoro(str(folder), group="path_id")
    assert sum(splits.about["groups"].values()) == 8
    refused(["path.npy", "path_id"], folder, group="path")
    np.save(folder / "path_id.npy", np.arange(30))
    refused(["path_id", "30", "40"], folder, group="path_id")


@pytest.mark.parametrize("separator", [",", " "])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_the_template_is_read_however_it_is_written(folder, separator, index, first):
    template(folder, separator=separator, index=index, first=first)
    found = open_prosoro(str(folder)).train.surface
    nodes, triangles = surface()
    np.testing.assert_array_equal(found.nodes.numpy(), nodes)
    np.testing.assert_array_equal(found.triangles.numpy(), triangles)


def test_a_template_elsewhere_is_named(folder, inside):
    (inside / "templates").mkdir()
    template(inside / "templates")
    for place in ("templates", "../templates"):
        found = open_prosoro(str(folder), mesh=place).train.surface
        np.testing.assert_array_equal(found.nodes.numpy(), surface()[0])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("surf_triangles.txt", "1 2 3\n1 3 2\n", ["counted from 0 or from 1", "surface_mesh.npz"]),
        ("surf_triangles.txt", "0 1 4\n", ["0 to 4", "has 4"]),
        ("surf_triangles.txt", "0 1 2.5\n", ["2.5"]),
        ("surf_triangles.txt", "0 1 2\n0 1\n", ["surf_triangles.txt", "cannot be read"]),
        ("surf_node.txt", "5 0 0 0\n9 1 1 1\n", ["surf_node.txt", "found 4"]),
        ("surf_node.txt", "x y z\n", ["surf_node.txt", "cannot be read"]),
        ("surf_node.txt", " \n", ["surf_node.txt", "no line"]),
        ("surf_node.txt", "0 0 0\n1 0 0\n0 1 0\n0 0 1\n1 1 1\n", ["4 nodes", "surface has 5"]),
    ],
)
def test_a_template_that_does_not_fit_is_refused_in_words(folder, name, text, words):
    template(folder)
    if name == "surf_triangles.txt" and text.startswith("1 2 3"):
        (folder / "surf_node.txt").write_text("0 0 0\n" * 5)
    if text.count("\n") == 5:
        (folder / "surf_triangles.txt").write_text("0 1 2\n")
    (folder / name).write_text(text)
    refused(words, folder)


@pytest.mark.parametrize("width", [12, 14, 25, 5])
def test_a_width_that_is_not_6_and_6_and_3n_is_refused(folder, width):
    np.save(folder / "data.npy", np.zeros((10, width)))
    refused(["data.npy", "6 + 6 + 3n", f"found {width}"], folder)


def test_statistics_are_checked_reported_and_not_used(folder):
    for name in ("mu", "std"):
        np.save(folder / f"{name}.npy", np.ones(24))
    assert "not used" in open_prosoro(str(folder)).about["statistics"]
    np.save(folder / "std.npy", np.ones(23))
    refused(["std.npy", "24", "(23,)"], folder)


def test_poses_alone_are_not_enough(folder):
    (folder / "motion.csv").write_text("1,0,0,0,0,0,0\n" * 50)
    assert open_prosoro(str(folder)).about["motion"] == "motion.csv lists 50 poses"
    (folder / "data.npy").unlink()
    refused(["motion.csv has the poses", "data.npy"], folder)
    np.save(folder / "testing_data.npy", stacked())
    refused(["only testing_data.npy"], folder)
    refused(["no such file"], Path("nowhere"))


def test_a_model_reads_and_streams_the_layout(folder):
    train = open_prosoro(str(folder), **WHOLE).train
    assert train.schema["kind"] == "prosoro"
    for path in (folder, folder / "data.npy"):
        batches = list(stream_rows(str(path), train.schema, batch_rows=7))
        assert torch.equal(torch.cat([batch.values for batch in batches]), train.values)
        assert torch.equal(read_arrays(path, modalities=train.modalities).values, train.values)
    (batch,) = stream_rows(str(folder), train.schema, inputs=["pose"])
    assert batch.present.tolist() == [[True, False, False]] * 40
    np.save(folder / "testing_data.npy", stacked(seed=1))
    (folder / "data.npy").unlink()
    with pytest.raises(DataError, match=r"Name the file: .*testing_data\.npy"):
        stream_rows(str(folder), train.schema)
    assert len(next(stream_rows(str(folder / "testing_data.npy"), train.schema))) == 40


def test_the_layout_is_told_from_a_folder_of_arrays(folder):
    (folder / "motion.csv").write_text("1,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match=r"data\.kind=prosoro"):
        open_arrays(str(folder))
