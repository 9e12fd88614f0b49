"""Opening trajectories of a molecule, reading them for a model, and streaming files of any size.

The keyword arguments of :func:`open_trajectory` are the ``data`` section of a recipe of kind ``trajectory``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError
from noumena.molecules import checks
from noumena.molecules.atoms import Atoms
from noumena.molecules.bonding import check_unit
from noumena.molecules.conformations import Conformations
from noumena.molecules.formats.frames import TrajectoryFile, Unit
from noumena.molecules.layout import Layout
from noumena.molecules.loading import Options, Paths, centred_frames, conformations, load
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
from noumena.molecules.splits import Rule, check_division, divide
from noumena.molecules.topologies import read_atoms
from noumena.molecules.topology import Topology
from noumena.molecules.trajectories import open_file, trajectory_files


def open_trajectory(
    path: str,
    *,
    topology: str | None = None,
    smiles: str | None = None,
    selection: str | None = None,
    unit: Unit | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    broken: Broken = "refuse",
    split: Rule = "blocks",
    blocks: int = 20,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Conformations of one molecule from its trajectories, divided into train, val and test.

    Neighbouring frames of a simulation are nearly copies. Dealt at random, each test frame has a twin in training, and
    a model that memorises looks good; cut into one first and one last piece, the test may be of a state that was never
    trained on. Blocks of time, dealt in turns, do neither: each part covers the whole run, and frames of different
    parts are neighbours at the borders of blocks only.

    Args:
        path: a .pdb (one or many models), .xtc, .trr, .dcd, .xyz, .sdf or .npz file; a folder of such files; a pattern
            such as ``run*/traj.xtc``; several of these with commas between them; or ``sample:aib9`` or
            ``sample:alanine-dipeptide``. Each file is a trajectory. An .npz holds ``xyz`` of shape (frames, atoms, 3)
            and may hold ``atomic_numbers``, ``bonds``, ``atom_names``, ``residue_names``, ``residue_ids``, ``traj``
            (which trajectory each frame is of), ``dt_ps``, and 1-D arrays of one number a frame such as energies.
        topology: a .pdb, .sdf, .mol2, .npz, .gro, .psf or .prmtop file of the same atoms, where the trajectory holds
            coordinates only or does not name its bonds.
        smiles: the molecule's bonds and their orders; its atoms are found in the file whatever their order, by elements
            and distances. Without any of these, bonds are perceived from distances.
        selection: the atoms to take, in mdtraj's language, such as ``not element H`` or ``resname AIB``.
        unit: of length. Default: the format's own, nm for .xtc and .trr, angstrom for the others.
        stride: take every so many frames of each file.
        max_frames: take at most this many frames, evenly spread over all files.
        broken: refuse frames with a bond off its usual length by more than 0.6 angstrom or 40 %, or drop them.
        split: whole blocks of time, dealt in turns; each trajectory in time order, first train, last test; whole
            trajectories at random; or frames at random.
        blocks: of time, of all trajectories together, in proportion to their length; one of each at least.
        val_fraction, test_fraction: shares of the frames; 0 leaves the part out.
        seed: of every random choice.

    Raises:
        ConfigError: an option is out of range or cannot be understood.
        DataError: a file is missing, damaged, pickled or empty; its atoms are not those of the topology, or not one
            molecule; its unit is another; or frames hold NaN, atoms at one place or broken bonds.
        NotSupportedError: a library that the format needs is not installed.
    """
    check_division(split, blocks, val_fraction, test_fraction)
    options = Options(topology, smiles, selection, unit, stride, max_frames, broken)
    data, facts = load(path, options)
    return divide(
        data,
        split=split,
        blocks=blocks,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        where=path,
        about=facts,
    )


def read_trajectory(
    path: Paths,
    *,
    topology: str | None = None,
    smiles: str | None = None,
    selection: str | None = None,
    unit: Unit | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    broken: Broken = "refuse",
    topology_of_model: Topology | None = None,
    schema: Mapping[str, Any] | None = None,
) -> Conformations:
    """All frames of some trajectories, in the order of the files.

    Args:
        path: as for :func:`open_trajectory`, or a list.
        topology, smiles, selection, unit, stride, max_frames, broken: see :func:`open_trajectory`.
        topology_of_model: of the molecule that the frames must be of. Files that name no atoms are taken to have its
            atoms in its order, if their distances allow.
        schema: of a model, which names its topology and how its trajectories were read (selection, unit).

    Raises:
        ConfigError, DataError, NotSupportedError: as :func:`open_trajectory`; or the frames are of another molecule.
    """
    options = Options(topology, smiles, selection, unit, stride, max_frames, broken)
    if topology_of_model is None and not schema:
        return load(path, options)[0]
    known = schema or {}
    molecule = topology_of_model or Topology.from_json(known.get("topology"), "the model's schema")
    return _read_for_model(path, molecule, _layout_with(known, molecule, options), options)


