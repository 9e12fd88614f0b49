"""Means of loss terms over an epoch without waiting for the device at every step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from noumena.core.errors import TrainingDiverged
from noumena.core.losses import LossTerms

_FLUSH_EVERY = 50


class Meter:
    """Collects loss terms on the device and adds them up every 50 steps, in float64 on the host.

    A NaN or an infinity is found when the terms are added up, at most 50 steps after it appeared, and reported with
    the step it appeared at.
    """

    def __init__(self, split: str) -> None:
        self.split = split
        self.names: tuple[str, ...] = ()
        self.explain: Callable[[Mapping[str, float]], str] = lambda terms: ""
        self._pending: list[Tensor] = []
        self._where: list[tuple[int, int]] = []
        self._sums: Tensor | None = None
        self._count = 0
        self.latest: dict[str, float] = {}

    def add(self, terms: LossTerms, size: int, step: int) -> None:
        """Take the terms of one batch of ``size`` samples."""
        if not self.names:
            self.names = terms.names()
        self._pending.append(terms.vector())
        self._where.append((step, size))
        if len(self._pending) >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Add up what is pending.

        Raises:
            TrainingDiverged: a term is NaN or infinite.
        """
        if not self._pending:
            return
        values = torch.stack(self._pending).cpu().double()
        finite = torch.isfinite(values).all(1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise self._diverged(self._where[first][0], values[first])
        sizes = torch.tensor([size for _, size in self._where], dtype=torch.float64)
        products = values * sizes[:, None]
        sums = torch.zeros_like(products[0]) if self._sums is None else self._sums
        # One after the other, so that the last digits do not depend on when this was called.
        self._sums = torch.cat([sums[None], products]).cumsum(0)[-1]
        self._count += int(sizes.sum())
        self.latest = dict(zip(self.names, values[-1].tolist(), strict=True))
        self._pending.clear()
        self._where.clear()

    def means(self, reduce_sum: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over all samples since the last :meth:`reset`, of every process; then reset.

        Args:
            reduce_sum: adds a tensor up over processes.
        """
        self.flush()
        if self._sums is None:
            return {}
        packed = reduce_sum(torch.cat([self._sums, torch.tensor([float(self._count)], dtype=torch.float64)]))
        self.reset()
        return {
            f"{self.split}_{name}": value / float(packed[-1])
            for name, value in zip(self.names, packed[:-1].tolist(), strict=True)
        }

    def reset(self) -> None:
        """Start over."""
        self._pending.clear()
        self._where.clear()
        self._sums = None
        self._count = 0

    def state(self, reduce_sum: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The sums over all processes so far, for a checkpoint within an epoch."""
        self.flush()
        if self._sums is None:
            return {}
        counted = torch.tensor([float(self._count)], dtype=torch.float64)
        packed = reduce_sum(torch.cat([self._sums, counted]))
        return {"names": list(self.names), "packed": packed}

    def restore(self, state: Mapping[str, Any], *, is_main: bool) -> None:
        """Go on from :meth:`state`; one process takes the sums of all."""
        self.reset()
        if not state:
            return
        self.names = tuple(state["names"])
        packed = state["packed"].double().cpu()
        self._sums = packed[:-1] if is_main else torch.zeros_like(packed[:-1])
        self._count = int(packed[-1]) if is_main else 0

    def _diverged(self, step: int, values: Tensor) -> TrainingDiverged:
        terms = dict(zip(self.names, values.tolist(), strict=True))
        shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        return TrainingDiverged(f"the {self.split} loss is not finite at step {step}: {shown}. {self.explain(terms)}")
