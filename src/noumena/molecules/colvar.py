"""Collective variables as text that PLUMED reads, and torsions as columns of a table."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.molecules.conformations import as_frames
from noumena.molecules.geometry import torsions
from noumena.molecules.writers import Molecule, molecule_of

Columns = Mapping[str, np.ndarray]

_TIME = "time"


def torsion_columns(frames: Tensor, molecule: Molecule) -> dict[str, np.ndarray]:
    """Every torsion of :attr:`~noumena.molecules.topology.Topology.torsions` by its name, in radians, -pi to pi.

    Args:
        frames: coordinates in angstrom, shape (frames, atoms, 3).
        molecule: what they are of.

    Returns:
        Float32 columns, each of shape (frames,).

    Raises:
        DataError: another number of atoms, or NaN.
    """
    topology = molecule_of(molecule)
    names, quadruples = list(topology.torsions), list(topology.torsions.values())
    frames = as_frames(frames, len(topology))
    index = torch.tensor(quadruples, dtype=torch.int64, device=frames.device).reshape(-1, 4)
    values = torsions(frames, index).detach().float().cpu().numpy()
    return {name: values[:, column] for column, name in enumerate(names)}


def write_colvar(path: str | Path, columns: Iterable[Columns], molecule: Molecule) -> None:
    """Columns as a PLUMED COLVAR file: a header of field names, then one line of numbers per frame.

    The first field is ``time``: the column of that name, or the number of the frame. Torsions of the molecule are
    declared periodic from -pi to pi, as PLUMED's READ wants. White space and ``#`` in names become ``_``.

    Args:
        path: file to write.
        columns: chunks of equally long columns of numbers, each chunk with the same names.
        molecule: what the frames are of.

    Raises:
        DataError: a column has more than one axis, two names are the same once written, or there is no chunk.
    """
    periodic = set(molecule_of(molecule).torsions)
    fields: dict[str, str] = {}
    count = 0
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for chunk in columns:
            rows = _with_time(chunk, count)
            if not fields:
                fields = _field_names(rows)
                file.write(f"#! FIELDS {' '.join(fields.values())}\n")
                for name in (fields[name] for name in rows if name in periodic):
                    file.write(f"#! SET min_{name} -pi\n#! SET max_{name} pi\n")
            table = np.column_stack([np.asarray(rows[name], dtype=np.float64) for name in fields])
            # Nine digits give a float32 back to the bit.
            np.savetxt(file, table, fmt=" %.9g", delimiter="")
            count += len(table)
    if not fields:
        raise DataError(f"no frames to write to {Path(path).name}. Give at least one.")


def _with_time(chunk: Columns, first: int) -> dict[str, np.ndarray]:
    length = len(next(iter(chunk.values())))
    time = chunk.get(_TIME, np.arange(first, first + length))
    return {_TIME: time, **{name: column for name, column in chunk.items() if name != _TIME}}


def _field_names(rows: Columns) -> dict[str, str]:
    """The name of each column in the file."""
    fields = {name: "".join("_" if c.isspace() or c == "#" else c for c in name) for name in rows}
    if wide := [name for name, column in rows.items() if column.ndim != 1]:
        raise DataError(f"COLVAR: '{wide[0]}' has shape {rows[wide[0]].shape}; expected one number per frame.")
    if len(set(fields.values())) < len(fields):
        raise DataError(f"COLVAR: two of the fields {', '.join(fields.values())} have the same name.")
    return fields
