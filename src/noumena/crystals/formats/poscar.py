"""Crystals of VASP's POSCAR and CONTCAR files."""

import numpy as np

from noumena.crystals.formats.cells import element
from noumena.crystals.formats.raw import Skipped, Structure


def read_poscar(text: str, where: str, name: str, first: int | None = None) -> tuple[list[Structure], list[Skipped]]:
    """The crystal of a text of VASP 5 or later, which names its elements.

    Args:
        text: of one file.
        where: the file, for messages.
        name: of the crystal.
        first: unused; such a text holds one crystal.
    """
    try:
        lattice, frac, types = _parse(text.splitlines())
    except (ValueError, IndexError) as error:
        return [], [Skipped(where, name, f"it is no POSCAR: {error}")]
    return [Structure(lattice, frac, types, where, name)], []


def _parse(lines: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(lines) < 8:
        raise ValueError(f"it has {len(lines)} lines; expected a title, a scale, three vectors, elements and atoms")
    lattice = np.array([_numbers(line, 3, "a cell vector") for line in lines[2:5]])
    scale = _scale(lines[1].split(), lattice)
    symbols = lines[5].split()
    if not symbols or symbols[0].isdigit():
        raise ValueError("line 6 names no elements (VASP 4); put them in a line above their numbers")
    # Names of potentials, such as Fe_pv or Fe/0123abc, begin with the element.
    kinds = [element(symbol.replace("/", "_").partition("_")[0]) for symbol in symbols]
    if not all(kinds):
        raise ValueError(f"line 6 has '{symbols[kinds.index(0)]}'; expected symbols of elements")
    counts = [int(text) for text in lines[6].split()]
    if len(counts) != len(kinds) or min(counts) < 0:
        raise ValueError(f"line 7 has {len(counts)} numbers of atoms for {len(kinds)} elements")
    at = 8 if lines[7].strip()[:1].lower() == "s" else 7
    cartesian = lines[at].strip()[:1].lower() in ("c", "k")
    if not cartesian and lines[at].strip()[:1].lower() != "d":
        raise ValueError(f"line {at + 1} is '{lines[at].strip()}'; expected Direct or Cartesian")
    rows = lines[at + 1 : at + 1 + sum(counts)]
    if len(rows) < sum(counts):
        raise ValueError(f"{sum(counts)} atoms are announced, and {len(rows)} lines follow")
    coords = np.array([_numbers(row, 3, "an atom") for row in rows]).reshape(-1, 3)
    lattice = lattice * scale
    if cartesian:
        coords = np.linalg.solve(lattice.T, (coords * scale).T).T if np.linalg.det(lattice) else coords * np.nan
    return lattice, coords, np.repeat(np.array(kinds, np.int64), counts)


def _scale(words: list[str], lattice: np.ndarray) -> np.ndarray:
    """One factor, or one for each of x, y and z; a negative one is the volume in cubic angstrom."""
    values = np.array([float(word) for word in words[: 3 if len(words) >= 3 else 1]])
    if len(values) == 1 and values[0] < 0:
        return (-values / abs(np.linalg.det(lattice))) ** (1 / 3)
    if (values <= 0).any():
        raise ValueError(f"the scale is {' '.join(words)}; expected a positive number, or minus the volume")
    return values


def _numbers(line: str, count: int, what: str) -> list[float]:
    words = line.split()[:count]
    if len(words) < count:
        raise ValueError(f"'{line.strip()}' is not {what} of {count} numbers")
    return [float(word) for word in words]
