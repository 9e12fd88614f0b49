"""OpenMM's force fields applied to a molecule: parameters found or refused in words, implicit water made fast."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.molecules.generate.settings import Dynamics

FORCE_FIELDS = {
    "amber14": "amber14-all.xml",
    "amber19": "amber19-all.xml",
    "amber99sbildn": "amber99sbildn.xml",
    "charmm36": "charmm36.xml",
}
"""Names of the force fields that come with OpenMM: proteins, nucleic acids, and some lipids and sugars."""

_OBC2 = "implicit/obc2.xml"
# Tags of a force-field file by which it would run Python or read other files.
_ACTIVE_TAGS = ("Script", "InitializationScript", "Include")
_MOST_XML_BYTES = 1 << 26
_BORN_OFFSET = 0.009  # nm; Onufriev, Bashford & Case 2004
_WATER_DIELECTRIC = 78.5
_RESIDUES_SHOWN = 3


def openmm(module: str = "openmm") -> Any:
    """The package OpenMM, or a module of it.

    Raises:
        NotSupportedError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotSupportedError("molecular dynamics needs the package 'openmm': pip install 'noumena[md]'") from error


def open_force_field(chosen: Dynamics) -> Any:
    """The ``openmm.app.ForceField`` of the files chosen.

    Raises:
        ConfigError: an unknown name, or a file that is damaged or would run code.
        NotSupportedError: OpenMM is not installed.
    """
    app = openmm("openmm.app")
    files = [FORCE_FIELDS.get(name) or _checked_file(name) for name in chosen.force_field]
    if chosen.solvent == "obc2":
        files.append(_OBC2)
    try:
        return app.ForceField(*files)
    except Exception as error:  # OpenMM raises many kinds for a bad file
        raise ConfigError(f"force_field={list(chosen.force_field)}: OpenMM cannot read it: {_words(error)}.") from error


def _checked_file(name: str) -> str:
    """A user's force-field file, if it holds parameters only."""
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"force_field={name!r} is no file and not known. {did_you_mean(name, FORCE_FIELDS)}")
    if path.stat().st_size > _MOST_XML_BYTES:
        raise ConfigError(f"{path}: too large for a force field ({path.stat().st_size:,} bytes).")
    try:
        tags = {element.tag for element in ElementTree.parse(path).iter()}
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no XML file of a force field ({error}).") from error
    if active := [tag for tag in _ACTIVE_TAGS if tag in tags]:
        raise ConfigError(
            f"{path}: its <{active[0]}> would run code or read other files, which is not done. Remove it, and name "
            "included files as further force fields."
        )
    return str(path)


def make_system(field: Any, topology: Any, chosen: Dynamics, where: str) -> Any:
    """The ``openmm.System`` of a molecule: no cutoff, bonds to hydrogen constrained.

    Args:
        field: of :func:`open_force_field`.
        topology: an ``openmm.app.Topology``.
        chosen: solvent and mass of hydrogens.
        where: the source, for messages.

    Raises:
        DataError: the force field has no parameters for a residue.
    """
    app, unit = openmm("openmm.app"), openmm("openmm.unit")
    if unknown := field.getUnmatchedResidues(topology):
        raise DataError(_no_template(unknown, chosen, where))
    masses = {} if chosen.hydrogen_mass == Dynamics.hydrogen_mass else {"hydrogenMass": chosen.hydrogen_mass * unit.amu}
    try:
        system = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, **masses)
    except Exception as error:  # OpenMM raises many kinds
        raise DataError(f"{where}: {', '.join(chosen.force_field)} does not fit it: {_words(error)}.") from error
    if chosen.solvent == "obc2":
        _use_native_obc2(system)
    return system


def _no_template(unknown: Sequence[Any], chosen: Dynamics, where: str) -> str:
    shown = ", ".join(
        f"{residue.name}{residue.id} ({sum(1 for _ in residue.atoms())} atoms)" for residue in unknown[:_RESIDUES_SHOWN]
    )
    others = " and others" if len(unknown) > _RESIDUES_SHOWN else ""
    return (
        f"{where}: {', '.join(chosen.force_field)} has no parameters for {shown}{others}. Standard force fields know "
        "amino and nucleic acids and their usual caps, complete and with usual names: add atoms that are missing. For "
        "another molecule give its parameters with --force-field FILE.xml beside the name (openmmforcefields writes "
        "such files for GAFF and OpenFF), or make conformers without dynamics: noumena data conformers."
    )


def _use_native_obc2(system: Any) -> None:
    """Replace the formula that ``implicit/obc2.xml`` writes by OpenMM's own force of the same energy, tens of times
    faster on a processor.
    """
    mm = openmm()
    number, custom = next((i, f) for i, f in enumerate(system.getForces()) if isinstance(f, mm.CustomGBForce))
    names = [custom.getPerParticleParameterName(i) for i in range(custom.getNumPerParticleParameters())]
    native = mm.GBSAOBCForce()
    native.setNonbondedMethod(mm.GBSAOBCForce.NoCutoff)
    native.setSolventDielectric(_WATER_DIELECTRIC)
    native.setSoluteDielectric(1.0)
    for particle in range(custom.getNumParticles()):
        values = dict(zip(names, custom.getParticleParameters(particle), strict=True))
        # The file has the radius less an offset, and that times the scale.
        native.addParticle(values["charge"], values["or"] + _BORN_OFFSET, values["sr"] / values["or"])
    system.removeForce(number)
    system.addForce(native)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
