"""Frames of one molecule as files, written as they come: multi-model PDB, XYZ, SDF, XTC and NPZ.

Each function takes the path to write, chunks of frames and the molecule, keeps one chunk in memory, and leaves to its
caller that the file appears whole or not at all.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from noumena.core.errors import DataError
from noumena.molecules.conformations import as_frames
from noumena.molecules.libraries import mdtraj
from noumena.molecules.sdf import sdf_record
from noumena.molecules.topology import Topology

Frames = Iterable[Tensor | np.ndarray]
"""Chunks of coordinates, each of shape (frames, atoms, 3) or (atoms, 3), in angstrom."""
Molecule = Topology | Mapping[str, Any]
"""A topology, or a model's schema with one."""

# Amino and nucleic acids: of other residues the format wants HETATM.
_AMINO = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"
_NUCLEIC = "A C G U DA DC DG DT"
# Between these the columns of the formats hold a coordinate.
_PDB_RANGE = (-999.9995, 9999.9995)
_SDF_RANGE = (-9999.99995, 99999.99995)
_PDB_NUMBERS, _PDB_RESIDUES = 100_000, 10_000
_CONECT = 4
_BLOCK = 1 << 20


def write_pdb(path: str | Path, frames: Frames, molecule: Molecule) -> None:
    """Frames as the models of a PDB file, with CONECT records for every bond.

    The records make the bonds of residues that no program knows survive. Coordinates have three digits after the
    point. The format has no room for names of atoms beyond four letters, of residues beyond four, or for residues
    beyond 9999: names are cut, numbers start again at 0.

    Args:
        path: file to write.
        frames: chunks in angstrom, each of shape (frames, atoms, 3).
        molecule: what the frames are of.

    Raises:
        DataError: no frames, another number of atoms, NaN, or coordinates that the format has no room for.
    """
    topology = molecule_of(molecule)
    template = "".join(_pdb_atoms(topology))
    with Path(path).open("w", encoding="ascii", newline="\n") as file:
        number = 0
        for chunk in _checked(frames, topology, path, _PDB_RANGE):
            for frame in chunk.reshape(len(chunk), -1).tolist():
                number += 1
                file.write(f"MODEL     {number:4d}\n{template % tuple(frame)}ENDMDL\n")
        file.writelines(_conect(topology))
        file.write("END\n")


def _pdb_atoms(topology: Topology) -> Iterator[str]:
    polymer = {*_AMINO.split(), *_NUCLEIC.split()}
    for atom, symbol in enumerate(topology.symbols):
        name, residue = plain(topology.names[atom], 4), plain(topology.residue_names[atom], 4)
        # Names start in column 14, behind a symbol of one letter, unless they need all four columns.
        name = f"{name:<4}" if len(name) == 4 or len(symbol) == 2 else f" {name:<3}"
        record = "ATOM" if residue in polymer else "HETATM"
        # The remainder of a negative number is negative: PDB has room for -999.
        number = int(np.fmod(topology.residue_ids[atom], _PDB_RESIDUES if topology.residue_ids[atom] > 0 else 1000))
        yield (
            f"{record:<6}{(atom + 1) % _PDB_NUMBERS:5d} {name} {residue:>3}{'' if len(residue) == 4 else ' '}A"
            f"{number:4d}    %8.3f%8.3f%8.3f  1.00  0.00          {symbol.upper():>2}  \n"
        )


def _conect(topology: Topology) -> Iterator[str]:
    for atom, around in enumerate(topology.neighbours):
        for start in range(0, len(around), _CONECT):
            partners = "".join(f"{other + 1:5d}" for other in around[start : start + _CONECT])
            yield f"CONECT{atom + 1:5d}{partners}\n"


def write_xyz(path: str | Path, frames: Frames, molecule: Molecule) -> None:
    """Frames one after the other as XYZ text, in angstrom with six digits after the point; bonds are not kept.

    Args:
        path, frames, molecule: as :func:`write_pdb`.

    Raises:
        DataError: no frames, another number of atoms, or NaN.
    """
    topology = molecule_of(molecule)
    atoms = "".join(f"{symbol:<2} %12.6f %12.6f %12.6f\n" for symbol in topology.symbols)
    with Path(path).open("w", encoding="ascii", newline="\n") as file:
        number = 0
        for chunk in _checked(frames, topology, path):
            for frame in chunk.reshape(len(chunk), -1).tolist():
                file.write(f"{len(topology)}\nframe {number}\n{atoms % tuple(frame)}")
                number += 1


def write_sdf(path: str | Path, frames: Frames, molecule: Molecule) -> None:
    """Frames as the records of an SDF file with bonds and their orders; V3000 beyond 999 atoms or bonds.

    Where the topology has no orders, bonds are written as of unknown order (type 8, "any"): they cannot be told from
    distances alone. See :func:`~noumena.molecules.sdf.sdf_record` for charges.

    Args:
        path, frames, molecule: as :func:`write_pdb`.

    Raises:
        DataError: no frames, another number of atoms, or NaN.
    """
    topology = molecule_of(molecule)
    template = sdf_record(topology)
    with Path(path).open("w", encoding="ascii", newline="\n") as file:
        number = 0
        for chunk in _checked(frames, topology, path, _SDF_RANGE):
            for frame in chunk.reshape(len(chunk), -1).tolist():
                file.write(template % (number, *frame))
                number += 1


