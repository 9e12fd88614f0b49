"""``noumena neighbours``."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Opened, Output, Source, Strict
from noumena.cli.interpolate import row_of
from noumena.engines.work import ids

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_CHUNK = 4096


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="neighbours", no_args_is_help=True)(neighbours)


def neighbours(
    source: Source,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Where to search: a file of any size.")],
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="What to search for: all rows of a file, or one as FILE:NUMBER (from 0) or FILE:ID."
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many of each.")] = 5,
    output: Output = None,
    strict: Strict = False,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """The rows of DATA nearest to those of QUERY: Euclidean distance of the vectors that `encode` gives.

    A row of QUERY that is in DATA too is its own first neighbour.
    """
    import torch

    opened = Opened(source, device)
    with torch.inference_mode():
        names, vectors = _queries(opened, query, strict)
        search = _Search.start(vectors, k)
        for batch in opened.batches(data, _CHUNK, strict=strict):
            search.look_at(opened.model.embed(batch), ids(batch).get("id"))
    found = search.columns(names)
    if output is not None:
        from noumena.cli.output import write_columns

        write_columns(iter([found]), output)
    if as_json:
        typer.echo(json.dumps({"rows": search.rows, "queries": _as_json(found), "output": output and str(output)}))
    elif output is not None:
        typer.echo(f"{len(names):,} queries in {search.rows:,} rows -> {output}")
    else:
        _print(found)


def _queries(opened: Opened, query: str, strict: bool) -> tuple[list[str], "Tensor"]:
    """Names, and vectors of shape (queries, size)."""
    import torch

    names: list[str] = []
    vectors: list[Tensor] = []
    for batch in _query_batches(opened, query, strict):
        vectors.append(opened.model.embed(batch))
        given = ids(batch).get("id")
        first = len(names)
        names += [str(first + i) for i in range(len(batch))] if given is None else [str(name) for name in given]
    return names, torch.cat(vectors)


def _query_batches(opened: Opened, query: str, strict: bool) -> Iterator[Any]:
    if Path(query).exists() or (query.startswith("sample:") and query.count(":") == 1):
        return opened.batches(query, _CHUNK, strict=strict)
    one = row_of(opened, query)
    return iter([one[None] if hasattr(one, "ndim") else one])


@dataclass
class _Search:
    """The nearest rows so far.

    Attributes:
        vectors: of the queries, shape (queries, size).
        k: rows to keep for each at most.
        distances: ascending, shape (queries, found).
        numbers: of the rows, int64, likewise.
        names: of rows that were near at some time, by number.
        rows: looked at.
    """

    vectors: "Tensor"
    k: int
    distances: "Tensor"
    numbers: "Tensor"
    names: dict[int, str]
    rows: int = 0

    @classmethod
    def start(cls, vectors: "Tensor", k: int) -> "_Search":
        import torch

        none = vectors.new_empty(len(vectors), 0)
        return cls(vectors, k, none, none.to(torch.int64), {})

    def look_at(self, vectors: "Tensor", names: "np.ndarray | None") -> None:
        """Take further rows, vectors of shape (rows, size), into account."""
        import torch

        # Not by a matrix product, whose rounding would hide that a row is the query itself.
        near = torch.cdist(self.vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
        numbers = torch.arange(self.rows, self.rows + len(vectors), device=near.device).expand(len(near), -1)
        distances, numbers = torch.cat([self.distances, near], 1), torch.cat([self.numbers, numbers], 1)
        order = distances.argsort(dim=1, stable=True)[:, : self.k]
        self.distances, self.numbers = distances.gather(1, order), numbers.gather(1, order)
        if names is not None:
            new = self.numbers[self.numbers >= self.rows].unique().tolist()
            self.names |= {number: str(names[number - self.rows]) for number in new}
        self.rows += len(vectors)

    def columns(self, names: list[str]) -> "dict[str, np.ndarray]":
        """What was found as a table: query, rank from 1, id where there are some, row and distance."""
        import numpy as np

        kept = self.numbers.shape[1]
        numbers = self.numbers.cpu().numpy().reshape(-1)
        column = {"id": np.asarray([self.names[number] for number in numbers.tolist()])} if self.names else {}
        return {
            "query": np.repeat(np.asarray(names), kept),
            "rank": np.tile(np.arange(1, kept + 1), len(names)),
            **column,
            "row": numbers,
            "distance": self.distances.cpu().numpy().reshape(-1),
        }


def _as_json(found: "dict[str, np.ndarray]") -> list[dict[str, Any]]:
    kept = int(found["rank"].max())
    rows = [dict(zip(found, values, strict=True)) for values in zip(*(c.tolist() for c in found.values()), strict=True)]
    return [
        {
            "query": rows[start]["query"],
            "neighbours": [{n: v for n, v in row.items() if n not in ("query", "rank")} for row in rows[start:][:kept]],
        }
        for start in range(0, len(rows), kept)
    ]


def _print(found: "dict[str, np.ndarray]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name, column in found.items():
        table.add_column(name, justify="left" if column.dtype.kind == "U" else "right")
    for row in zip(*(column.tolist() for column in found.values()), strict=True):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console().print(table)
