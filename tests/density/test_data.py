import inspect
import json
import os
import pickle
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import ConfigError, DataError
from noumena.core.splits import split_groups, split_rows
from noumena.density.data import create_synthetic_data, open_episodes, open_ood, open_synthetic, open_table, shifted
from tests.density.files import COLUMNS, episodes, numbers, write_episodes, write_minari, write_table

WHOLE = {"val_fraction": 0, "test_fraction": 0}
LABELS = np.arange(57) % 5 == 0


def parts(splits):
    return [part for part in (splits.train, splits.val, splits.test) if part is not None]


def rows_of(splits):
    """All rows of all parts, sorted, so that two splits of the same rows compare equal."""
    return sorted(map(tuple, torch.cat([part.rows for part in parts(splits)]).tolist()))


def frame():
    return pd.DataFrame(
        {**dict(zip(COLUMNS, numbers().T, strict=True)), "site": ["a", "b", "c"] * 19, "y": LABELS.astype(int)}
    )


@pytest.mark.parametrize("open_data", [open_table, open_episodes, open_synthetic])
def test_signatures_are_a_schema_of_json_able_options(open_data):
    hints = typing.get_type_hints(open_data)
    for name, option in inspect.signature(open_data).parameters.items():
        assert name in hints
        if name != "path":
            assert option.kind is option.KEYWORD_ONLY
            json.dumps(option.default)


def test_importing_the_readers_imports_no_file_library():
    code = "import noumena.density.stream, sys; print({'pyarrow', 'h5py', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# Splitting


@settings(max_examples=60)
@given(st.integers(3, 200), st.floats(0, 0.49), st.floats(0, 0.49), st.booleans(), st.integers(0, 9))
def test_rows_are_dealt_to_disjoint_parts_that_cover_them(n, val, test, shuffle, seed):
    found = split_rows(n, shuffle=shuffle, val_fraction=val, test_fraction=test, seed=seed, where="x")
    assert torch.cat(list(found.values())).sort().values.tolist() == list(range(n))
    assert all(len(index) >= 1 for index in found.values())
    assert abs(len(found["train"]) - (1 - val - test) * n) <= 2.5
    if not shuffle:
        assert torch.cat(list(found.values())).tolist() == list(range(n))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=3, max_size=40), st.integers(0, 9))
def test_whole_groups_are_dealt_so_that_rows_come_near_the_fractions(lengths, seed):
    groups = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    options = {"val_fraction": 0.2, "test_fraction": 0.2, "where": "x", "what": "groups", "remedy": ""}
    found = split_groups(groups, seed=seed, **options)
    assert torch.cat(list(found.values())).sort().values.tolist() == list(range(len(groups)))
    owners = [set(groups[index].tolist()) for index in found.values()]
    assert all(owners)
    assert sum(map(len, owners)) == len(lengths)
    if len(lengths) >= 10:
        assert abs(len(found["train"]) - 0.6 * len(groups)) <= max(lengths)
    again = split_groups(groups, seed=seed, **options)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_the_same_seed_gives_the_same_split_and_another_seed_another(inside):
    path = write_table("t.npy", numbers())
    one, same, other = (open_table(path, seed=seed) for seed in (1, 1, 2))
    assert one.train.fingerprint() == same.train.fingerprint() != other.train.fingerprint()
    assert rows_of(one) == rows_of(other)


def test_opening_data_leaves_the_global_generator_alone(inside):
    path = write_table("t.npy", numbers())
    state = torch.random.get_rng_state()
    open_table(path)
    open_synthetic()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_time_order_puts_the_first_rows_in_train_and_the_last_in_test(inside):
    splits = open_table(write_table("t.npy", numbers()), split="time", val_fraction=0.1, test_fraction=0.3)
    assert np.array_equal(torch.cat([part.rows for part in parts(splits)]).numpy(), numbers())
    assert splits.about["rows"] == {"train": 34, "val": 6, "test": 17}


