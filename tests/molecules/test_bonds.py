from pathlib import Path

import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.molecules.atoms import make_atoms, parts_of
from noumena.molecules.bonding import perceived_bonds
from noumena.molecules.data import open_trajectory, read_trajectory
from noumena.molecules.periodic import make_whole
from noumena.molecules.topology import Topology
from tests.molecules.files import (
    AIB9,
    ALANINE,
    ALANINE_SMILES,
    WHOLE,
    refused,
    sample,
    save_npz,
    write,
)


@pytest.fixture(scope="module")
def some():
    return sample(frames=30)


@pytest.mark.parametrize("name", [AIB9, ALANINE])
def test_bonds_perceived_from_distances_are_the_given_ones(name):
    data = read_trajectory(name)
    found = perceived_bonds(np.asarray(data.topology.elements), data.xyz[::20].numpy(), None)
    assert found.tolist() == [list(pair) for pair in data.topology.bonds]


def test_without_any_bonds_they_are_perceived_and_the_facts_say_so(tmp_path, some):
    path = tmp_path / "traj.npz"
    np.savez(path, xyz=some.xyz.numpy(), atomic_numbers=np.array(some.topology.elements))
    splits = open_trajectory(str(path))
    assert splits.train.topology.bonds == some.topology.bonds
    assert "perceived from distances" in splits.about["bonds"]


def test_bonds_that_a_pdb_lacks_are_completed_and_the_facts_say_so(tmp_path):
    aib9 = sample(AIB9, 20)
    path = write(tmp_path, "pdb", aib9.xyz, aib9.topology, bonds=())
    lines = [line for line in Path(path).read_text().splitlines() if not line.startswith("CONECT")]
    Path(path).write_text("\n".join(lines))
    splits = open_trajectory(path, **WHOLE)
    assert splits.train.topology.bonds == aib9.topology.bonds
    assert "perceived from distances" in splits.about["bonds"]
    assert "of the trajectory itself, which names" in splits.about["bonds"]


def test_perception_across_the_walls_of_a_box_finds_the_same_bonds(some):
    edge = 14.0
    cell = np.repeat(edge * np.eye(3)[None], len(some), 0)
    wrapped = torch.remainder(some.xyz + 1.0, edge).numpy()
    found = perceived_bonds(np.asarray(some.topology.elements), wrapped, cell)
    assert found.tolist() == [list(pair) for pair in some.topology.bonds]
    whole, changed = make_whole(wrapped, cell, some.topology.bond_index)
    assert changed.all()
    assert np.abs(whole - whole.mean(1, keepdims=True) - some.xyz.numpy()).max() < 1e-4


def test_frames_that_are_whole_are_not_touched(some):
    cell = np.repeat(60.0 * np.eye(3)[None], len(some), 0)
    whole, changed = make_whole(some.xyz.numpy(), cell, some.topology.bond_index)
    assert not changed.any()
    assert (whole == some.xyz.numpy()).all()


def test_parts_are_what_bonds_leave_apart():
    assert parts_of(6, np.array([[4, 1], [1, 2], [3, 5]])).tolist() == [0, 1, 1, 2, 1, 2]


# SMILES


@pytest.mark.parametrize("seed", range(5))
def test_a_smiles_is_matched_whatever_the_order_of_the_atoms(tmp_path, some, seed):
    order = np.random.default_rng(seed).permutation(22)
    path = tmp_path / "traj.npz"
    np.savez(path, xyz=some.xyz.numpy()[:, order], atomic_numbers=np.array(some.topology.elements)[order])
    splits = open_trajectory(str(path), smiles=ALANINE_SMILES)
    shuffled = some.topology.subset(order)
    assert splits.train.topology.bonds == shuffled.bonds
    found = dict(zip(splits.train.topology.bonds, splits.train.topology.orders, strict=True))
    carbonyl = [pair for pair in shuffled.bonds if sorted(shuffled.elements[a] for a in pair) == [6, 8]]
    assert [pair for pair, order in found.items() if order == 2] == carbonyl
    assert ALANINE_SMILES in splits.about["bonds"]


