import tracemalloc

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.density.data import open_episodes, open_table
from noumena.density.stream import count_rows, stream_rows
from noumena.density.table import as_table
from tests.density.files import COLUMNS, episodes, numbers, write_episodes, write_minari, write_table

FLOAT32_MAX = float(np.finfo(np.float32).max)
WHOLE = {"val_fraction": 0, "test_fraction": 0}
ROWS = ["observation+action", "next_observation+action", "observation", "transition"]
TABLE = {"kind": "table", "columns": list(COLUMNS)}


def joined(chunks):
    return torch.cat(list(chunks))


@pytest.fixture(params=[1, 7, 1000])
def batch_rows(request):
    return request.param


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that small files have several."""
    monkeypatch.setattr("noumena.readers.common.BLOCK_BYTES", 300)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pq", ".npy", ".npz", ".h5"])
def test_streaming_a_table_gives_the_rows_of_the_training_reader(inside, suffix, batch_rows):
    path = write_table(f"t{suffix}", numbers())
    table = open_table(path, **WHOLE).train
    chunks = list(stream_rows(path, table.schema, batch_rows=batch_rows))
    assert torch.equal(torch.cat(chunks), table.rows)
    assert torch.equal(table.rows, torch.from_numpy(numbers()))
    assert {len(chunk) for chunk in chunks[:-1]} <= {batch_rows}
    assert all(chunk.dtype == torch.float32 for chunk in chunks)
    assert count_rows(path, table.schema) == (None if suffix == ".csv" else 57)
    assert torch.equal(as_table(path).rows, table.rows)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_streaming_episodes_gives_the_rows_of_the_training_reader(inside, suffix, row, kept, batch_rows):
    arrays = episodes()
    if not kept:
        del arrays["next_observations"]
    path = write_episodes(f"e{suffix}", arrays)
    table = open_episodes(path, row=row, **WHOLE, split="time").train
    chunks = list(stream_rows(path, table.schema, batch_rows=batch_rows))
    assert torch.equal(torch.cat(chunks), table.rows)
    assert max(map(len, chunks)) <= batch_rows
    derived = not kept and row in ("next_observation+action", "transition")
    assert count_rows(path, table.schema) == (None if derived else len(table))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("row", ROWS)
def test_streaming_a_minari_folder_gives_the_rows_of_the_training_reader(inside, row, batch_rows):
    path = write_minari("set", episodes())
    table = open_episodes(path, row=row, **WHOLE).train
    assert torch.equal(joined(stream_rows(path, table.schema, batch_rows=batch_rows)), table.rows)
    assert count_rows(path, table.schema) == len(table)


def test_the_shipped_sample_streams_by_its_name():
    table = open_episodes("sample:hopper", **WHOLE).train
    assert torch.equal(joined(stream_rows("sample:hopper", table.schema)), table.rows)
    assert count_rows("sample:hopper", table.schema) == len(table)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_named_columns_are_found_by_name_and_others_ignored(inside, suffix):
    path = write_table(f"t{suffix}", numbers(), text=["word"] * 57)
    rows = joined(stream_rows(path, {"kind": "table", "columns": ["depth", "speed"]}))
    assert torch.equal(rows, torch.from_numpy(numbers()[:, [2, 0]]))


def test_columns_chosen_of_an_array_are_chosen_again_in_a_further_one(inside):
    schema = open_table(write_table("t.npy", numbers()), columns=["x_2", "x_0"]).train.schema
    chosen = torch.from_numpy(numbers(seed=1)[:, [2, 0]])
    assert torch.equal(joined(stream_rows(write_table("wide.npy", numbers(seed=1)), schema)), chosen)
    assert torch.equal(joined(stream_rows(write_table("ready.npy", chosen.numpy()), schema)), chosen)


def test_the_array_named_in_training_is_found_again(inside):
    with h5py.File("t.h5", "w") as file:
        file["a"], file["b"] = numbers(), numbers(seed=1)
    schema = open_table("t.h5", key="b").train.schema
    assert torch.equal(joined(stream_rows("t.h5", schema)), torch.from_numpy(numbers(seed=1)))
    assert torch.equal(joined(stream_rows("t.h5", schema, key="a")), torch.from_numpy(numbers()))
    assert torch.equal(joined(stream_rows(write_table("t.npy", numbers()), schema)), torch.from_numpy(numbers()))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_stored_column_by_column_stream_as_others(inside, suffix):
    path = write_table(f"t{suffix}", np.asfortranarray(numbers()))
    assert torch.equal(joined(stream_rows(path, TABLE, batch_rows=10)), torch.from_numpy(numbers()))


def test_compressed_and_other_ended_arrays_stream_as_others(inside):
    np.savez_compressed("t.npz", X=numbers().astype(">f8"))
    assert torch.equal(joined(stream_rows("t.npz", TABLE)), torch.from_numpy(numbers()))


def test_rows_laid_out_already_are_scored_by_a_model_of_episodes(inside):
    table = open_episodes(write_episodes("e.npz", episodes()), **WHOLE).train
    for name in ("rows.npy", "rows.npz", "rows.csv", "rows.parquet"):
        path = write_table(name, table.rows.numpy(), table.columns)
        assert torch.equal(joined(stream_rows(path, table.schema)), table.rows)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz", ".h5"])
def test_far_numbers_are_clipped_never_refused_or_lost(inside, suffix):
    array = numbers().astype(float)
    array[3, 1] = -1e200
    rows = joined(stream_rows(write_table(f"t{suffix}", array), TABLE))
    assert float(rows[3, 1]) == -FLOAT32_MAX
    assert len(rows) == 57


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz", ".h5"])
def test_a_cell_that_is_not_finite_is_refused_with_its_row_in_the_file(inside, suffix, number):
    array = numbers()
    array[41, 1] = number
    with pytest.raises(DataError, match=rf"t{suffix}: row 41 \(counted from 0\), column 'mass' is (NaN|inf)"):
        list(stream_rows(write_table(f"t{suffix}", array), TABLE, batch_rows=5))


def test_a_null_cell_is_refused_with_its_row(inside):
    pa.parquet.write_table(pa.table({"speed": [1, None], "mass": [1, 2], "depth": [1, 2]}), "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet: row 1 .*'speed' is NaN"):
        list(stream_rows("t.parquet", TABLE))


def test_a_text_cell_far_down_a_csv_file_is_refused_with_its_row_and_content(inside, monkeypatch):
    monkeypatch.setattr("noumena.readers.columns._CSV_BLOCK_BYTES", 1000)
    lines = ["speed,mass,depth", *["1,2,3"] * 700, "1,n.d.,3", *["1,2,3"] * 700]
    (inside / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"t.csv: row 700 \(counted from 0\), column 'mass' is 'n.d.', .* not a number"):
        list(stream_rows("t.csv", TABLE))


def test_bad_episode_cells_are_named_by_row_or_episode(inside):
    arrays = episodes()
    arrays["next_observations"][7, 2] = np.nan
    schema = {**open_episodes(write_episodes("ok.npz", episodes())).train.schema}
    with pytest.raises(DataError, match=r"e.npz: row 7 .*'next_obs_2' is NaN"):
        list(stream_rows(write_episodes("e.npz", arrays), schema))
    with pytest.raises(DataError, match=r"episode_2: row 1 .*'obs_2' is NaN"):
        list(stream_rows(write_minari("set", {**arrays, "observations": arrays["next_observations"]}), schema))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t.npy", r"t.npy: expected 3 columns \(speed, mass, depth\), found 2"),
        ("t.csv", "t.csv: no column 'depth' among 2 columns.*Rename"),
        ("t.parquet", "t.parquet: no column 'depth'"),
    ],
)
def test_other_columns_than_in_training_are_refused_at_once(inside, name, words):
    path = write_table(name, numbers(columns=2), COLUMNS[:2])
    with pytest.raises(DataError, match=words):
        stream_rows(path, TABLE)


def test_episodes_of_another_environment_are_refused_at_once(inside):
    schema = open_episodes(write_episodes("a.npz", episodes())).train.schema
    with pytest.raises(DataError, match=r"b.npz: the model takes rows of 6 columns .*gives 8 .*same environment"):
        stream_rows(write_episodes("b.npz", episodes(observation=6)), schema)


def test_a_file_without_rows_is_refused(inside):
    (inside / "t.csv").write_text("speed,mass,depth\n")
    with pytest.raises(DataError, match=r"t.csv: expected at least one row"):
        list(stream_rows("t.csv", TABLE))


def test_options_out_of_range_are_refused_at_once(inside):
    path = write_table("t.npy", numbers())
    with pytest.raises(ConfigError, match=r"batch_rows=0"):
        stream_rows(path, TABLE, batch_rows=0)
    with pytest.raises(ConfigError, match=r"kind"):
        stream_rows(path, {"columns": ["a"]})
    with pytest.raises(ConfigError, match=r"key='X'.*leave it out"):
        stream_rows(path, TABLE, key="X")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(inside, monkeypatch, suffix):
    monkeypatch.setattr("noumena.readers.common.BLOCK_BYTES", 1 << 18)
    monkeypatch.setattr("noumena.readers.columns._CSV_BLOCK_BYTES", 1 << 18)
    peaks = []
    for rows in (100_000, 400_000):  # 1.2 and 4.8 MB
        path = write_table(f"t{rows}{suffix}", numbers(rows))
        next(stream_rows(path, TABLE))  # what the first call imports is no part of the measure
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        longest, arrow = 0, 0
        for chunk in stream_rows(path, TABLE, batch_rows=1000):
            longest = max(longest, len(chunk))
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        peaks.append(tracemalloc.get_traced_memory()[1] + (0 if suffix == ".csv" else arrow))
        tracemalloc.stop()
        assert longest == 1000
    assert peaks[1] < 1.3 * peaks[0] + 500_000
    assert peaks[1] < 4_000_000
