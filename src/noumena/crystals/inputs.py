"""What the models of crystals take, as a dataset, and what they refuse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.dataset import Crystals


def as_crystals(data: Any, schema: Mapping[str, Any]) -> Crystals:
    """``data`` as crystals, read as those of a model with this schema were.

    Args:
        data: a dataset, a :class:`CrystalBatch`, a path that the reader takes, or one or a list of pymatgen
            ``Structure`` or ASE ``Atoms``.
        schema: of the model, or empty.

    Raises:
        DataError: a structure cannot be used.
    """
    if isinstance(data, Crystals):
        return data
    if isinstance(data, CrystalBatch):
        return Crystals(data)
    if isinstance(data, str | Path):
        from noumena.crystals.data import read_crystals

        return read_crystals(data, schema=schema or None)
    from noumena.crystals.reading import from_ase, from_pymatgen

    objects = list(data) if isinstance(data, list | tuple) else [data]
    read = from_ase if all(hasattr(each, "get_scaled_positions") for each in objects) else from_pymatgen
    return Crystals(read(objects, reduction=schema.get("reduction", "niggli"), strict=True).crystals)


def check_known(crystals: CrystalBatch, species: int, max_atoms: int | None) -> None:
    """Refuse what a model was not made for.

    Raises:
        DataError: an element beyond its species, or a cell of more atoms than it knows.
    """
    unknown = crystals.atom_types >= species
    if bool(unknown.any()):
        number = int(crystals.crystal[unknown][0])
        raise DataError(
            f"{_name(crystals, number)}: atomic number {int(crystals.atom_types[unknown][0])}; the model knows "
            f"elements up to {species - 1} (model.species)."
        )
    if max_atoms is not None and bool((crystals.num_atoms > max_atoms).any()):
        number = int((crystals.num_atoms > max_atoms).nonzero()[0, 0])
        largest, count = int(crystals.num_atoms.max()), int((crystals.num_atoms > max_atoms).sum())
        raise DataError(
            f"{_name(crystals, number)}: {int(crystals.num_atoms[number])} atoms; the model takes cells of at most "
            f"{max_atoms}. {count} of {len(crystals)} are larger, the largest of {largest} atoms. Leave them out with "
            f"data.max_atoms={max_atoms}, or train a model that takes them, with model.max_atoms={largest}."
        )


def _name(crystals: CrystalBatch, number: int) -> str:
    return crystals.names[number] if crystals.names else f"crystal {number}"