def test_a_part_of_share_zero_is_left_out(inside):
    splits = open_table(write_table("t.npy", numbers()), val_fraction=0.5, test_fraction=0)
    assert splits.test is None
    assert splits.about["rows"] == {"train": 29, "val": 28}


@pytest.mark.parametrize(
    "options", [{"val_fraction": 0.5, "test_fraction": 0.5}, {"val_fraction": -0.1}, {"test_fraction": float("nan")}]
)
def test_fractions_that_leave_nothing_to_train_on_are_refused_before_the_file_is_opened(options):
    for open_data in (open_table, open_episodes):
        with pytest.raises(ConfigError, match=r"_fraction"):
            open_data("absent.npy", **options)


def test_fewer_rows_than_parts_are_refused(inside):
    with pytest.raises(DataError, match=r"t.npy: 2 rows cannot be divided into train, val, test"):
        open_table(write_table("t.npy", numbers(2)))


# Tables


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".h5"])
def test_labels_and_groups_go_with_their_rows_and_are_no_features(inside, suffix):
    groups = np.arange(57) // 10
    path = write_table(f"t{suffix}", numbers(), y=LABELS.astype(int), g=groups)
    splits = open_table(path, label="y", group="g", split="group")
    place = {tuple(row): number for number, row in enumerate(numbers().tolist())}
    for part in parts(splits):
        original = [place[tuple(row)] for row in part.rows.tolist()]
        assert part.labels.tolist() == LABELS[original].tolist()
        assert [number // 10 for number in original] == part.groups.tolist()
        assert part.rows.shape[1] == 3
    assert rows_of(splits) == sorted(place)
    owners = [set(part.groups.tolist()) for part in parts(splits)]
    assert sum(map(len, owners)) == 6
    assert sum(splits.about["anomalies"].values()) == LABELS.sum()


def test_labels_change_neither_the_split_nor_the_rows(inside):
    path = write_table("t.npz", numbers(), y=LABELS, z=~LABELS)
    plain, one, other = (open_table(path, label=label) for label in (None, "y", "z"))
    assert plain.train.fingerprint() == one.train.fingerprint() == other.train.fingerprint()
    assert plain.test.fingerprint() == one.test.fingerprint() == other.test.fingerprint()


@pytest.mark.parametrize("values", [LABELS, LABELS.astype(int), LABELS.astype(float), LABELS.astype("u1")])
def test_labels_may_be_bool_or_zero_and_one_of_any_type(inside, values):
    for suffix in (".npz", ".parquet", ".csv", ".h5"):
        splits = open_table(write_table(f"t{suffix}", numbers(), y=values), label="y", **WHOLE)
        assert splits.train.labels.tolist() == LABELS.tolist()


def test_groups_may_be_text(inside):
    for suffix in (".csv", ".parquet", ".h5"):
        path = write_table(f"t{suffix}", numbers(), site=["a", "b", "c"] * 19)
        splits = open_table(path, group="site", split="group")
        assert splits.about["rows"] == {"train": 19, "val": 19, "test": 19}


def test_columns_are_used_in_the_order_asked_for_or_left_out(inside):
    frame().to_csv("t.csv", index=False)
    assert open_table("t.csv", columns=["depth", "speed"]).train.columns == ("depth", "speed")
    table = open_table("t.csv", exclude=["site", "mass"], label="y", **WHOLE).train
    assert table.columns == ("speed", "depth")
    assert np.array_equal(table.rows.numpy(), numbers()[:, [0, 2]])


def test_integers_are_accepted_and_the_key_names_the_array(inside):
    np.savez("t.npz", a=np.arange(12, dtype=np.uint8).reshape(6, 2), b=np.zeros((6, 2)))
    splits = open_table("t.npz", key="a", **WHOLE)
    assert splits.train.rows.tolist() == np.arange(12).reshape(6, 2).tolist()
    assert splits.train.schema == {"columns": ["x_0", "x_1"], "kind": "table", "width": 2, "key": "a"}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".h5"])
