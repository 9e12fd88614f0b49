import pickle
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.data import open_arrays, stream_rows
from tests.multimodal.files import FACTS, FORMATS, ORDER, POSE, WHOLE, arrays, refused, write

# Models


def test_a_model_reads_and_streams_what_a_file_has_of_its_modalities(inside):
    schema = open_arrays(write(inside, "npz", arrays(), FACTS), **WHOLE).train.schema
    np.save("pose.npy", arrays(seed=2)["pose"])
    (batch,) = stream_rows("pose.npy", schema)
    assert batch.present.tolist() == [[True, False, False]] * 43
    assert torch.equal(batch.values[:, :6], torch.from_numpy(arrays(seed=2)["pose"]))
    assert (batch.values[:, 6:] == 0).all()
    stacked = np.concatenate([arrays()[name] for name in ORDER], 1)
    np.save("all.npy", stacked)
    assert torch.equal(next(stream_rows("all.npy", schema)).values, torch.from_numpy(stacked))


def test_inputs_are_all_that_is_seen(inside):
    path = write(inside, "parquet", arrays(), FACTS)
    schema = open_arrays(path, **WHOLE).train.schema
    (batch,) = stream_rows(path, schema, inputs=["force"])
    assert batch.present.tolist() == [[False, True, False]] * 43
    assert (batch.values[:, :6] == 0).all()
    with pytest.raises(ConfigError, match="Did you mean 'force'"):
        stream_rows(path, schema, inputs=["frce"])
    np.save("pose.npy", arrays()["pose"])
    with pytest.raises(DataError, match=r"at least one of 'force', found pose \(43, 6\)"):
        stream_rows("pose.npy", schema, inputs=["force"])


def test_columns_are_found_by_name_in_any_order(inside):
    schema = open_arrays(write(inside, "npz", arrays(), FACTS), **WHOLE).train.schema
    pose = arrays()["pose"]
    pa.csv.write_csv(pa.table({f"pose.{POSE[i]}": pose[:, i] for i in (3, 0, 5, 1, 2, 4)}), "t.csv")
    assert torch.equal(next(stream_rows("t.csv", schema)).values[:, :6], torch.from_numpy(pose))
    pa.csv.write_csv(pa.table({f"pose.{name}": pose[:, 0] for name in POSE[:5]}), "t.csv")
    with pytest.raises(DataError, match=r"'pose' has no column 'Rz'"):
        stream_rows("t.csv", schema)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("form", FORMATS)
def test_a_bad_value_is_named_by_its_row_in_the_file_when_streaming(inside, form):
    data = arrays()
    schema = open_arrays(write(inside, form, data, FACTS), **WHOLE).train.schema
    data["force"][31, 4] = np.nan
    path = write(inside, form, data, FACTS)
    with pytest.raises(DataError, match=r"'force': row 31 .*'Ty' is NaN"):
        list(stream_rows(path, schema, batch_rows=4))


def test_data_of_another_width_are_refused_at_once(inside):
    schema = open_arrays(write(inside, "npz", arrays(), FACTS), **WHOLE).train.schema
    np.savez("t.npz", shape=np.zeros((4, 15)))
    with pytest.raises(DataError, match="'shape' has 15 numbers in a row, the model was made for 12"):
        stream_rows("t.npz", schema)


# Refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modalities": ["pose", "shap"]}, ["'shap'", "Did you mean 'shape'"]),
        ({"modalities": []}, ["empty"]),
        ({"kinds": {"psoe": "pose"}}, ["kinds", "Did you mean 'pose'"]),
        ({"kinds": {"force": "wrnch"}}, ["force", "Did you mean 'wrench'"]),
        ({"units": {"pose": ["mm"]}}, ["1 units for 6"]),
        ({"columns": {"pose": ["a", "b"]}}, ["2 column names for 6"]),
        ({"group": "path"}, ["group", "Did you mean 'path_id'"]),
        ({"group": "pose"}, ["one entry for each row", "pose (43, 6)"]),
        ({"side": ["enrgy"]}, ["side", "Did you mean 'energy'"]),
        ({"mesh": "mesh.npz"}, ["mesh.npz", "no such file"]),
        ({"split": "group"}, ["pass group="]),
        ({"split": "path"}, ["'path'", "group"]),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, ["val_fraction"]),
        ({"max_rows": 0}, ["max_rows=0"]),
        ({"missing_fraction": 1.0}, ["missing_fraction"]),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(inside, options, words):
    refused(words, write(inside, "npz", arrays()), **options)


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("csv", "parquet")])
def test_arrays_of_different_lengths_are_refused_with_both(inside, form):
    data = {**arrays(), "force": arrays(rows=40)["force"]}
    refused(["force", "40"], write(inside, form, data, FACTS))


def test_arrays_whose_rows_differ_without_a_word_of_which_are_meant_are_refused(inside):
    path = write(inside, "npz", {**arrays(), "weights": np.zeros((7, 3))})
    refused(["weights (7, 3)", "modalities=["], path)
    assert open_arrays(path, modalities=ORDER).about["not_used"] == ["weights"]


def test_metadata_that_do_not_fit_are_refused_with_their_file(inside):
    def facts(**pose):
        return {"modalities": {"pose": pose}}

    for wrong, words in [
        (facts(columns=["a"]), ["1 column names for 6"]),
        (facts(columns="Dx"), ["set.json", "'pose', 'columns'", "list of texts"]),
        (facts(kind=3), ["set.json", "'kind'"]),
        ({"modalities": ["pose"]}, ["set.json", "'modalities'"]),
        ({"modalities": {"pos": {}}}, ["set.json", "Did you mean 'pose'"]),
        ({"group": 3}, ["set.json", "'group'"]),
    ]:
        refused(words, write(inside, "npz", arrays(), wrong))
    (inside / "set.json").write_text("{")
    refused(["set.json", "JSON"], "set.npz")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_text_in_a_modality_is_refused_with_an_example(inside, form):
    table = pa.table({"pose.x": ["1", "two", "3"], "force.x": [1.0, 2.0, 3.0]})
    path = f"t.{form}"
    pa.csv.write_csv(table, path) if form == "csv" else pa.parquet.write_table(table, path)
    refused(["pose.x", "two" if form == "csv" else "string", "not numeric"], path)


def test_pickled_objects_are_never_opened(inside):
    class Trap:
        def __reduce__(self):
            return (Path("sprung").touch, ())

    trap = np.empty((5, 2), object)
    trap[:] = Trap()
    np.savez("t.npz", pose=np.zeros((5, 6)), force=trap)
    refused(["'force'"], "t.npz")
    refused(["force", "Python objects"], "t.npz", modalities=["pose", "force"])
    Path("t.pkl").write_bytes(pickle.dumps(Trap()))
    refused(["t.pkl", "Save the arrays as .npz"], "t.pkl")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_files_are_refused(inside, form):
    path = Path(write(inside, form, arrays(rows=3000, missing=False)))
    file = path / "pose.npy" if form == "folder-npy" else path / f"pose.{form[7:]}" if path.is_dir() else path
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError) as caught:
        open_arrays(str(path), modalities=["pose", "force"])
    assert str(path) in str(caught.value)


def test_a_path_that_holds_nothing_is_refused(inside):
    (inside / "empty").mkdir()
    refused(["empty", ".npy"], "empty")
    refused(["nowhere.npz", "no such file"], "nowhere.npz")
    refused(["Did you mean 'sample:softrobot'"], "sample:softrobt")
    np.savez("t.npz", words=np.array(["a"] * 4), count=np.arange(4))
    refused(["found no modality", "words (4)", "count (4)"], "t.npz")
    with h5py.File("t.h5", "w") as file:
        file["a/pose"], file["b/pose"] = np.zeros((4, 6)), np.zeros((4, 6))
    refused(["a/pose", "b/pose", "Rename"], "t.h5")
