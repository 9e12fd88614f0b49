"""The nearest row that a model calls normal."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.density.detector import Detector
from noumena.density.differentiable import column_scale, reference_rows

# Distances at once: queries times searched rows.
_QUERIES, _SEARCHED = 256, 8192


@dataclass(frozen=True)
class Nearest:
    """The normal row nearest to each of some rows.

    Attributes:
        index: its number in the reference, int64, shape (rows,); -1 where there is none.
        distance: Euclidean, in standard deviations of the columns, shape (rows,); infinite where there is none.
        rows: the normal rows themselves, float32, shape (rows, columns); NaN where there is none.
    """

    index: np.ndarray
    distance: np.ndarray
    rows: np.ndarray


class NearestSearch:
    """The nearest normal rows, found while a reference of any size goes by."""

    def __init__(self, model: Detector, rows: Tensor, scale: Tensor) -> None:
        """
        Args:
            model: says which rows are normal.
            rows: to search for, shape (rows, columns).
            scale: unit of each column, shape (columns,).
        """
        self._model = model
        self._scale = scale
        self._queries = rows.double() / scale
        self._seen = 0
        self._index = torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)
        self._distance = torch.full((len(rows),), float("inf"), dtype=torch.float64, device=rows.device)
        self._rows = torch.full_like(rows, float("nan"))

    @torch.inference_mode()
    def look_at(self, reference: Tensor) -> None:
        """Take further reference rows, shape (rows, columns), into account.

        Raises:
            NotSupportedError: the model has no threshold, so it calls no row normal.
        """
        normal = torch.from_numpy(~self._model.predict_anomaly(reference)).to(reference.device)
        numbers = normal.nonzero()[:, 0]
        for part in numbers.split(_SEARCHED) if len(numbers) else ():
            searched = reference[part].double() / self._scale
            for start in range(0, len(self._queries), _QUERIES):
                self._compare(slice(start, start + _QUERIES), searched, reference, part)
        self._seen += len(reference)

    def _compare(self, which: slice, searched: Tensor, reference: Tensor, numbers: Tensor) -> None:
        # Not by a matrix product, whose rounding would hide that a row is the reference's own.
        apart = torch.cdist(self._queries[which], searched, compute_mode="donot_use_mm_for_euclid_dist")
        distance, place = apart.min(1)
        nearer = distance < self._distance[which]
        number = numbers[place]
        self._distance[which] = torch.where(nearer, distance, self._distance[which])
        self._index[which] = torch.where(nearer, number + self._seen, self._index[which])
        self._rows[which] = torch.where(nearer[:, None], reference[number], self._rows[which])

    @property
    def found(self) -> Nearest:
        """What is nearest so far."""
        return Nearest(*(part.cpu().numpy() for part in (self._index, self._distance, self._rows)))


def nearest_normal(model: Detector, rows: Any, reference: Any) -> Nearest:
    """The nearest of the reference rows that the model calls normal.

    Args:
        model: a trained model with a threshold.
        rows: to search for; any form that ``score_samples`` takes. A normal row that is in the reference too is its
            own nearest one.
        reference: rows among which to search, such as the training rows.

    Raises:
        NotSupportedError: the model has no threshold.
        DataError: the model calls none of the reference rows normal, or the columns are not the model's.
    """
    among = reference_rows(model, reference)
    search = NearestSearch(model, model._tensor(rows), column_scale(model, among))
    search.look_at(among)
    found = search.found
    if (found.index < 0).any():
        raise DataError(f"reference: the model calls none of its {len(among):,} rows normal. Give normal rows.")
    return found
