"""The libraries that crystals need for files, reduction and matching, imported when they are used."""

import importlib
from typing import Any

from noumena.core.errors import NotSupportedError


def gemmi() -> Any:
    """The package gemmi.

    Raises:
        NotSupportedError: it is not installed.
    """
    return _imported("gemmi", "gemmi", "CIF files")


def moyopy() -> Any:
    """The package moyopy.

    Raises:
        NotSupportedError: it is not installed.
    """
    return _imported("moyopy", "moyopy", "reduction of cells and symmetry")


def pymatgen(module: str) -> Any:
    """A module of the package pymatgen, such as ``core`` or ``analysis.structure_matcher``.

    Raises:
        NotSupportedError: it is not installed.
    """
    return _imported(f"pymatgen.{module}", "pymatgen", "matching of structures")


def ase(module: str) -> Any:
    """A module of the package ase, such as ``atoms``.

    Raises:
        NotSupportedError: it is not installed.
    """
    return _imported(f"ase.{module}", "ase", "ASE's Atoms objects")


def smact() -> Any:
    """The module ``smact.screening``.

    Raises:
        NotSupportedError: it is not installed.
    """
    return _imported("smact.screening", "smact", "charge balance of compositions")


def _imported(module: str, package: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotSupportedError(f"{what} need the package '{package}': pip install 'noumena[crystals]'") from error
