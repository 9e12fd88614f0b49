"""Molecular dynamics of one molecule in pieces, each of which starts where the one before it ended."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from noumena.core.errors import ConfigError, DataError
from noumena.molecules.elements import SYMBOLS
from noumena.molecules.generate.conformers import conformer_job, conformer_topology
from noumena.molecules.generate.forcefield import make_system, open_force_field, openmm
from noumena.molecules.generate.seeds import seed_of
from noumena.molecules.generate.settings import Conformers, Dynamics, as_settings
from noumena.molecules.topology import Topology

_STRUCTURES = (".pdb", ".ent", ".cif", ".pdbx")
_REFERENCE_ATOMS = 100
_ANGSTROM_PER_NM = 10.0
_KJ_PER_KCAL = 4.184
_MINIMISATION_STEPS = 1000
_PLATFORMS = {"reference": "Reference", "cpu": "CPU"}


@dataclass(frozen=True)
class Start:
    """Where every replica starts; made once, given to every job.

    Attributes:
        source: what it was made from, for messages.
        topology: of the molecule, hydrogens included.
        positions: float64, shape (atoms, 3), in nm.
        system: OpenMM's System as XML.
        chosen: the dynamics, its platform decided.
    """

    source: str
    topology: Topology
    positions: np.ndarray
    system: str
    chosen: Dynamics


def prepare(source: str, chosen: Dynamics) -> Start:
    """Read or build a molecule, add the hydrogens it lacks and find its parameters.

    Args:
        source: a .pdb or .cif file of one molecule, or a SMILES.
        chosen: the dynamics.

    Raises:
        DataError: the file is missing or damaged, of several molecules, or the force field has no parameters for it.
        ConfigError: the force field is unknown, or the SMILES is none.
        NotSupportedError: OpenMM, or for a SMILES RDKit, is not installed.
    """
    field = open_force_field(chosen)
    topology, positions = _read(source) if _is_file(source) else _built(source, chosen.seed)
    if field.getUnmatchedResidues(topology):
        topology, positions = _with_hydrogens(topology, positions)
    system = make_system(field, topology, chosen, source)
    platform = chosen.platform
    if platform == "auto":
        platform = "reference" if topology.getNumAtoms() <= _REFERENCE_ATOMS else "cpu"
    return Start(
        source=source,
        topology=_topology(topology, source),
        positions=positions,
        system=openmm().XmlSerializer.serialize(system),
        chosen=replace(chosen, platform=platform),
    )


def dynamics_job(number: int, before: Mapping[str, np.ndarray] | None, *, start: Start) -> dict[str, np.ndarray]:
    """One piece of a replica.

    The noise of a piece follows from the seed, the replica and the piece, so that it does not matter whether the run
    was stopped between two of them.

    Args:
        number: of the job, from 1: replica by replica, piece by piece.
        before: what the piece before gave; ``None`` for the first of a replica.
        start: of all replicas.

    Returns:
        ``xyz`` (frames, atoms, 3) in angstrom, float32, centroids at the origin; ``energy`` (frames,), potential, in
        kcal/mol, float64; ``traj`` (frames,), the replica; and ``_positions`` and ``_velocities`` at the end.

    Raises:
        ConfigError: the molecule flew apart.
    """
    chosen = start.chosen
    replica, piece = divmod(number - 1, chosen.jobs_per_replica)
    frames = min(chosen.frames_per_job, chosen.frames - piece * chosen.frames_per_job)
    context = _context(start.system, chosen)
    context.getIntegrator().setRandomNumberSeed(seed_of(chosen.seed, replica, piece))
    context.reinitialize()  # the seed is read when a context begins
    try:
        if before is None:
            _begin(context, start, replica)
        else:
            context.setPositions(before["_positions"])
            context.setVelocities(before["_velocities"])
        xyz, energy = _frames(context, frames, chosen)
    except openmm().OpenMMException as error:
        raise _flew_apart(start, replica, error) from error
    if not np.isfinite(xyz).all():
        raise _flew_apart(start, replica, None)
    state = context.getState(getPositions=True, getVelocities=True)
    return {
        "xyz": xyz,
        "energy": energy,
        "traj": np.full(frames, replica, dtype=np.int32),
        "_positions": np.asarray(state.getPositions(asNumpy=True)._value),
        "_velocities": np.asarray(state.getVelocities(asNumpy=True)._value),
    }


def describe_dynamics(totals: Mapping[str, int], *, start: Start) -> dict[str, Any]:
    """The metadata of the trajectories."""
    chosen = start.chosen
    return {
        "method": "Langevin dynamics (LangevinMiddle, OpenMM), bonds to hydrogen constrained, no cutoff",
        "source": Path(start.source).name if _is_file(start.source) else start.source,
        "frames": totals["rows"],
        "replicas": chosen.replicas,
        "temperature_K": chosen.temperature,
        "dt_ps": chosen.dt_ps,
        "xyz": "angstrom",
        "energy": "potential, kcal/mol",
        "reproducible": "to the byte with the same versions"
        + ("" if chosen.platform == "reference" else " on the same kind of processor"),
    }


def dynamics_settings(start: Start) -> dict[str, Any]:
    """All that the trajectories depend on besides a job's number, the versions of the libraries included."""
    digest = hashlib.sha256(start.system.encode() + start.positions.tobytes()).hexdigest()
    versions = {name: version(name) for name in ("noumena", "openmm")}
    chosen = as_settings(start.chosen)
    return {**chosen, "force_field": list(chosen["force_field"]), "start": f"sha256:{digest}", "versions": versions}


def _is_file(source: str) -> bool:
    return Path(source).exists() or Path(source).suffix.lower() in _STRUCTURES


