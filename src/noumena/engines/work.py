"""What is computed of each chunk of rows: the same functions in this process and in any other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from noumena.engines.opened import OpenedModel

Columns = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class Work:
    """What to compute of each chunk, in words that travel to other processes.

    Attributes:
        verb: ``vectors``: an id where rows have one, and z0, z1, ...; ``atoms``: the latents of each atom; ``scores``:
            the score.
        features: further columns of the vectors that the family computes from the rows.
    """

    verb: Literal["vectors", "atoms", "scores"]
    features: tuple[str, ...] = ()

    def on(self, opened: "OpenedModel") -> Callable[[Any], Columns]:
        """The function from a chunk of rows to equally long columns.

        Raises:
            NotSupportedError: the family has not the features.
        """
        model: Any = opened.model
        features = [opened.feature(name) for name in self.features]

        def vectors(rows: Any) -> Columns:
            found = {**ids(rows), **_numbered(model.embed(rows))}
            for feature in features:
                found |= feature(rows)
            return found

        if self.verb == "vectors":
            return _without_gradients(vectors)
        if self.verb == "scores":
            return _without_gradients(lambda rows: {"score": model.score_samples(rows)})
        atoms = opened.feature("per-atom")
        return _without_gradients(lambda rows: {**atoms(rows), **_numbered(model.encode(rows).atoms)})


def ids(rows: Any) -> dict[str, "np.ndarray"]:
    """The names of rows as a column ``id``, or no column where they have none."""
    import numpy as np

    names = getattr(rows, "names", ())
    # Tensors have names too, of their axes.
    if not isinstance(names, tuple) or len(names) != len(rows) or not all(isinstance(name, str) for name in names):
        return {}
    return {"id": np.asarray(names)}


def with_times(columns: Columns, first: int, step: float) -> Columns:
    """The columns with ``time`` before the vectors: the number of the row times ``step``; ``first`` is the first."""
    import numpy as np

    count = len(next(iter(columns.values())))
    time = step * np.arange(first, first + count, dtype=np.float64)
    leading = {name: column for name, column in columns.items() if name == "id"}
    return {**leading, "time": time, **columns}


def _numbered(vectors: "Tensor") -> dict[str, "np.ndarray"]:
    found = vectors.cpu().numpy()
    return {f"z{i}": found[:, i] for i in range(found.shape[1])}


def _without_gradients(compute: Callable[[Any], Columns]) -> Callable[[Any], Columns]:
    import torch

    def inner(rows: Any) -> Columns:
        with torch.inference_mode():
            return compute(rows)

    return inner
