"""Opening data for the multimodal family, reading them for a model, and streaming files of any size.

The keyword arguments of :func:`open_arrays` are the ``data`` section of a recipe of kind ``arrays``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.checks import check_surface, group_numbers
from noumena.multimodal.files import Stored
from noumena.multimodal.hstack import is_prosoro, stacked_file, stacked_source
from noumena.multimodal.modality import Modality
from noumena.multimodal.observations import Batch, Observations, from_arrays
from noumena.multimodal.plan import Options, Plan, plan_by_model, plan_by_options, with_side
from noumena.multimodal.source import SAMPLE, Source, open_source
from noumena.multimodal.splits import Division, Rule, divide
from noumena.readers.common import block_rows

_TRUE = ("1", "1.0", "true")
_FALSE = ("0", "0.0", "false")


def open_arrays(
    path: str,
    *,
    modalities: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str | Sequence[str]] | None = None,
    group: str | None = None,
    side: Sequence[str] = (),
    mesh: str | None = None,
    split: Rule | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    max_rows: int | None = None,
    missing_fraction: float = 0.0,
    seed: int = 0,
) -> Splits:
    """Arrays of the same states, one for each modality, divided into train, val and test.

    A row misses a modality where its numbers are all NaN, or where an array ``<name>_mask`` or ``<name>_present``
    of shape (rows,) is false.

    Args:
        path: a folder with a .npy, .csv or .parquet file for each array; one .npz or HDF5 file (a group of 1-D arrays
            is one modality); one CSV or Parquet file with columns ``modality.column``; or ``sample:softrobot``.
            Beside them a metadata.json (in a folder) or a .json file of the same name may tell ``modalities`` (name
            to ``columns``, ``units``, ``kind``, ``mesh``), ``group`` and ``side``; options go before it.
        modalities: which arrays, in this order. Default: those of the metadata, else all arrays of numbers of shape
            (rows, size) or (rows, points, 3).
        kinds: name to ``pose``, ``wrench``, ``displacement`` or ``vector``. Default: by the metadata, the column
            names or the size of the mesh, else vector.
        columns: name to a name for each number; of a table or group, which columns make it up and in which order.
        units: name to one unit, or one for each number.
        group: array (numbers or text) that says which rows belong together.
        side: arrays of shape (rows, k) to keep for evaluation, not to learn from; 1-D arrays of numbers are anyway.
        mesh: the surface of the displacements, see :func:`noumena.multimodal.surfaces.read_surface`; a path within the
            folder of the data, or any other. Default: ``mesh_nodes`` and ``mesh_triangles`` of the same file, or
            surface_mesh.npz beside it.
        split: deal whole groups at random, rows at random, or rows in time order (first train, last test).
            Default: groups where they are known, else rows at random.
        val_fraction, test_fraction: shares of the rows; 0 leaves the part out.
        max_rows: use at most this many rows: whole groups or rows at random, or the first ones in time.
        missing_fraction: hide this share of the entries (row, modality) of the training rows, at random, to study
            missing data; every row keeps one.
        seed: of every random choice.

    Raises:
        ConfigError: an option is out of range or names something that is not there.
        DataError: a file is missing, damaged, pickled or not numeric; it cannot be told which arrays are modalities;
            or their values are refused by :func:`noumena.multimodal.observations.from_arrays`.
    """
    division = Division(split, val_fraction, test_fraction, max_rows, missing_fraction, seed)
    options = Options(modalities, kinds or {}, columns or {}, units or {}, group, side, mesh)
    if modalities is None:
        _refuse_prosoro(path)
    plan = plan_by_options(open_source(path), options)
    if split == "group" and plan.group is None:
        raise ConfigError("split='group' needs to know the groups: pass group='name of the array'.")
    splits = divide(read_plan(plan), division, path)
    return replace(splits, about={**splits.about, **_further_facts(plan, split)})


def read_arrays(path: str | Path, *, modalities: Sequence[Modality] | None = None) -> Observations:
    """All rows of a file or folder that :func:`open_arrays` takes, or of the layout of ProSoRo.

    Args:
        path: see :func:`open_arrays`.
        modalities: of a model; those that are not there are missing in every row. Default: as :func:`open_arrays`
            would choose them.

    Raises:
        ConfigError, DataError: as :func:`open_arrays`; none of the modalities is there, or one is of another size.
    """
    if modalities is None:
        _refuse_prosoro(path)
        return read_plan(plan_by_options(open_source(path), Options()))
    return read_plan(with_side(plan_by_model(_source_for(path, modalities), modalities)))


def stream_rows(
    path: str, schema: Mapping[str, Any], *, batch_rows: int = 65536, inputs: Sequence[str] | None = None
) -> Iterator[Batch]:
    """The rows of a file or folder, in order, a bounded number at a time; memory does not grow with the data.

    Args:
        path: see :func:`read_arrays`.
        schema: of the observations the model was trained on; modalities are found by name, their columns by name
            where they have any, and are put in its order. A modality that is not there is missing in every row.
        batch_rows: rows of a batch at most; wide rows come in smaller ones of some MiB.
        inputs: take these modalities only and treat the others as missing.

    Yields:
        Batches; every one but the last has the same number of rows.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is missing, damaged, or has none of the modalities (at once); a value is refused (when it is
            reached, naming row and column).
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows={batch_rows}: expected at least one row in a batch.")
    modalities = [Modality.from_json(entry) for entry in schema["modalities"]]
    plan = plan_by_model(_source_for(path, modalities), modalities, inputs)
    return (part.whole() for part, _ in _parts(plan, min(batch_rows, _rows_at_once(plan))))