def stream_frames(path: str, schema: Mapping[str, Any], *, batch_rows: int = 65536) -> Iterator[Tensor]:
    """The frames of trajectories, in order, a bounded number at a time; memory does not grow with the files.

    Args:
        path: as for :func:`open_trajectory`. A file without topology holds the model's atoms, or all the atoms that
            these were selected of, in the same order.
        schema: of the conformations a model was trained on.
        batch_rows: frames of a batch at most; large molecules come in smaller ones of some MiB.

    Yields:
        float32, shape (batch, atoms, 3), in angstrom, centroids at the origin.

    Raises:
        ConfigError: an option is out of range.
        DataError: a file is missing, damaged or of another molecule (at once); a frame is refused (when it is reached).
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows={batch_rows}: expected at least one frame in a batch.")
    molecule = Topology.from_json(schema["topology"], "the model's schema")
    layout = Layout.from_json(schema, molecule)
    opened = [_opened(file, molecule, layout, None) for file in trajectory_files(path)]
    return (
        part
        for file, index in opened
        for chunk in _model_chunks(file, index, molecule, layout)
        for part in centred_frames(chunk.xyz).split(batch_rows)
    )


def count_frames(path: Paths) -> int:
    """How many frames :func:`stream_frames` will yield; of text files by reading them once.

    Raises:
        DataError: a file is missing or damaged.
    """
    return sum(open_file(file).count() for file in trajectory_files(path))


# For a model


def _layout_with(schema: Mapping[str, Any], molecule: Topology, options: Options) -> Layout:
    """How to read further files: as the model's were, unless an option says otherwise."""
    if options.smiles is not None:
        raise ConfigError("smiles=... is not for reading with a model, which knows its bonds. Leave it out.")
    layout = Layout.from_json(schema, molecule)
    return replace(layout, selection=options.selection) if options.selection is not None else layout


def _opened(
    path: Path, molecule: Topology, layout: Layout, atoms: Atoms | None
) -> tuple[TrajectoryFile, np.ndarray | None]:
    """A file, and which of its atoms are the model's."""
    file = open_file(path)
    known = atoms if atoms is not None and len(atoms) == file.atoms else file.molecule
    return file, layout.index(file, known, molecule)


def _read_for_model(path: Paths, molecule: Topology, layout: Layout, options: Options) -> Conformations:
    atoms = None if options.topology is None else read_atoms(options.topology)
    opened = [_opened(file, molecule, layout, atoms) for file in trajectory_files(path)]
    wanted = wanted_of([file for file, _ in opened], options.stride, options.max_frames)
    parts = [
        joined(list(_model_chunks(file, index, molecule, layout, options, frames)), file.path)
        for (file, index), frames in zip(opened, wanted, strict=True)
    ]
    return conformations(parts, molecule, layout)


def _model_chunks(
    file: TrajectoryFile,
    index: np.ndarray | None,
    molecule: Topology,
    layout: Layout,
    options: Options | None = None,
    wanted: Any = None,
) -> Iterator[Frames]:
    """Whole, unbroken frames of a further file of a model's molecule."""
    options = options or Options()
    unit, where = options.unit or layout.unit_of(file), str(file.path)
    reference = None if layout.bond_lengths is None else np.asarray(layout.bond_lengths)
    for number, chunk in enumerate(file_chunks(file, index, unit, wanted)):
        mended, _ = whole(chunk, molecule)
        if number == 0:
            typical = chunk.spread(TYPICAL_FRAMES)
            check_unit(np.asarray(molecule.elements), typical.xyz, typical.cell, unit, where)
            lengths = np.median(checks.bond_lengths(mended.spread(TYPICAL_FRAMES).xyz, molecule), axis=0)
            checks.check_bonds(lengths, molecule, where)
            if layout.hands is not None:
                checks.check_hands(mended.spread(TYPICAL_FRAMES).xyz, molecule, np.asarray(layout.hands), where)
            reference = lengths if reference is None else reference
        assert reference is not None
        yield without_broken(mended, molecule, reference, options.broken)
