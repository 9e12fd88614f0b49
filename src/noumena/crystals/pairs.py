"""Pairs of atoms of many crystals of equal size, in blocks that fit in memory."""

from collections.abc import Iterator

import numpy as np

_PAIRS = 1 << 18  # at a time: what fits in a processor's cache is fastest


def by_size(num_atoms: np.ndarray, chosen: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crystals of equal numbers of atoms.

    Args:
        num_atoms: int64, shape (crystals,).
        chosen: numbers of the crystals to look at, default all.

    Yields:
        their numbers, int64 (n,), and the numbers of their atoms, int64 (n, size).
    """
    first = np.concatenate([[0], np.cumsum(num_atoms)])
    numbers = np.arange(len(num_atoms)) if chosen is None else chosen
    sizes = num_atoms[numbers]
    for size in np.unique(sizes).tolist():
        of_size = numbers[sizes == size]
        step = max(1, _PAIRS // (size * size))
        for start in range(0, len(of_size), step):
            some = of_size[start : start + step]
            yield some, first[some][:, None] + np.arange(size)


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Blocks of rows whose pairs with ``width`` others fit in memory."""
    step = max(1, _PAIRS // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def wrapped_squares(difference: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Squares of the lengths of differences brought to [-1/2, 1/2], in square angstrom.

    Args:
        difference: of fractional coordinates, shape (n, ..., 3); written over.
        lattice: shape (n, 3, 3).
    """
    difference -= np.rint(difference)
    shape = difference.shape
    cart = difference.reshape(shape[0], -1, 3) @ lattice
    return np.einsum("nij,nij->ni", cart, cart).reshape(shape[:-1])
