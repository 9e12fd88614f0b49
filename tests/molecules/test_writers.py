import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.molecules.sdf import formal_charges
from noumena.molecules.topology import Topology
from noumena.molecules.writers import write_npz, write_pdb, write_sdf, write_xtc, write_xyz
from tests.molecules.conformers import made

mdtraj = pytest.importorskip("mdtraj")
Chem = pytest.importorskip("rdkit.Chem")

WRITERS = {".pdb": write_pdb, ".xyz": write_xyz, ".sdf": write_sdf, ".npz": write_npz, ".xtc": write_xtc}


def chain(atoms, frames=1):
    """A zigzag chain of carbon of any length."""
    topology = Topology.make([6] * atoms, [(i, i + 1) for i in range(atoms - 1)])
    xyz = np.zeros((frames, atoms, 3), np.float32)
    xyz[:, :, 0] = 1.2 * np.arange(atoms)
    xyz[:, 1::2, 1] = 0.9
    return topology, xyz


@pytest.fixture(scope="module")
def aspirin():
    return made("CC(=O)Oc1ccccc1C(=O)O")


def test_a_pdb_keeps_models_coordinates_and_the_bonds_of_a_residue_nobody_knows(aspirin, tmp_path):
    topology, xyz, mol = aspirin
    write_pdb(tmp_path / "a.pdb", [xyz[:2], xyz[2:]], topology)
    found = mdtraj.load(tmp_path / "a.pdb")
    np.testing.assert_allclose(found.xyz * 10, xyz, atol=6e-4)
    assert {tuple(sorted((a.index, b.index))) for a, b in found.topology.bonds} == set(topology.bonds)
    assert [atom.element.number for atom in found.topology.atoms] == list(topology.elements)
    assert [atom.name for atom in found.topology.atoms] == list(topology.names)
    read = Chem.MolFromPDBFile(str(tmp_path / "a.pdb"), removeHs=False, sanitize=False)
    assert read.GetNumConformers() == len(xyz)
    assert {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in read.GetBonds()} == set(topology.bonds)
    np.testing.assert_allclose(read.GetConformer(3).GetPositions(), xyz[3], atol=6e-4)
    del mol


def test_columns_of_a_pdb_hold_for_long_names_high_numbers_and_heavy_elements(tmp_path):
    topology = Topology.make(
        [17, 6, 1, 6],
        [(0, 1), (1, 2), (1, 3)],
        names=["CL1", "C1", "HH31", "a%s\nEND"],
        residue_names=["LIG", "LIGX", "LIGANDS", "ALA"],
        residue_ids=[-5, 9999, 12345, 1],
    )
    xyz = np.array([[[-999.0, 9999.0, 0.1], [1, 2, 3], [4, 5, 6], [7, 8, 9]]], dtype=np.float32)
    write_pdb(tmp_path / "a.pdb", [xyz], topology)
    lines = (tmp_path / "a.pdb").read_text().splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    assert {len(line) for line in atoms} == {80}
    assert [line[12:16] for line in atoms] == ["CL1 ", " C1 ", "HH31", "a_s_"]
    assert [line[17:21] for line in atoms] == ["LIG ", "LIGX", "LIGA", "ALA "]
    assert [int(line[22:26]) for line in atoms] == [-5, 9999, 2345, 1]
    assert [line[76:78].strip() for line in atoms] == ["CL", "C", "H", "C"]
    assert [float(atoms[0][start : start + 8]) for start in (30, 38, 46)] == [-999.0, 9999.0, 0.1]
    assert lines.count("END") == 1


def test_more_partners_than_a_line_has_room_for(tmp_path):
    sulfur = Topology.make([16, *[9] * 6], [(0, i) for i in range(1, 7)])
    xyz = np.concatenate([np.zeros((1, 3)), 1.56 * np.eye(3), -1.56 * np.eye(3)])
    write_pdb(tmp_path / "a.pdb", [xyz], sulfur)
    found = mdtraj.load(tmp_path / "a.pdb")
    assert {tuple(sorted((a.index, b.index))) for a, b in found.topology.bonds} == set(sulfur.bonds)


def test_more_models_than_four_digits_count(tmp_path):
    hydrogen = Topology.make([1, 1], [(0, 1)])
    write_pdb(tmp_path / "a.pdb", [np.tile(np.array([[0, 0, 0], [0.74, 0, 0]]), (10_001, 1, 1))], hydrogen)
    assert mdtraj.load(tmp_path / "a.pdb").n_frames == 10_001


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C[N+](C)(C)CC(=O)[O-]", "c1cc[nH]c1[N+](=O)[O-]", "CC#N"])
def test_an_sdf_is_the_same_molecule_again_with_orders_and_charges(smiles, tmp_path):
    topology, xyz, mol = made(smiles)
    write_sdf(tmp_path / "a.sdf", [xyz], topology)
    records = list(Chem.SDMolSupplier(str(tmp_path / "a.sdf"), removeHs=False))
    assert len(records) == len(xyz)
    for read, frame in zip(records, xyz, strict=True):
        assert Chem.MolToSmiles(Chem.RemoveHs(read)) == Chem.CanonSmiles(smiles)
        np.testing.assert_allclose(read.GetConformer().GetPositions(), frame, atol=6e-5)
    assert formal_charges(topology) == [atom.GetFormalCharge() for atom in mol.GetAtoms()]


