import io
import zipfile

import numpy as np
import pyarrow.parquet
import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.writers import write_archive, write_cif, write_extxyz, write_parquet, write_poscar
from tests.crystals.random_cells import made, salt

gemmi = pytest.importorskip("gemmi")
core = pytest.importorskip("pymatgen.core")
ase_io = pytest.importorskip("ase.io")

WRITERS = {
    "cif": write_cif,
    "extxyz": write_extxyz,
    "zip": write_archive,
    "parquet": write_parquet,
    "vasp": write_poscar,
}


def distances(lattice, frac):
    """All distances between sites and their nearest images, which no orientation and no wrapping changes."""
    lattice, frac = np.asarray(lattice, float), np.asarray(frac, float)
    shift = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 3)
    difference = frac[:, None] - frac[None]
    difference -= np.round(difference)
    return np.linalg.norm((difference[:, :, None] + shift) @ lattice, axis=-1).min(-1)


def chirality(lattice, frac):
    """The signed volume of three bonds, the same in whatever right- or left-handed cell a crystal is written."""
    cart = np.asarray(frac, float) @ np.asarray(lattice, float)
    return np.linalg.det(cart[1:4] - cart[0])


def single(batch, number):
    part = batch.select(torch.tensor([number]))
    return part.lattice[0].numpy(), part.frac_coords.numpy(), part.atom_types.tolist()


def block_structure(block):
    small = gemmi.make_small_structure_from_block(block)
    lattice = np.asarray(small.cell.orth.mat.tolist()).T
    frac = np.array([[site.fract.x, site.fract.y, site.fract.z] for site in small.sites])
    return lattice, frac, [site.element.atomic_number for site in small.sites]


def assert_same(found, expected, atol=1e-6):
    lattice, frac, types = found
    assert list(types) == list(expected[2])
    assert abs(np.linalg.det(lattice)) == pytest.approx(abs(np.linalg.det(expected[0])), rel=1e-6)
    np.testing.assert_allclose(distances(lattice, frac), distances(expected[0], expected[1]), atol=atol)


def test_a_cif_holds_every_crystal_by_name(tmp_path):
    batch = made()
    write_cif(tmp_path / "a.cif", iter(batch.split(4)))
    document = gemmi.cif.read(str(tmp_path / "a.cif"))
    assert [block.name for block in document] == list(batch.names)
    for number, block in enumerate(document):
        assert_same(block_structure(block), single(batch, number))
        cell = gemmi.make_small_structure_from_block(block).cell
        expected = torch.cat([batch.lengths[number], batch.angles[number]])
        np.testing.assert_allclose(cell.parameters, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Missing elements")  # pymatgen compares every block with the first one's formula
def test_a_cif_is_read_by_pymatgen_and_ase(tmp_path):
    batch = made(3)
    write_cif(tmp_path / "a.cif", [batch])
    parser = pytest.importorskip("pymatgen.io.cif").CifParser(str(tmp_path / "a.cif"))
    for number, found in enumerate(parser.parse_structures(primitive=False)):
        expected = single(batch, number)
        order = np.argsort(expected[2], kind="stable")
        theirs = np.argsort([site.specie.Z for site in found], kind="stable")
        assert sorted(expected[2]) == [found[int(i)].specie.Z for i in theirs]
        ours = np.sort(distances(expected[0], expected[1][order]).reshape(-1))
        np.testing.assert_allclose(
            np.sort(distances(found.lattice.matrix, found.frac_coords).reshape(-1)), ours, atol=1e-6
        )
    for number, atoms in enumerate(ase_io.read(tmp_path / "a.cif", index=":")):
        assert_same((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), single(batch, number))


def test_a_left_handed_cell_is_not_turned_into_its_mirror_image(tmp_path):
    batch = made(1, seed=5, most=1)
    lattice = torch.tensor([[4.0, 0, 0], [0.3, 5.0, 0], [0, 0.2, -6.0]], dtype=torch.float64)
    frac = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [0.1, 0.3, 0.1], [0.1, 0.1, 0.2]], dtype=torch.float64)
    batch = CrystalBatch.of(lattice, frac, torch.tensor([11, 17, 8, 3]))
    write_cif(tmp_path / "a.cif", [batch])
    found = block_structure(gemmi.cif.read(str(tmp_path / "a.cif"))[0])
    assert np.linalg.det(found[0]) > 0
    back = found[1] - np.round(found[1] - found[1][0])  # near the first atom, which the writer's wrapping may undo
    assert chirality(found[0], back) == pytest.approx(chirality(lattice, frac), abs=1e-6)
    write_poscar(tmp_path / "a.vasp", [batch])
    poscar = ase_io.read(tmp_path / "a.vasp")
    back = poscar.get_scaled_positions()
    back -= np.round(back - back[0])
    assert poscar.cell.volume > 0
    assert chirality(poscar.cell[:], back) == pytest.approx(chirality(lattice, frac), abs=1e-6)


def test_extended_xyz_keeps_orientation_sites_and_names(tmp_path):
    batch = made(4)
    write_extxyz(tmp_path / "a.extxyz", [batch])
    frames = ase_io.read(tmp_path / "a.extxyz", index=":")
    assert [frame.info["material_id"] for frame in frames] == list(batch.names)
    for number, frame in enumerate(frames):
        lattice, frac, types = single(batch, number)
        np.testing.assert_allclose(frame.cell[:], lattice, atol=1e-9)
        np.testing.assert_allclose(frame.positions, frac @ lattice, atol=1e-9)
        assert frame.numbers.tolist() == types
        assert frame.pbc.all()