def test_a_smiles_needs_no_hydrogens_where_the_file_has_none(some):
    data = read_trajectory(ALANINE, selection="not element H", smiles=ALANINE_SMILES)
    assert sorted(data.topology.orders) == [1.0] * 7 + [2.0] * 2


def test_a_smiles_of_another_molecule_is_refused(some):
    refused(["is not the molecule", "N instead of 0"], ALANINE, smiles="CCO")
    refused(["other bonds"], ALANINE, smiles="CNC(=O)CCNC(C)=O")
    refused(["no SMILES"], ALANINE, smiles="C(((")
    refused(["Only some of its hydrogens"], ALANINE, smiles=ALANINE_SMILES, selection="not name HA")


def test_a_smiles_of_the_mirror_image_is_refused(tmp_path, some):
    mirrored = save_npz(tmp_path / "d.npz", some.xyz * torch.tensor([1.0, 1.0, -1.0]), some.topology)
    refused(["stereoisomer"], mirrored, smiles=ALANINE_SMILES)
    refused(["stereoisomer"], ALANINE, smiles=ALANINE_SMILES.replace("@@", "@"))
    assert len(read_trajectory(mirrored, smiles=ALANINE_SMILES.replace("@@", "@"))) == 30
    assert len(read_trajectory(mirrored, smiles=ALANINE_SMILES.replace("[C@@H]", "C"))) == 30


# Units


@pytest.mark.parametrize(("unit", "angstrom"), [("nm", 10.0), ("bohr", 0.529177210544)])
@pytest.mark.parametrize("name", [AIB9, ALANINE])
def test_another_unit_is_told_by_distances_and_read_when_named(tmp_path, name, unit, angstrom):
    data = sample(name)
    path = save_npz(tmp_path / "traj.npz", data.xyz / angstrom, data.topology)
    refused([f"unit='{unit}'"], path)
    splits = open_trajectory(path, unit=unit, **WHOLE)
    assert torch.allclose(splits.train.xyz, data.xyz, atol=1e-5)
    assert splits.about["unit"] == f"angstrom, converted from {unit}"
    refused(["unit='angstrom'"], name, unit=unit)
    # A further file of the same format is read alike; another format has its own unit.
    again = torch.cat(list(_stream(path, splits.train.schema)))
    assert torch.equal(again, splits.train.xyz)
    other = write(tmp_path, "pdb", data.xyz, data.topology)
    assert torch.allclose(torch.cat(list(_stream(other, splits.train.schema))), data.xyz, atol=2e-3)


def _stream(path, schema):
    from noumena.molecules.data import stream_frames

    return stream_frames(path, schema)


def test_scaled_coordinates_are_refused_where_no_unit_explains_them(tmp_path, some):
    path = save_npz(tmp_path / "traj.npz", some.xyz * 4, some.topology)
    refused(["4", "no unit"], path)


# Wrong topologies


def test_a_topology_of_other_atoms_is_refused(tmp_path, some):
    path = write(tmp_path, "xtc", some.xyz, some.topology)
    refused(["22 atoms", "58"], path, topology=AIB9)
    turned = write(tmp_path, "pdb", some.xyz[:1, [*range(1, 22), 0]], some.topology.subset([*range(1, 22), 0]))
    refused(["typical", "bond"], path, topology=turned)
    xyz = write(tmp_path, "xyz", some.xyz, some.topology)
    refused(["atom 1", "C", "H"], xyz, topology=turned)


def test_files_of_two_molecules_are_refused(tmp_path, some):
    refused(["58 atoms", "22"], f"{ALANINE},{AIB9}")
    other = save_npz(
        tmp_path / "b.npz", some.xyz, some.topology, atomic_numbers=np.array([7, *some.topology.elements[1:]])
    )
    refused(["atom 1", "N", "C", "1 of 22"], f"{ALANINE},{other}")


def test_a_trajectory_of_another_molecule_is_refused_for_a_model(tmp_path, some):
    for opener in (lambda p: list(_stream(p, some.schema)), lambda p: read_trajectory(p, schema=some.schema)):
        refused(["58 atoms", "22", "C6H12N2O2"], AIB9, opener)
        refused(["58 atoms", "22"], write(tmp_path, "dcd", sample(AIB9).xyz, sample(AIB9).topology), opener)
    turned = some.topology.subset([1, 0, *range(2, 22)])
    with pytest.raises(DataError, match="atom 1 is C"):
        read_trajectory(ALANINE, topology_of_model=turned)
    order = [0, 2, 3, 4, 1, *range(5, 22)]
    path = write(tmp_path, "dcd", some.xyz[:, order], some.topology, name="order")
    refused(["typical"], path, lambda p: list(_stream(p, some.schema)))