def test_rows_with_missing_values_are_dropped_and_counted_when_asked(inside, suffix):
    array = numbers()
    array[[3, 9], 1] = np.nan
    path = write_table(f"t{suffix}", array, y=LABELS.astype(int))
    with pytest.raises(
        DataError, match=rf"t{suffix}: row 3 .*'(mass|x_1)' is NaN: one of 2 such values.*missing='drop'"
    ):
        open_table(path, label="y")
    splits = open_table(path, label="y", missing="drop", **WHOLE)
    kept = np.setdiff1d(np.arange(57), [3, 9])
    assert np.array_equal(splits.train.rows.numpy(), numbers()[kept])
    assert splits.train.labels.tolist() == LABELS[kept].tolist()
    assert splits.about["left_out"] == {"rows with missing values": 2}


def test_missing_labels_and_groups_are_missing_values(inside):
    labels = pa.array([None if number == 4 else number % 2 for number in range(57)])
    groups = pa.array([None if number == 6 else "ab"[number % 2] for number in range(57)])
    for suffix in (".csv", ".parquet"):
        path = write_table(f"t{suffix}", numbers(), y=labels, g=groups)
        with pytest.raises(DataError, match=rf"t{suffix}: row 4 .*'y' is missing"):
            open_table(path, label="y", exclude=["g"])
        with pytest.raises(DataError, match=rf"t{suffix}: row 6 .*'g' is missing"):
            open_table(path, group="g", exclude=["y"])
        assert open_table(path, label="y", group="g", missing="drop").about["left_out"] == {
            "rows with missing values": 2
        }


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".h5"])
def test_infinities_are_refused_even_in_a_row_that_is_dropped(inside, suffix):
    array = numbers()
    array[5, 0], array[5, 2] = np.nan, -np.inf
    path = write_table(f"t{suffix}", array)
    with pytest.raises(DataError, match=rf"t{suffix}: row 5 .*'(depth|x_2)' is -inf.*Replace"):
        open_table(path, missing="drop")


def test_a_file_of_missing_values_is_refused(inside):
    with pytest.raises(DataError, match=r"t.npy: every row has a missing value"):
        open_table(write_table("t.npy", np.full((5, 2), np.nan)), missing="drop")


