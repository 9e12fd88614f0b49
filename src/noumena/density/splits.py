"""The parts of a table with their facts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from noumena.core.data import Splits
from noumena.density.table import Table


def assemble(
    table: Table, parts: Mapping[str, Tensor], about: Mapping[str, Any], extra: Mapping[str, Table] | None = None
) -> Splits:
    """The :class:`~noumena.core.data.Splits` of ``table``; row, group and anomaly counts are added to ``about``."""
    tables = {name: table.subset(index) for name, index in parts.items()}
    facts: dict[str, Any] = {**about, "columns": len(table.columns), "rows": {n: len(t) for n, t in tables.items()}}
    if table.groups is not None:
        word = "trajectories" if table.layout["kind"] == "episodes" else "groups"
        facts[word] = {name: len(part.groups.unique()) for name, part in tables.items() if part.groups is not None}
    if table.labels is not None:
        facts["anomalies"] = {name: int(part.labels.sum()) for name, part in tables.items() if part.labels is not None}
    return Splits(tables["train"], tables.get("val"), tables.get("test"), extra or {}, facts)
