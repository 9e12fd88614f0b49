"""Structures as a file gives them, as plain arrays, and those that were left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Skipped:
    """A structure that was left out.

    Attributes:
        where: file, and block, frame or row in it.
        name: of the structure.
        reason: why it is no crystal that can be used.
    """

    where: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where} ('{self.name}'): {self.reason}"


@dataclass(frozen=True)
class Structure:
    """One structure.

    Attributes:
        lattice: rows are the cell vectors in angstrom, shape (3, 3).
        frac_coords: shape (atoms, 3).
        atom_types: atomic numbers, shape (atoms,).
        where, name: as in :class:`Skipped`.
        properties: numbers by name.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atom_types: np.ndarray
    where: str
    name: str
    properties: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Raw:
    """Structures one after the other.

    Attributes:
        lattice: float64, shape (crystals, 3, 3), rows are the cell vectors in angstrom.
        frac_coords: float64, shape (atoms, 3).
        atom_types: int64, shape (atoms,).
        num_atoms: int64, shape (crystals,).
        names, where: of each crystal.
        properties: float64, shape (crystals,), by name; NaN where one is not known.
        skipped: structures that were left out so far.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atom_types: np.ndarray
    num_atoms: np.ndarray
    names: list[str]
    where: list[str]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.num_atoms)

    @property
    def seen(self) -> int:
        """Structures, with those left out."""
        return len(self) + len(self.skipped)

    @property
    def offsets(self) -> np.ndarray:
        """Number of the first atom of each crystal, and of all atoms; int64, shape (crystals + 1,)."""
        return np.concatenate([[0], np.cumsum(self.num_atoms)])

    @property
    def crystal(self) -> np.ndarray:
        """Which crystal each atom is of, int64, shape (atoms,)."""
        return np.repeat(np.arange(len(self)), self.num_atoms)

    @classmethod
    def of(cls, structures: Sequence[Structure], skipped: Sequence[Skipped] = ()) -> Self:
        """Structures put together; a property that only some have is NaN for the others."""
        names = dict.fromkeys(name for one in structures for name in one.properties)
        return cls(
            lattice=np.array([one.lattice for one in structures], np.float64).reshape(-1, 3, 3),
            frac_coords=np.concatenate([np.zeros((0, 3)), *(one.frac_coords for one in structures)]),
            atom_types=np.concatenate([np.zeros(0, np.int64), *(one.atom_types for one in structures)]),
            num_atoms=np.array([len(one.atom_types) for one in structures], np.int64),
            names=[one.name for one in structures],
            where=[one.where for one in structures],
            properties={
                name: np.array([one.properties.get(name, np.nan) for one in structures], np.float64) for name in names
            },
            skipped=tuple(skipped),
        )

    @classmethod
    def join(cls, parts: Sequence["Raw"]) -> Self:
        """Several as one; a property that only some have is NaN for the others."""
        names = dict.fromkeys(name for part in parts for name in part.properties)
        unknown = [np.full(len(part), np.nan) for part in parts]
        return cls(
            lattice=np.concatenate([np.zeros((0, 3, 3)), *(part.lattice for part in parts)]),
            frac_coords=np.concatenate([np.zeros((0, 3)), *(part.frac_coords for part in parts)]),
            atom_types=np.concatenate([np.zeros(0, np.int64), *(part.atom_types for part in parts)]),
            num_atoms=np.concatenate([np.zeros(0, np.int64), *(part.num_atoms for part in parts)]),
            names=[name for part in parts for name in part.names],
            where=[where for part in parts for where in part.where],
            properties={
                name: np.concatenate(
                    [part.properties.get(name, none) for part, none in zip(parts, unknown, strict=True)]
                )
                for name in names
            },
            skipped=tuple(one for part in parts for one in part.skipped),
        )

    def select(self, index: np.ndarray) -> Self:
        """The crystals at ``index`` (int64, shape (n,)), in that order, with all that were left out."""
        count = self.num_atoms[index]
        ends = np.cumsum(count)
        atoms = np.repeat(self.offsets[index] - (ends - count), count) + np.arange(int(count.sum()))
        return replace(
            self,
            lattice=self.lattice[index],
            frac_coords=self.frac_coords[atoms],
            atom_types=self.atom_types[atoms],
            num_atoms=count,
            names=[self.names[i] for i in index.tolist()],
            where=[self.where[i] for i in index.tolist()],
            properties={name: values[index] for name, values in self.properties.items()},
        )

    def without(self, reasons: Mapping[int, str]) -> Self:
        """All but some crystals, which join those that were left out, with the reason.

        Args:
            reasons: by number of the crystal.
        """
        if not reasons:
            return self
        left_out = tuple(Skipped(self.where[i], self.names[i], reason) for i, reason in sorted(reasons.items()))
        kept = np.setdiff1d(np.arange(len(self)), np.fromiter(reasons, np.int64))
        return replace(self.select(kept), skipped=(*self.skipped, *left_out))