def test_numbers_beyond_float32_are_refused_in_training(inside):
    array = numbers().astype(float)
    array[8, 1] = 1e200
    with pytest.raises(DataError, match=r"t.csv: row 8 .*'mass' is 1e\+200, beyond the float32 range"):
        open_table(write_table("t.csv", array))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["sped", "mass"]}, "columns: t.csv has no column 'sped'.*Did you mean 'speed'"),
        ({"exclude": ["sit"]}, "exclude: t.csv has no column 'sit'.*Did you mean 'site'"),
        ({"label": "yy"}, "label='yy': t.csv has no column"),
        ({"group": "sight"}, "group='sight': t.csv has no column 'sight'.*Did you mean 'site'"),
        ({"columns": ["mass"], "exclude": ["y"]}, "not both"),
        ({"columns": ["mass", "mass"]}, "twice"),
        ({"columns": ["mass", "y"], "label": "y"}, "'y' is the label or the group"),
        ({"split": "group"}, "pass group="),
        ({"split": "tme"}, "split='tme'.*Did you mean 'time'"),
        ({"missing": "dropp"}, "missing='dropp'.*Did you mean 'drop'"),
        ({"key": "X"}, "key='X' names an array"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest_known_word(inside, options, words):
    frame().to_csv("t.csv", index=False)
    with pytest.raises(ConfigError, match=words):
        open_table("t.csv", **options)


def test_text_columns_are_refused_by_name_with_an_example(inside):
    frame().to_csv("t.csv", index=False)
    frame().to_parquet("t.parquet")
    with pytest.raises(DataError, match=r"t.csv: not numeric: 'site' \(row 0 is 'a'\).*exclude=\['site'\]"):
        open_table("t.csv")
    with pytest.raises(DataError, match=r"t.parquet: not numeric: 'site' \(.*string\).*exclude=\['site'\]"):
        open_table("t.parquet")


@pytest.mark.parametrize(("bad", "options"), [("2", {"label": "y"}), ("maybe", {"label": "y"})])
def test_labels_other_than_zero_and_one_are_refused(inside, bad, options):
    labels = ["0"] * 57
    labels[20] = bad
    path = write_table("t.parquet", numbers(), y=labels)
    with pytest.raises(DataError, match=f"t.parquet: row 20 .*label 'y' is '{bad}'; expected 0"):
        open_table(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", r"t.csv: the file is empty"),
        ("t.csv", b"a,b\n", "t.csv: expected at least one row"),
        ("t.csv", b"a,a\n1,2\n", "t.csv: column names must differ, found more than once: 'a'"),
        ("t.csv", b"a;b\n1;2\n", "t.csv: columns seem separated by ';'"),
        ("t.csv", b"1.5,2\n3,4\n", "t.csv: the first line should name the columns"),
        ("t.csv", b",a\n0,1\n1,2\n", r"column 0 is named '', as pandas writes a row index.*exclude=\[''\]"),
        ("t.csv", b"a,b\n1,2\n3\n", "Row #3: Expected 2 columns, got 1"),
        ("t.csv", b"a,b\n1,\xe9\n", "t.csv: cannot be read as CSV.*UTF-8"),
        ("t.csv", b"a\n1\n\n3\n4\n", "t.csv: row 1 .*'a' is NaN"),
        ("t.npz", pickle.dumps({"X": 1}), "t.npz: cannot be read as NPZ"),
        ("t.npy", pickle.dumps([1]), "t.npy: cannot be read as NPY"),
        ("t.h5", b"junk" * 9, "t.h5: cannot be read as H5"),
        ("t.parquet", b"junk" * 9, "t.parquet: cannot be read as PARQUET"),
        ("t.pkl", b"junk", "t.pkl: pickled files can run code.*npz"),
        ("t.xlsx", b"junk", "t.xlsx: expected one of .csv, .*found '.xlsx'"),
        ("t", b"junk", "t: expected one of .csv, .*found no extension"),
    ],
)
def test_files_that_are_no_tables_are_refused_by_name(inside, name, content, words):
    Path(name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_table(name)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[{}]], dtype=object), "Python objects"),
        (np.array([["a"]]), "text"),
        (np.zeros((3, 2), complex), "complex"),
        (np.zeros(3, [("a", "f4")]), "named fields"),
        (np.zeros(5), r"found shape \(5,\)"),
        (np.zeros((5, 2, 2)), r"found shape \(5, 2, 2\)"),
        (np.zeros((0, 2)), "expected rows and columns"),
        (np.zeros((2, 0)), "expected rows and columns"),
    ],
)
def test_arrays_that_are_no_tables_are_refused_and_never_unpickled(inside, array, words):
    np.save("t.npy", array)
    np.savez("t.npz", X=array)
    for name in ("t.npy", "t.npz"):
        with pytest.raises(DataError, match=f"{name}.*{words}"):
            open_table(name)


def test_a_pickle_inside_an_array_file_is_not_run(inside):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (inside / "sprung",))

    np.savez("t.npz", X=np.array([[Trap()]], dtype=object))
    with pytest.raises(DataError, match=r"'X': expected numbers, found Python objects"):
        open_table("t.npz")
    assert not (inside / "sprung").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".parquet"])
