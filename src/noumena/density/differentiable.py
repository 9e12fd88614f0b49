"""A trained detector as a differentiable function in double precision, and the units in which its rows are compared."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.density.detector import Detector
from noumena.density.table import as_table

SMOOTHED = "importance, elbo, reconstruction or reconstruction_probability"


@dataclass(frozen=True)
class Differentiable:
    """A copy of a model in float64, with frozen weights.

    Attributes:
        model: the copy; rounding of its scores is far below any tolerance in use.
        block: rows to evaluate at once with gradients.
    """

    model: Detector
    block: int

    @classmethod
    def of(cls, model: Detector) -> "Differentiable":
        """The copy.

        Raises:
            NotSupportedError: the model's score has no gradient.
        """
        if not has_gradient(model):
            raise NotSupportedError(
                f"scoring='original' draws noise by the bits of a row, so its score has no gradient. Use {SMOOTHED}."
            )
        double = copy.deepcopy(model).eval()
        # Apple's GPUs have no double precision.
        double = (double.cpu() if model.device.type == "mps" else double).double()
        for parameter in double.parameters():
            parameter.requires_grad_(False)
        return cls(double, double._rows_of_a_block)

    def score(self, rows: Tensor) -> Tensor:
        """Scores (rows,) of ``rows`` (rows, columns) in the units of the data, differentiable."""
        return self.model.log_density(rows)

    def rows(self, data: Any) -> Tensor:
        """Rows as float64 where the copy is."""
        return self.model._tensor(data).detach().to(self.model.device, torch.float64)

    def scores(self, rows: Tensor) -> Tensor:
        """Scores (rows,), in blocks, without gradients."""
        with torch.no_grad():
            return torch.cat([self.score(part) for part in rows.split(self.block)])


def has_gradient(model: Detector) -> bool:
    """Whether the score of a model is a smooth function of the row."""
    return getattr(model, "active_scoring", None) != "original"


def column_scale(model: Detector, reference: Tensor | None) -> Tensor:
    """The unit in which changes of a column are measured, float64, shape (columns,).

    The standard deviation in the training rows where the model standardises, else that of the ``reference`` rows, else
    1, the unit of the data. A column that never varied keeps its own unit.

    Args:
        model: a trained model.
        reference: rows, shape (rows, columns).
    """
    if model.standardizer is not None:
        return model.standardizer.scale.double()
    if reference is None or len(reference) < 2:
        assert model.input_dim is not None
        return torch.ones(model.input_dim, dtype=torch.float64, device=model.device)
    std = reference.double().std(0, correction=0)
    return torch.where(std > 0, std, torch.ones_like(std))


def column_names_of(model: Detector) -> tuple[str, ...]:
    """The columns' names as in training; ``x_0``, ``x_1``, ... where they had none."""
    assert model.input_dim is not None
    return tuple(model.schema.get("columns") or (f"x_{i}" for i in range(model.input_dim)))


def column_mask(model: Detector, columns: Any) -> Tensor:
    """True at ``columns``, given by name or number; bool, shape (columns,).

    Raises:
        ConfigError: there is no such column.
    """
    names = column_names_of(model)
    mask = torch.zeros(len(names), dtype=torch.bool, device=model.device)
    for column in columns:
        place = names.index(column) if column in names else column
        if not isinstance(place, int) or not 0 <= place < len(names):
            shown = ", ".join(names[:20])
            raise ConfigError(f"keep: there is no column {column!r}. The model has {len(names)}: {shown}.")
        mask[place] = True
    return mask


def reference_rows(model: Detector, reference: Any) -> Tensor:
    """Reference rows (rows, columns), float32 on the model's device; one row may come as (columns,).

    Raises:
        DataError: not the model's columns, or no row.
    """
    one = isinstance(reference, (list, tuple)) or getattr(reference, "ndim", 2) == 1
    if one and not isinstance(reference, str):
        reference = torch.as_tensor(reference)
        reference = reference[None] if reference.ndim == 1 else reference
    rows = model._tensor(as_table(reference, model.schema.get("columns"), overflow="clip"))
    if not len(rows):
        raise DataError("reference: expected at least one row, found none.")
    return rows
