"""What a user may choose about conformers and about molecular dynamics. Imports nothing heavy."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from noumena.core.errors import ConfigError, did_you_mean

ConformerField = Literal["mmff94", "mmff94s", "uff"]
Solvent = Literal["vacuum", "obc2"]
Platform = Literal["auto", "reference", "cpu"]

CONFORMERS_PER_JOB = 20
STEPS_PER_JOB = 20_000
_FEMTOSECONDS_PER_NANOSECOND = 1e6


@dataclass(frozen=True)
class Conformers:
    """Conformers of a molecule.

    Attributes:
        smiles: of the molecule; hydrogens are added.
        n: how many to embed.
        seed: same seed, same conformers.
        force_field: of the energies and the minimisation.
        minimise: steps of minimisation at most, 0 for none: conformers then scatter as distance geometry leaves them.
        energy_window: in kcal/mol; conformers this much above the lowest are left out.
        least_rmsd: in angstrom over heavy atoms; of two conformers nearer than this the one higher in energy is left
            out. Like atoms are not exchanged for the comparison.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    smiles: str
    n: int = 500
    seed: int = 0
    force_field: ConformerField = "mmff94"
    minimise: int = 0
    energy_window: float | None = None
    least_rmsd: float | None = None

    def __post_init__(self) -> None:
        _check_choice("force_field", self.force_field, get_args(ConformerField))
        _check_whole("n", self.n, 1)
        _check_whole("seed", self.seed, 0)
        _check_whole("minimise", self.minimise, 0)
        for name in ("energy_window", "least_rmsd"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))

    @property
    def jobs(self) -> int:
        """How many jobs they take."""
        return -(-self.n // CONFORMERS_PER_JOB)


@dataclass(frozen=True)
class Dynamics:
    """Langevin dynamics of a molecule.

    Attributes:
        temperature: in K.
        steps: of each replica, after the equilibration.
        dt: time step in fs.
        stride: steps between stored frames.
        force_field: names of :data:`noumena.molecules.generate.forcefield.FORCE_FIELDS`, or OpenMM's XML files.
        solvent: none, or the generalised Born model OBC2 (Onufriev, Bashford & Case 2004) for water.
        replicas: independent runs from the same structure.
        seed: same seed, same trajectories.
        friction: in 1/ps.
        hydrogen_mass: in dalton; 4 with ``dt=4`` is usual, the mass being taken from the atom a hydrogen is bonded to.
        equilibrate: steps before the first frame, after a minimisation.
        platform: of OpenMM, with one thread and deterministic forces; ``auto`` takes the faster: ``reference`` to 100
            atoms.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    temperature: float = 300.0
    steps: int = 500_000
    dt: float = 2.0
    stride: int = 500
    force_field: tuple[str, ...] = ("amber14",)
    solvent: Solvent = "vacuum"
    replicas: int = 1
    seed: int = 0
    friction: float = 1.0
    hydrogen_mass: float = 1.008
    equilibrate: int = 10_000
    platform: Platform = "auto"

    def __post_init__(self) -> None:
        _check_choice("solvent", self.solvent, get_args(Solvent))
        _check_choice("platform", self.platform, get_args(Platform))
        for name, least in (("steps", 1), ("stride", 1), ("replicas", 1), ("seed", 0), ("equilibrate", 0)):
            _check_whole(name, getattr(self, name), least)
        for name in ("temperature", "dt", "friction", "hydrogen_mass"):
            _check_positive(name, getattr(self, name))
        if self.stride > self.steps:
            raise ConfigError(
                f"stride={self.stride}: no frame would be stored in {self.steps} steps. Run longer or store more often."
            )
        if not self.force_field:
            raise ConfigError("force_field: expected at least one name or file.")

    @property
    def frames(self) -> int:
        """Stored frames of each replica."""
        return self.steps // self.stride

    @property
    def frames_per_job(self) -> int:
        """Frames that one job makes."""
        return max(1, STEPS_PER_JOB // self.stride)

    @property
    def jobs_per_replica(self) -> int:
        """Jobs that make a replica, one continuing where the one before it ended."""
        return -(-self.frames // self.frames_per_job)

    @property
    def dt_ps(self) -> float:
        """Time between stored frames."""
        return self.dt * self.stride / 1000.0


def steps_of(nanoseconds: float, dt: float) -> int:
    """How many steps of ``dt`` fs a time takes.

    Raises:
        ConfigError: one of them is not above 0.
    """
    _check_positive("ns", nanoseconds)
    _check_positive("dt", dt)
    return max(1, round(nanoseconds * _FEMTOSECONDS_PER_NANOSECOND / dt))


def as_settings(chosen: Conformers | Dynamics) -> dict[str, Any]:
    """The choices as JSON-able values."""
    return {entry.name: getattr(chosen, entry.name) for entry in fields(chosen)}


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} is not known. {did_you_mean(str(value), known)}")


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r}: expected a whole number of at least {least}.")


def _check_positive(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{name}={value!r}: expected a finite number above 0.")
