import logging

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import composition_keys, formulas_of
from noumena.crystals.data import open_crystals, read_crystals, stream_crystals
from noumena.crystals.splits import PARTS, Division, drawn, identities, without_duplicates
from noumena.crystals.writers import write_cif, write_extxyz, write_parquet

pytest.importorskip("gemmi")
pytest.importorskip("moyopy")

METALS, ANIONS = (3, 11, 12, 20, 26, 30), (8, 9, 16, 17)


def rock(ids, formula_of=lambda i: (METALS[i % 6], ANIONS[i % 4]), atoms=2, scale=1.0):
    """Tetragonal cells, one for each number in ``ids``, named by it; its elements and its cell follow from it."""
    ids = list(ids)
    lattice = torch.stack(
        [torch.diag(torch.tensor([3.6 + 0.011 * (i % 50), 3.6 + 0.011 * (i % 50), 5.1])) for i in ids]
    )
    frac = torch.tensor([[0.01, 0.02, 0.03], [0.5, 0.48, 0.46], [0.5, 0.02, 0.7]], dtype=torch.float64)[:atoms]
    types = torch.tensor([(*formula_of(i), 8)[:atoms] for i in ids]).reshape(-1)
    return CrystalBatch.of(
        lattice.double() * scale,
        frac.repeat(len(ids), 1),
        types,
        torch.full((len(ids),), atoms),
        [f"id-{i}" for i in ids],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``a``, ``b`` and ``c`` of 30, 20 and 10 crystals as Parquet; a folder in the field's layout."""
    place = tmp_path_factory.mktemp("crystals")
    for name, ids in (("a", range(30)), ("b", range(30, 50)), ("c", range(50, 60))):
        write_parquet(place / f"{name}.parquet", [rock(ids)])
    field = place / "field"
    field.mkdir()
    for name, ids in (("train", range(30)), ("val", range(30, 40)), ("test", range(40, 50))):
        write_parquet(field / f"{name}.parquet", [rock(ids)])
    return place


def ids(part):
    return set() if part is None else {int(name.removeprefix("id-")) for name in part.crystals.names}


def opened(path, **options):
    splits = open_crystals(str(path), workers=1, **options)
    return ids(splits.train), ids(splits.val), ids(splits.test), splits


def test_held_out_rows_are_those_of_numpys_permutation(folder):
    train, val, test, splits = opened(folder / "a.parquet", val_rows=4, test_rows=6, seed=2026)
    order = np.random.default_rng(2026).permutation(30).tolist()
    assert test == set(order[:6])
    assert val == set(order[6:10])
    assert train == set(order[10:])
    assert splits.about["crystals"] == {"train": 20, "val": 4, "test": 6}
    assert splits.about["atoms"]["test"] == 12
    assert "seed 2026" in splits.about["split"]
    # Rows stay in the order of the file.
    assert list(splits.test.crystals.names) == [f"id-{i}" for i in sorted(order[:6])]


def test_held_out_rows_can_be_drawn_from_one_of_several_files(folder):
    path = f"{folder / 'a.parquet'}, {folder / 'b.parquet'}"
    for draw_from in ("b.parquet", str(folder / "b.parquet")):
        train, val, test, _ = opened(path, draw_from=draw_from, val_rows=5, test_rows=5, seed=7)
        order = (30 + np.random.default_rng(7).permutation(20)).tolist()
        assert test == set(order[:5])
        assert val == set(order[5:10])
        assert train == set(range(30)) | set(order[10:])


def test_a_folder_of_the_fields_layout_is_split_by_its_files(folder):
    train, val, test, splits = opened(folder / "field")
    assert (train, val, test) == (set(range(30)), set(range(30, 40)), set(range(40, 50)))
    assert "from their files" in splits.about["split"]
    train, val, test, _ = opened(folder / "field", test_fraction=0.0)
    assert (len(train), len(val), len(test)) == (30, 10, 0)
    pooled = opened(folder / "field", split="random", seed=1)
    assert len(pooled[0] | pooled[1] | pooled[2]) == 50
    with pytest.raises(ConfigError, match=r"files for train, val, test.*Name one"):
        opened(folder / "field", val_fraction=0.0, test_fraction=0.0)
    assert len(read_crystals(folder / "field", workers=1)) == 50


def test_parts_without_a_file_are_drawn_and_the_others_are_not(folder):
    train, val, test, splits = opened(folder / "a.parquet", test_path=str(folder / "c.parquet"), val_rows=3)
    assert test == set(range(50, 60))
    assert val == set(np.random.default_rng(0).permutation(30)[:3].tolist())
    assert train == set(range(30)) - val
    assert "test from its file" in splits.about["split"]
    with pytest.raises(ConfigError, match="no file for val"):
        opened(folder / "a.parquet", test_path=str(folder / "c.parquet"), split="files")
    found = opened(folder / "a.parquet", test_path=str(folder / "c.parquet"), split="files", val_fraction=0.0)
    assert found[:2] == (set(range(30)), set())


def test_without_val_and_test_every_row_is_for_training_whatever_the_other_options(folder):
    options = {"val_rows": 5, "test_path": "gone.parquet", "draw_from": "gone.parquet"}
    train, val, test, _ = opened(folder / "a.parquet", val_fraction=0.0, test_fraction=0.0, **options)
    assert (len(train), val, test) == (30, set(), set())


def test_no_composition_is_in_two_parts_of_a_split_by_composition(folder):
    *_, splits = opened(folder / "a.parquet", split="composition", val_fraction=0.2, test_fraction=0.2)
    parts = [set(formulas_of(part.crystals)) for part in (splits.train, splits.val, splits.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert splits.about["composition_also_in_training"]["test"].startswith("0 of")
    *_, splits = opened(folder / "a.parquet", val_fraction=0.2, test_fraction=0.2)
    known = set(formulas_of(splits.train.crystals))
    count = sum(formula in known for formula in formulas_of(splits.test.crystals))
    assert splits.about["composition_also_in_training"]["test"].startswith(f"{count} of {len(splits.test)}")


def test_the_same_crystal_of_several_files_is_in_one_part_and_counted(folder, tmp_path):
    write_parquet(tmp_path / "more.parquet", [rock(range(25, 45))])
    path = f"{folder / 'a.parquet'},{tmp_path / 'more.parquet'}"
    train, val, test, splits = opened(path, test_path=str(folder / "b.parquet"), val_rows=10, seed=3)
    assert test == set(range(30, 50))
    assert not train & test
    assert not val & test
    assert not train & val
    assert train | val == set(range(30))
    names = [*splits.train.crystals.names, *splits.val.crystals.names]
    assert len(names) == len(set(names))
    left_out = splits.about["left_out"]
    assert left_out["in another part by the same id"] + left_out["in an earlier file by the same id"] == 20
    # Another crystal under the same name is another crystal.
    write_parquet(tmp_path / "else.parquet", [rock(range(30), lambda i: (79, 47))])
    *_, splits = opened(f"{folder / 'a.parquet'},{tmp_path / 'else.parquet'}")
    assert sum(splits.about["crystals"].values()) == 60
    assert splits.about["left_out"] == {}


def test_equal_names_within_a_file_are_no_ids():
    keys = torch.tensor([1, 1, 1, 2, 2, 2])
    names = ("C", "C", "C", "x", "y", "z")
    found = identities(names, keys, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert len(found.unique()) == 6
    assert len(identities(("x", "y", "x"), torch.tensor([1, 1, 1]), torch.tensor([0, 0, 1])).unique()) == 2
    assert len(identities((), keys, keys).unique()) == 6
    part, counts = without_duplicates(
        torch.tensor([0, 0, 2, 0]), torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1])
    )
    assert part.tolist() == [0, -1, 2, -1]
    assert sum(counts.values()) == 2


def test_ids_of_other_files_are_left_out_of_every_part(folder, tmp_path):
    (tmp_path / "ids.txt").write_text("id-3\n\n id-4 \n")
    (tmp_path / "ids.csv").write_text('x,material_id,cif\n1,id-5,"a\nb"\n2,007,\n')
    exclude = f"{folder / 'b.parquet'},{tmp_path / 'ids.txt'},{tmp_path / 'ids.csv'}"
    train, val, test, splits = opened(f"{folder / 'a.parquet'},{folder / 'b.parquet'}", exclude=exclude)
    assert train | val | test == set(range(30)) - {3, 4, 5}
    assert splits.about["left_out"]["by an id of exclude"] == 23
    write_extxyz(tmp_path / "c.extxyz", [rock([1, 2])])
    found = opened(folder / "a.parquet", exclude=str(tmp_path / "c.extxyz"))
    assert found[0] | found[1] | found[2] == set(range(30)) - {1, 2}
    (tmp_path / "none.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="no column of ids"):
        opened(folder / "a.parquet", exclude=str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=r"no crystal is left for train.*30 left out by an id of exclude"):
        opened(folder / "a.parquet", exclude=str(folder / "a.parquet"))


def test_skipped_structures_are_told_with_their_reason(folder, tmp_path):
    batch = rock(range(10))
    frac = batch.frac_coords.clone()
    frac[7] = frac[6] + 1e-3  # two atoms of the fourth crystal at one place
    write_parquet(
        tmp_path / "x.parquet", [CrystalBatch(batch.atom_types, frac, batch.lattice, batch.num_atoms, batch.names)]
    )
    *parts, splits = opened(tmp_path / "x.parquet")
    assert 3 not in set.union(*parts)
    assert sum(splits.about["skipped"].values()) == 1
    assert "id-3" in splits.about["first_skipped"][0]
    with pytest.raises(DataError, match="id-3"):
        opened(tmp_path / "x.parquet", strict=True)
    with pytest.raises(DataError):
        opened(folder / "a.parquet", max_atoms=1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"val_fraction": 1.0}, ConfigError, "val_fraction=1.0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, ConfigError, "nothing|no rows"),
        ({"val_rows": 0}, ConfigError, "val_rows=0.*val_fraction=0"),
        ({"seed": -1}, ConfigError, "seed=-1"),
        ({"split": "time"}, ConfigError, "split"),
        ({"split": "files"}, ConfigError, "no file for val"),
        ({"draw_from": "b.parquet"}, ConfigError, r"draw_from=b\.parquet"),
        ({"val_rows": 20, "test_rows": 10}, DataError, "30 crystals cannot give 20 of val and 10 of test"),
        ({"properties": ["gap"]}, ConfigError, "gap"),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(folder, options, error, words):
    with pytest.raises(error, match=words):
        open_crystals(str(folder / "a.parquet"), workers=1, **options)


@pytest.mark.parametrize("path", ["sample:mp21", "", " , "])
def test_a_source_that_is_none_is_refused(path):
    with pytest.raises(ConfigError, match="sample:mp20"):
        open_crystals(path)


def test_a_folder_with_two_files_for_a_part_is_refused(tmp_path):
    for name in ("train.parquet", "val.parquet"):
        write_parquet(tmp_path / name, [rock(range(4))])
    write_cif(tmp_path / "train.cif", [rock(range(4))])
    with pytest.raises(DataError, match=r"several files for train \(train\.cif, train\.parquet\)"):
        open_crystals(str(tmp_path))


def schema_of(batch, most=None):
    return {
        "reduction": "niggli",
        "max_atoms": most or int(batch.num_atoms.max()),
        "elements": batch.atom_types.unique().tolist(),
    }


def test_a_stream_gives_every_crystal_in_order_with_its_name(folder):
    schema = schema_of(rock(range(60)))
    for path in (f"{folder / 'a.parquet'},{folder / 'b.parquet'}", folder / "field"):
        batches = list(stream_crystals(path, schema, batch_rows=7))
        assert max(map(len, batches)) <= 7
        whole = CrystalBatch.cat(batches)
        assert whole.names == tuple(f"id-{i}" for i in range(50))
        assert whole.dtype == torch.float64
        expected = read_crystals(path, schema=schema, workers=1).crystals
        torch.testing.assert_close(whole.frac_coords, expected.frac_coords)
        torch.testing.assert_close(whole.lattice, expected.lattice)


def test_what_a_model_cannot_take_is_skipped_and_told_or_refused(folder, tmp_path, caplog):
    large = rock(range(100, 104), atoms=3, scale=1.3)
    strange = rock(range(200, 203), lambda i: (92, 8))
    write_parquet(tmp_path / "x.parquet", [rock(range(5)), large, strange])
    schema = schema_of(rock(range(60)))
    with caplog.at_level(logging.WARNING):
        found = CrystalBatch.cat(list(stream_crystals(tmp_path / "x.parquet", schema, batch_rows=4)))
    assert found.names == tuple(f"id-{i}" for i in range(5))
    assert "7 of 12 structures skipped" in caplog.text
    assert "4: more atoms than any in the data of the training, 2" in caplog.text
    assert "3: an element that the training had not, U" in caplog.text
    assert "id-100" in caplog.text
    assert read_crystals(tmp_path / "x.parquet", schema=schema, workers=1).crystals.names == found.names
    with pytest.raises(DataError, match="id-100 has more atoms"):
        list(stream_crystals(tmp_path / "x.parquet", schema, strict=True))
    with pytest.raises(DataError, match=r"no crystal is left.*12"):
        list(stream_crystals(tmp_path / "x.parquet", {**schema, "elements": [1]}))
    with pytest.raises(ConfigError, match="batch_rows=0"):
        stream_crystals(tmp_path / "x.parquet", schema, batch_rows=0)


def test_every_rule_fills_the_parts_it_is_asked_for():
    keys = composition_keys(rock(range(40)))
    for rule in ("random", "composition"):
        division = Division(rule, 0.25, 0.1, seed=5)
        part, words = drawn(keys, division, {"val": True, "test": True}, "x")
        assert set(part.tolist()) == {0, 1, 2}
        assert "seed 5" in words
        again, _ = drawn(keys, division, {"val": True, "test": True}, "x")
        assert torch.equal(part, again)
        part, _ = drawn(keys, division, {"val": True, "test": False}, "x")
        assert PARTS.index("test") not in part.tolist()