def test_files_cut_short_are_refused(inside, suffix):
    path = Path(write_table(f"t{suffix}", numbers(500)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=f"t{suffix}: cannot be read.*cut short"):
        open_table(str(path))


@pytest.mark.parametrize("shape", ["(1, 1000000000000)", "(1000000000000, 2)", "(2, 2)"])
def test_a_header_that_announces_other_data_than_follow_is_refused_before_memory_is_taken(inside, shape):
    write_table("t.npy", numbers(10, 2))
    content = Path("t.npy").read_bytes().replace(b"(10, 2), }" + b" " * len(shape), f"{shape}, }}".encode() + b" " * 7)
    Path("t.npy").write_bytes(content)
    with zipfile.ZipFile("t.npz", "w") as archive:
        archive.write("t.npy", "X.npy")
    for name in ("t.npy", "t.npz"):
        with pytest.raises(DataError, match=f"{name}: cannot be read.*bytes of data announced for shape"):
            open_table(name)


def test_a_flipped_bit_in_an_npz_file_is_noticed(inside):
    path = Path(write_table("t.npz", numbers()))
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"CRC"):
        open_table(str(path))


def test_missing_files_and_folders_are_refused(inside):
    write_table("speeds.csv", numbers())
    with pytest.raises(DataError, match=r"sped.csv: no such file. Did you mean speeds.csv"):
        open_table("sped.csv")
    with pytest.raises(DataError, match=r"is a folder.*open_episodes"):
        open_table(".")


def test_ambiguous_or_unknown_arrays_are_listed(inside):
    np.savez("t.npz", a=numbers(), b=numbers(), y=np.zeros(56))
    with pytest.raises(DataError, match=r"t.npz: expected one 2-D array .*\(a, b\)"):
        open_table("t.npz")
    with pytest.raises(ConfigError, match=r"t.npz: no array 'c'"):
        open_table("t.npz", key="c")
    with pytest.raises(ConfigError, match=r"label='yy': t.npz .*Did you mean 'y'"):
        open_table("t.npz", key="a", label="yy")
    with pytest.raises(DataError, match=r"'y' has 56 entries but 'a' has 57 rows"):
        open_table("t.npz", key="a", label="y")
    with pytest.raises(ConfigError, match=r"t.npy holds one array"):
        open_table(write_table("t.npy", numbers()), label="y")
    with pytest.raises(DataError, match=r"e.npz: holds episodes.*data.kind=episodes"):
        open_table(write_episodes("e.npz", episodes()))


# Episodes


@pytest.mark.parametrize("suffix", [".npz", ".hdf5", ""])
@pytest.mark.parametrize(
    ("row", "parts_of_row"),
    [
        ("observation+action", ("observations", "actions")),
        ("next_observation+action", ("next_observations", "actions")),
        ("observation", ("observations",)),
        ("transition", ("observations", "actions", "next_observations")),
    ],
)
def test_a_row_is_laid_out_as_asked_whatever_the_format(inside, suffix, row, parts_of_row):
    arrays = episodes()
    path = write_episodes(f"e{suffix}", arrays) if suffix else write_minari("e", arrays)
    table = open_episodes(path, row=row, **WHOLE).train
    assert np.array_equal(table.rows.numpy(), np.concatenate([arrays[name] for name in parts_of_row], axis=1))
    assert table.groups.tolist() == [0] * 5 + [1] + [2] * 9 + [3] * 3 + [4] * 7
    assert table.schema["row"] == row
    assert table.columns[0] == ("next_obs_0" if row.startswith("next") else "obs_0")


@pytest.mark.parametrize("row", ["next_observation+action", "transition"])
def test_next_observations_are_derived_within_episodes_when_not_stored(inside, row):
    arrays = episodes()
    last = arrays["terminals"] | arrays["timeouts"]
    stored = open_episodes(write_episodes("a.npz", arrays), row=row, **WHOLE).train
    del arrays["next_observations"]
    splits = open_episodes(write_episodes("b.npz", arrays), row=row, **WHOLE)
    assert torch.equal(splits.train.rows, stored.rows[torch.from_numpy(~last)])
    assert torch.equal(splits.train.groups, stored.groups[torch.from_numpy(~last)])
    assert list(splits.about["left_out"].values()) == [5]


def test_timeouts_may_be_absent_and_the_last_episode_unfinished(inside):
    arrays = episodes()
    del arrays["timeouts"]
    table = open_episodes(write_episodes("e.npz", {**arrays, "terminals": arrays["terminals"][:, None]}), **WHOLE).train
    assert table.groups.tolist() == [0] * 5 + [1] + [2] * 9 + [3] * 3 + [4] * 7