def test_unknown_orders_stay_unknown_in_an_sdf(tmp_path):
    topology, xyz, _ = made("CC(=O)O", orders=False)
    write_sdf(tmp_path / "a.sdf", [xyz], topology)
    read = next(iter(Chem.SDMolSupplier(str(tmp_path / "a.sdf"), removeHs=False)))
    assert {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in read.GetBonds()} == set(topology.bonds)
    types = [line[6:9] for line in (tmp_path / "a.sdf").read_text().split("$$$$")[0].splitlines() if len(line) == 12]
    assert types == ["  8"] * len(topology.bonds)


def test_a_molecule_beyond_999_atoms_is_written_as_v3000(tmp_path):
    topology, xyz = chain(1200)
    write_sdf(tmp_path / "a.sdf", [xyz], topology)
    read = next(iter(Chem.SDMolSupplier(str(tmp_path / "a.sdf"), removeHs=False, sanitize=False)))
    assert read.GetNumAtoms() == 1200
    assert read.GetNumBonds() == 1199
    np.testing.assert_allclose(read.GetConformer().GetPositions(), xyz[0], atol=6e-5)


def test_xtc_is_in_nanometres_and_reads_with_the_pdb_as_topology(aspirin, tmp_path):
    topology, xyz, _ = aspirin
    write_xtc(tmp_path / "a.xtc", [xyz[:3], xyz[3:]], topology)
    write_pdb(tmp_path / "a.pdb", [xyz[:1]], topology)
    found = mdtraj.load(tmp_path / "a.xtc", top=tmp_path / "a.pdb")
    np.testing.assert_allclose(found.xyz * 10, xyz, atol=6e-3)
    np.testing.assert_array_equal(found.time, np.arange(len(xyz)))


def test_npz_holds_frames_and_topology_and_needs_no_pickle(aspirin, tmp_path):
    topology, xyz, _ = aspirin
    write_npz(tmp_path / "a.npz", iter([xyz[:1], xyz[1:]]), {"topology": topology.to_json()})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["xyz"], xyz)
        again = Topology.make(
            archive["atomic_numbers"],
            archive["bonds"],
            names=archive["atom_names"],
            residue_names=archive["residue_names"],
            residue_ids=archive["residue_ids"],
            orders=archive["bond_orders"],
        )
    assert again == topology


def test_xyz_holds_symbols_and_coordinates(aspirin, tmp_path):
    topology, xyz, _ = aspirin
    write_xyz(tmp_path / "a.xyz", [xyz], topology)
    lines = (tmp_path / "a.xyz").read_text().splitlines()
    assert len(lines) == len(xyz) * (len(topology) + 2)
    second = [line.split() for line in lines[len(topology) + 4 : 2 * len(topology) + 4]]
    assert tuple(words[0] for words in second) == topology.symbols
    np.testing.assert_allclose(np.array([words[1:] for words in second], dtype=float), xyz[1], atol=6e-7)


@pytest.mark.parametrize("ending", WRITERS)
def test_chunks_make_no_difference_and_files_are_the_same_every_time(aspirin, tmp_path, ending):
    topology, xyz, _ = aspirin
    contents = []
    for number, chunks in enumerate(([xyz], [xyz[:1], xyz[1:4].double().numpy(), xyz[4]], [xyz])):
        path = tmp_path / f"{number}{ending}"
        WRITERS[ending](path, iter(chunks), topology)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("ending", WRITERS)
def test_frames_that_cannot_be_written_are_refused_by_number(aspirin, tmp_path, ending):
    topology, xyz, _ = aspirin
    broken = xyz.clone()
    broken[2, 4, 1] = torch.nan
    for frames, words in (
        ([], "no frames"),
        ([xyz[:, :-1]], r"\(frames, 21, 3\)"),
        ([xyz[:1], broken], "number 1: frame 2 has NaN or infinity at atom 5"),
    ):
        with pytest.raises(DataError, match=words):
            WRITERS[ending](tmp_path / "a", frames, topology)


@pytest.mark.parametrize("ending", [".pdb", ".sdf"])
def test_coordinates_without_room_are_refused(aspirin, tmp_path, ending):
    topology, xyz, _ = aspirin
    with pytest.raises(DataError, match=r"frame 5, atom 1: .* Centre the frames"):
        WRITERS[ending](tmp_path / "a", [xyz, xyz + 1e5], topology)
