"""All frames of trajectories in memory, and the molecule they are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.molecules import checks
from noumena.molecules.atoms import Atoms
from noumena.molecules.bonding import bonded, check_unit
from noumena.molecules.conformations import Conformations
from noumena.molecules.formats.frames import ANGSTROM, TrajectoryFile, Unit
from noumena.molecules.layout import Layout
from noumena.molecules.reading import (
    TYPICAL_FRAMES,
    Broken,
    Frames,
    file_chunks,
    joined,
    wanted_of,
    whole,
    without_broken,
)
from noumena.molecules.smiles import bonds_of_smiles
from noumena.molecules.topologies import atoms_of, check_same_elements, chosen_atoms, index_within
from noumena.molecules.topology import Topology
from noumena.molecules.trajectories import open_file, trajectory_files
from noumena.readers.common import check_choice

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Options:
    """How to read; see :func:`noumena.molecules.data.open_trajectory`.

    Raises:
        ConfigError: one of them is out of range.
    """

    topology: str | None = None
    smiles: str | None = None
    selection: str | None = None
    unit: Unit | None = None
    stride: int = 1
    max_frames: int | None = None
    broken: Broken = "refuse"

    def __post_init__(self) -> None:
        check_choice("broken", self.broken, ("refuse", "drop"))
        if self.unit is not None:
            check_choice("unit", self.unit, tuple(ANGSTROM))


def load(path: Paths, options: Options) -> tuple[Conformations, dict[str, Any]]:
    """All frames, the topology found from them, and facts about both.

    Raises:
        ConfigError, DataError, NotSupportedError: as :func:`noumena.molecules.data.open_trajectory`.
    """
    files = [open_file(file) for file in trajectory_files(path)]
    wanted = wanted_of(files, options.stride, options.max_frames)
    atoms, source = atoms_of(files, options.topology)
    index = chosen_atoms(atoms, options.selection, source)
    chosen = atoms.take(index)
    parts: list[Frames] = []
    for file, frames in zip(files, wanted, strict=True):
        of_file = index_within(file, len(atoms), index, source)
        check_same_elements(file, chosen if file.atoms == len(index) else atoms, source)
        part = joined(list(file_chunks(file, of_file, options.unit or file.unit, frames)), file.path)
        typical = part.spread(TYPICAL_FRAMES)
        check_unit(chosen.elements, typical.xyz, typical.cell, options.unit or file.unit, str(file.path))
        parts.append(part)
    origin = options.topology or "the trajectory itself"
    topology, bonds = _topology(chosen, parts[0].spread(TYPICAL_FRAMES), options.smiles, source, origin)
    parts, left_out, made_whole = _whole_and_unbroken(parts, topology, options.broken)
    reference = _usual_lengths(parts, topology)
    layout = Layout(
        options.selection,
        options.unit,
        tuple(sorted({file.path.suffix.lower() for file in files})),
        len(atoms),
        None if len(index) == len(atoms) else tuple(index.tolist()),
        tuple(round(float(length), 3) for length in reference),
        tuple(checks.hands(_typical(parts), topology).tolist()),
    )
    data = conformations(parts, topology, layout)
    units = sorted({options.unit or file.unit for file in files})
    facts = {
        "molecule": topology.formula,
        "atoms": len(topology) if options.selection is None else f"{len(topology)} ({options.selection})",
        "bonds": f"{len(topology.bonds)}, {bonds}",
        "trajectories": int(data.trajectory.max()) + 1,
        "unit": "angstrom" if units == ["angstrom"] else f"angstrom, converted from {' and '.join(units)}",
        **_time_step(files, options.stride if options.max_frames is None else None),
        **({"side": sorted(data.side)} if data.side else {}),
        **({"made_whole": f"{made_whole} frames, across the walls of their box"} if made_whole else {}),
        "left_out": {**left_out, **_strided(files, wanted, parts, left_out)},
    }
    return data, facts


def _topology(atoms: Atoms, typical: Frames, smiles: str | None, source: str, origin: str) -> tuple[Topology, str]:
    """The molecule, and where its bonds are from."""
    known, words = bonded(atoms, typical.xyz, typical.cell, source, origin)
    if smiles is not None:
        bare = Topology.make(known.elements.tolist(), known.bonds, where=source)
        known = bonds_of_smiles(smiles, known, whole(typical, bare)[0].xyz[0], source)
        words = f"of the SMILES {smiles}"
    topology = Topology.make(
        known.elements.tolist(),
        known.bonds,
        names=known.names.tolist(),
        residue_names=known.residue_names.tolist(),
        residue_ids=known.residue_ids.tolist(),
        orders=None if known.orders is None else known.orders.tolist(),
        where=source,
    )
    return topology, words


def _whole_and_unbroken(
    parts: Sequence[Frames], topology: Topology, rule: Broken
) -> tuple[list[Frames], dict[str, int], int]:
    """Parts with whole molecules, what was left out and why, and how many frames were put together."""
    put_together = [whole(part, topology) for part in parts]
    mended = [part for part, _ in put_together]
    for part in mended:
        typical = np.median(checks.bond_lengths(part.spread(TYPICAL_FRAMES).xyz, topology), axis=0)
        checks.check_bonds(typical, topology, str(part.path))
    reference = _usual_lengths(mended, topology)
    kept = [without_broken(part, topology, reference, rule) for part in mended]
    dropped = sum(map(len, mended)) - sum(map(len, kept))
    left_out = {"frames with a broken bond": dropped} if dropped else {}
    return kept, left_out, sum(count for _, count in put_together)


def _usual_lengths(parts: Sequence[Frames], topology: Topology) -> np.ndarray:
    """Median length of each bond over frames of all parts, shape (bonds,)."""
    return np.median(checks.bond_lengths(_typical(parts), topology), axis=0)


def _typical(parts: Sequence[Frames]) -> np.ndarray:
    """Coordinates of some frames of all parts, shape (frames, atoms, 3)."""
    each = -(-TYPICAL_FRAMES // len(parts))
    return np.concatenate([part.spread(each).xyz for part in parts])


def conformations(parts: Sequence[Frames], topology: Topology, layout: Layout) -> Conformations:
    """Centred frames of all parts; trajectories are numbered through."""
    numbers: list[np.ndarray] = []
    first = 0
    for part in parts:
        values, inverse = np.unique(part.trajectory, return_inverse=True)
        numbers.append(inverse.astype(np.int64) + first)
        first += len(values)
    names = sorted({name for part in parts for name in part.side})
    side = {
        name: torch.from_numpy(
            np.concatenate([part.side.get(name, np.full(len(part), np.nan)) for part in parts]).astype(np.float32)
        )
        for name in names
    }
    return Conformations(
        torch.cat([centred_frames(part.xyz) for part in parts]),
        topology,
        torch.from_numpy(np.concatenate(numbers)),
        torch.from_numpy(np.concatenate([part.frame for part in parts])),
        side,
        layout.to_json(),
    )


def centred_frames(xyz: np.ndarray) -> Tensor:
    """Frames with their centroids at the origin, float32; the centroid is taken in double precision."""
    return torch.from_numpy((xyz - xyz.mean(1, keepdims=True, dtype=np.float64)).astype(np.float32))


def _time_step(files: Sequence[TrajectoryFile], stride: int | None) -> dict[str, float]:
    """Picoseconds between the frames that were read, where the files tell and agree."""
    steps = {file.time_step for file in files}
    step = steps.pop()
    return {} if steps or step is None or stride is None else {"time_step_ps": round(step * stride, 6)}


def _strided(
    files: Sequence[TrajectoryFile], wanted: Sequence[Any], parts: Sequence[Frames], left_out: Mapping[str, int]
) -> dict[str, int]:
    if all(entry.stride == 1 and entry.numbers is None for entry in wanted):
        return {}
    skipped = sum(file.count() for file in files) - sum(map(len, parts)) - sum(left_out.values())
    return {"frames between those of stride and max_frames": skipped} if skipped else {}