def test_minari_episodes_come_in_the_order_of_their_numbers(inside):
    table = open_episodes(write_minari("set", episodes([2] * 12)), **WHOLE).train
    assert table.groups.tolist() == [number for number in range(12) for _ in range(2)]
    assert open_episodes("set/data", **WHOLE).train.fingerprint() == table.fingerprint()


@pytest.mark.parametrize("seed", range(5))
def test_no_trajectory_is_cut_by_default(inside, seed):
    splits = open_episodes(write_episodes("e.npz", episodes([3, 8, 5, 9, 2, 7, 6, 4])), seed=seed)
    owners = [set(part.groups.tolist()) for part in parts(splits)]
    assert sum(map(len, owners)) == 8
    assert sum(splits.about["rows"].values()) == 44
    assert sum(splits.about["trajectories"].values()) == 8


def test_time_and_random_splits_go_by_rows(inside):
    path = write_episodes("e.npz", episodes())
    rows = open_episodes(path, **WHOLE).train.rows
    ordered = open_episodes(path, split="time")
    assert torch.equal(torch.cat([part.rows for part in parts(ordered)]), rows)
    assert ordered.about["rows"] == {"train": 15, "val": 5, "test": 5}
    assert rows_of(open_episodes(path, split="random")) == rows_of(ordered)


def test_max_rows_keeps_whole_trajectories(inside):
    path = write_episodes("e.npz", episodes([4] * 20))
    splits = open_episodes(path, max_rows=30)
    assert sum(splits.about["rows"].values()) == 28
    assert splits.about["left_out"] == {"rows beyond max_rows": 52}
    assert splits.train.fingerprint() == open_episodes(path, max_rows=30).train.fingerprint()
    with pytest.raises(DataError, match=r"e.npz: the first trajectory drawn has 4 rows, more than max_rows=3"):
        open_episodes(path, max_rows=3)
    with pytest.raises(ConfigError, match=r"max_rows=0"):
        open_episodes(path, max_rows=0)


