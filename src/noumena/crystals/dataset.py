"""A set of crystals in memory: what the family trains and evaluates on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch


@dataclass(frozen=True, eq=False)
class Crystals:
    """Crystals with their properties. A batch is a :class:`CrystalBatch` in float32.

    Attributes:
        crystals: all of them, float64 as they were read.
        properties: numbers by name, float64, shape (crystals,); NaN where one is not known. No model of latents sees
            them: they are targets of the property head, and colours of pictures.
        units: of the properties, by name.
        reduction: how the cells were brought to one form when they were read.
        evaluation_rows: crystals that a loss without gradients should take at a time, at most.
        most_atoms: of the largest cell in all parts of the data that these are one part of; of these when missing.
    """

    crystals: CrystalBatch
    properties: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    units: Mapping[str, str] = field(default_factory=dict[str, str])
    reduction: str = "niggli"
    evaluation_rows: int | None = 256
    most_atoms: int | None = None

    def __post_init__(self) -> None:
        for name, values in self.properties.items():
            if values.shape != (len(self.crystals),):
                raise DataError(
                    f"property '{name}': {tuple(values.shape)} values for {len(self.crystals)} crystals; expected one "
                    "number each, NaN where it is not known."
                )

    @property
    def schema(self) -> dict[str, Any]:
        """What one sample is; stored with a model."""
        return {
            "kind": "crystals",
            "reduction": self.reduction,
            "max_atoms": self.most_atoms or int(self.crystals.num_atoms.max()),
            "elements": self.crystals.atom_types.unique().tolist(),
            "properties": {name: self.units.get(name, "") for name in self.properties},
        }

    def __len__(self) -> int:
        return len(self.crystals)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.crystals.device

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        found = self.crystals
        tensors = (found.atom_types, found.frac_coords, found.lattice, found.num_atoms, *self.properties.values())
        return sum(tensor.nbytes for tensor in tensors)

    def batch(self, index: Tensor) -> CrystalBatch:
        """The crystals at ``index`` (int64, shape (batch,)), in float32, without names."""
        return replace(self.crystals, names=()).select(index).to(dtype=torch.float32)

    def to(self, device: torch.device | str) -> Self:
        """The same crystals on ``device``; itself when they are there already."""
        if self.device == torch.device(device):
            return self
        moved = {name: values.to(device) for name, values in self.properties.items()}
        return replace(self, crystals=self.crystals.to(device), properties=moved)

    def subset(self, index: Tensor) -> Self:
        """Some crystals; ``index`` int64 or bool."""
        chosen = {name: values[index] for name, values in self.properties.items()}
        return replace(self, crystals=self.crystals.select(index), properties=chosen)

    def fingerprint(self) -> str:
        """A hash of cells, sites and elements."""
        digest = hashlib.sha256()
        found = self.crystals
        for tensor in (found.atom_types, found.frac_coords, found.lattice, found.num_atoms):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"
