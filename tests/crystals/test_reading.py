import gzip
import io
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError, NoumenaError
from noumena.crystals import processing
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.formats import split
from noumena.crystals.reading import from_ase, from_pymatgen, read, stream
from tests.crystals.structures import Dying, cif_of, random_structure

COUNT = 12


@pytest.fixture(scope="module")
def structures():
    return [random_structure(seed, atoms=4 + seed % 4) for seed in range(COUNT)]


@pytest.fixture
def folder(tmp_path, structures):
    out = tmp_path / "cifs"
    (out / "deep").mkdir(parents=True)
    for number, one in enumerate(structures):
        place = out if number % 2 else out / "deep"
        (place / f"{one.name}.cif").write_text(cif_of(one))
    (out / "notes.txt").write_text("not a crystal")
    (out / ".hidden.cif").write_text("data_")
    return out


def by_name(reading):
    places = {name: number for number, name in enumerate(reading.crystals.names)}
    return reading.crystals.select(torch.tensor([places[f"s{number}"] for number in range(COUNT)]))


def assert_equal(first, second):
    assert first.names == second.names
    for name in ("atom_types", "frac_coords", "lattice", "num_atoms"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_a_folder_and_all_archives_of_it_give_the_same_crystals(folder, tmp_path):
    expected = read(folder)
    assert expected.about["crystals"] == COUNT
    assert expected.about["ignored_files"] == 1
    assert expected.crystals.dtype == torch.float64
    assert bool(((expected.crystals.frac_coords >= 0) & (expected.crystals.frac_coords < 1)).all())
    files = [file for file in folder.rglob("*") if file.is_file()]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(folder))
    for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")):
        with tarfile.open(tmp_path / f"all{ending}", mode) as archive:
            archive.add(folder, "top")
    for file in files:
        if file.suffix == ".cif":
            (tmp_path / "packed").mkdir(exist_ok=True)
            (tmp_path / "packed" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    for name in ("all.zip", "all.tar", "all.tar.gz", "all.tgz", "packed"):
        assert_equal(by_name(read(tmp_path / name)), by_name(expected))


def test_members_of_archives_that_point_out_of_it_write_nothing(tmp_path, structures):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        link = tarfile.TarInfo("link.cif")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        content = cif_of(structures[0]).encode()
        info = tarfile.TarInfo("../../out.cif")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    before = set(tmp_path.parent.rglob("*"))
    assert read(tmp_path / "evil.tar").crystals.names == ("out",)
    assert set(tmp_path.parent.rglob("*")) == before


def test_what_is_skipped_is_listed_and_refused_if_strict(folder):
    half = random_structure(1)
    (folder / "half.cif").write_text(cif_of(half, occupancy="0.5"))
    (folder / "broken.cif").write_bytes(b"\xff\xfe\x00nonsense")
    (folder / "packed.cif.gz").write_bytes(b"\x1f\x8b but cut")
    (folder / "big.cif").write_text(cif_of(random_structure(1, atoms=8)))
    reading = read(folder, max_atoms=7)
    assert len(reading.crystals) == COUNT
    assert {one.where: one.reason[:12] for one in reading.skipped} == {
        "big.cif": "its cell has",
        "broken.cif": "it is no CIF",
        "half.cif": f"site 1 ('{SYMBOLS[half.atom_types[0]]}0'"[:12],
        "packed.cif.gz": "it cannot be",
    }
    assert sum(reading.about["skipped_reasons"].values()) == reading.about["skipped"] == 4
    with pytest.raises(DataError, match=r"without strict"):
        read(folder, max_atoms=7, strict=True)


def test_a_long_file_in_parts_gives_what_it_gives_whole(tmp_path, structures, monkeypatch):
    # A text field holds a line that looks like the head of a block.
    trap = "_note\n;\ndata_trap\n;\n"
    (tmp_path / "all.cif").write_text("".join(cif_of(one) + trap for one in structures))
    frames = "".join(xyz_of(one) for one in structures)
    (tmp_path / "all.xyz").write_text(frames)
    whole = {name: read(tmp_path / name).crystals for name in ("all.cif", "all.xyz")}
    monkeypatch.setattr(split, "PART", 1500)
    monkeypatch.setattr("noumena.crystals.formats.sources.PART", 1500)
    assert whole["all.cif"].names == tuple(f"all:s{number}" for number in range(COUNT))
    assert whole["all.xyz"].names == tuple(f"all:{number}" for number in range(COUNT))
    for name, expected in whole.items():
        assert_equal(read(tmp_path / name).crystals, expected)
        parts = list(stream(tmp_path / name, batch_rows=5))
        assert max(len(part.crystals) for part in parts) <= 5
        assert len(parts) > 2
        assert_equal(type(expected).cat([part.crystals for part in parts]), expected)


def xyz_of(one, extra=""):
    cell = " ".join(f"{value:.12f}" for value in one.lattice.ravel())
    lines = [str(len(one.atom_types)), f'Lattice="{cell}" Properties=species:S:1:pos:R:3:force:R:3 pbc="T T T" {extra}']
    for number, place in zip(one.atom_types, one.frac_coords @ one.lattice, strict=True):
        lines.append(f"{SYMBOLS[number]} " + " ".join(f"{value:.12f}" for value in place) + " 0 0 0")
    return "\n".join(lines) + "\n"


def test_extended_xyz_gives_places_names_and_properties(tmp_path, structures):
    text = "".join(xyz_of(one, f"name={one.name} energy=-1.5 note=x") for one in structures[:-1])
    (tmp_path / "all.extxyz").write_text(text + xyz_of(structures[-1], f"name={structures[-1].name}"))
    reading = read(tmp_path / "all.extxyz", reduction="none")
    assert reading.crystals.names == tuple(one.name for one in structures)
    assert list(reading.properties) == ["energy"]
    assert reading.properties["energy"].isnan().tolist() == [False] * (COUNT - 1) + [True]
    places = np.concatenate([one.frac_coords for one in structures])
    np.testing.assert_allclose(reading.crystals.frac_coords.numpy(), places, atol=1e-9)
    ase_io = pytest.importorskip("ase.io")
    ase_io.write(tmp_path / "ase.extxyz", ase_io.read(tmp_path / "all.extxyz", ":"), format="extxyz")
    again = read(tmp_path / "ase.extxyz", reduction="none").crystals
    torch.testing.assert_close(again.frac_coords, reading.crystals.frac_coords, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('2\nLattice="4 0 0 0 4 0 0 0 4"\nC 0 0 0\n', "announces 2 atoms"),
        ("1\nno lattice\nC 0 0 0\n", "not periodic"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T F"\nC 0 0 0\n', "pbc is 'T T F'"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nQq 0 0 0\n', "expected a symbol"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nC 0 0\n', "3 columns"),
        ("one\n", "expected a number of atoms"),
    ],
)
def test_xyz_that_is_no_crystal_is_refused_by_name(tmp_path, text, words):
    (tmp_path / "bad.xyz").write_text(text)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "bad.xyz")


