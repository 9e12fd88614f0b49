"""Conformers of a molecule by distance geometry with torsion preferences, and their force-field energies."""

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from noumena.core.errors import ConfigError, DataError
from noumena.molecules.generate.seeds import seed_of
from noumena.molecules.generate.settings import CONFORMERS_PER_JOB, Conformers, as_settings
from noumena.molecules.libraries import rdkit_chem
from noumena.molecules.smiles import _parsed
from noumena.molecules.topology import Topology

_ISOMERS_SHOWN = 4


def conformer_topology(chosen: Conformers) -> Topology:
    """The molecule with all its hydrogens and bond orders, checked before any work is done.

    Raises:
        ConfigError: no SMILES, several molecules, a handedness left open, or one the force field does not know.
        NotSupportedError: RDKit is not installed.
    """
    molecule = _molecule(chosen.smiles)
    _properties(molecule, chosen)
    bonds = list(molecule.GetBonds())
    return Topology.make(
        [atom.GetAtomicNum() for atom in molecule.GetAtoms()],
        [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds],
        orders=[bond.GetBondTypeAsDouble() for bond in bonds],
        where=f"smiles={chosen.smiles!r}",
    )


def conformer_job(number: int, *, chosen: Conformers) -> dict[str, np.ndarray]:
    """Some of the conformers (ETKDGv3; Wang et al. 2020), with their energies.

    Args:
        number: of the job, from 1; the conformers depend on it and on ``chosen`` alone.
        chosen: what to make.

    Returns:
        ``xyz`` (conformers, atoms, 3) in angstrom, float32; ``energy`` (conformers,) in kcal/mol, float64; and the
        counts ``failed`` of embeddings and ``unconverged`` of minimisations.
    """
    all_chem: Any = importlib.import_module("rdkit.Chem.AllChem")
    molecule = _molecule(chosen.smiles)
    wanted = min(CONFORMERS_PER_JOB, chosen.n - (number - 1) * CONFORMERS_PER_JOB)
    parameters = all_chem.ETKDGv3()
    parameters.randomSeed = seed_of(chosen.seed, number)
    parameters.numThreads = 1
    found = list(all_chem.EmbedMultipleConfs(molecule, wanted, parameters))
    energies, unconverged = _energies(molecule, found, chosen)
    xyz = np.array([molecule.GetConformer(i).GetPositions() for i in found], dtype=np.float32)
    return {
        "xyz": xyz.reshape(-1, molecule.GetNumAtoms(), 3),
        "energy": np.asarray(energies, dtype=np.float64),
        "failed": np.array(wanted - len(found)),
        "unconverged": np.array(unconverged),
    }


def describe_conformers(totals: Mapping[str, int], *, chosen: Conformers) -> dict[str, Any]:
    """The metadata of a set of conformers.

    Raises:
        DataError: no embedding succeeded.
    """
    if not totals["rows"]:
        raise DataError(
            f"smiles={chosen.smiles!r}: none of {chosen.n} embeddings gave a conformer. "
            "Is its stereochemistry possible?"
        )
    return {
        "method": "ETKDGv3 distance geometry (RDKit)",
        "embedded": totals["rows"],
        "failed": totals["failed"],
        "unconverged": totals["unconverged"],
        "energy": f"{chosen.force_field.upper()}, kcal/mol",
        "xyz": "angstrom",
    }


def conformer_settings(chosen: Conformers) -> dict[str, Any]:
    """All that the conformers depend on besides a job's number, the versions of the libraries included."""
    return {**as_settings(chosen), "versions": {name: version(name) for name in ("noumena", "rdkit")}}


