import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.crystals.formats import tables
from noumena.crystals.reading import read, stream
from tests.crystals.structures import cif_of, random_structure

COUNT = 9


@pytest.fixture(scope="module")
def structures():
    return [random_structure(seed, atoms=4 + seed % 3) for seed in range(COUNT)]


def write_csv(path, structures, rows=None):
    """The layout of MP-20, its nameless column of numbers included."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["", "material_id", "band_gap", "pretty_formula", "e_above_hull", "cif"])
        for number, one in enumerate(structures):
            gap = "" if number == 2 else 0.5 * number
            out.writerow([number, one.name, gap, "X2", 0.01, cif_of(one)])
        out.writerows(rows or [])
    return path


def numbers_table(structures, frac="triples", **columns):
    triples = [one.frac_coords.tolist() for one in structures]
    flat = [one.frac_coords.ravel().tolist() for one in structures]
    return pa.table(
        {
            "material_id": [one.name for one in structures],
            "num_atoms": [len(one.atom_types) for one in structures],
            "atomic_numbers": pa.array([one.atom_types.tolist() for one in structures], pa.list_(pa.int16())),
            "frac_coords": pa.array(triples, pa.list_(pa.list_(pa.float64(), 3)))
            if frac == "triples"
            else pa.array(flat, pa.list_(pa.float64())),
            "lattice": pa.array([one.lattice.ravel().tolist() for one in structures], pa.list_(pa.float64(), 9)),
            "band_gap": [None if number == 2 else 0.5 * number for number in range(len(structures))],
            **columns,
        }
    )


def assert_same_cells(first, second):
    assert first.names == second.names
    assert torch.equal(first.atom_types, second.atom_types)
    torch.testing.assert_close(first.lengths, second.lengths, atol=1e-6, rtol=0)
    torch.testing.assert_close(first.angles, second.angles, atol=1e-5, rtol=0)


def test_csv_and_both_sorts_of_parquet_hold_the_same_crystals(tmp_path, structures):
    write_csv(tmp_path / "a.csv", structures)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    numbers = numbers_table(structures, theoretical=[True] * COUNT)
    pq.write_table(numbers, tmp_path / "c.parquet", row_group_size=4)
    pq.write_table(numbers_table(structures, "flat"), tmp_path / "d.parquet")
    pq.write_table(
        numbers.select(["material_id", "band_gap"]).append_column("cif", [[cif_of(one) for one in structures]]),
        tmp_path / "e.parquet",
    )
    expected = read(tmp_path / "c.parquet")
    assert expected.crystals.names == tuple(f"s{number}" for number in range(COUNT))
    gaps = [0.5 * number for number in range(COUNT)]
    for name in ("a.csv", "b.csv.gz", "c.parquet", "d.parquet", "e.parquet"):
        reading = read(tmp_path / name)
        assert_same_cells(reading.crystals, expected.crystals)
        assert set(reading.properties) - {"e_above_hull"} == {"band_gap"}
        found = reading.properties["band_gap"]
        assert found.isnan().tolist() == [number == 2 for number in range(COUNT)]
        assert [value for value in found.tolist() if value == value] == [*gaps[:2], *gaps[3:]]


def test_numbers_are_read_to_the_bit_and_lists_of_odd_lengths_are_left_out(tmp_path, structures):
    table = numbers_table(structures)
    rows = table.to_pylist()
    rows[1]["frac_coords"] = rows[1]["frac_coords"][:-1]
    rows[3]["lattice"] = None
    rows[5]["atomic_numbers"] = []
    rows[6]["atomic_numbers"] = None
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "a.parquet")
    reading = read(tmp_path / "a.parquet", reduction="none")
    kept = [0, 2, 4, 7, 8]
    assert reading.crystals.names == tuple(f"s{number}" for number in kept)
    places = np.concatenate([structures[number].frac_coords for number in kept])
    assert np.array_equal(reading.crystals.frac_coords.numpy(), places)
    assert np.array_equal(reading.crystals.lattice.numpy(), [structures[number].lattice for number in kept])
    assert reading.properties["band_gap"].tolist()[2:] == [2.0, 3.5, 4.0]
    assert [(one.where, one.name) for one in reading.skipped] == [
        (f"a.parquet: row {row}", f"s{row}") for row in (1, 3, 5, 6)
    ]
    for one, words in zip(reading.skipped, ("three per atom", "cell is missing", "no atoms", "no atoms"), strict=True):
        assert words in one.reason


def test_cells_may_be_given_as_lengths_and_angles(tmp_path, structures):
    expected = read(write_csv(tmp_path / "a.csv", structures), reduction="none").crystals
    cell = torch.cat([expected.lengths, expected.angles], 1).numpy()
    table = numbers_table(structures).drop_columns(["lattice"])
    for name, values in zip(("a", "b", "c", "alpha", "beta", "gamma"), cell.T, strict=True):
        table = table.append_column(name, [values])
    pq.write_table(table, tmp_path / "b.parquet")
    assert_same_cells(read(tmp_path / "b.parquet", reduction="none").crystals, expected)


def test_rows_keep_their_properties_when_others_are_left_out(tmp_path, structures):
    two = cif_of(structures[0]) + cif_of(structures[1])
    rows = [
        [9, "empty", 9.5, "", 0, ""],
        [10, "two", 10.5, "", 0, two],
        [11, "last", 11.5, "", 0, cif_of(structures[0])],
    ]
    reading = read(write_csv(tmp_path / "a.csv", structures, rows))
    assert reading.properties["band_gap"][-1] == 11.5
    assert reading.crystals.names[-1] == "last"
    assert [(one.where, one.name) for one in reading.skipped] == [("a.csv: row 9", "empty"), ("a.csv: row 10", "two")]
    assert "2 structures; expected one" in reading.skipped[1].reason


def test_cells_of_a_megabyte_and_blocks_of_any_size_are_read(tmp_path, structures, monkeypatch):
    path = tmp_path / "a.csv"
    long = "# " + "x" * 1_000_000 + "\n" + cif_of(structures[0])
    write_csv(path, structures, [[9, "long", 1.0, "", 0, long]])
    expected = read(path)
    assert expected.crystals.names[-1] == "long"
    monkeypatch.setattr(tables, "_BLOCK", 1_100_000)
    parts = list(stream(path, batch_rows=2))
    assert [len(part.crystals) for part in parts] == [2] * 5
    assert torch.equal(torch.cat([part.crystals.frac_coords for part in parts]), expected.crystals.frac_coords)


def test_columns_can_be_chosen_and_wrong_ones_are_named(tmp_path, structures):
    path = write_csv(tmp_path / "a.csv", structures)
    reading = read(path, properties=["e_above_hull"], id_column="pretty_formula")
    assert list(reading.properties) == ["e_above_hull"]
    assert set(reading.crystals.names) == {"X2"}
    assert read(path, properties=[]).properties == {}
    with pytest.raises(ConfigError, match=r"'bandgap'\. Did you mean 'band_gap'"):
        read(path, properties=["bandgap"])
    with pytest.raises(ConfigError, match="no column 'mp'"):
        read(path, id_column="mp")
    with pytest.raises(DataError, match="row 0, column 'pretty_formula' is 'X2'"):
        read(path, properties=["pretty_formula"])
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column 'cif'; the columns are a, b"):
        read(tmp_path / "b.csv")
    pq.write_table(numbers_table(structures).drop_columns(["frac_coords"]), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="expected a column 'cif', or columns"):
        read(tmp_path / "c.parquet")


def test_damaged_tables_are_refused(tmp_path, structures):
    path = write_csv(tmp_path / "a.csv", structures)
    path.write_text(path.read_text() + "1,2\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read(path)
    pq.write_table(numbers_table(structures), tmp_path / "b.parquet")
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path / "b.parquet")


@pytest.mark.skipif("NOUMENA_DATA" not in os.environ, reason="NOUMENA_DATA names no data folder")
def test_the_data_of_materials_project_stay_almost_as_they_are():
    folder = Path(os.environ["NOUMENA_DATA"]) / "crystals"
    if not folder.is_dir():
        pytest.skip("NOUMENA_DATA has no folder of crystals")
    before = read(folder / "mp_20_val.parquet", reduction="none")
    after = read(folder / "mp_20_val.parquet")
    assert not after.skipped
    assert torch.equal(before.crystals.num_atoms, after.crystals.num_atoms)
    same = (before.crystals.lattice == after.crystals.lattice).all(-1).all(-1)
    assert same.double().mean() > 0.95