def count_rows(path: str, schema: Mapping[str, Any], *, inputs: Sequence[str] | None = None) -> int | None:
    """How many rows :func:`stream_rows` will yield, where headers tell; ``None`` otherwise.

    Args:
        path, schema, inputs: as for :func:`stream_rows`.

    Raises:
        ConfigError, DataError: as :func:`stream_rows` at once.
    """
    modalities = [Modality.from_json(entry) for entry in schema["modalities"]]
    plan = plan_by_model(_source_for(path, modalities), modalities, inputs)
    return plan.source.check_rows({**plan.arrays, **plan.masks})


def read_plan(plan: Plan, layout: Mapping[str, Any] | None = None) -> Observations:
    """All rows that a plan names, in memory."""
    read = list(_parts(plan, _rows_at_once(plan)))
    parts = [part for part, _ in read]
    present = None
    if any(part.present is not None for part in parts):
        present = torch.cat([part.has_each() for part in parts])
    values = torch.cat([part.values for part in parts])
    labels = [part for _, part in read if part is not None]
    groups = group_numbers(np.concatenate(labels), len(values), _where(plan)) if labels else None
    side = {name: torch.cat([part.side[name] for part in parts]) for name in plan.side}
    check_surface(plan.surface, plan.modalities, _where(plan))
    return Observations(values, plan.modalities, present, groups, side, plan.surface, layout or {"kind": "arrays"})


def _parts(plan: Plan, rows: int) -> Iterator[tuple[Observations, np.ndarray | None]]:
    """Checked observations of ``rows`` rows at a time, and the groups of these rows."""
    wanted: dict[str, Stored] = {
        **{f"array {name}": stored for name, stored in plan.arrays.items()},
        **{f"mask {name}": stored for name, stored in plan.masks.items()},
        **{f"side {name}": stored for name, stored in plan.side.items()},
        **({"group": plan.group} if plan.group else {}),
    }
    for first_row, arrays in plan.source.blocks(wanted, rows):
        part = from_arrays(
            {name: _wide(arrays[f"array {name}"]) for name in plan.arrays},
            modalities=plan.modalities,
            masks={name: _flags(arrays[f"mask {name}"]) for name in plan.masks},
            side={name: arrays[f"side {name}"] for name in plan.side},
            where=_where(plan),
            first_row=first_row,
        )
        yield part, _labels(arrays["group"]) if plan.group else None


def _wide(array: np.ndarray) -> np.ndarray:
    """With an axis for columns."""
    return array.reshape(len(array), -1)


def _flags(array: np.ndarray) -> np.ndarray:
    """Words for true and false as numbers; anything else is left for the check to refuse."""
    if array.dtype.kind != "U":
        return array
    lower = np.char.lower(array)
    known = np.isin(lower, (*_TRUE, *_FALSE))
    return np.where(known, np.isin(lower, _TRUE), np.nan)


def _labels(array: np.ndarray) -> np.ndarray:
    """Groups, shape (rows,); text as text, whatever the file calls it."""
    flat = array.reshape(len(array))
    return flat.astype(str) if flat.dtype.kind in "SO" else flat


def _rows_at_once(plan: Plan) -> int:
    return block_rows(sum(modality.size for modality in plan.modalities), 4)


def _where(plan: Plan) -> str:
    return str(plan.source.path)


def _source_for(path: str | Path, modalities: Sequence[Modality]) -> Source:
    """The source of a path; one array that holds all modalities side by side is told by its width."""
    sizes = {modality.name: modality.size for modality in modalities}
    place = Path(path).expanduser()
    if not str(path).startswith(SAMPLE) and (file := stacked_file(place, sizes)) is not None:
        return stacked_source(place, file, sizes)
    return open_source(path)


def _refuse_prosoro(path: str | Path) -> None:
    """Point at the reader of that layout, whose folders would be taken for something else."""
    folder = Path(path).expanduser()
    if folder.is_dir() and is_prosoro(folder) and not (folder / "metadata.json").is_file():
        raise DataError(f"{folder}: is in the layout of ProSoRo. Open it as such (open_prosoro, data.kind=prosoro).")


def _further_facts(plan: Plan, split: Rule | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if plan.surface is not None:
        facts["surface"] = f"{len(plan.surface.nodes)} points, {len(plan.surface.triangles)} triangles"
    if plan.side:
        facts["side"] = list(plan.side)
    if plan.not_used:
        facts["not_used"] = plan.not_used
    if plan.group is None and split != "time":
        facts["note"] = (
            "no groups are named, so rows of one recording may be in several splits: if the rows are not independent, "
            "name the array that tells them apart with group=..."
        )
    return facts
