"""A saved model and what its family knows of files."""

import inspect
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noumena.core.errors import NotSupportedError
from noumena.engines.inputs import files_of

if TYPE_CHECKING:
    from noumena.core.family import Family
    from noumena.core.model import LatentModel
    from noumena.engines.work import Columns


class OpenedModel:
    """A saved model and what its family knows of files.

    Attributes:
        model: on the device asked for.
        family: its family.
    """

    def __init__(self, source: Path, device: str) -> None:
        from noumena.artifact import load, read_manifest
        from noumena.artifact.store import model_folder
        from noumena.registry import family

        self.model: LatentModel = load(source, device=device)
        self.family: Family = family(read_manifest(model_folder(source)).model.partition("/")[0])

    def files(self, data: str) -> list[str]:
        """The files of ``data``; see :func:`~noumena.engines.inputs.files_of`."""
        return files_of(data, self.model.schema)

    def batches(self, data: str, rows: int, *, strict: bool = False) -> Iterator[Any]:
        """The rows of files, laid out as the model expects, at most ``rows`` at a time and of one file.

        Raises:
            DataError: as the family's reader does; of the first file at once, of others when they are reached.
            NotSupportedError: ``strict``, and the family skips nothing.
        """
        from noumena.registry import resolve

        read = resolve(self.family.stream)
        options = {"strict": True} if strict else {}
        if options and "strict" not in inspect.signature(read).parameters:
            raise NotSupportedError(
                f"--strict is not for the {self.family.name} family, which skips no rows. Leave it out."
            )
        first, *others = self.files(data)
        rows = self.rows_at_once(rows)

        def opened(file: str) -> Iterator[Any]:
            return read(file, self.model.schema, batch_rows=rows, **options)

        beginning = opened(first)
        return chain(beginning, chain.from_iterable(map(opened, others))) if others else beginning

    def rows_at_once(self, rows: int) -> int:
        """At most ``rows``, and fewer where the model says that they need much memory."""
        return max(1, min(rows, getattr(self.model, "rows_at_once", rows)))

    def feature(self, name: str) -> "Callable[[Any], Columns]":
        """The function that computes further columns of the rows.

        Raises:
            NotSupportedError: the family has none of this name.
        """
        from noumena.registry import families, resolve

        if name not in self.family.features:
            able = ", ".join(entry.name for entry in families() if name in entry.features)
            raise NotSupportedError(f"--{name} is not for the {self.family.name} family; it is for: {able}.")
        compute = resolve(self.family.features[name])
        return lambda rows: compute(rows, self.model.schema)