def kept_conformers(xyz: np.ndarray, energy: np.ndarray, topology: Topology, chosen: Conformers) -> np.ndarray:
    """The numbers of the conformers within the energy window that are not too near one of lower energy, ascending.

    Args:
        xyz: shape (conformers, atoms, 3), in angstrom.
        energy: shape (conformers,), in kcal/mol.
        topology: of the molecule.
        chosen: the window and the distance.

    Returns:
        int64, shape (kept,).
    """
    # Not at the top: the processes that run the jobs need no torch, whose import takes longer than many of them.
    import torch

    from noumena.molecules.geometry import aligned_square_deviation

    order = np.argsort(energy, kind="stable")
    if chosen.energy_window is not None:
        order = order[energy[order] <= energy[order[0]] + chosen.energy_window]
    if chosen.least_rmsd is None:
        return np.sort(order)
    heavy = topology.heavy if topology.heavy.sum() > 1 else np.ones(len(topology), dtype=bool)
    left = torch.from_numpy(np.ascontiguousarray(xyz[order][:, heavy])).double()
    numbers = torch.from_numpy(order)
    kept: list[int] = []
    while len(left):
        kept.append(int(numbers[0]))
        far = aligned_square_deviation(left, left[:1].expand_as(left)) >= chosen.least_rmsd**2
        far[0] = False
        left, numbers = left[far], numbers[far]
    return np.sort(np.asarray(kept, dtype=np.int64))


def _molecule(smiles: str) -> Any:
    """The molecule with its hydrogens and every handedness known."""
    chem = rdkit_chem()
    molecule = _parsed(smiles)
    if (pieces := len(chem.GetMolFrags(molecule))) > 1:
        raise ConfigError(f"smiles={smiles!r} is of {pieces} molecules; conformers are of one. Leave out the others.")
    open_places = [entry for entry in chem.FindPotentialStereo(molecule) if entry.specified.name == "Unspecified"]
    if open_places:
        isomers: Any = importlib.import_module("rdkit.Chem.EnumerateStereoisomers")
        options = isomers.StereoEnumerationOptions(maxIsomers=_ISOMERS_SHOWN)
        shown = [chem.MolToSmiles(one) for one in isomers.EnumerateStereoisomers(molecule, options=options)]
        raise ConfigError(
            f"smiles={smiles!r} leaves a handedness open ({len(open_places)} of its centres or double bonds), so that "
            f"its conformers would be of different molecules. Write it, such as {' or '.join(shown)}."
        )
    return chem.AddHs(molecule)


def _properties(molecule: Any, chosen: Conformers) -> Any:
    """The force field's view of the molecule.

    Raises:
        ConfigError: it has no parameters for it.
    """
    force_fields: Any = importlib.import_module("rdkit.Chem.rdForceFieldHelpers")
    with importlib.import_module("rdkit.rdBase").BlockLogs():
        if chosen.force_field == "uff":
            known, properties = force_fields.UFFHasAllMoleculeParams(molecule), None
        else:
            known = force_fields.MMFFHasAllMoleculeParams(molecule)
            variant = chosen.force_field.upper().replace("S", "s")
            properties = force_fields.MMFFGetMoleculeProperties(molecule, mmffVariant=variant) if known else None
    if not known:
        other = "mmff94" if chosen.force_field == "uff" else "uff"
        raise ConfigError(
            f"smiles={chosen.smiles!r}: {chosen.force_field} has no parameters for one of its atoms. "
            f"Try force_field={other}."
        )
    return properties


def _energies(molecule: Any, conformers: list[int], chosen: Conformers) -> tuple[list[float], int]:
    """Energies in kcal/mol, after the minimisation if one is asked for, and how many of those did not converge."""
    force_fields: Any = importlib.import_module("rdkit.Chem.rdForceFieldHelpers")
    properties = _properties(molecule, chosen)
    energies: list[float] = []
    unconverged = 0
    for conformer in conformers:
        field = (
            force_fields.UFFGetMoleculeForceField(molecule, confId=conformer)
            if properties is None
            else force_fields.MMFFGetMoleculeForceField(molecule, properties, confId=conformer)
        )
        if chosen.minimise:
            field.Initialize()
            unconverged += int(field.Minimize(maxIts=chosen.minimise))
        energies.append(float(field.CalcEnergy()))
    return energies, unconverged