def test_poscar_of_both_kinds_of_coordinates_and_a_scale(tmp_path, structures):
    vasp = pytest.importorskip("pymatgen.io.vasp")
    core = pytest.importorskip("pymatgen.core")
    one = structures[0]
    structure = core.Structure(one.lattice, one.atom_types.tolist(), one.frac_coords).get_sorted_structure()
    (tmp_path / "run7").mkdir()
    (tmp_path / "run7" / "POSCAR").write_text(vasp.Poscar(structure).get_str(significant_figures=12))
    (tmp_path / "b.vasp").write_text(vasp.Poscar(structure).get_str(direct=False, significant_figures=12))
    lines = (tmp_path / "run7" / "POSCAR").read_text().splitlines()
    volume = f"{-structure.volume * 8:.10f}"
    (tmp_path / "c.vasp").write_text("\n".join([lines[0], volume, *lines[2:7], "Selective dynamics", *lines[7:]]))
    crystals = read(tmp_path, reduction="none").crystals
    assert crystals.names == ("b", "c", "run7")
    np.testing.assert_allclose(crystals.frac_coords.reshape(3, -1, 3).numpy(), [structure.frac_coords] * 3, atol=1e-9)
    torch.testing.assert_close(crystals.lattice[1], crystals.lattice[2] * 2)
    assert crystals.atom_types.tolist() == list(structure.atomic_numbers) * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({5: "1 2"}, "names no elements"),
        ({5: "Fe Qq"}, "'Qq'; expected symbols"),
        ({6: "1"}, "1 numbers of atoms"),
        ({6: "1 5"}, "6 atoms are announced"),
        ({7: "fractional"}, "expected Direct or Cartesian"),
        ({1: "0"}, "expected a positive number"),
        ({3: "4 0"}, "a cell vector of 3 numbers"),
    ],
)
def test_a_poscar_with_a_fault_is_refused_by_its_line(tmp_path, change, words):
    lines = ["title", "1.0", "4 0 0", "0 4 0", "0 0 4", "Fe_pv O", "1 1", "Direct", "0 0 0", "0.5 0.5 0.5"]
    (tmp_path / "POSCAR").write_text("\n".join(lines))
    assert read(tmp_path / "POSCAR").crystals.atom_types.tolist() == [26, 8]
    for number, line in change.items():
        lines[number] = line
    (tmp_path / "POSCAR").write_text("\n".join(lines))
    with pytest.raises(DataError, match=words):
        read(tmp_path / "POSCAR")


