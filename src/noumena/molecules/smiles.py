"""Bonds and their orders from a SMILES, matched onto the atoms of a file whatever their order."""

from typing import Any

import numpy as np

from noumena.core.errors import ConfigError, DataError
from noumena.molecules.atoms import Atoms, with_bonds
from noumena.molecules.elements import HYDROGEN, SYMBOLS
from noumena.molecules.libraries import rdkit_chem


def bonds_of_smiles(smiles: str, atoms: Atoms, frame: np.ndarray, where: str) -> Atoms:
    """The same atoms with the bonds and bond orders of a SMILES.

    Args:
        smiles: of the molecule. Hydrogens are added if the file has any.
        atoms: of the file, in its order, with all bonds but no orders that matter.
        frame: one conformation, shape (atoms, 3), in angstrom, for a check of the handedness where the SMILES tells it.
        where: the file, for messages.

    Raises:
        ConfigError: it is no SMILES.
        DataError: it is of another molecule, or of another stereoisomer.
        NotSupportedError: RDKit is not installed.
    """
    chem = rdkit_chem()
    template = _parsed(smiles)
    if (atoms.elements == HYDROGEN).any():
        template = chem.AddHs(template)
    _check_formula(smiles, template, atoms, where)
    pattern = _bare([atom.GetAtomicNum() for atom in template.GetAtoms()], _pairs(template))
    match = _bare(atoms.elements.tolist(), atoms.bonds.tolist()).GetSubstructMatch(pattern)
    if len(match) != len(atoms) or template.GetNumBonds() != len(atoms.bonds):
        raise DataError(
            f"{where}: has the atoms of smiles={smiles!r}, but other bonds: {len(atoms.bonds)} in the file, "
            f"{template.GetNumBonds()} in the SMILES, or they join other elements. Is it an isomer or a tautomer?"
        )
    position = np.asarray(match)
    _check_handedness(smiles, template, frame[position], where)
    bonds = list(template.GetBonds())
    pairs = position[np.array([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds])]
    return with_bonds(atoms, pairs, np.array([bond.GetBondTypeAsDouble() for bond in bonds]))


def _parsed(smiles: str) -> Any:
    from rdkit import rdBase

    with rdBase.BlockLogs():
        template = rdkit_chem().MolFromSmiles(smiles)
    if template is None or template.GetNumAtoms() == 0:
        raise ConfigError(f"smiles={smiles!r} is no SMILES of a molecule that can be. Check brackets and valences.")
    return template


def _check_formula(smiles: str, template: Any, atoms: Atoms, where: str) -> None:
    found = np.bincount(atoms.elements, minlength=len(SYMBOLS))
    expected = np.bincount([atom.GetAtomicNum() for atom in template.GetAtoms()], minlength=len(SYMBOLS))
    if (found != expected).any():
        words = ", ".join(
            f"{found[z]} {SYMBOLS[z]} instead of {expected[z]}" for z in np.flatnonzero(found != expected)
        )
        partly = found[HYDROGEN] > 0 and (found != expected).sum() == 1 and found[HYDROGEN] != expected[HYDROGEN]
        hint = " Only some of its hydrogens are there: leave them out with selection='not element H'." if partly else ""
        raise DataError(f"{where}: is not the molecule of smiles={smiles!r}: {words}.{hint}")


def _bare(elements: list[int], pairs: list[list[int]]) -> Any:
    """A graph of elements and single bonds, without charges, aromaticity or hydrogens that are not drawn."""
    chem = rdkit_chem()
    graph = chem.RWMol()
    for z in elements:
        atom = chem.Atom(int(z))
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for i, j in pairs:
        graph.AddBond(int(i), int(j), chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    chem.FastFindRings(graph)
    return graph


def _pairs(template: Any) -> list[list[int]]:
    return [[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] for bond in template.GetBonds()]


def _check_handedness(smiles: str, template: Any, xyz: np.ndarray, where: str) -> None:
    """Compare with the file where the SMILES says the handedness of every centre."""
    chem = rdkit_chem()
    centres = chem.FindMolChiralCenters(template, includeUnassigned=True, useLegacyImplementation=False)
    if not centres or any(tag == "?" for _, tag in centres):
        return
    solid = chem.Mol(template)
    conformer = chem.Conformer(len(xyz))
    conformer.SetPositions(np.ascontiguousarray(xyz, dtype=np.float64))
    solid.AddConformer(conformer, assignId=True)
    chem.AssignStereochemistryFrom3D(solid)
    if _without_double_bonds(solid) != _without_double_bonds(template):
        raise DataError(
            f"{where}: is another stereoisomer (such as the mirror image) than smiles={smiles!r}. Correct the @ and @@ "
            "of the SMILES, or the coordinates."
        )


def _without_double_bonds(molecule: Any) -> str:
    """Canonical SMILES with the handedness of centres, but not of double bonds."""
    chem = rdkit_chem()
    plain = chem.RemoveHs(molecule)
    for bond in plain.GetBonds():
        bond.SetStereo(chem.BondStereo.STEREONONE)
    for bond in plain.GetBonds():
        bond.SetBondDir(chem.BondDir.NONE)
    return str(chem.MolToSmiles(plain))
