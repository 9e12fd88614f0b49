"""Niggli-reduced cells of many lattices at once.

Krivy and Gruber, Acta Cryst. A32 (1976) 297, with the tolerances of Grosse-Kunstleve, Sauter and Adams, Acta Cryst.
A60 (2004) 1: the same steps, each on all lattices that need it. Every step has determinant 1, so that a right-handed
cell stays one, and a cell that is reduced already takes none: it stays the same to the bit.
"""

import numpy as np

from noumena.core.errors import DataError

RELATIVE_TOLERANCE = 1e-5
"""Differences of the metric below this times V^(2/3) are none."""
_MAX_STEPS = 100
_COARSER = (1.0, 10.0, 100.0, 1000.0)


def niggli(lattice: np.ndarray) -> np.ndarray:
    """The integer matrix that takes each cell to its Niggli cell: ``reduced = change @ lattice``.

    Args:
        lattice: rows are the cell vectors, shape (crystals, 3, 3), of positive volume.

    Returns:
        int64, shape (crystals, 3, 3), determinant 1.

    Raises:
        DataError: a cell does not come to an end, as no sound one does.
    """
    change = np.tile(np.eye(3, dtype=np.int64), (len(lattice), 1, 1))
    epsilon = RELATIVE_TOLERANCE * np.abs(np.linalg.det(lattice)) ** (2 / 3)
    active = np.arange(len(lattice))
    # Where a difference is as large as the tolerance, the steps may go in a circle: a coarser one ends it.
    for coarser in _COARSER:
        for _ in range(_MAX_STEPS):
            if not len(active):
                return change
            moved, done = _step(change[active], lattice[active], coarser * epsilon[active])
            change[active] = moved
            active = active[~done]
    raise DataError(f"{len(active)} cells do not reduce, the first is {lattice[active[0]].tolist()}.")


def metric(lattice: np.ndarray) -> tuple[np.ndarray, ...]:
    """Squares of the cell vectors and twice their products, ``a.a, b.b, c.c, 2 b.c, 2 a.c, 2 a.b``; (crystals,) each.

    Args:
        lattice: rows are the cell vectors, shape (crystals, 3, 3).
    """
    products = lattice @ lattice.transpose(0, 2, 1)
    a, b, c = (products[:, i, i] for i in range(3))
    return a, b, c, 2.0 * products[:, 1, 2], 2.0 * products[:, 0, 2], 2.0 * products[:, 0, 1]


def _step(change: np.ndarray, lattice: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round of the steps N1 to N8: the new change, and which lattices needed none of those that begin anew."""
    a, b, c, xi, eta, zeta = metric(change @ lattice)
    swap = (a > b + e) | ((np.abs(a - b) <= e) & (np.abs(xi) > np.abs(eta) + e))  # N1
    change = _applied(change, swap, _SWAP_AB)
    a, b, c, xi, eta, zeta = metric(change @ lattice)
    again = (b > c + e) | ((np.abs(b - c) <= e) & (np.abs(eta) > np.abs(zeta) + e))  # N2
    change = _applied(change, again, _SWAP_BC)
    # N3 and N4; what was swapped in N2 begins anew anyway, its signs included.
    products = np.stack([xi, eta, zeta], 1)
    signs = np.where(again[:, None], 1, _signs(products, e))
    change = signs[:, :, None] * change
    # Signs of vectors i, j, k multiply their products, and i j k is 1.
    xi, eta, zeta = (products * signs[:, [1, 0, 0]] * signs[:, [2, 2, 1]]).T
    for needed, shift in _shifts(a, b, xi, eta, zeta, e):
        chosen = needed & ~again
        change = np.where(chosen[:, None, None], shift @ change, change)
        again |= chosen
    return change, ~again


_SWAP_AB = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]])
_SWAP_BC = np.array([[-1, 0, 0], [0, 0, -1], [0, -1, 0]])


def _applied(change: np.ndarray, chosen: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.where(chosen[:, None, None], by @ change, change)


def _signs(products: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Signs of the three vectors that make xi, eta, zeta all positive (N3) or none of them (N4), shape (crystals, 3).

    Args:
        products: xi, eta, zeta, shape (crystals, 3).
        e: tolerance, shape (crystals,).
    """
    positive, negative = products > e[:, None], products < -e[:, None]
    zero = ~(positive | negative)
    all_positive = ~zero.any(1) & (negative.sum(1) % 2 == 0)  # N3: their product is positive
    signs = np.where(all_positive[:, None], np.where(negative, -1, 1), np.where(positive, -1, 1))
    # N4: a product that is zero may take either sign, which puts the determinant right; the last of them, as in the
    # paper. Without a zero, the number of positive ones is even here.
    odd = (signs.prod(1) < 0).nonzero()[0]
    last = 2 - np.argmax(zero[odd, ::-1], 1)
    signs[odd, last] *= -1
    return signs


def _shifts(
    a: np.ndarray, b: np.ndarray, xi: np.ndarray, eta: np.ndarray, zeta: np.ndarray, e: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Steps N5 to N8: which lattices need each, bool (crystals,), and the matrix it is, (crystals, 3, 3)."""
    n5 = (np.abs(xi) > b + e) | ((np.abs(b - xi) <= e) & (2 * eta < zeta - e)) | ((np.abs(b + xi) <= e) & (zeta < -e))
    n6 = (np.abs(eta) > a + e) | ((np.abs(a - eta) <= e) & (2 * xi < zeta - e)) | ((np.abs(a + eta) <= e) & (zeta < -e))
    n7 = (
        (np.abs(zeta) > a + e) | ((np.abs(a - zeta) <= e) & (2 * xi < eta - e)) | ((np.abs(a + zeta) <= e) & (eta < -e))
    )
    total = xi + eta + zeta + a + b
    n8 = (total < -e) | ((np.abs(total) <= e) & (2 * (a + eta) + zeta > e))
    one = np.ones_like(a)
    return [
        (n5, _add(2, 1, -_times(xi, b))),
        (n6, _add(2, 0, -_times(eta, a))),
        (n7, _add(1, 0, -_times(zeta, a))),
        (n8, _add(2, 0, one) + _add(2, 1, one) - np.eye(3, dtype=np.int64)),
    ]


def _times(product: np.ndarray, square: np.ndarray) -> np.ndarray:
    """How often the shorter vector goes into the longer: at once what the paper does one by one."""
    whole = np.rint(product / (2 * square))
    return np.where(whole == 0, np.sign(product), whole)


def _add(to: int, of: int, times: np.ndarray) -> np.ndarray:
    """Matrices that add ``times`` the vector ``of`` to the vector ``to``, int64, shape (crystals, 3, 3)."""
    matrix = np.tile(np.eye(3, dtype=np.int64), (len(times), 1, 1))
    matrix[:, to, of] = times.astype(np.int64)
    return matrix
