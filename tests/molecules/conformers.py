"""Molecules and conformers to test with, made by RDKit."""

import numpy as np
import pytest
import torch

from noumena.molecules.conformations import Conformations, centred
from noumena.molecules.topology import Topology

Chem = pytest.importorskip("rdkit.Chem")
AllChem = pytest.importorskip("rdkit.Chem.AllChem")


def made(smiles, *, orders=True, names=None, frames=5, seed=0):
    """A molecule with all hydrogens, as topology and some conformers in angstrom."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(mol, frames, randomSeed=seed + 1)  # of seed 0 all are the same
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    topology = Topology.make(
        [atom.GetAtomicNum() for atom in mol.GetAtoms()],
        bonds,
        names=names,
        orders=[bond.GetBondTypeAsDouble() for bond in mol.GetBonds()] if orders else None,
    )
    xyz = np.stack([conformer.GetPositions() for conformer in mol.GetConformers()])
    return topology, torch.tensor(xyz, dtype=torch.float32), mol


def conformations(smiles, frames=40, seed=0):
    """Conformers as a data set."""
    topology, xyz, _ = made(smiles, frames=frames, seed=seed)
    number = torch.arange(len(xyz))
    return Conformations(centred(xyz), topology, torch.zeros_like(number), number)
