"""One form of the cell for every crystal: primitive, then Niggli-reduced, whatever cell a file gives."""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from noumena.core.errors import ConfigError, did_you_mean
from noumena.crystals.formats.raw import Raw
from noumena.crystals.niggli import niggli
from noumena.crystals.primitive import primitive

Reduction = Literal["niggli", "primitive", "none"]


def check_reduction(reduction: str, tolerance: float) -> None:
    """Refuse options that are none.

    Raises:
        ConfigError: an unknown reduction, or a tolerance that is not positive and below 0.5 angstrom.
    """
    if reduction not in get_args(Reduction):
        raise ConfigError(f"reduction='{reduction}'. {did_you_mean(reduction, get_args(Reduction))}")
    if not 0.0 < tolerance < 0.5:
        raise ConfigError(
            f"tolerance={tolerance}: expected a distance above 0 and below 0.5 angstrom, such as 0.01: how far atoms "
            "may be from where a translation of the crystal takes others."
        )


def reduce(raw: Raw, reduction: Reduction, tolerance: float = 0.01) -> Raw:
    """Crystals in cells of one form, right-handed, with coordinates in [0, 1). The crystals themselves stay.

    ``niggli`` is the Niggli cell of the primitive lattice. ``primitive`` keeps a cell that is primitive already, and
    gives the others that Niggli cell. ``none`` keeps all cells; of a left-handed one all vectors change sign. Vectors
    are never turned in space. A cell that has the form already stays the same to the bit.

    Args:
        raw: crystals of sound cells.
        reduction: the form.
        tolerance: how far atoms may be from where a translation of the crystal takes others, in angstrom.
    """
    raw = _right_handed(raw)
    if reduction != "none":
        raw, changed = primitive(raw, tolerance)
        raw = _changed_basis(raw, np.arange(len(raw)) if reduction == "niggli" else np.flatnonzero(changed))
    return replace(raw, frac_coords=in_cell(raw.frac_coords))


def in_cell(frac_coords: np.ndarray) -> np.ndarray:
    """Fractional coordinates brought to [0, 1)."""
    inside = frac_coords - np.floor(frac_coords)
    # Just below a whole number the difference rounds up to 1.
    return np.where(inside >= 1.0, 0.0, inside)


def _right_handed(raw: Raw) -> Raw:
    left = np.linalg.det(raw.lattice) < 0
    if not left.any():
        return raw
    sign = np.where(left, -1.0, 1.0)
    return replace(
        raw, lattice=raw.lattice * sign[:, None, None], frac_coords=raw.frac_coords * sign[raw.crystal][:, None]
    )


def _changed_basis(raw: Raw, crystals: np.ndarray) -> Raw:
    """Niggli cells for some crystals."""
    change = np.tile(np.eye(3, dtype=np.int64), (len(raw), 1, 1))
    change[crystals] = niggli(raw.lattice[crystals])
    moved = (change != np.eye(3, dtype=np.int64)).any((1, 2))
    if not moved.any():
        return raw
    lattice, frac = raw.lattice.copy(), raw.frac_coords.copy()
    lattice[moved] = change[moved] @ lattice[moved]
    atoms = moved[raw.crystal]
    # The inverse of a whole matrix of determinant 1 is whole: rounding frees it of error.
    inverse = np.rint(np.linalg.inv(change.astype(np.float64)))
    frac[atoms] = np.einsum("ai,aij->aj", frac[atoms], inverse[raw.crystal[atoms]])
    return replace(raw, lattice=lattice, frac_coords=frac)
