"""Crystals of different sizes as flat tensors: what the family's models take and give."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.geometry import angles_of, lattice_of, lengths_of, volume_of


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """Crystals one after the other, without padding.

    Attributes:
        atom_types: atomic numbers, int64, shape (atoms,), all crystals' atoms in one row.
        frac_coords: fractional coordinates, shape (atoms, 3), of any cell; readers give them in [0, 1).
        lattice: cell vectors as rows, in angstrom, shape (crystals, 3, 3).
        num_atoms: atoms of each crystal, int64, shape (crystals,).
        names: of the crystals, for people and files; empty where there are none.
    """

    atom_types: Tensor
    frac_coords: Tensor
    lattice: Tensor
    num_atoms: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        atoms, crystals = self.atom_types.shape[0], self.num_atoms.shape[0]
        if self.frac_coords.shape != (atoms, 3) or self.lattice.shape != (crystals, 3, 3):
            raise DataError(
                f"crystals: {atoms} atom types and {crystals} crystals need coordinates of shape ({atoms}, 3) and "
                f"lattices of shape ({crystals}, 3, 3), got {tuple(self.frac_coords.shape)} and "
                f"{tuple(self.lattice.shape)}."
            )
        if self.names and len(self.names) != crystals:
            raise DataError(f"crystals: {len(self.names)} names for {crystals} crystals; give one each, or none.")

    @classmethod
    def of(
        cls,
        lattice: Tensor,
        frac_coords: Tensor,
        atom_types: Tensor,
        num_atoms: Tensor | None = None,
        names: Sequence[str] = (),
    ) -> Self:
        """One crystal (lattice of shape (3, 3)) or several, checked.

        Raises:
            DataError: shapes that do not agree, numbers that are not finite, or an atomic number outside 1 to 118.
        """
        if num_atoms is None:
            lattice, num_atoms = lattice[None], torch.tensor([len(atom_types)], device=atom_types.device)
        found = cls(atom_types.long(), frac_coords, lattice, num_atoms.long(), tuple(names))
        if int(found.num_atoms.sum()) != len(atom_types) or bool((found.num_atoms < 1).any()):
            raise DataError(
                f"crystals: num_atoms adds up to {int(found.num_atoms.sum())} for {len(atom_types)} atoms; each "
                "crystal needs at least one, and together they are all atoms."
            )
        if not bool(torch.isfinite(frac_coords).all() and torch.isfinite(lattice).all()):
            raise DataError("crystals: a coordinate or lattice vector is NaN or infinite. Mend or leave out the cell.")
        if bool((found.atom_types < 1).any() | (found.atom_types > 118).any()):
            raise DataError("crystals: an atomic number is outside 1 to 118.")
        return found

    @classmethod
    def from_lengths_angles(
        cls,
        lengths: Tensor,
        angles: Tensor,
        frac_coords: Tensor,
        atom_types: Tensor,
        num_atoms: Tensor,
        names: Sequence[str] = (),
    ) -> Self:
        """Crystals of cells given as a, b, c in angstrom and alpha, beta, gamma in degrees, each (crystals, 3)."""
        return cls.of(lattice_of(lengths, angles), frac_coords, atom_types, num_atoms, names)

    def __len__(self) -> int:
        return self.num_atoms.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.frac_coords.device

    @property
    def dtype(self) -> torch.dtype:
        """Of coordinates and lattices."""
        return self.frac_coords.dtype

    @cached_property
    def offsets(self) -> Tensor:
        """Number of the first atom of each crystal, and the number of all atoms; int64, shape (crystals + 1,)."""
        return torch.cat([self.num_atoms.new_zeros(1), self.num_atoms.cumsum(0)])

    @cached_property
    def crystal(self) -> Tensor:
        """Which crystal each atom is of, int64, shape (atoms,)."""
        number = torch.arange(len(self), device=self.num_atoms.device)
        return torch.repeat_interleave(number, self.num_atoms, output_size=self.atom_types.shape[0])

    @cached_property
    def lengths(self) -> Tensor:
        """Lengths a, b, c in angstrom, shape (crystals, 3)."""
        return lengths_of(self.lattice)

    @cached_property
    def angles(self) -> Tensor:
        """Angles alpha, beta, gamma in degrees, shape (crystals, 3)."""
        return angles_of(self.lattice)

    @cached_property
    def volume(self) -> Tensor:
        """In cubic angstrom, shape (crystals,)."""
        return volume_of(self.lattice)

    @property
    def cart_coords(self) -> Tensor:
        """Cartesian coordinates in angstrom, shape (atoms, 3)."""
        return torch.einsum("ai,aij->aj", self.frac_coords, self.lattice[self.crystal])

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        non_blocking: bool = False,
    ) -> Self:
        """The same crystals elsewhere or in another precision; itself when nothing changes."""
        device = self.device if device is None else torch.device(device)
        dtype = dtype or self.dtype
        if device == self.device and dtype == self.dtype:
            return self
        return replace(
            self,
            atom_types=self.atom_types.to(device, non_blocking=non_blocking),
            frac_coords=self.frac_coords.to(device, dtype, non_blocking=non_blocking),
            lattice=self.lattice.to(device, dtype, non_blocking=non_blocking),
            num_atoms=self.num_atoms.to(device, non_blocking=non_blocking),
        )

    def atoms_of(self, index: Tensor) -> Tensor:
        """Numbers of the atoms of the crystals at ``index`` (int64, shape (n,)), in that order; shape (atoms,)."""
        count = self.num_atoms[index]
        ends = count.cumsum(0)
        first = torch.repeat_interleave(self.offsets[index] - (ends - count), count)
        return first + torch.arange(first.shape[0], device=first.device)

    def select(self, index: Tensor) -> Self:
        """The crystals at ``index`` (int64 or bool, shape (n,)), in that order."""
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        atoms = self.atoms_of(index)
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return replace(
            self,
            atom_types=self.atom_types[atoms],
            frac_coords=self.frac_coords[atoms],
            lattice=self.lattice[index],
            num_atoms=self.num_atoms[index],
            names=names,
        )

    def split(self, size: int) -> list[Self]:
        """Parts of ``size`` crystals, the last one perhaps smaller."""
        return [
            self.select(torch.arange(start, min(start + size, len(self)), device=self.device))
            for start in range(0, len(self), size)
        ]

    @classmethod
    def cat(cls, parts: Sequence["CrystalBatch"]) -> Self:
        """Several batches as one; names are kept where all have them.

        Raises:
            DataError: there are none.
        """
        if not parts:
            raise DataError("crystals: no batches to put together.")
        named = all(part.names for part in parts)
        return cls(
            torch.cat([part.atom_types for part in parts]),
            torch.cat([part.frac_coords for part in parts]),
            torch.cat([part.lattice for part in parts]),
            torch.cat([part.num_atoms for part in parts]),
            tuple(name for part in parts for name in part.names) if named else (),
        )
