"""Several views of the same states side by side, any of which may be missing: what the family trains and infers on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError, did_you_mean
from noumena.multimodal.checks import (
    as_mask,
    as_matrix,
    as_side,
    check_surface,
    checked_values,
    common_length,
    group_numbers,
)
from noumena.multimodal.modality import Modality, Surface

_HASHED_ROWS = 4096


class Batch:
    """Rows of all modalities side by side, as the models take them.

    Attributes:
        values: shape (batch, columns); 0 where a modality is missing.
        present: bool, shape (batch, modalities), or ``None`` where nothing is missing.
    """

    __slots__ = ("present", "values")

    def __init__(self, values: Tensor, present: Tensor | None = None) -> None:
        self.values = values
        self.present = present

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same rows on ``device``."""
        present = None if self.present is None else self.present.to(device, non_blocking=non_blocking)
        return Batch(self.values.to(device, non_blocking=non_blocking), present)


class FeatureBatch:
    """Rows of a :class:`FeatureTable`, which only the model that made it understands.

    Attributes:
        features: of all modalities side by side, shape (batch, features).
        present: see :class:`Batch`.
    """

    __slots__ = ("features", "present")

    def __init__(self, features: Tensor, present: Tensor | None = None) -> None:
        self.features = features
        self.present = present

    def __len__(self) -> int:
        return len(self.features)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "FeatureBatch":
        """The same rows on ``device``."""
        present = None if self.present is None else self.present.to(device, non_blocking=non_blocking)
        return FeatureBatch(self.features.to(device, non_blocking=non_blocking), present)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Observations as a model's preprocessing leaves them, computed once for all epochs.

    Attributes:
        features: shape (rows, features).
        present: bool, shape (rows, modalities); ``None`` where nothing is missing.
        source: what they were made from.
    """

    features: Tensor
    present: Tensor | None
    source: "Observations"

    @property
    def schema(self) -> dict[str, Any]:
        """That of the source."""
        return self.source.schema

    def __len__(self) -> int:
        return len(self.features)

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.features.device

    @property
    def nbytes(self) -> int:
        """Memory of the features in bytes."""
        return self.features.nbytes

    def batch(self, index: Tensor) -> FeatureBatch:
        """The rows at ``index`` (int64, shape (batch,))."""
        present = None if self.present is None else self.present.index_select(0, index)
        return FeatureBatch(self.features.index_select(0, index), present)

    def to(self, device: torch.device | str) -> Self:
        """The same rows on ``device``; itself when they are there already."""
        if self.device == torch.device(device):
            return self
        present = None if self.present is None else self.present.to(device)
        return replace(self, features=self.features.to(device), present=present)

    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint()


@dataclass(frozen=True, eq=False)
class Observations:
    """States, each seen through one or more modalities.

    Attributes:
        values: float32, shape (rows, columns): the modalities side by side, 0 where one is missing.
        modalities: in the order of ``values``.
        present: bool, shape (rows, modalities); ``None`` where nothing is missing.
        groups: int64, shape (rows,): rows of one group (a load path, a recording) must not be divided between splits.
        side: further quantities of each row that no model sees, for evaluation: float32, shape (rows,) or (rows, k);
            NaN where one is not known.
        surface: of the modality of kind ``displacement``.
        layout: what to remember in order to read further files the same way; JSON-able, with ``kind``.
    """

    values: Tensor
    modalities: tuple[Modality, ...]
    present: Tensor | None = None
    groups: Tensor | None = None
    side: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    surface: Surface | None = None
    layout: Mapping[str, Any] = field(default_factory=lambda: {"kind": "arrays"})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of each modality."""
        return {modality.name: modality.size for modality in self.modalities}

    @property
    def schema(self) -> dict[str, Any]:
        """What one row is; stored with a model."""
        return {**self.layout, "modalities": [modality.to_json() for modality in self.modalities]}

    def __len__(self) -> int:
        return len(self.values)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """Memory of the rows in bytes."""
        return self.values.nbytes

    def batch(self, index: Tensor) -> Batch:
        """The rows at ``index`` (int64, shape (batch,))."""
        present = None if self.present is None else self.present.index_select(0, index)
        return Batch(self.values.index_select(0, index), present)

    def whole(self) -> Batch:
        """All rows, not copied."""
        return Batch(self.values, self.present)

    def __getitem__(self, name: str) -> Tensor:
        """One modality, shape (rows, size); NaN in the rows that miss it."""
        number = self._number(name)
        part = self.values[:, slices(self.sizes)[name]]
        if self.present is None or bool(self.present[:, number].all()):
            return part
        return part.masked_fill(~self.present[:, number, None], float("nan"))

    def has(self, *names: str) -> Tensor:
        """Which rows have all these modalities, bool, shape (rows,)."""
        numbers = [self._number(name) for name in names]
        if self.present is None:
            return torch.ones(len(self), dtype=torch.bool, device=self.device)
        return self.present[:, numbers].all(1)

    def has_each(self) -> Tensor:
        """Which rows have which modality, bool, shape (rows, modalities)."""
        if self.present is not None:
            return self.present
        return torch.ones(len(self), len(self.modalities), dtype=torch.bool, device=self.device)

    def _number(self, name: str) -> int:
        if name not in self.names:
            raise DataError(f"no modality '{name}'. {did_you_mean(name, self.names)}")
        return self.names.index(name)

    def subset(self, index: Tensor) -> Self:
        """The rows at ``index`` (int64 or bool)."""
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Self:
        """The same rows on ``device``; itself when they are there already."""
        if self.device == torch.device(device):
            return self
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Any) -> Self:
        def optional(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        side = {name: change(tensor) for name, tensor in self.side.items()}
        return replace(
            self,
            values=change(self.values),
            present=optional(self.present),
            groups=optional(self.groups),
            side=side,
        )

    def fingerprint(self) -> str:
        """A hash of names, shapes and values; groups and side quantities are not part of it."""
        digest = hashlib.sha256(repr([self.names, tuple(self.values.shape)]).encode())
        for block in self.values.split(_HASHED_ROWS):
            digest.update(block.cpu().contiguous().numpy().tobytes())
        if self.present is not None:
            digest.update(self.present.cpu().contiguous().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where each modality lies among the columns of ``values``."""
    ends = list(accumulate(sizes.values()))
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    modalities: Sequence[Modality] | None = None,
    kinds: Mapping[str, str] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str | Sequence[str]] | None = None,
    masks: Mapping[str, Any] | None = None,
    groups: Any = None,
    side: Mapping[str, Any] | None = None,
    surface: Surface | None = None,
    layout: Mapping[str, Any] | None = None,
    where: str = "the data",
    first_row: int = 0,
) -> Observations:
    """Arrays of the same states as :class:`Observations`.

    Args:
        arrays: name to array, tensor or data frame of shape (rows, size); further axes are flattened, as (rows,
            points, 3) of displacements. A row that is NaN throughout misses that modality.
        modalities: what they are; made from the arrays' sizes, ``kinds``, ``columns`` and ``units`` when missing.
            Of more arrays those named here are taken, in this order; a modality without an array is missing in
            every row.
        kinds, columns, units: by name, see :class:`Modality`.
        masks: name to bool array of shape (rows,): True where the modality is there. Numbers in other rows are not
            looked at.
        groups: shape (rows,), of any type.
        side: name to array of shape (rows,) or (rows, k); NaN where it is not known.
        surface: of the displacements.
        layout: see :class:`Observations`.
        where: what the data are, for messages.
        first_row: number of the first row, for messages.

    Raises:
        ConfigError: names, kinds, columns or units that do not fit the arrays.
        DataError: arrays of different lengths or wrong types, infinities, a row of a modality that is NaN in part,
            or a row that has no modality at all.
    """
    checked = {name: as_matrix(value, f"{where}: '{name}'") for name, value in arrays.items()}
    if modalities is None:
        modalities = _described(checked, kinds or {}, columns or {}, units or {})
    if not any(modality.name in checked for modality in modalities):
        wanted = ", ".join(modality.name for modality in modalities)
        raise DataError(f"{where}: expected at least one of {wanted}, found {', '.join(checked) or 'nothing'}.")
    for name in masks or {}:
        if name not in checked:
            raise DataError(f"{where}: a mask of '{name}', which is not there. {did_you_mean(name, checked)}")
    checked = {modality.name: checked[modality.name] for modality in modalities if modality.name in checked}
    rows = common_length(checked, where)
    parts: list[np.ndarray] = []
    there: list[np.ndarray] = []
    for modality in modalities:
        array = checked.get(modality.name)
        if array is None:
            parts.append(np.zeros((rows, modality.size), np.float32))
            there.append(np.zeros(rows, bool))
            continue
        mask = as_mask((masks or {}).get(modality.name), rows, f"{where}: the mask of '{modality.name}'", first_row)
        part, has = checked_values(array, modality, mask, f"{where}: '{modality.name}'", first_row)
        parts.append(part)
        there.append(has)
    present = np.stack(there, 1)
    if not present.any(1).all():
        row = int((~present.any(1)).argmax())
        raise DataError(
            f"{where}: row {first_row + row} (counted from 0) has none of the modalities "
            f"{', '.join(modality.name for modality in modalities)}. Leave such rows out."
        )
    check_surface(surface, modalities, where)
    return Observations(
        torch.from_numpy(np.concatenate(parts, 1)),
        tuple(modalities),
        None if present.all() else torch.from_numpy(present),
        None if groups is None else group_numbers(groups, rows, where),
        {name: as_side(value, rows, f"{where}: '{name}'", first_row) for name, value in (side or {}).items()},
        surface,
        layout or {"kind": "arrays"},
    )


def as_observations(data: Any, modalities: Sequence[Modality] | None = None) -> Observations:
    """Anything that holds modalities, as :class:`Observations`.

    Args:
        data: ``Observations``, a mapping from names to arrays, or a path (all its rows; see
            :func:`noumena.multimodal.data.open_arrays`).
        modalities: those of the model that will see the data.

    Raises:
        DataError: the data are none of these, or do not have the modalities.
    """
    if isinstance(data, Observations):
        if modalities is None or data.modalities == tuple(modalities):
            return data
        return _arranged(data, modalities)
    if isinstance(data, str | Path):
        from noumena.multimodal.data import read_arrays

        return read_arrays(data, modalities=modalities)
    if isinstance(data, Mapping):
        return from_arrays(data, modalities=modalities)
    raise DataError(
        "expected observations, a mapping from modality names to arrays, or a path; found "
        f"{type(data).__name__}. Pass e.g. {{'pose': poses, 'force': forces}}."
    )


def _arranged(data: Observations, modalities: Sequence[Modality]) -> Observations:
    """The modalities of a model, by name and in its order; units and kinds are taken for the model's."""
    known = data.sizes
    for modality in modalities:
        if known.get(modality.name, modality.size) != modality.size:
            raise DataError(
                f"'{modality.name}' has {known[modality.name]} numbers, the model was made for {modality.size}."
            )
    arrays = {name: data[name] for name in data.names}
    surface = data.surface if any(modality.kind == "displacement" for modality in modalities) else None
    groups = None if data.groups is None else data.groups.cpu()
    found = from_arrays(arrays, modalities=modalities, side=data.side, surface=surface, layout=data.layout)
    return replace(found, groups=groups).to(data.device)


def _described(
    arrays: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    columns: Mapping[str, Sequence[str]],
    units: Mapping[str, str | Sequence[str]],
) -> tuple[Modality, ...]:
    for option, entries in (("kinds", kinds), ("columns", columns), ("units", units)):
        for name in entries:
            if name not in arrays:
                raise DataError(f"{option}: there is no modality '{name}'. {did_you_mean(name, arrays)}")
    return tuple(
        Modality.of_size(
            name, array.shape[1], kind=kinds.get(name, "vector"), columns=columns.get(name), units=units.get(name)
        )
        for name, array in arrays.items()
    )