def write_xtc(path: str | Path, frames: Frames, molecule: Molecule) -> None:
    """Frames as a GROMACS XTC file, through mdtraj; coordinates are rounded to 0.01 angstrom, as the format does.

    Times are the numbers of the frames, from 0; there is no box. The file knows no topology: write a .pdb beside it.

    Args:
        path, frames, molecule: as :func:`write_pdb`.

    Raises:
        DataError: no frames, another number of atoms, or NaN.
        NotSupportedError: mdtraj is not installed.
    """
    formats = mdtraj().formats
    topology = molecule_of(molecule)
    with formats.XTCTrajectoryFile(str(path), "w") as file:
        number = 0
        for chunk in _checked(frames, topology, path):
            steps = np.arange(number, number + len(chunk))
            file.write(
                np.ascontiguousarray(chunk / 10.0, dtype=np.float32),  # nanometres
                time=steps.astype(np.float32),
                step=steps.astype(np.int32),
            )
            number += len(chunk)


def write_npz(
    path: str | Path, frames: Frames, molecule: Molecule, further: Mapping[str, np.ndarray] | None = None
) -> None:
    """Frames and topology as the arrays of an .npz file, which ``data.kind=trajectory`` reads.

    The keys are ``xyz`` (float32, angstrom, shape (frames, atoms, 3)) and those of :func:`topology_arrays`.

    Args:
        path, frames, molecule: as :func:`write_pdb`.
        further: arrays to store beside them, such as energies.

    Raises:
        DataError: no frames, another number of atoms, or NaN.
    """
    topology = molecule_of(molecule)
    path = Path(path)
    # The .npy header states the number of frames first, so they wait in a raw file until it is known.
    with tempfile.TemporaryFile(dir=path.parent) as raw:
        count = 0
        for chunk in _checked(frames, topology, path):
            raw.write(np.ascontiguousarray(chunk, dtype="<f4").data)
            count += len(chunk)
        raw.seek(0)
        with zipfile.ZipFile(path, "w") as archive:
            with member(archive, "xyz") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, len(topology), 3)}
                np.lib.format.write_array_header_2_0(file, header)
                shutil.copyfileobj(raw, file, _BLOCK)
            for name, array in {**topology_arrays(topology), **(further or {})}.items():
                with member(archive, name) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def topology_arrays(topology: Topology) -> dict[str, np.ndarray]:
    """A topology as arrays: ``atomic_numbers``, ``bonds``, ``atom_names``, ``residue_names``, ``residue_ids``.

    Where they are known there are ``bond_orders`` as well, float32, one for each row of ``bonds``.
    """
    arrays = {
        "atomic_numbers": np.asarray(topology.elements, dtype=np.int16),
        "bonds": topology.bond_index.astype(np.int32),
        "atom_names": np.asarray(topology.names),
        "residue_names": np.asarray(topology.residue_names),
        "residue_ids": np.asarray(topology.residue_ids, dtype=np.int32),
    }
    return arrays if topology.orders is None else {**arrays, "bond_orders": np.asarray(topology.orders, np.float32)}


def member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An array of an .npz file, open for writing; the same bytes whenever it is written."""
    # ZipInfo dates a file 1980 unless told the time.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def molecule_of(molecule: Molecule) -> Topology:
    """The topology itself, or that of a model's schema.

    Raises:
        DataError: the schema has none.
    """
    if isinstance(molecule, Topology):
        return molecule
    return Topology.from_json(molecule.get("topology"), "schema")


def plain(text: str, width: int) -> str:
    """A name from a file as one printable ASCII word of at most ``width`` letters that no formatting touches."""
    word = "".join(c if c.isascii() and (c.isalnum() or c in "'*+-_") else "_" for c in text.strip())
    return word[:width] or "X"


def _checked(
    frames: Frames, topology: Topology, path: str | Path, room: tuple[float, float] = (-np.inf, np.inf)
) -> Iterator[np.ndarray]:
    """The chunks as arrays of shape (frames, atoms, 3) without NaN and within ``room``; at least one frame in all."""
    count = 0
    for chunk in frames:
        found = as_frames(chunk, len(topology), where=f"frames from number {count}").detach().cpu().numpy()
        outside = (found <= room[0]) | (found >= room[1])
        if outside.any():
            frame, atom, axis = (int(i) for i in np.argwhere(outside)[0])
            raise DataError(
                f"frame {count + frame}, atom {atom + 1}: a coordinate of {found[frame, atom, axis]:.0f} angstrom; the "
                f"format has room for {room[0]:.0f} to {room[1]:.0f}. Centre the frames, or write .xtc or .npz."
            )
        count += len(found)
        yield found
    if not count:
        raise DataError(f"no frames to write to {Path(path).name}. Give at least one.")
