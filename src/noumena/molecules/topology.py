"""What a molecule is, whatever its conformation: elements, names and bonds, and what follows from them."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from noumena.core.errors import DataError
from noumena.molecules.elements import SYMBOLS

# Bounds on what is believed of a file before anything is allocated.
MAX_ATOMS = 20_000
MAX_BONDS_PER_ATOM = 12

_BACKBONE = {"phi": ("C", "N", "CA", "C"), "psi": ("N", "CA", "C", "N"), "omega": ("CA", "C", "N", "CA")}


@dataclass(frozen=True)
class Topology:
    """The atoms of one molecule and its bonds.

    Attributes:
        elements: atomic numbers.
        bonds: pairs of atom numbers (from 0), the lower one first, in ascending order.
        names: of the atoms, as in the file, such as ``CA``; not unique.
        residue_names: of each atom's residue.
        residue_ids: number of each atom's residue.
        orders: of the bonds (1, 1.5 for aromatic, 2, 3), where they are known.
    """

    elements: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_ids: tuple[int, ...]
    orders: tuple[float, ...] | None = None

    @classmethod
    def make(
        cls,
        elements: Sequence[int],
        bonds: Sequence[Sequence[int]] | np.ndarray,
        *,
        names: Sequence[str] | None = None,
        residue_names: Sequence[str] | None = None,
        residue_ids: Sequence[int] | None = None,
        orders: Sequence[float] | None = None,
        where: str = "topology",
    ) -> "Topology":
        """A checked topology.

        Args:
            elements: atomic numbers.
            bonds: pairs of atom numbers from 0, in any order.
            names: by default the symbol and a running number.
            residue_names, residue_ids: by default one residue ``MOL`` with number 1.
            orders: one for each of ``bonds``.
            where: the source, for messages.

        Raises:
            DataError: numbers out of range, a bond twice or to itself, lists of different length, or atoms that no
                chain of bonds connects.
        """
        n = len(elements)
        if not 2 <= n <= MAX_ATOMS:
            raise DataError(f"{where}: a molecule of {n:,} atoms; expected 2 to {MAX_ATOMS:,}. Choose a part of it.")
        if bad := [z for z in elements if not 1 <= int(z) < len(SYMBOLS)]:
            raise DataError(f"{where}: {bad[0]} is no atomic number; expected 1 to {len(SYMBOLS) - 1}.")
        counted: dict[int, int] = {}
        defaults: list[str] = []
        for z in map(int, elements):
            counted[z] = counted.get(z, 0) + 1
            defaults.append(f"{SYMBOLS[z]}{counted[z]}")
        lists: dict[str, Any] = {
            "names": tuple(map(str, names)) if names is not None else tuple(defaults),
            "residue_names": tuple(map(str, residue_names)) if residue_names is not None else ("MOL",) * n,
            "residue_ids": tuple(map(int, residue_ids)) if residue_ids is not None else (1,) * n,
        }
        for name, entries in lists.items():
            if len(entries) != n:
                raise DataError(f"{where}: {len(entries)} {name} for {n} atoms; expected one each.")
        pairs, sorted_orders = _checked_bonds(bonds, orders, n, where)
        made = cls(tuple(map(int, elements)), pairs, orders=sorted_orders, **lists)
        _check_connected(made, where)
        return made

    @classmethod
    def from_json(cls, entry: Any, where: str = "topology") -> "Topology":
        """What :meth:`to_json` made.

        Raises:
            DataError: it did not make this.
        """
        known = ("elements", "bonds", "names", "residue_names", "residue_ids", "orders")
        if not isinstance(entry, Mapping) or not {"elements", "bonds"} <= entry.keys() <= set(known):
            raise DataError(f"{where}: expected an object with {', '.join(known)}, got {str(entry)[:80]}.")
        for name in known:
            if not isinstance(entry.get(name, []), list | tuple | None):
                raise DataError(f"{where}: '{name}' must be a list.")
        try:
            fields: dict[str, Any] = {**entry, "where": where}
            return cls.make(**fields)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        """As JSON-able lists."""
        found: dict[str, Any] = {
            "elements": list(self.elements),
            "bonds": [list(pair) for pair in self.bonds],
            "names": list(self.names),
            "residue_names": list(self.residue_names),
            "residue_ids": list(self.residue_ids),
        }
        return found if self.orders is None else {**found, "orders": list(self.orders)}

    def __len__(self) -> int:
        return len(self.elements)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Element symbol of each atom."""
        return tuple(SYMBOLS[z] for z in self.elements)

    @property
    def formula(self) -> str:
        """Hill formula, such as ``C9H8O4``."""
        counts = {symbol: self.symbols.count(symbol) for symbol in sorted(set(self.symbols))}
        first = [symbol for symbol in ("C", "H") if "C" in counts and symbol in counts]
        order = [*first, *(symbol for symbol in counts if symbol not in first)]
        return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)

    @cached_property
    def heavy(self) -> np.ndarray:
        """Which atoms are no hydrogens, bool, shape (atoms,)."""
        return np.asarray(self.elements) > 1

    @cached_property
    def bond_index(self) -> np.ndarray:
        """The bonds as int64 of shape (bonds, 2)."""
        return np.asarray(self.bonds, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Atoms bonded to each atom, ascending."""
        lists: list[list[int]] = [[] for _ in self.elements]
        for i, j in self.bonds:
            lists[i].append(j)
            lists[j].append(i)
        return tuple(tuple(sorted(entry)) for entry in lists)

    @cached_property
    def angle_index(self) -> np.ndarray:
        """Covalent angles i-j-k with i < k, int64, shape (angles, 3)."""
        found = [
            (i, j, k)
            for j, around in enumerate(self.neighbours)
            for number, i in enumerate(around)
            for k in around[number + 1 :]
        ]
        return np.asarray(found, dtype=np.int64).reshape(-1, 3)

    @cached_property
    def torsion_index(self) -> np.ndarray:
        """One proper torsion i-j-k-l about each bond j-k that has one, int64, shape (torsions, 4).

        The outer atoms are the heaviest, and of these the lowest, so that a peptide's are its phi, psi and omega.
        """
        found = []
        for j, k in self.bonds:
            i, last = self._outer(j, k), self._outer(k, j)
            if i is not None and last is not None and i != last:
                found.append((i, j, k, last))
        return np.asarray(found, dtype=np.int64).reshape(-1, 4)

    def _outer(self, inner: int, other: int) -> int | None:
        """Which neighbour of ``inner`` ends the torsion about ``inner``-``other``."""
        candidates = [a for a in self.neighbours[inner] if a != other]
        # The chain goes on where most atoms are: carbonyl oxygens and methyls end it.
        return min(candidates, key=lambda a: (-len(self.neighbours[a]), -self.elements[a], a), default=None)

    @cached_property
    def torsions(self) -> dict[str, tuple[int, int, int, int]]:
        """Torsions by name: ``phi:3``, ``psi:3``, ``omega:3`` of peptides by residue, others by their atoms.

        A residue's phi is C(i-1)-N-CA-C, its psi N-CA-C-N(i+1), its omega CA(i-1)-C(i-1)-N-CA. About every other
        bond with atoms on both sides there is one, of :attr:`torsion_index`.
        """
        found = self._backbone_torsions()
        axes = {frozenset(quadruple[1:3]) for quadruple in found.values()}
        unique = len(set(self.names)) == len(self)
        for quadruple in self.torsion_index.tolist():
            if frozenset(quadruple[1:3]) not in axes:
                labels = [self.names[a] if unique else f"{self.names[a]}{a + 1}" for a in quadruple]
                found["-".join(labels)] = tuple(quadruple)
        return found

    def _backbone_torsions(self) -> dict[str, tuple[int, int, int, int]]:
        by_name: dict[str, dict[int, tuple[int, int, int, int]]] = {name: {} for name in _BACKBONE}
        for kind, pattern in _BACKBONE.items():
            for j in range(len(self)):
                for quadruple in self._paths(j, pattern):
                    residue = self.residue_ids[quadruple[2 if kind == "omega" else 1]]
                    by_name[kind].setdefault(residue, quadruple)
        numbers = sorted({residue for entries in by_name.values() for residue in entries})
        return {f"{kind}:{r}": by_name[kind][r] for r in numbers for kind in _BACKBONE if r in by_name[kind]}

    def _paths(self, start: int, pattern: Sequence[str]) -> list[tuple[int, int, int, int]]:
        """Bonded paths of four atoms from ``start`` that have the names of ``pattern``."""
        paths = [[start]] if self.names[start] == pattern[0] else []
        for name in pattern[1:]:
            paths = [[*p, a] for p in paths for a in self.neighbours[p[-1]] if self.names[a] == name and a not in p]
        return [(p[0], p[1], p[2], p[3]) for p in paths]

    @cached_property
    def bonds_between(self) -> np.ndarray:
        """Number of bonds on the shortest way between two atoms, int16, shape (atoms, atoms)."""
        n = len(self)
        found = np.full((n, n), -1, dtype=np.int16)
        for start in range(n):
            found[start, start] = 0
            queue = deque([start])
            while queue:
                atom = queue.popleft()
                for other in self.neighbours[atom]:
                    if found[start, other] < 0:
                        found[start, other] = found[start, atom] + 1
                        queue.append(other)
        return found

    def pair_index(self, least: int = 1, most: int | None = None) -> np.ndarray:
        """Pairs i < j that are ``least`` to ``most`` bonds apart, int64, shape (pairs, 2)."""
        apart = np.triu(self.bonds_between, 1)
        chosen = (apart >= least) & (apart <= (most if most is not None else len(self)))
        return np.argwhere(chosen).astype(np.int64)

    @cached_property
    def ring_bonds(self) -> np.ndarray:
        """Which bonds are part of a ring, bool, shape (bonds,)."""
        return np.asarray([self._connected_without(i, j) for i, j in self.bonds], dtype=bool)

    def _connected_without(self, i: int, j: int) -> bool:
        seen, queue = {i}, deque([i])
        while queue:
            atom = queue.popleft()
            for other in self.neighbours[atom]:
                if {atom, other} == {i, j} or other in seen:
                    continue
                if other == j:
                    return True
                seen.add(other)
                queue.append(other)
        return False

    def subset(self, atoms: Sequence[int] | np.ndarray, where: str = "topology") -> "Topology":
        """The topology of some atoms, in the order given, with the bonds among them.

        Raises:
            DataError: as :meth:`make`.
        """
        number = {int(atom): i for i, atom in enumerate(atoms)}
        kept = [b for b, pair in enumerate(self.bonds) if pair[0] in number and pair[1] in number]

        def of(entries: Sequence[Any]) -> list[Any]:
            return [entries[int(atom)] for atom in atoms]

        return Topology.make(
            of(self.elements),
            [(number[self.bonds[b][0]], number[self.bonds[b][1]]) for b in kept],
            names=of(self.names),
            residue_names=of(self.residue_names),
            residue_ids=of(self.residue_ids),
            orders=None if self.orders is None else [self.orders[b] for b in kept],
            where=where,
        )

    def difference(self, other: "Topology") -> str | None:
        """In words, the first thing that makes this another molecule than ``other``; ``None`` if it is the same.

        Names of residues and bond orders may differ.
        """
        if len(self) != len(other):
            return f"{len(self)} atoms ({self.formula}) instead of {len(other)} ({other.formula})"
        for atom, (mine, theirs) in enumerate(zip(self.symbols, other.symbols, strict=True)):
            if mine != theirs:
                return f"atom {atom + 1} is {mine} ({self.names[atom]}) instead of {theirs} ({other.names[atom]})"
        for only, word in ((set(self.bonds) - set(other.bonds), "has"), (set(other.bonds) - set(self.bonds), "lacks")):
            if only:
                i, j = min(only)
                return f"it {word} the bond {i + 1}-{j + 1} ({other.names[i]}-{other.names[j]})"
        return None


def _checked_bonds(
    bonds: Sequence[Sequence[int]] | np.ndarray, orders: Sequence[float] | None, n: int, where: str
) -> tuple[tuple[tuple[int, int], ...], tuple[float, ...] | None]:
    if len(bonds) > MAX_BONDS_PER_ATOM * n:
        raise DataError(f"{where}: {len(bonds):,} bonds for {n} atoms; expected at most {MAX_BONDS_PER_ATOM} each.")
    if orders is not None and len(orders) != len(bonds):
        raise DataError(f"{where}: {len(orders)} bond orders for {len(bonds)} bonds; expected one each.")
    found: dict[tuple[int, int], float] = {}
    for number, pair in enumerate(bonds):
        if len(pair) != 2:
            raise DataError(f"{where}: bond {number} is {pair}; expected two atom numbers.")
        i, j = sorted((int(pair[0]), int(pair[1])))
        if not 0 <= i < j < n:
            raise DataError(
                f"{where}: bond {number} joins atoms {i} and {j}; expected two different ones of 0..{n - 1}."
            )
        if (i, j) in found:
            raise DataError(f"{where}: the bond {i}-{j} is given twice. Remove one.")
        found[i, j] = 1.0 if orders is None else float(orders[number])
    ordered = dict(sorted(found.items()))
    return tuple(ordered), None if orders is None else tuple(ordered.values())


def _check_connected(topology: Topology, where: str) -> None:
    seen, queue = {0}, deque([0])
    while queue:
        for other in topology.neighbours[queue.popleft()]:
            if other not in seen:
                seen.add(other)
                queue.append(other)
    if len(seen) < len(topology):
        lost = min(set(range(len(topology))) - seen)
        raise DataError(
            f"{where}: {len(seen)} of {len(topology)} atoms are connected by bonds; atom {lost + 1} "
            f"({topology.names[lost]} of {topology.residue_names[lost]}{topology.residue_ids[lost]}) is not among "
            "them. A model is of one molecule: select it (selection=...), or give the bonds that the file lacks "
            "(smiles=...)."
        )
