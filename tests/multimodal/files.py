"""Small data sets of every format, for the tests of the readers."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.data import open_arrays

FORMATS = ["folder-npy", "folder-csv", "folder-parquet", "npz", "h5", "h5-groups", "csv", "parquet"]
POSE = ["Dx", "Dy", "Dz", "Rx", "Ry", "Rz"]
FORCE = ["Fx", "Fy", "Fz", "Tx", "Ty", "Tz"]
SHAPE = [f"u{axis}{point}" for point in range(4) for axis in "xyz"]
NAMES = {"force": FORCE, "pose": POSE, "shape": SHAPE}
ORDER = ["pose", "force", "shape"]
FACTS = {
    "group": "path_id",
    "modalities": {
        "pose": {"columns": POSE, "units": ["mm"] * 3 + ["rad"] * 3, "kind": "pose"},
        "force": {"columns": FORCE, "kind": "wrench"},
        "shape": {"columns": None, "units": "mm", "kind": "displacement"},
    },
}
WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0}


def arrays(rows=43, seed=0, *, missing=False):
    """Modalities that survive a CSV file exactly, a group of about five rows each, and a side quantity."""
    rng = np.random.default_rng(seed)
    found = {name: rng.normal(size=(rows, len(columns))).astype(np.float32) for name, columns in NAMES.items()}
    if missing:
        found["force"][::5] = np.nan
        found["shape"][1::7] = np.nan
    return {**found, "energy": rng.random(rows).astype(np.float32), "path_id": (np.arange(rows) // 5)[::-1].copy()}


def surface():
    """Four nodes and the triangles between them."""
    nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    return nodes, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def write(folder, form, data, facts=None):
    """Write ``data`` in one of :data:`FORMATS`, with ``facts`` beside them; the path to open."""
    folder = Path(folder)
    if form.startswith("folder"):
        place = folder / "set"
        place.mkdir(exist_ok=True)
        for name, array in data.items():
            if form == "folder-npy":
                np.save(place / f"{name}.npy", array)
            else:
                _write_table(place / f"{name}.{form[7:]}", _columns(name, array, prefix=""))
        beside = place / "metadata.json"
    else:
        place = folder / f"set.{form.removesuffix('-groups')}"
        beside = place.with_suffix(".json")
        if form == "npz":
            np.savez(place, **data)
        elif form == "h5":
            with h5py.File(place, "w") as file:
                for name, array in data.items():
                    file[name] = array
        elif form == "h5-groups":
            with h5py.File(place, "w") as file:
                for name, array in data.items():
                    for column, values in _columns(name, array, prefix=f"{name}/").items():
                        file[column] = values
        else:
            _write_table(place, {k: v for name, a in data.items() for k, v in _columns(name, a, f"{name}.").items()})
    if facts is not None:
        beside.write_text(json.dumps(facts))
    return str(place)


def _columns(name, array, prefix):
    if array.ndim == 1:
        return {name: array}
    flat = array.reshape(len(array), -1)
    names = NAMES.get(name) or [f"c{number}" for number in range(flat.shape[1])]
    return {f"{prefix}{column}": flat[:, number] for number, column in enumerate(names)}


def _write_table(path, columns):
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path, row_group_size=10)


def refused(words, path, opener=open_arrays, **options):
    with pytest.raises((ConfigError, DataError)) as caught:
        opener(str(path), **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
