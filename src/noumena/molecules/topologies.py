"""The atoms of a trajectory: from its own file or from another one, selected."""

from pathlib import Path

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms, from_mdtraj, has_solvent, in_several_parts, select
from noumena.molecules.formats.frames import TrajectoryFile
from noumena.molecules.libraries import mdtraj
from noumena.molecules.topology import MAX_ATOMS
from noumena.molecules.trajectories import SAMPLE, open_file, sample_path
from noumena.readers.common import reading, suffix_of

_OWN = (".pdb", ".sdf", ".npz", ".xyz")
_BY_MDTRAJ = (".mol2", ".gro", ".psf", ".prmtop", ".parm7")


def read_atoms(path: str) -> Atoms:
    """The atoms and bonds that a file of a molecule names.

    Args:
        path: a .pdb, .sdf, .npz, .xyz, .mol2, .gro, .psf, .prmtop or .parm7 file, or ``sample:aib9``.

    Raises:
        DataError: the file is missing, damaged, of another format, or names no atoms.
        NotSupportedError: a library it needs is not installed.
    """
    place = sample_path(path) if path.startswith(SAMPLE) else Path(path).expanduser()
    if suffix_of(place, (*_OWN, *_BY_MDTRAJ)) in _BY_MDTRAJ:
        library = mdtraj()
        with reading(place):
            return from_mdtraj(library.load_topology(str(place)), str(place))
    found = open_file(place).molecule
    if found is None:
        raise DataError(
            f"{place}: does not say what its atoms are (an .npz needs 'atomic_numbers', an .xyz symbols of elements in "
            "its first column). Give a file that does as topology=..."
        )
    return found


def atoms_of(files: list[TrajectoryFile], topology: str | None) -> tuple[Atoms, str]:
    """The atoms of some trajectories, before any selection, and where they are from.

    Raises:
        DataError: no file tells.
    """
    if topology is not None:
        return read_atoms(topology), topology
    for file in files:
        if file.molecule is not None:
            return file.molecule, str(file.path)
    raise DataError(
        f"{files[0].path}: holds coordinates only; which atoms they are of must come from another file: give "
        "topology=..., a PDB, SDF, MOL2 or .npz file of the same atoms."
    )


def check_same_elements(file: TrajectoryFile, atoms: Atoms, source: str) -> None:
    """Refuse a trajectory that names other atoms than its topology, atom by atom.

    Args:
        file: whose atoms are as many as ``atoms``.
        atoms: expected.
        source: where they are from, for the message.

    Raises:
        DataError: it names the first atom that differs.
    """
    if file.molecule is None:
        return
    other = np.flatnonzero(file.molecule.elements != atoms.elements)
    if len(other):
        first = int(other[0])
        raise DataError(
            f"{file.path}: {file.molecule.label(first)} is {file.molecule.symbols[first]}, by {source} it is "
            f"{atoms.symbols[first]} ({atoms.names[first]}): {len(other)} of {len(atoms)} atoms differ. Use the "
            "topology of this trajectory, with its atoms in the same order."
        )


def chosen_atoms(atoms: Atoms, selection: str | None, where: str) -> np.ndarray:
    """Numbers of the atoms of the molecule.

    Raises:
        ConfigError: as :func:`noumena.molecules.atoms.select`.
        DataError: there are more molecules, or more atoms, than one.
    """
    index = select(atoms, selection, where)
    chosen = atoms.take(index)
    if len(index) > MAX_ATOMS or has_solvent(chosen):
        raise in_several_parts(chosen, where)
    if (chosen.elements == 0).any():
        atom = int((chosen.elements == 0).argmax())
        raise DataError(
            f"{where}: {chosen.label(atom)} is of no known element. Mend the file's element column, or leave such "
            "atoms out with selection='not type VS' or by name."
        )
    return index


def index_within(file: TrajectoryFile, total: int, index: np.ndarray, source: str) -> np.ndarray | None:
    """Which of a file's atoms are meant, if ``index`` of the ``total`` atoms of the topology are; ``None`` for all.

    A file may hold all atoms of the topology, or the selected ones alone.

    Raises:
        DataError: it holds neither.
    """
    if file.atoms == len(index):
        return None
    if file.atoms == total:
        return index
    selected = "" if total == len(index) else f" ({len(index)} selected)"
    raise DataError(
        f"{file.path}: has {file.atoms:,} atoms, the topology {source} has {total:,}{selected}. Use the topology of "
        "this trajectory."
    )