def test_too_few_trajectories_are_refused_with_the_other_splits(inside):
    path = write_episodes("e.npz", episodes([4, 5]))
    with pytest.raises(DataError, match=r"e.npz: 2 trajectories cannot be dealt.*split='time' or 'random'"):
        open_episodes(path)
    assert open_episodes(path, test_fraction=0).about["trajectories"] == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observations": None}, "found no 'observations'.*Known: .*actions"),
        ({"actions": None}, "found no 'actions'"),
        ({"terminals": None}, "expected 'terminals'.*timeouts"),
        ({"actions": np.zeros((24, 2))}, "'observations' has 25, 'actions' has 24"),
        ({"terminals": np.zeros(24)}, "'terminals' has 24"),
        ({"terminals": np.full(25, 2)}, "'terminals': expected 0 or 1 per transition, found 2 in row 0"),
        ({"terminals": np.zeros((25, 2))}, r"'terminals': expected 0 or 1 per transition, found shape \(25, 2\)"),
        ({"actions": np.arange(25)}, r"'actions': expected shape \(rows, columns\), found shape \(25,\)"),
        ({"observations": np.zeros((25, 8, 8, 3), np.uint8)}, r"'observations'.*found shape \(25, 8, 8, 3\)"),
        ({"observations": np.full((25, 4), np.nan)}, "row 0 .*'obs_0' is NaN: one of 100"),
        ({"next_observations": None, "observations": np.zeros((25, 4)), "terminals": np.ones(25)}, "single step"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_incomplete_episode_files_are_refused_by_array(inside, suffix, change, words):
    arrays = {name: values for name, values in {**episodes(), **change}.items() if values is not None}
    row = "next_observation+action" if "next_observations" in change else "observation+action"
    with pytest.raises(DataError, match=f"e{suffix}.*{words}"):
        open_episodes(write_episodes(f"e{suffix}", arrays), row=row)


def test_minari_data_that_cannot_be_read_as_rows_are_refused_in_words(inside):
    with pytest.raises(DataError, match=r"format 'arrow'.*data_format='hdf5'"):
        open_episodes(write_minari("arrow", episodes(), data_format="arrow"))
    folder = write_minari("short", episodes())
    with h5py.File("short/data/main_data.hdf5", "a") as file:
        del file["episode_2/observations"]
        file["episode_2/observations"] = np.zeros((9, 4))
    with pytest.raises(DataError, match=r"episode_2 has 9 observations and 9 actions"):
        open_episodes(folder)
    with h5py.File("short/data/main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations/camera"] = np.zeros((6, 4))
    with pytest.raises(DataError, match=r"episode_0/observations: a Dict or Tuple space \(camera\).*Flatten"):
        open_episodes(folder)
    Path("short/data/metadata.json").write_text("{")
    with pytest.raises(DataError, match=r"metadata.json: cannot be read"):
        open_episodes(folder)
    with pytest.raises(DataError, match=r"expected a Minari data set.*Name one of the data sets in it: arrow, short"):
        open_episodes(".")
    with pytest.raises(DataError, match=r"inside of a Minari data set"):
        open_episodes("arrow/data/main_data.hdf5")


def test_unknown_row_sample_and_format_are_refused(inside):
    with pytest.raises(ConfigError, match=r"row='observations'.*Did you mean 'observation'"):
        open_episodes("sample:hopper", row="observations")
    with pytest.raises(ConfigError, match=r"'sample:hoper'.*Did you mean 'sample:hopper'"):
        open_episodes("sample:hoper")
    with pytest.raises(DataError, match=r"t.csv: expected one of .h5, .hdf5, .npz"):
        open_episodes(write_table("t.csv", numbers()))


def test_the_shipped_sample_has_many_stretches_of_consecutive_steps():
    table = open_episodes("sample:hopper", row="transition", **WHOLE).train
    lengths = table.groups.bincount()
    assert 4500 < len(table) < 5500
    assert len(lengths) >= 60
    assert lengths.max() < 0.05 * len(table)
    following = table.rows[1:, :11] == table.rows[:-1, 14:]
    assert bool(following[table.groups[1:] == table.groups[:-1]].all())


# Synthetic data and out-of-distribution levels


def test_the_normal_rows_are_the_documented_mixture():
    rows, _ = create_synthetic_data(200_000, 3, magnitude=8.0)
    far = rows.mean(dim=1) > 4
    assert far.float().mean() == pytest.approx(0.3, abs=0.005)
    for cluster, mean, variance in ((rows[~far], 0.0, 1.0), (rows[far], 8.0, 0.5)):
        assert cluster.mean(dim=0).tolist() == pytest.approx([mean] * 3, abs=0.02)
        assert np.allclose(cluster.T.cov(), variance * np.eye(3), atol=0.02)


def test_the_anomalies_are_the_documented_ones():
    _, outliers = create_synthetic_data(200_000, 2, "outlier", 3.0)
    assert outliers.shape == (40_000, 2)
    assert outliers.mean(dim=0).tolist() == pytest.approx([13, 13], abs=0.05)
    assert np.allclose(outliers.T.cov(), 2 * np.eye(2), atol=0.06)
    _, uniform = create_synthetic_data(200_000, 2, "uniform")
    assert uniform.min() >= -5
    assert uniform.max() <= 8
    assert uniform.mean(dim=0).tolist() == pytest.approx([1.5, 1.5], abs=0.05)
    assert uniform.var(dim=0).tolist() == pytest.approx([13**2 / 12] * 2, rel=0.02)


def test_synthetic_splits_divide_the_normal_rows_and_keep_the_anomalies_apart():
    splits = open_synthetic(n=100, dim=3, seed=4)
    assert splits.about["rows"] == {"train": 60, "val": 20, "test": 20}
    assert not any(part.labels.any() for part in parts(splits))
    assert splits.extra["anomalies"].labels.all()
    assert len(splits.extra["anomalies"]) == 20
    assert splits.train.fingerprint() == open_synthetic(n=100, dim=3, seed=4).train.fingerprint()
    assert splits.train.fingerprint() != open_synthetic(n=100, dim=3, seed=5).train.fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 9}, "n=9"),
        ({"dim": 0}, "dim=0"),
        ({"magnitude": float("inf")}, "magnitude=inf"),
        ({"anomaly_type": "outliers"}, "Did you mean 'outlier'"),
    ],
)
def test_synthetic_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        open_synthetic(**options)


