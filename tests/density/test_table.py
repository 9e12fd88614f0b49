import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from noumena.core.data import Dataset
from noumena.core.errors import DataError
from noumena.density.table import Table, as_table
from noumena.readers.checks import check_rows

FLOAT32_MAX = float(np.finfo(np.float32).max)


def table(rows=6, columns=3):
    values = torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns)
    names = tuple("abcdefgh"[:columns])
    return Table(values, names, torch.arange(rows) % 2 == 0, torch.arange(rows), {"kind": "table", "width": columns})


def test_a_table_is_a_dataset():
    assert isinstance(table(), Dataset)


def test_schema_holds_columns_and_layout():
    assert table().schema == {"columns": ["a", "b", "c"], "kind": "table", "width": 3}


def test_batch_gives_the_rows_asked_for_in_that_order():
    assert torch.equal(table().batch(torch.tensor([4, 0])), table().rows[[4, 0]])


def test_subset_keeps_labels_groups_and_layout_beside_their_rows():
    part = table().subset(torch.tensor([5, 2]))
    assert torch.equal(part.rows, table().rows[[5, 2]])
    assert part.labels.tolist() == [False, True]
    assert part.groups.tolist() == [5, 2]
    assert part.schema == table().schema


def test_moving_to_the_same_device_changes_nothing():
    whole = table()
    assert whole.to("cpu") is whole


def test_nbytes_counts_rows_labels_and_groups():
    assert table().nbytes == 6 * 3 * 4 + 6 + 6 * 8


@given(st.integers(0, 5), st.integers(0, 2))
def test_fingerprint_changes_with_any_cell(row, column):
    changed = table()
    changed.rows[row, column] += 1
    assert changed.fingerprint() != table().fingerprint()
    assert table().fingerprint() == table().fingerprint()


def test_fingerprint_sees_shape_and_names_but_neither_labels_nor_chunks(monkeypatch):
    whole = table()
    assert as_table(whole.rows.reshape(3, 6)).fingerprint() != as_table(whole.rows.reshape(6, 3)).fingerprint()
    assert as_table(whole.rows, ["x", "y", "z"]).fingerprint() != whole.fingerprint()
    assert Table(whole.rows, whole.columns).fingerprint() == whole.fingerprint()
    monkeypatch.setattr("noumena.density.table._HASHED_ROWS", 2)
    assert table().fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u1", "i8", "u8", "?", ">f4", ">i2"])
def test_every_real_type_becomes_float32_with_its_values(kind):
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(kind)
    assert torch.equal(as_table(values).rows, torch.tensor([[0.0, 1], [1, 0], [1, 1]]))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_every_real_tensor_becomes_float32(kind):
    assert as_table(torch.ones(3, 2, dtype=kind)).rows.dtype == torch.float32


def test_lists_tensors_arrays_and_frames_of_equal_content_give_equal_tables():
    values = [[1.0, 2.0], [3.0, 4.5]]
    expected = as_table(values, ["a", "b"])
    for data in (
        torch.tensor(values),
        np.array(values),
        np.asfortranarray(values),
        torch.tensor(values).requires_grad_(),
    ):
        assert as_table(data, ["a", "b"]).fingerprint() == expected.fingerprint()
    assert as_table(pd.DataFrame(values, columns=["a", "b"])).fingerprint() == expected.fingerprint()


def test_unnamed_columns_are_numbered():
    assert as_table([[1, 2, 3]]).columns == ("x_0", "x_1", "x_2")


def test_float32_arrays_are_shared_and_read_only_ones_copied():
    values = np.ones((3, 2), np.float32)
    assert np.shares_memory(as_table(values).rows.numpy(), values)
    values.flags.writeable = False
    assert not np.shares_memory(as_table(values).rows.numpy(), values)


def test_a_named_source_is_put_in_the_order_asked_for():
    frame = pd.DataFrame({"a": [1, 2], "text": ["x", "y"], "b": [True, False]})
    assert as_table(frame, ["b", "a"]).rows.tolist() == [[1, 1], [0, 2]]
    assert as_table(table(), ["c", "a"]).rows.tolist() == table().rows[:, [2, 0]].tolist()


