"""Chemical elements: symbols and radii."""

from collections.abc import Sequence

import numpy as np

from noumena.core.errors import DataError

# fmt: off
SYMBOLS = (
    "X", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
    "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc",
    "Lv", "Ts", "Og",
)
"""Symbol of each atomic number; ``X`` for 0."""

# Single-bond covalent radii in angstrom by atomic number 0 to 96 (Cordero et al. 2008, table 2; the largest of an
# element's spin states; carbon as sp3).
_COVALENT = (
    1.50, 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.61, 1.52, 1.50, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16, 2.20,
    1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15,
    2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51,
    1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87,
    1.80, 1.69,
)
# fmt: on

HYDROGEN = 1
_NUMBER = {symbol.upper(): number for number, symbol in enumerate(SYMBOLS)}


def atomic_number(symbol: str, where: str = "topology") -> int:
    """The atomic number of an element's symbol, whatever its case.

    Raises:
        DataError: no such element.
    """
    number = _NUMBER.get(symbol.strip().upper())
    if not number:
        raise DataError(f"{where}: '{symbol}' is no element's symbol; expected one such as C, N or Cl.")
    return number


def covalent_radii(elements: Sequence[int] | np.ndarray) -> np.ndarray:
    """Covalent radius of each atom in angstrom, float64, shape (atoms,).

    Args:
        elements: atomic numbers; beyond 96 the radius of 96 is taken.
    """
    return np.asarray(_COVALENT)[np.minimum(np.asarray(elements, dtype=np.int64), len(_COVALENT) - 1)]
