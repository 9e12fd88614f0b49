"""Sparse matrices from the elements' matrices, with the pattern worked out once."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from noumena.multimodal.softrobot.geometry import Array, Index


class FreeMatrix:
    """Where the entries of the elements' matrices go in the matrix of the free degrees of freedom."""

    def __init__(self, dofs: Index, free: NDArray[np.bool_]) -> None:
        """
        Args:
            dofs: degrees of freedom of each element, shape (elements, n).
            free: whether a degree of freedom is unknown, shape (all,).
        """
        size = int(free.sum())
        number = np.full(len(free), -1)
        number[free] = np.arange(size)
        local = number[dofs]
        rows = np.repeat(local, local.shape[1], axis=1).ravel()
        columns = np.tile(local, local.shape[1]).ravel()
        self._taken = np.flatnonzero((rows >= 0) & (columns >= 0))
        key = columns[self._taken] * size + rows[self._taken]
        entries, self._slot = np.unique(key, return_inverse=True)
        # SuperLU takes 32-bit indices only.
        self._rows = (entries % size).astype(np.int32)
        self._starts = np.searchsorted(entries, np.arange(size + 1) * size).astype(np.int32)

    def assemble(self, matrices: Array) -> csc_matrix:
        """The sum of the elements' matrices, shape (elements, n, n), restricted to the free degrees of freedom."""
        values = np.bincount(self._slot, matrices.ravel()[self._taken], len(self._rows))
        size = len(self._starts) - 1
        return csc_matrix((values, self._rows, self._starts), shape=(size, size))
