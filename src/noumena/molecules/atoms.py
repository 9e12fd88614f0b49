"""The atoms a file names, before it is known which of them are the molecule: selection, and which hang together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from noumena.core.errors import ConfigError, DataError
from noumena.molecules.elements import SYMBOLS
from noumena.molecules.libraries import mdtraj

_WATER = frozenset({"HOH", "WAT", "SOL", "H2O", "TIP", "TIP3", "TIP3P", "TIP4", "TIP4P", "TP3", "SPC", "DOD", "T3P"})
_LISTED = 6


@dataclass(frozen=True)
class Atoms:
    """Atoms of a file and the bonds it names; any number of molecules.

    Attributes:
        elements: atomic numbers, int64, shape (atoms,); 0 where the file's atom is no element.
        bonds: int64, shape (bonds, 2), each once with the lower atom first; possibly none or not all.
        names, residue_names: text, shape (atoms,).
        residue_ids, chains: int64, shape (atoms,).
        orders: of the bonds, shape (bonds,), where they are known.
    """

    elements: np.ndarray
    bonds: np.ndarray
    names: np.ndarray
    residue_names: np.ndarray
    residue_ids: np.ndarray
    chains: np.ndarray
    orders: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.elements)

    @property
    def symbols(self) -> list[str]:
        """Element symbol of each atom."""
        return [SYMBOLS[z] for z in self.elements.tolist()]

    def label(self, atom: int) -> str:
        """An atom in words, counted from 1."""
        return f"atom {atom + 1} ({self.names[atom]} of {self.residue_names[atom]}{self.residue_ids[atom]})"

    def take(self, index: np.ndarray) -> "Atoms":
        """Some of the atoms (int64, shape (kept,)), with the bonds among them."""
        number = np.full(len(self), -1)
        number[index] = np.arange(len(index))
        ends = number[self.bonds]
        kept = (ends >= 0).all(1)
        parts = {name: getattr(self, name)[index] for name in ("elements", "names", "residue_names", "residue_ids")}
        orders = None if self.orders is None else self.orders[kept]
        return with_bonds(replace(self, chains=self.chains[index], **parts), ends[kept], orders)


def with_bonds(atoms: Atoms, bonds: np.ndarray, orders: np.ndarray | None = None) -> Atoms:
    """The same atoms with these bonds, each kept once, lower atom first, in ascending order."""
    pairs = np.sort(np.asarray(bonds, dtype=np.int64).reshape(-1, 2), axis=1)
    if not len(pairs):
        return replace(atoms, bonds=pairs, orders=None)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    return replace(atoms, bonds=pairs, orders=None if orders is None else np.asarray(orders, dtype=float)[first])


def make_atoms(
    elements: Sequence[int] | np.ndarray,
    bonds: Any = (),
    *,
    names: Any = None,
    residue_names: Any = None,
    residue_ids: Any = None,
    chains: Any = None,
    orders: Any = None,
    where: str,
) -> Atoms:
    """Atoms from lists; what a file does not name gets the defaults of a topology.

    Raises:
        DataError: lists of another length than the elements, a number that is no element's, or bonds between atoms
            that are not there.
    """
    z = np.asarray(elements, dtype=np.int64).reshape(-1)
    n = len(z)
    if ((z < 0) | (z >= len(SYMBOLS))).any():
        raise DataError(f"{where}: {z[(z < 0) | (z >= len(SYMBOLS))][0]} is no atomic number.")
    given = {"names": names, "residue_names": residue_names, "residue_ids": residue_ids, "chains": chains}
    for name, entries in given.items():
        if entries is not None and np.shape(entries) != (n,):
            raise DataError(f"{where}: '{name}' has shape {np.shape(entries)} for {n} atoms; expected one each.")
    pairs = np.asarray(bonds).reshape(-1, 2) if np.size(bonds) else np.zeros((0, 2))
    if pairs.dtype.kind not in "iuf" or ((pairs < 0) | (pairs >= n)).any() or (pairs[:, :1] == pairs[:, 1:]).any():
        raise DataError(f"{where}: 'bonds' must be pairs of two different atoms of 0..{n - 1}.")
    if orders is not None and np.shape(orders) != (len(pairs),):
        raise DataError(f"{where}: bond orders of shape {np.shape(orders)} for {len(pairs)} bonds; expected one each.")
    made = Atoms(
        elements=z,
        bonds=np.zeros((0, 2), np.int64),
        names=np.asarray(running_names(z) if names is None else names).astype(str),
        residue_names=np.full(n, "MOL") if residue_names is None else np.asarray(residue_names).astype(str),
        residue_ids=np.ones(n, np.int64) if residue_ids is None else np.asarray(residue_ids, dtype=np.int64),
        chains=np.zeros(n, np.int64) if chains is None else np.asarray(chains, dtype=np.int64),
    )
    return with_bonds(made, pairs, orders)


def running_names(elements: np.ndarray) -> list[str]:
    """Symbol and running number of each atom: C1, C2, O1, ..."""
    counted: dict[int, int] = {}
    names: list[str] = []
    for z in elements.tolist():
        counted[z] = counted.get(z, 0) + 1
        names.append(f"{SYMBOLS[z]}{counted[z]}")
    return names


def parts_of(n: int, bonds: np.ndarray) -> np.ndarray:
    """Which connected part each of ``n`` atoms is in; parts are numbered by their lowest atom, shape (atoms,)."""
    root = list(range(n))

    def find(atom: int) -> int:
        while root[atom] != atom:
            root[atom] = root[root[atom]]
            atom = root[atom]
        return atom

    for i, j in bonds.tolist():
        low, high = sorted((find(i), find(j)))
        root[high] = low
    return np.unique([find(atom) for atom in range(n)], return_inverse=True)[1]


def has_solvent(atoms: Atoms) -> bool:
    """Whether some, but not all, of the residues are water."""
    water = np.isin(np.char.upper(atoms.residue_names), list(_WATER))
    return bool(water.any() and not water.all())


def in_several_parts(atoms: Atoms, where: str) -> DataError:
    """The error of a file, or a selection, that holds more than one molecule."""
    part = parts_of(len(atoms), atoms.bonds)
    sizes = np.bincount(part)
    kinds: dict[str, int] = {}
    for number in np.argsort(-sizes, kind="stable")[:1000].tolist():
        residues = ", ".join(sorted(set(atoms.residue_names[part == number].tolist()))[:4])
        words = f"{sizes[number]} atoms of {residues}"
        kinds[words] = kinds.get(words, 0) + 1
    shown = "; ".join(f"{count} x {words}" for words, count in list(kinds.items())[:_LISTED])
    largest = sorted(set(atoms.residue_names[part == sizes.argmax()].tolist()))
    return DataError(
        f"{where}: {len(atoms):,} atoms in {len(sizes):,} molecules that no bond joins: {shown}. A model is of one "
        f"molecule: choose it with selection='resname {' '.join(largest[:4])}' or another selection; where it is one "
        "molecule after all, give its bonds with topology=... or smiles=..."
    )


def select(atoms: Atoms, selection: str | None, where: str) -> np.ndarray:
    """Numbers of the atoms that a selection of mdtraj's language chooses, ascending; all without one.

    Raises:
        ConfigError: it cannot be understood, or chooses fewer than two atoms.
        NotSupportedError: mdtraj is not installed.
    """
    if selection is None:
        return np.arange(len(atoms))
    topology = to_mdtraj(atoms)
    try:
        chosen = np.asarray(topology.select(selection), dtype=np.int64)
    except Exception as error:  # the parser raises whatever it stumbles over
        raise ConfigError(
            f"selection={selection!r} is not understood ({' '.join(str(error).split())[:120]}). Write it in mdtraj's "
            "language, such as 'not element H', 'backbone', 'resname ALA' or 'name CA CB'."
        ) from error
    if len(chosen) < 2:
        names, residues = (sorted(set(x.tolist()))[:12] for x in (atoms.names, atoms.residue_names))
        raise ConfigError(
            f"selection={selection!r} chooses {len(chosen)} of the {len(atoms):,} atoms of {where}; expected two or "
            f"more. Its residues are called {', '.join(residues)}, its atoms {', '.join(names)}."
        )
    return np.sort(chosen)


def to_mdtraj(atoms: Atoms) -> Any:
    """As an mdtraj topology."""
    library = mdtraj()
    topology = library.Topology()
    chain = residue = None
    previous: tuple[Any, ...] | None = None
    made: list[Any] = []
    rows = zip(atoms.chains, atoms.residue_ids, atoms.residue_names, atoms.names, atoms.elements, strict=True)
    for number, identity, residue_name, name, z in rows:
        here = (number, identity, residue_name)
        if previous is None or previous[0] != number:
            chain = topology.add_chain()
        if previous != here:
            residue = topology.add_residue(str(residue_name), chain, int(identity))
        previous = here
        element = library.element.Element.getByAtomicNumber(int(z)) if z else library.element.virtual
        made.append(topology.add_atom(str(name), element, residue))
    for i, j in atoms.bonds.tolist():
        topology.add_bond(made[i], made[j])
    return topology


def from_mdtraj(topology: Any, where: str) -> Atoms:
    """What an mdtraj topology says."""
    atoms = list(topology.atoms)
    bonds = list(topology.bonds)
    orders = [_order(bond) for bond in bonds]
    return make_atoms(
        [0 if atom.element is None else atom.element.atomic_number for atom in atoms],
        [(bond[0].index, bond[1].index) for bond in bonds],
        names=[atom.name for atom in atoms],
        residue_names=[atom.residue.name for atom in atoms],
        residue_ids=[atom.residue.resSeq for atom in atoms],
        chains=[atom.residue.chain.index for atom in atoms],
        orders=None if any(order is None for order in orders) else orders,
        where=where,
    )


def _order(bond: Any) -> float | None:
    if str(bond.type) == "Aromatic":
        return 1.5
    return None if bond.order is None else float(bond.order)
