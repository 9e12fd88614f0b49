"""Trajectories in .npz files, which may hold the topology as well."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError, did_you_mean
from noumena.molecules.atoms import Atoms, make_atoms
from noumena.molecules.elements import atomic_number
from noumena.molecules.formats.frames import Chunk, Unit, chosen
from noumena.readers.arrays import array_blocks, list_arrays, whole_array
from noumena.readers.checks import check_dtype
from noumena.readers.common import reading, suffix_of

_COORDINATES = ("xyz", "coords", "coordinates", "positions", "R")
_ELEMENTS = ("atomic_numbers", "z", "Z", "numbers", "elements", "symbols", "nuclear_charges")
_LISTS = {
    "names": ("atom_names", "names"),
    "residue_names": ("residue_names", "resnames"),
    "residue_ids": ("residue_ids", "resids"),
    "bonds": ("bonds",),
    "orders": ("bond_orders",),
}
_TRAJECTORY = ("traj", "trajectory")
_STEP = ("dt_ps",)


class NpzFile:
    """Arrays of coordinates of shape (frames, atoms, 3), in angstrom unless the user says otherwise.

    1-D arrays of one number a frame, such as energies, are side quantities.
    """

    unit: Unit = "angstrom"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays = list_arrays(path)
        found = self._find(_COORDINATES)
        if found is None:
            raise DataError(
                f"{path}: no array of coordinates; expected one called {', '.join(_COORDINATES)}. "
                f"{did_you_mean(_COORDINATES[0], self._arrays)}"
            )
        self._xyz = found
        info = self._arrays[found]
        check_dtype(info.dtype, f"{path}: '{found}'")
        if len(info.shape) != 3 or info.shape[2] != 3 or info.shape[1] < 1:
            raise DataError(f"{path}: '{found}' has shape {info.shape}; expected (frames, atoms, 3).")
        self._frames, self.atoms = info.shape[:2]
        self.molecule = self._molecule()
        self.time_step = self._time_step()

    def count(self) -> int:
        """Number of frames."""
        return self._frames

    def chunks(self, index: np.ndarray | None) -> Iterator[Chunk]:
        """See :class:`~noumena.molecules.formats.frames.TrajectoryFile`."""
        if not self._frames:
            return
        trajectory = self._per_frame(_TRAJECTORY)
        side = [
            name
            for name, info in self._arrays.items()
            if info.shape == (self._frames,) and info.kind in "fiub" and name != trajectory and not self._is_known(name)
        ]
        names = [self._xyz, *side, *([trajectory] if trajectory else [])]
        for block in array_blocks(self.path, names):
            yield Chunk(
                chosen(block[self._xyz], index),
                trajectory=block[trajectory].astype(np.int64) if trajectory else None,
                side={name: block[name] for name in side},
            )

    def _find(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self._arrays), None)

    def _is_known(self, name: str) -> bool:
        """Whether an array describes the atoms; with as many atoms as frames its shape does not tell."""
        return name in _ELEMENTS or any(name in names for names in _LISTS.values())

    def _per_frame(self, names: tuple[str, ...]) -> str | None:
        name = self._find(names)
        if name is not None and (self._arrays[name].shape != (self._frames,) or self._arrays[name].kind not in "iu"):
            info = self._arrays[name]
            raise DataError(
                f"{self.path}: '{name}' is {info.dtype} of shape {info.shape}; expected a whole number for each of the "
                f"{self._frames} frames."
            )
        return name

    def _molecule(self) -> Atoms | None:
        name = self._find(_ELEMENTS)
        if name is None:
            return None
        elements = whole_array(self.path, name)
        where = f"{self.path}: '{name}'"
        if elements.shape != (self.atoms,):
            raise DataError(f"{where} has shape {elements.shape}; expected one entry for each of {self.atoms} atoms.")
        if elements.dtype.kind in "US":
            elements = np.asarray([atomic_number(symbol, where) for symbol in elements.astype(str).tolist()])
        lists = {key: found for key, names in _LISTS.items() if (found := self._find(names)) is not None}
        return make_atoms(elements, where=str(self.path), **{k: whole_array(self.path, n) for k, n in lists.items()})

    def _time_step(self) -> float | None:
        name = self._find(_STEP)
        if name is None or self._arrays[name].shape or self._arrays[name].kind not in "fiu":
            return None
        with reading(self.path), np.load(self.path, allow_pickle=False) as file:
            return round(float(file[name]), 6)


def open_npz(path: Path) -> NpzFile:
    """Read the headers and the topology of an .npz file.

    Raises:
        DataError: it is damaged, pickled, or has no coordinates of the right shape.
    """
    suffix_of(path, (".npz",))
    return NpzFile(path)
