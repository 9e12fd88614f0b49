"""The libraries that files of molecules need, imported when one is read."""

import importlib
from typing import Any

from noumena.core.errors import NotSupportedError


def mdtraj() -> Any:
    """The package mdtraj.

    Raises:
        NotSupportedError: it is not installed.
    """
    return _imported("mdtraj", "mdtraj", "trajectory files, their topologies and selections")


def rdkit_chem() -> Any:
    """The module ``rdkit.Chem``.

    Raises:
        NotSupportedError: RDKit is not installed.
    """
    return _imported("rdkit.Chem", "rdkit", "SDF files and SMILES")


def _imported(module: str, package: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotSupportedError(f"{what} need the package '{package}': pip install 'noumena[molecules]'") from error