def test_a_shift_has_the_asked_length_in_standard_deviations_and_no_preferred_direction():
    rows = torch.zeros(20_000, 4)
    std = torch.tensor([1.0, 2.0, 0.5, 10.0])
    moved = shifted(rows, 3.0, std, torch.Generator().manual_seed(0)) / std
    assert torch.allclose(moved.norm(dim=1), torch.tensor(3.0), atol=1e-4)
    assert moved.mean(dim=0).abs().max() < 0.05
    assert torch.allclose(moved.T.cov(), 9 / 4 * torch.eye(4), atol=0.06)


def test_levels_are_halved_and_train_val_and_further_keys_left_out(inside):
    rows = numbers(8, 3)
    np.savez("ood.npz", train=rows, val=rows, mean=rows[0], shift_2=rows, shift_1=rows[:4])
    levels = open_ood("ood.npz", COLUMNS)
    assert list(levels) == ["shift_2", "shift_1"]
    assert np.array_equal(torch.cat(levels["shift_2"]).numpy(), rows)
    assert [len(half) for half in levels["shift_1"]] == [2, 2]


def test_levels_that_do_not_fit_the_model_are_refused(inside):
    np.savez("ood.npz", shift_1=numbers(5, 3))
    with pytest.raises(DataError, match=r"ood.npz: 'shift_1' has an odd number of rows"):
        open_ood("ood.npz", COLUMNS)
    with pytest.raises(DataError, match=r"'shift_0.1': expected 3 columns .* found 14"):
        open_ood("sample:hopper", COLUMNS)
    np.savez("ood.npz", train=numbers())
    with pytest.raises(DataError, match=r"ood.npz: expected a 2-D array per level"):
        open_ood("ood.npz", COLUMNS)


def test_the_shipped_levels_fit_the_shipped_episodes_and_share_no_row_with_them():
    table = open_episodes("sample:hopper", **WHOLE).train
    levels = open_ood("sample:hopper", table.columns)
    assert len(levels) == 9
    known = set(map(tuple, table.rows.tolist()))
    for normal, strange in levels.values():
        assert normal.shape == strange.shape == (200, 14)
        assert known.isdisjoint(map(tuple, normal.tolist()))


# The full data sets

DATA = os.environ.get("NOUMENA_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="NOUMENA_DATA names no folder of data sets")


@pytest.mark.slow
@needs_data
def test_every_benchmark_table_opens_and_keeps_its_anomalies():
    files = sorted(Path(str(DATA)).glob("density/adbench/*.npz"))
    assert files
    for path in files:
        splits = open_table(str(path), label="y")
        with np.load(path) as arrays:
            assert sum(splits.about["rows"].values()) == len(arrays["X"])
            assert sum(splits.about["anomalies"].values()) == arrays["y"].sum()


@pytest.mark.slow
@needs_data
def test_a_minari_folder_and_its_d4rl_file_give_the_same_table():
    folder = Path(str(DATA)) / "density" / "rl"
    d4rl = open_episodes(str(folder / "hopper_medium.hdf5"), **WHOLE).train
    minari = open_episodes(str(folder / "minari" / "hopper-medium-v0"), **WHOLE).train
    assert d4rl.fingerprint() == minari.fingerprint()
    assert torch.equal(d4rl.groups, minari.groups)
