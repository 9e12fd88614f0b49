"""Crystals as the objects of other libraries; the way back is in :mod:`noumena.crystals.reading`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.libraries import ase, pymatgen


def to_pymatgen(batch: CrystalBatch) -> list[Any]:
    """Each crystal as a ``pymatgen.core.Structure``, its name under ``properties["material_id"]``.

    Cells keep their orientation, sites their order, and coordinates are not wrapped.

    Raises:
        NotSupportedError: pymatgen is not installed.
    """
    core = pymatgen("core")
    species = [core.Element(symbol) if number else None for number, symbol in enumerate(SYMBOLS)]
    found: list[Any] = []
    for name, numbers, frac, lattice in _each(batch):
        structure = core.Structure(lattice, [species[number] for number in numbers.tolist()], frac)
        if name:
            structure.properties["material_id"] = name
        found.append(structure)
    return found


def to_ase(batch: CrystalBatch) -> list[Any]:
    """Each crystal as an ``ase.Atoms``, periodic in three directions, its name under ``info["material_id"]``.

    Raises:
        NotSupportedError: ASE is not installed.
    """
    make = ase("atoms").Atoms
    return [
        make(
            numbers=numbers,
            scaled_positions=frac,
            cell=lattice,
            pbc=True,
            info={"material_id": name} if name else {},
        )
        for name, numbers, frac, lattice in _each(batch)
    ]


def atom_columns(batch: CrystalBatch, schema: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Columns that tell each atom: ``id`` of its crystal, where they have names, ``atom`` within it, ``element``.

    Args:
        batch: the crystals.
        schema: of a model; not used.
    """
    del schema
    crystal = batch.crystal.cpu().numpy()
    names = {"id": np.asarray(batch.names)[crystal]} if batch.names else {}
    within = np.arange(len(crystal)) - batch.offsets.cpu().numpy()[crystal]
    return {**names, "atom": within, "element": np.asarray(SYMBOLS)[batch.atom_types.cpu().numpy()]}


def _each(batch: CrystalBatch) -> list[tuple[str, Any, Any, Any]]:
    """Name, atomic numbers, fractional coordinates and lattice of each crystal, the last three as numpy arrays."""
    sizes = batch.num_atoms.tolist()
    return [
        (name, numbers.numpy(), frac.numpy(), lattice.numpy())
        for name, numbers, frac, lattice in zip(
            batch.names or ("",) * len(batch),
            batch.atom_types.detach().cpu().split(sizes),
            batch.frac_coords.detach().cpu().double().split(sizes),
            batch.lattice.detach().cpu().double(),
            strict=True,
        )
    ]
