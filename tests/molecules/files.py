"""Small trajectories in every format, written with the libraries that users write them with."""

import mdtraj
import numpy as np
import pytest
from rdkit import Chem

from noumena.core.errors import ConfigError, DataError
from noumena.molecules.atoms import make_atoms, to_mdtraj
from noumena.molecules.data import open_trajectory, read_trajectory

AIB9, ALANINE = "sample:aib9", "sample:alanine-dipeptide"
ALANINE_SMILES = "CC(=O)N[C@@H](C)C(=O)NC"
WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0}
FORMATS = ["xtc", "trr", "dcd", "xyz", "pdb", "sdf", "npz"]
HOLDS_ATOMS = ["xyz", "pdb", "sdf", "npz"]


def sample(name=ALANINE, frames=30):
    """Some frames of a shipped sample."""
    data = read_trajectory(name)
    return data.subset(slice(0, frames))


def atoms_of(topology, bonds=None):
    return make_atoms(
        topology.elements,
        topology.bonds if bonds is None else bonds,
        names=topology.names,
        residue_names=topology.residue_names,
        residue_ids=topology.residue_ids,
        where="test",
    )


def as_mdtraj(xyz, topology, cell=None, bonds=None):
    """An mdtraj trajectory of coordinates in angstrom; ``cell`` is the edge of a cube in angstrom."""
    made = mdtraj.Trajectory(np.asarray(xyz, np.float32) / 10, to_mdtraj(atoms_of(topology, bonds)))
    if cell is not None:
        made.unitcell_lengths = np.full((len(made), 3), cell / 10)
        made.unitcell_angles = np.full((len(made), 3), 90.0)
    return made


def write(folder, form, xyz, topology, name="traj", cell=None, bonds=None):
    """Write coordinates in angstrom in one of :data:`FORMATS`; the path."""
    path = folder / f"{name}.{form}"
    xyz = np.asarray(xyz)
    if form == "npz":
        save_npz(path, xyz, topology)
    elif form == "sdf":
        write_sdf(path, xyz, topology)
    elif form == "xyz":
        path.write_text("".join(xyz_frame(frame, topology.symbols) for frame in xyz))
    else:
        as_mdtraj(xyz, topology, cell, bonds).save(str(path))
    return str(path)


def save_npz(path, xyz, topology, **further):
    lists = {
        "atomic_numbers": np.array(topology.elements),
        "bonds": np.array(topology.bonds),
        "atom_names": np.array(topology.names),
        "residue_names": np.array(topology.residue_names),
        "residue_ids": np.array(topology.residue_ids),
    }
    np.savez(path, **{"xyz": np.asarray(xyz, np.float32), **lists, **further})
    return str(path)


def xyz_frame(frame, labels):
    lines = [f"{label} {x:.5f} {y:.5f} {z:.5f}\n" for label, (x, y, z) in zip(labels, frame, strict=True)]
    return f"{len(labels)}\nmade by a test\n{''.join(lines)}"


def write_sdf(path, xyz, topology):
    with Chem.SDWriter(str(path)) as writer:
        molecule = Chem.RWMol()
        for z in topology.elements:
            molecule.AddAtom(Chem.Atom(int(z)))
        for i, j in topology.bonds:
            molecule.AddBond(i, j, Chem.BondType.SINGLE)
        writer.SetKekulize(False)
        for frame in xyz:
            one = Chem.Mol(molecule)
            conformer = Chem.Conformer(len(frame))
            conformer.SetPositions(np.asarray(frame, np.float64))
            conformer.Set3D(True)
            one.AddConformer(conformer)
            writer.write(one)


def refused(words, path, opener=open_trajectory, **options):
    with pytest.raises((ConfigError, DataError)) as caught:
        opener(path, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