def _read(source: str) -> tuple[Any, np.ndarray]:
    app = openmm("openmm.app")
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path.")
    if path.suffix.lower() not in _STRUCTURES:
        raise DataError(f"{path}: expected one of {', '.join(_STRUCTURES)}, got '{path.suffix}'. Convert it.")
    try:
        text = StringIO(path.read_text(encoding="utf-8"))
        file = app.PDBFile(text) if path.suffix.lower() in (".pdb", ".ent") else app.PDBxFile(text)
        return file.topology, _in_nm(file.positions)
    except Exception as error:  # the parsers raise many kinds for a damaged file
        words = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a structure ({words}). Write it again.") from error


def _built(smiles: str, seed: int) -> tuple[Any, np.ndarray]:
    """A molecule as one residue called MOL, and a conformer of it."""
    app = openmm("openmm.app")
    wanted = Conformers(smiles, n=1, seed=seed, force_field="uff")
    molecule = conformer_topology(wanted)
    found = conformer_job(1, chosen=wanted)["xyz"]
    if not len(found):
        raise DataError(f"smiles={smiles!r}: no conformer could be embedded. Give a structure file instead.")
    topology = app.Topology()
    residue = topology.addResidue(molecule.residue_names[0], topology.addChain())
    atoms = [
        topology.addAtom(name, app.Element.getByAtomicNumber(z), residue)
        for name, z in zip(molecule.names, molecule.elements, strict=True)
    ]
    for i, j in molecule.bonds:
        topology.addBond(atoms[i], atoms[j])
    return topology, found[0].astype(np.float64) / _ANGSTROM_PER_NM


def _with_hydrogens(topology: Any, positions: np.ndarray) -> tuple[Any, np.ndarray]:
    """The molecule with the hydrogens that residues known to OpenMM lack at pH 7, placed the same way every time."""
    app, unit, mm = openmm("openmm.app"), openmm("openmm.unit"), openmm()
    modeller = app.Modeller(topology, positions * unit.nanometer)
    with _seeded_random():
        modeller.addHydrogens(platform=mm.Platform.getPlatformByName("Reference"))
    return modeller.topology, _in_nm(modeller.positions)


@contextmanager
def _seeded_random() -> Iterator[None]:
    """OpenMM draws from Python's global generator where it places hydrogens."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _in_nm(positions: Any) -> np.ndarray:
    return np.array(positions.value_in_unit(openmm("openmm.unit").nanometer), dtype=np.float64)


def _topology(topology: Any, source: str) -> Topology:
    atoms = list(topology.atoms())
    try:
        return Topology.make(
            [SYMBOLS.index(atom.element.symbol) for atom in atoms],
            [(bond[0].index, bond[1].index) for bond in topology.bonds()],
            names=[atom.name for atom in atoms],
            residue_names=[atom.residue.name for atom in atoms],
            residue_ids=_residue_numbers(topology),
            where=source,
        )
    except DataError as error:
        raise DataError(f"{error} Leave water, ions and other molecules out of the file.") from error


def _residue_numbers(topology: Any) -> list[int]:
    """Of each atom: the file's numbers, or running ones where those are no whole numbers."""
    residues = list(topology.residues())
    try:
        numbers = [int(residue.id) for residue in residues]
    except ValueError:
        numbers = list(range(1, len(residues) + 1))
    return [numbers[residue.index] for residue in residues for _ in residue.atoms()]


@lru_cache(maxsize=1)
def _context(system: str, chosen: Dynamics) -> Any:
    """A context of this process; jobs set everything in it that they depend on."""
    mm = openmm()
    # The middle scheme (Zhang et al. 2019): configurations stay right at long time steps.
    integrator = mm.LangevinMiddleIntegrator(chosen.temperature, chosen.friction, chosen.dt / 1000.0)
    platform = mm.Platform.getPlatformByName(_PLATFORMS[chosen.platform])
    properties = {"Threads": "1", "DeterministicForces": "true"} if chosen.platform == "cpu" else {}
    return mm.Context(mm.XmlSerializer.deserialize(system), integrator, platform, properties)


def _begin(context: Any, start: Start, replica: int) -> None:
    chosen = start.chosen
    context.setPositions(start.positions)
    openmm().LocalEnergyMinimizer.minimize(context, maxIterations=_MINIMISATION_STEPS)
    context.setVelocitiesToTemperature(chosen.temperature, seed_of(chosen.seed, replica))
    context.getIntegrator().step(chosen.equilibrate)


def _frames(context: Any, frames: int, chosen: Dynamics) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in angstrom, centred, and potential energies in kcal/mol of the next frames."""
    atoms = context.getSystem().getNumParticles()
    xyz = np.empty((frames, atoms, 3), dtype=np.float32)
    energy = np.empty(frames)
    integrator = context.getIntegrator()
    for frame in range(frames):
        integrator.step(chosen.stride)
        state = context.getState(getPositions=True, getEnergy=True)
        found = np.asarray(state.getPositions(asNumpy=True)._value) * _ANGSTROM_PER_NM
        xyz[frame] = found - found.mean(0)
        energy[frame] = state.getPotentialEnergy()._value / _KJ_PER_KCAL
    return xyz, energy


def _flew_apart(start: Start, replica: int, error: Exception | None) -> ConfigError:
    words = f" ({' '.join(str(error).split())})" if error else ""
    return ConfigError(
        f"{start.source}: replica {replica} flew apart{words}: dt={start.chosen.dt:g} fs is too long for it at "
        f"{start.chosen.temperature:g} K, or atoms of the start lie on each other. Use a shorter dt; up to 4 with "
        "hydrogen_mass=4."
    )
