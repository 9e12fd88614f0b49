import logging

import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals import cache as cached
from noumena.crystals import reading as module
from noumena.crystals.reading import read
from tests.crystals.structures import cif_of, random_structure


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "cifs"
    out.mkdir()
    for seed in range(4):
        (out / f"s{seed}.cif").write_text(cif_of(random_structure(seed)))
    (out / "half.cif").write_text(cif_of(random_structure(9), occupancy="0.5"))
    return out


def test_what_is_in_the_cache_is_what_was_read_and_nothing_is_parsed(folder, tmp_path, monkeypatch):
    first = read(folder, cache=tmp_path / "cache")

    def refuse(*_):
        raise AssertionError("parsed again")

    monkeypatch.setattr(module, "process_all", refuse)
    again = read(folder, cache=tmp_path / "cache")
    assert again.about == {**first.about, "from_cache": True}
    assert again.skipped == first.skipped
    assert len(again.skipped) == 1
    assert again.crystals.names == first.crystals.names
    for name in ("atom_types", "frac_coords", "lattice", "num_atoms"):
        assert torch.equal(getattr(again.crystals, name), getattr(first.crystals, name))
    with pytest.raises(DataError, match=r"half.cif.*occupancy"):
        read(folder, cache=tmp_path / "cache", strict=True)


def test_other_content_names_or_options_are_read_anew(folder, tmp_path):
    store = tmp_path / "cache"

    def from_cache(**options):
        return read(folder, cache=store, **options).about["from_cache"]

    assert [from_cache(), from_cache()] == [False, True]
    assert [from_cache(reduction="none"), from_cache(reduction="none"), from_cache()] == [False, True, True]
    assert [from_cache(max_atoms=100), from_cache(tolerance=0.02)] == [False, False]
    text = (folder / "s0.cif").read_text()
    (folder / "s0.cif").write_text(text + "\n")
    assert not from_cache()
    (folder / "s0.cif").write_text(text)
    assert from_cache()
    (folder / "s0.cif").rename(folder / "t0.cif")
    assert not from_cache()
    assert not [file for file in store.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "foreign"])
def test_a_damaged_file_is_read_anew_with_a_note_and_mended(folder, tmp_path, caplog, damage):
    store = tmp_path / "cache"
    expected = read(folder, cache=store)
    (file,) = store.iterdir()
    content = file.read_bytes()
    middle = len(content) // 3
    file.write_bytes(
        {
            "cut": content[:middle],
            "bytes": content[:middle] + bytes(200) + content[middle + 200 :],
            "empty": b"",
            "foreign": b"\x80\x04K\x01.",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        again = read(folder, cache=store)
    assert not again.about["from_cache"]
    assert "damaged" in caplog.text
    assert torch.equal(again.crystals.frac_coords, expected.crystals.frac_coords)
    assert read(folder, cache=store).about["from_cache"]


def test_a_folder_that_cannot_be_written_is_noted_and_does_no_harm(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert len(read(folder, cache=tmp_path / "file").crystals) == 4
    assert "not cached" in caplog.text


def test_auto_is_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached.folder_of("auto") == tmp_path / "noumena" / "crystals"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cached.folder_of("auto").parts[-3:] == (".cache", "noumena", "crystals")
