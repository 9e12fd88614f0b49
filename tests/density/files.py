"""Small files of every format, for the tests of the readers."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

COLUMNS = ("speed", "mass", "depth")


def numbers(rows=57, columns=3, seed=0):
    """Float32 values that survive a CSV file exactly, shape (rows, columns)."""
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def write_table(path, array, names=COLUMNS, **further):
    """Write ``array`` in the format of the extension; ``further`` columns (or 1-D arrays) go beside it."""
    path = Path(path)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, X=array, **further)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, values in {"X": array, **further}.items():
                file[name] = values
    else:
        columns = {name: array[:, number] for number, name in enumerate(names)}
        table = pa.table({**columns, **further})
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pyarrow.parquet.write_table(table, path, row_group_size=50_000)
    return str(path)


def episodes(lengths=(5, 1, 9, 3, 7), observation=4, action=2, seed=0):
    """The arrays of a D4RL-layout file whose episodes have these lengths; the last one ends by a time limit."""
    rng = np.random.default_rng(seed)
    parts = {"observations": [], "next_observations": [], "actions": [], "terminals": [], "timeouts": []}
    for number, length in enumerate(lengths):
        seen = rng.normal(size=(length + 1, observation)).astype(np.float32)
        parts["observations"].append(seen[:-1])
        parts["next_observations"].append(seen[1:])
        parts["actions"].append(rng.normal(size=(length, action)).astype(np.float32))
        last = np.arange(length) == length - 1
        cut = number == len(lengths) - 1
        parts["terminals"].append(last & (not cut))
        parts["timeouts"].append(last & cut)
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    return {**arrays, "rewards": np.zeros(sum(lengths), np.float32)}


def write_episodes(path, arrays):
    """Write a D4RL-layout .npz or .hdf5 file."""
    if Path(path).suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    return str(path)


def write_minari(folder, arrays, **metadata):
    """Write the same episodes as a Minari data set."""
    data = Path(folder) / "data"
    data.mkdir(parents=True)
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
    facts = {"total_episodes": len(ends), "total_steps": len(arrays["actions"]), "data_format": "hdf5", **metadata}
    (data / "metadata.json").write_text(json.dumps(facts))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for number, (start, end) in enumerate(zip([0, *(ends[:-1] + 1)], ends, strict=True)):
            seen = np.concatenate([arrays["observations"][start : end + 1], arrays["next_observations"][end : end + 1]])
            file[f"episode_{number}/observations"] = seen.astype(np.float64)
            file[f"episode_{number}/actions"] = arrays["actions"][start : end + 1]
    return str(folder)