def test_objects_of_two_libraries_give_what_files_give(structures, folder):
    core = pytest.importorskip("pymatgen.core")
    atoms = pytest.importorskip("ase").Atoms
    names = [one.name for one in structures]
    expected = by_name(read(folder))
    ours = [core.Structure(one.lattice, one.atom_types.tolist(), one.frac_coords) for one in structures]
    theirs = [atoms(one.atom_types, scaled_positions=one.frac_coords, cell=one.lattice, pbc=True) for one in structures]
    for reading in (from_pymatgen(ours, names=names), from_ase(theirs, names=names)):
        assert reading.crystals.names == expected.names
        assert torch.equal(reading.crystals.atom_types, expected.atom_types)
        torch.testing.assert_close(reading.crystals.lengths, expected.lengths, atol=1e-6, rtol=0)
    mixed = core.Structure(4 * np.eye(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    slab = atoms("C", cell=4 * np.eye(3), pbc=[True, True, False])
    assert "more than one element" in from_pymatgen([ours[0], mixed]).skipped[0].reason
    assert "not periodic" in from_ase([theirs[0], slab]).skipped[0].reason
    with pytest.raises(DataError, match="no crystal that can be used"):
        from_ase([slab])
    with pytest.raises(ConfigError, match="names"):
        from_ase(theirs, names=["one"])


def test_several_processes_give_what_one_gives_in_the_same_order(folder, monkeypatch):
    expected = read(folder, workers=1)
    monkeypatch.setattr(processing, "SERIAL", 0)
    monkeypatch.setattr("noumena.crystals.reading._PIECE", 5)
    seen = []
    got = read(folder, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert_equal(got.crystals, expected.crystals)
    assert seen == [(5, COUNT), (10, COUNT), (COUNT, COUNT)]


def test_a_process_that_dies_is_an_error_and_no_hang(monkeypatch):
    pieces = [Dying([], {}) for _ in range(3)]
    monkeypatch.setattr(processing, "SERIAL", 0)
    with pytest.raises(NoumenaError, match=r"__main__"):
        list(processing.process_all(iter(pieces), processing.Options(), 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduction": "niggly"}, "niggli"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"max_atoms": 0}, "max_atoms"),
        ({"workers": 0}, "workers"),
    ],
)
def test_options_out_of_range_are_named(folder, options, words):
    with pytest.raises(ConfigError, match=words):
        read(folder, **options)


def test_sources_that_are_none_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name, words in (
        ("absent.cif", "no such file"),
        ("empty", "no structure files"),
        ("data.json", "no known format"),
        ("bad.zip", "cannot be read"),
        ("none.zip", "no structure files"),
    ):
        with pytest.raises(DataError, match=words):
            read(tmp_path / name)
    with pytest.raises(ConfigError, match="empty list"):
        read([])


def test_several_sources_are_read_one_after_the_other(tmp_path, structures):
    paths = []
    for one in structures[:3]:
        paths.append(tmp_path / f"{one.name}.cif")
        paths[-1].write_text(cif_of(one))
    assert read(paths).crystals.names == ("s0", "s1", "s2")


def test_worker_processes_need_not_load_torch():
    code = "import sys, noumena.crystals.processing; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
