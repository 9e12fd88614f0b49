import numpy as np
import pytest

from noumena.core.errors import DataError
from noumena.engines.inputs import files_of

TABLE = {"kind": "table"}


@pytest.fixture
def folder(tmp_path):
    for name in ("b.csv", "a.csv", "_SUCCESS.csv", ".a.csv", "notes.txt"):
        (tmp_path / name).write_text("x\n1\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.csv").write_text("x\n1\n")
    return tmp_path


def test_a_folder_of_tables_is_its_tables_in_the_order_of_their_names(folder):
    assert files_of(str(folder), TABLE) == [str(folder / "a.csv"), str(folder / "b.csv")]


def test_a_folder_of_another_kind_is_left_to_its_family(folder):
    assert files_of(str(folder), {"kind": "episodes"}) == [str(folder)]


def test_a_pattern_goes_into_folders(folder):
    assert files_of(f"{folder}/**/[abc].csv", TABLE) == [str(folder / n) for n in ("a.csv", "b.csv", "deep/c.csv")]


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file(tmp_path):
    np.save(tmp_path / "run[1].npy", np.zeros((2, 2)))
    assert files_of(f"{tmp_path}/run[1].npy", TABLE) == [f"{tmp_path}/run[1].npy"]


def test_what_is_no_pattern_and_not_there_is_left_to_the_reader():
    assert files_of("sample:hopper", TABLE) == ["sample:hopper"]


@pytest.mark.parametrize(("name", "words"), [("*.h5", "no file matches"), ("deep/empty", "without any")])
def test_nothing_found_is_said(folder, name, words):
    (folder / "deep" / "empty").mkdir()
    with pytest.raises(DataError, match=words):
        files_of(str(folder / name), TABLE)


def test_tables_of_both_formats_are_refused(folder):
    (folder / "d.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"both \.csv and \.parquet"):
        files_of(str(folder), TABLE)
