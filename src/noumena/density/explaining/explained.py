"""Rows with everything that can be said of them: score, p-value, contributions, nearest normal row, smallest change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from noumena.core.errors import DataError
from noumena.core.evaluation import Table
from noumena.density.calibration import p_values
from noumena.density.detector import Detector
from noumena.density.differentiable import column_names_of, reference_rows
from noumena.density.explaining.counterfactuals import Change, Space, what_would_change
from noumena.density.explaining.nearest import Nearest, nearest_normal
from noumena.density.explanations import Contributions, Method, contributions

# Columns named in a cell of the table, and standard deviations of the typical range.
_NAMED = 3
_TYPICAL = 2.0


@dataclass(frozen=True)
class Explanation:
    """What is said of some rows.

    Attributes:
        numbers: what the rows are called, such as their numbers in a file, shape (rows,).
        rows: float32, shape (rows, columns).
        columns: their names.
        unit: of scores and contributions.
        score: as ``score_samples`` gives it, shape (rows,).
        p_value: shape (rows,); ``None`` where the model is not calibrated.
        is_anomaly: shape (rows,); ``None`` where the model has no threshold.
        contributions: see :func:`~noumena.density.explanations.contributions`.
        typical: lower and upper end of what a column usually is, shape (2, columns): its mean in the training rows
            plus and minus two standard deviations; of a model that does not standardise, that of the reference rows.
            ``None`` where neither is known.
        nearest: the nearest normal rows; ``None`` without a reference or without a threshold.
        change: what would make the rows normal; ``None`` without a threshold.
    """

    numbers: np.ndarray
    rows: np.ndarray
    columns: tuple[str, ...]
    unit: str
    score: np.ndarray
    p_value: np.ndarray | None
    is_anomaly: np.ndarray | None
    contributions: Contributions
    typical: np.ndarray | None
    nearest: Nearest | None
    change: Change | None

    def __len__(self) -> int:
        return len(self.rows)

    def as_columns(self) -> dict[str, np.ndarray]:
        """One line per row: ``contribution.<column>``, ``nearest.<column>`` and ``change.<column>`` beside the rest."""
        found: dict[str, np.ndarray] = {"row": self.numbers, "score": self.score}
        if self.p_value is not None:
            found["p_value"] = self.p_value
        if self.is_anomaly is not None:
            found["is_anomaly"] = self.is_anomaly
        given = self.contributions
        found |= {"base": given.base, "residual": given.residual, **self._each("contribution", given.values)}
        if self.nearest is not None:
            found |= {"nearest_row": self.nearest.index, "nearest_distance": self.nearest.distance}
            found |= self._each("nearest", self.nearest.rows)
        if self.change is not None:
            found |= {
                "change_reached": self.change.reached,
                "change_distance": self.change.distance,
                "change_score": self.change.score,
                **self._each("change", self.change.change),
            }
        return found

    def _each(self, prefix: str, values: np.ndarray) -> dict[str, np.ndarray]:
        return {f"{prefix}.{name}": values[:, i] for i, name in enumerate(self.columns)}

    def table(self, title: str = "Why these rows are unusual") -> Table:
        """The rows at a glance."""
        lines = [self._line(i) for i in range(len(self))]
        caption = (
            f"Scores and contributions in {self.unit}; a contribution below 0 makes a row less normal, and together "
            f"they are the score less {self._reference_words()}. Changes are in the units "
            "of the data, distances in standard deviations of the columns."
        )
        headings = ["row", "score", "p-value", "contributions", "nearest normal row", "would be normal with"]
        return Table(title, headings, lines, caption)

    @property
    def starts_near(self) -> bool:
        """Whether the contributions start from the nearest normal rows."""
        return self.nearest is not None and bool((self.nearest.index >= 0).all())

    def _reference_words(self) -> str:
        if self.contributions.method == "terms":
            return "the base"
        return f"that of the {'nearest normal row' if self.starts_near else 'mean of the reference rows'}"

    def _line(self, i: int) -> Sequence[Any]:
        nearest = None
        if self.nearest is not None and self.nearest.index[i] >= 0:
            nearest = f"{self.nearest.index[i]} ({self.nearest.distance[i]:.3g} sd away)"
        return [
            str(self.numbers[i]),
            float(self.score[i]),
            None if self.p_value is None else float(self.p_value[i]),
            self._largest(self.contributions.values[i]),
            nearest,
            self._change_words(i),
        ]

    def _change_words(self, i: int) -> str | None:
        if self.change is None:
            return None
        if not self.change.reached[i]:
            return f"not found (best score {self.change.score[i]:.4g}, {self.change.target:.4g} needed)"
        if self.change.distance[i] == 0:
            return "is normal"
        return f"{self._largest(self.change.change[i], self.change.in_sd[i])} ({self.change.distance[i]:.3g} sd in all)"

    def _largest(self, values: np.ndarray, weight: np.ndarray | None = None) -> str:
        order = np.argsort(-np.abs(values if weight is None else weight), kind="stable")[:_NAMED]
        named = ", ".join(f"{self.columns[k]} {values[k]:+.3g}" for k in order if values[k] != 0)
        left = int((values != 0).sum()) - _NAMED
        return f"{named}, {left} smaller" if left > 0 else named or "none"


def explain(
    model: Detector,
    rows: Any,
    *,
    reference: Any = None,
    nearest: Nearest | None = None,
    numbers: Sequence[Any] | np.ndarray | None = None,
    method: Method = "gradients",
    target_p: float | None = None,
    keep: Sequence[str | int] = (),
    space: Space | None = None,
    max_steps: int = 2048,
    tolerance: float = 1e-4,
) -> Explanation:
    """Everything that can be said of why rows score as they do.

    Args:
        model: a trained model.
        rows: to explain; any form that ``score_samples`` takes.
        reference: rows such as the training rows: the normal ones are searched for the nearest, from which the
            contributions start. Without a threshold, or without any, they start from the columns' means.
        nearest: what such a search has found already, of a reference too large for memory.
        numbers: what the rows are called; their numbers when missing.
        method, max_steps, tolerance: of :func:`~noumena.density.explanations.contributions`.
        target_p, keep, space: of :func:`~noumena.density.explaining.counterfactuals.what_would_change`.

    Raises:
        NotSupportedError, ConfigError, DataError: as these functions do.
    """
    x = model._tensor(rows)
    if not len(x):
        raise DataError("expected at least one row to explain, found none.")
    judges = not bool(model.threshold.isnan())
    among = None if reference is None else reference_rows(model, reference)
    if nearest is None and among is not None and judges:
        nearest = nearest_normal(model, x, among)
    found = nearest is not None and bool((nearest.index >= 0).all())
    start = nearest.rows if nearest is not None and found else None
    if start is None and model.standardizer is None and among is not None:
        start = among.double().mean(0)
    score = model.score_samples(x)
    changes = judges or target_p is not None
    return Explanation(
        np.arange(len(x)) if numbers is None else np.asarray(numbers),
        x.cpu().numpy(),
        column_names_of(model),
        model.score_unit,
        score,
        p_values(score, model.calibration.cpu().numpy()) if model.calibration_rows else None,
        model.is_anomaly(score) if judges else None,
        contributions(model, x, reference=start, method=method, max_steps=max_steps, tolerance=tolerance),
        _typical(model, among),
        nearest,
        what_would_change(model, x, target_p=target_p, keep=keep, space=space, reference=start) if changes else None,
    )


def _typical(model: Detector, among: torch.Tensor | None) -> np.ndarray | None:
    if model.standardizer is not None:
        mean = model.standardizer.mean.double()
        spread = _TYPICAL * model.standardizer.scale.double() * ~model.standardizer.constant
    elif among is not None:
        mean, spread = among.double().mean(0), _TYPICAL * among.double().std(0, correction=0)
    else:
        return None
    return torch.stack([mean - spread, mean + spread]).cpu().numpy()