def test_pandas_nullable_numbers_are_read_and_their_missing_values_refused():
    assert as_table(pd.DataFrame({"a": pd.array([1, 2], dtype="Int64")})).rows.tolist() == [[1], [2]]
    with pytest.raises(DataError, match=r"data frame: row 1 .*'a' is NaN"):
        as_table(pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1, 2], r"shape \(rows, columns\), found shape \(2,\).*reshape\(1, -1\)"),
        (np.zeros((2, 2, 2)), r"found shape \(2, 2, 2\).*Flatten"),
        (3.0, r"found shape \(\)"),
        (np.zeros((0, 3)), "at least one row, found none"),
        (np.zeros((3, 0)), "at least one column, found none"),
        ([[1], [2, 3]], "rows of equal length"),
        ([["a"]], "expected numbers, found text"),
        (np.array([[None]]), "found Python objects.*astype"),
        (np.ones((2, 2), complex), "complex"),
        (torch.ones(2, 2, dtype=torch.complex64), "complex"),
        (torch.ones(2, 2).to_sparse(), "dense"),
        (np.zeros((2, 2), "M8[s]"), "dates.*seconds"),
        (pd.DataFrame({"a": [1], "kind": ["x"]}), "'kind' of type .* is not numeric.*drop"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than once: 'a'"),
        (pd.DataFrame({"a": []}), "at least one row"),
        (pd.DataFrame(), "at least one column"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_in_words(data, words):
    with pytest.raises(DataError, match=words):
        as_table(data)


def test_a_missing_column_is_named_with_the_nearest_known_one():
    for data in (table(), pd.DataFrame({"a": [1], "mass": [2]})):
        with pytest.raises(DataError, match=r"no column 'mas'.* Known: a"):
            as_table(data, ["a", "mas"])
    with pytest.raises(DataError, match=r"Did you mean 'mass'"):
        as_table(pd.DataFrame({"a": [1], "mass": [2]}), ["mas"])


def test_of_a_wide_table_only_near_names_are_listed():
    frame = pd.DataFrame(np.zeros((1, 900)), columns=[f"feature_{number}" for number in range(900)])
    with pytest.raises(DataError, match=r"'featur_17'") as caught:
        as_table(frame, ["featur_17"])
    assert "'feature_17'" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_another_number_of_columns_is_refused():
    with pytest.raises(DataError, match=r"expected 2 columns \('a', 'b'\), found 3"):
        check_rows(np.zeros((4, 3)), ("a", "b"), "x.npy")


@settings(max_examples=50)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(width=32)))
def test_rows_pass_unchanged_if_and_only_if_all_are_finite(values):
    names = tuple("abcd"[: values.shape[1]])
    if np.isfinite(values).all():
        assert np.array_equal(check_rows(values, names, "x").numpy(), values)
    else:
        with pytest.raises(DataError, match=r"NaN|inf"):
            check_rows(values, names, "x")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("make", [np.array, lambda values: torch.from_numpy(np.array(values))])
def test_the_first_offending_row_is_named_with_column_value_and_count(number, make):
    values = np.zeros((8, 3))
    values[5, 1] = values[5, 2] = values[7, 0] = number
    found = {"nan": "NaN", "1e+300": r"1e\+300, beyond the float32 range .3.4e38."}.get(str(number), f"{number:g}")
    with pytest.raises(
        DataError, match=f"a.csv: row 105 .counted from 0., column 'b' is {found}: one of 3 .* in 2 rows"
    ):
        check_rows(make(values), ("a", "b", "c"), "a.csv", first_row=100)


@pytest.mark.parametrize("make", [np.array, lambda values: torch.from_numpy(np.array(values))])
def test_numbers_beyond_float32_are_clipped_when_asked_and_infinities_still_refused(make):
    values = make([[1e300, -1e300, 2.5]])
    clipped = check_rows(values, ("a", "b", "c"), "x", overflow="clip")
    assert clipped.tolist() == [[FLOAT32_MAX, -FLOAT32_MAX, 2.5]]
    with pytest.raises(DataError, match=r"is inf"):
        check_rows(make([[1e300, float("inf"), 2.5]]), ("a", "b", "c"), "x", overflow="clip")


def test_checking_a_hundred_thousand_rows_takes_milliseconds():
    values = np.random.default_rng(0).normal(size=(100_000, 14))
    names = [f"x_{number}" for number in range(14)]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        check_rows(values, names, "x")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1  # 3 ms on an idle core; a loop over rows takes a hundred times as long