def test_several_molecules_ask_for_a_selection(tmp_path, some):
    n = len(some)
    offset = np.array([[[9.0, 0, 0]]]) + np.array([[[0.0, 0, 0]], [[0, 6.0, 0]]])[:, None]
    water = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + offset[:, 0]
    xyz = np.concatenate([some.xyz.numpy(), np.repeat(water.reshape(1, 6, 3), n, 0)], 1)
    top = some.topology
    path = tmp_path / "solvated.npz"
    arrays = {
        "xyz": xyz.astype(np.float32),
        "atomic_numbers": np.array([*top.elements, 8, 1, 1, 8, 1, 1]),
        "bonds": np.array([*top.bonds, (22, 23), (22, 24), (25, 26), (25, 27)]),
        "residue_names": np.array([*top.residue_names, *["HOH"] * 6]),
        "residue_ids": np.array([*top.residue_ids, 4, 4, 4, 5, 5, 5]),
        "atom_names": np.array([*top.names, *["O", "H1", "H2"] * 2]),
    }
    np.savez(path, **arrays)
    refused(["3 molecules", "1 x 22 atoms of ACE, ALA, NME", "2 x 3 atoms of HOH", "selection="], str(path))
    read = read_trajectory(str(path), selection="not water")
    assert read.topology.difference(top) is None
    assert torch.allclose(read.xyz, some.xyz, atol=1e-5)
    np.savez(path, **{**arrays, "residue_names": np.array([*top.residue_names, *["LIG"] * 6])})
    refused(["3 molecules", "selection="], str(path))


def test_a_selection_that_means_nothing_is_refused():
    refused(["not understood", "mdtraj"], ALANINE, selection="the heavy atoms")
    refused(["chooses 0 of the 22", "ACE", "CA"], ALANINE, selection="resname AIB")
    refused(["atoms between them are left out"], ALANINE, selection="element H")


# Frames


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_frames_that_are_not_numbers_are_refused(tmp_path, some, bad):
    xyz = some.xyz.numpy().copy()
    xyz[3, 8, 1] = bad
    path = save_npz(tmp_path / "traj.npz", xyz, some.topology)
    refused(["traj.npz", "frame 3", "atom 9", "NaN or infinity"], path)
    refused(["frame 3", "atom 9"], path, lambda p: list(_stream(p, some.schema)))
    assert len(read_trajectory(path, stride=2)) == 15


def test_two_atoms_at_one_place_are_refused(tmp_path, some):
    xyz = some.xyz.numpy().copy()
    xyz[5, 20] = xyz[5, 2]
    path = save_npz(tmp_path / "traj.npz", xyz, some.topology)
    refused(["frame 5", "atoms 3 and 21", "same place"], path)


def test_names_that_are_no_elements_are_refused(tmp_path, some):
    refused(["'Q'"], _with(tmp_path, some, symbols=np.array(["Q"] * 22)))
    with pytest.raises(DataError, match="bonds"):
        make_atoms([6, 6], [(0, 2)], where="test")
    with pytest.raises(DataError, match="names"):
        make_atoms([6, 6], [(0, 1)], names=["C"], where="test")


def _with(tmp_path, some, **arrays):
    path = tmp_path / "traj.npz"
    np.savez(path, xyz=some.xyz.numpy(), **arrays)
    return str(path)


def test_a_damaged_schema_is_refused(some):
    for wrong in (
        {"selected": [1]},
        {"bond_lengths": ["a"] * 21},
        {"unit": "feet"},
        {"file_atoms": 3},
        {"selection": 4},
    ):
        refused(["schema"], ALANINE, lambda p, w=wrong: read_trajectory(p, schema={**some.schema, **w}))
    assert Topology.from_json(some.schema["topology"]) == some.topology