@pytest.mark.parametrize("name", ['he said "x"', "a\\b", "a=b c", "{x}\nLattice"])
def test_no_name_breaks_the_header_of_extended_xyz(tmp_path, name):
    write_extxyz(tmp_path / "a.extxyz", [salt([name])])
    frame = ase_io.read(tmp_path / "a.extxyz")
    assert len(frame) == 2
    np.testing.assert_allclose(frame.cell[:], salt().lattice[0], atol=1e-9)


def test_a_poscar_groups_elements_and_holds_one_crystal(tmp_path):
    batch = CrystalBatch.of(
        made(1).lattice[0], torch.rand(4, 3, dtype=torch.float64), torch.tensor([17, 11, 17, 8]), names=["mp-1"]
    )
    write_poscar(tmp_path / "a.vasp", [batch])
    found = pytest.importorskip("pymatgen.io.vasp").Poscar.from_file(tmp_path / "a.vasp").structure
    assert [site.specie.symbol for site in found] == ["Cl", "Cl", "Na", "O"]
    right = (batch.lattice[0].numpy(), batch.frac_coords.numpy()[[0, 2, 1, 3]], [17, 17, 11, 8])
    assert_same((found.lattice.matrix, found.frac_coords, [site.specie.Z for site in found]), right)
    with pytest.raises(DataError, match=r"one crystal.*\.zip"):
        write_poscar(tmp_path / "b.vasp", [batch, batch])


def test_an_archive_holds_a_file_for_each_crystal_and_is_the_same_each_time(tmp_path):
    batch = made(3)
    write_archive(tmp_path / "a.zip", [batch])
    write_archive(tmp_path / "b.zip", batch.split(2))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"{name}.cif" for name in batch.names]
        for number, name in enumerate(archive.namelist()):
            atoms = ase_io.read(io.StringIO(archive.read(name).decode()), format="cif")
            assert_same((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), single(batch, number))


def test_names_become_words_that_differ_and_leave_no_folder(tmp_path):
    names = ["../../etc/passwd", "a b", "A_b", "a_b_2", "", "...", "ä" * 3, "x" * 200, "a b"]
    write_archive(tmp_path / "a.zip", [salt(names, count=len(names))])
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        found = archive.namelist()
    assert len({name.casefold() for name in found}) == len(names)
    assert not any("/" in name or "\\" in name or name.startswith(".") for name in found)
    assert found[:2] == ["etc_passwd.cif", "a_b.cif"]
    assert max(map(len, found)) <= 75
    write_cif(tmp_path / "a.cif", [salt(names, count=len(names))])
    assert len(gemmi.cif.read(str(tmp_path / "a.cif"))) == len(names)


def test_parquet_has_the_layout_of_the_fields_tables(tmp_path):
    batch = made(5)
    write_parquet(tmp_path / "a.parquet", iter(batch.split(2)))
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names[:6] == ["material_id", "formula", "num_atoms", "atomic_numbers", "frac_coords", "lattice"]
    assert table["material_id"].to_pylist() == list(batch.names)
    for number, row in enumerate(table.to_pylist()):
        lattice, frac, types = single(batch, number)
        np.testing.assert_array_equal(np.reshape(row["lattice"], (3, 3)), lattice)
        np.testing.assert_array_equal(row["frac_coords"], frac)
        assert row["atomic_numbers"] == types
        assert row["num_atoms"] == len(types)
        cell = core.Lattice(lattice)
        np.testing.assert_allclose(
            [row[n] for n in ("a", "b", "c", "alpha", "beta", "gamma")], cell.parameters, atol=1e-6
        )


def test_crystals_without_names_are_numbered_through(tmp_path):
    batch = made(4, names=False)
    write_parquet(tmp_path / "a.parquet", batch.split(3))
    names = pyarrow.parquet.read_table(tmp_path / "a.parquet")["material_id"].to_pylist()
    write_cif(tmp_path / "a.cif", batch.split(3))
    assert names == [block.name for block in gemmi.cif.read(str(tmp_path / "a.cif"))]
    assert names == [f"crystal_{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("ending", WRITERS)
def test_single_precision_is_written_as_it_is(tmp_path, ending):
    batch = made(1).to(dtype=torch.float32)
    WRITERS[ending](tmp_path / f"a.{ending}", [batch])
    assert (tmp_path / f"a.{ending}").stat().st_size > 100


@pytest.mark.parametrize("ending", WRITERS)
def test_nothing_and_what_is_no_crystal_is_refused(tmp_path, ending):
    with pytest.raises(DataError, match="at least one"):
        WRITERS[ending](tmp_path / f"a.{ending}", iter([]))
    batch = made(3)
    lattice = batch.lattice.clone()
    lattice[1, 0, 0] = torch.nan
    for broken in (
        CrystalBatch(batch.atom_types, batch.frac_coords, lattice, batch.num_atoms, batch.names),
        CrystalBatch(batch.atom_types, batch.frac_coords, lattice.nan_to_num(0.0) * 0, batch.num_atoms, batch.names),
    ):
        with pytest.raises(DataError, match=r"crystal [12] \(mp-0[01]\)"):
            WRITERS[ending](tmp_path / f"a.{ending}", [broken])
