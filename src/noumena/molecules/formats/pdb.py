"""PDB files with one or many models: coordinates read line by line, the topology by mdtraj from the first model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.atoms import Atoms, from_mdtraj
from noumena.molecules.formats.frames import Chunk, Unit, check_count, frames_at_once
from noumena.molecules.libraries import mdtraj
from noumena.molecules.periodic import cell_vectors
from noumena.readers.common import reading

_ATOM = (b"ATOM  ", b"HETATM")
_END = (b"ENDMDL", b"MODEL ", b"END")
_NUMBERS = slice(30, 54)  # three columns of eight characters


class PdbFile:
    """A PDB file, in angstrom. Of an atom with alternate locations the first one is taken."""

    unit: Unit = "angstrom"
    time_step = None

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._frames, first, conect, self._cell = _scan(path)
        if not first:
            raise DataError(f"{path}: expected at least one frame, found no ATOM or HETATM line. Write it again.")
        self._lines = len(first)
        self._kept = _first_locations(first)
        kept = [line for line, keep in zip(first, self._kept, strict=True) if keep]
        self.atoms = len(kept)
        self.molecule = self._molecule(kept, conect)

    def count(self) -> int:
        """Number of models."""
        return self._frames

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """See :class:`~noumena.molecules.formats.frames.TrajectoryFile`."""
        step, held, number = frames_at_once(self._lines), list[np.ndarray](), 0
        wanted = np.flatnonzero(self._kept)
        wanted = wanted if index is None else wanted[index]
        with reading(self.path):
            for frame in _frames(self.path):
                check_count(self.path, number + len(held), len(frame), self._lines)
                held.append(_numbers(frame)[wanted])
                if len(held) == step:
                    yield self._chunk(held)
                    number, held = number + len(held), []
        if held:
            yield self._chunk(held)

    def _chunk(self, held: list[np.ndarray]) -> Chunk:
        cell = None if self._cell is None else np.repeat(self._cell, len(held), 0)
        return Chunk(np.stack(held), cell)

    def _molecule(self, lines: list[bytes], conect: list[bytes]) -> Atoms:
        with tempfile.TemporaryDirectory() as folder, reading(self.path):
            single = Path(folder) / "first.pdb"
            single.write_bytes(b"".join([*lines, *conect, b"END\n"]))
            loaded = mdtraj().load_pdb(str(single), no_boxchk=True)
            same = loaded.n_atoms == len(lines) and np.allclose(10 * loaded.xyz[0], _numbers(lines), atol=2e-3)
        if not same:
            raise DataError(f"{self.path}: its atoms are not in the order of their residues and chains. Sort them.")
        return from_mdtraj(loaded.topology, str(self.path))


def _scan(path: Path) -> tuple[int, list[bytes], list[bytes], np.ndarray | None]:
    """Number of models, the first one's atom lines, the CONECT lines (each once), and the box."""
    frames, open_atoms, cell, closed = 0, 0, None, False
    first: list[bytes] = []
    conect: dict[bytes, None] = {}
    with path.open("rb") as file:
        for line in file:
            kind = line[:6]
            if kind in _ATOM:
                open_atoms += 1
                if not frames:
                    first.append(line.rstrip(b"\r\n") + b"\n")
            elif kind.startswith(_END) and open_atoms:
                frames, open_atoms, closed = frames + 1, 0, closed or kind == b"ENDMDL"
            elif kind == b"CONECT":
                conect[line.rstrip(b"\r\n") + b"\n"] = None
            elif kind == b"CRYST1" and cell is None:
                entries = np.array([line[a:b] for a, b in ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))])
                cell = entries.astype(np.float64)[None]
    if open_atoms and closed:
        raise EOFError(f"model {frames} (counted from 0) has no end")
    box = None if cell is None else cell_vectors(cell[:, :3], cell[:, 3:])
    return frames + bool(open_atoms), first, list(conect), box


def _frames(path: Path) -> Iterator[list[bytes]]:
    """The atom lines of each model."""
    held: list[bytes] = []
    with path.open("rb") as file:
        for line in file:
            kind = line[:6]
            if kind in _ATOM:
                held.append(line)
            elif held and kind.startswith(_END):
                yield held
                held = []
    if held:
        yield held


def _numbers(lines: list[bytes]) -> np.ndarray:
    """Coordinates of atom lines, float64, shape (atoms, 3)."""
    fields = b"".join(line[_NUMBERS] for line in lines)
    if len(fields) != 24 * len(lines):
        raise ValueError("a line ends before its coordinates")
    return np.frombuffer(fields, "S8").astype(np.float64).reshape(-1, 3)


def _first_locations(lines: list[bytes]) -> np.ndarray:
    """Which lines are the first location of their atom."""
    seen: set[bytes] = set()
    kept: list[bool] = []
    for line in lines:
        # Name, residue name, chain, residue number and insertion code, without the location's letter.
        key = line[12:16] + line[17:27]
        alternate = line[16:17] != b" "
        kept.append(not (alternate and key in seen))
        if alternate:
            seen.add(key)
    return np.asarray(kept)
