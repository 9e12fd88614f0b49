"""Reading a file of any size at constant memory, laid out as a trained model expects its rows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.density.episodes import EPISODE_SUFFIXES, EpisodeFile, is_sample, open_episode_file
from noumena.readers.arrays import list_arrays
from noumena.readers.checks import check_rows, missing_columns
from noumena.readers.common import TableFile
from noumena.readers.tables import ArrayTable, choose_columns, open_table_file


def stream_rows(
    path: str, schema: Mapping[str, Any], *, batch_rows: int = 65536, key: str | None = None
) -> Iterator[Tensor]:
    """The rows of a file, in file order, in chunks.

    The rows are those that ``open_table`` or ``open_episodes`` would read from the file, before any split. Missing
    values and infinities are refused; finite numbers beyond float32 are clipped to it, so that a far row is scored as
    far. Memory does not grow with the file.

    Args:
        path: any file or folder that ``open_table`` or ``open_episodes`` takes.
        schema: of the table the model was trained on (:attr:`noumena.density.table.Table.schema`). Named columns are
            found by name and put in its order, others are ignored; arrays without names must have its width.
        batch_rows: rows of a chunk; only the last one has fewer.
        key: the 2-D array of an .npz or HDF5 file. Default: the one of the schema, else ``X`` or the only one.

    Yields:
        float32 tensors, shape (at most ``batch_rows``, columns).

    Raises:
        ConfigError: an option is out of range or does not fit the file.
        DataError: the file is missing, damaged or has not the columns (at once); a cell is not a finite number (when
            it is reached, naming its row and column).
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows={batch_rows}: expected at least one row in a chunk.")
    file = _open(path, schema, key)
    if isinstance(file, _Rows):
        chunks = file.chunks()
    else:
        chunks = (block.rows for block in file.blocks(trajectories=False, overflow="clip"))
    return _rebatched(chunks, batch_rows, str(path))


def count_rows(path: str, schema: Mapping[str, Any], *, key: str | None = None) -> int | None:
    """How many rows :func:`stream_rows` will yield, where the file tells without being read; None otherwise.

    Args:
        path, schema, key: as for :func:`stream_rows`.

    Raises:
        ConfigError, DataError: as :func:`stream_rows` at once.
    """
    file = _open(path, schema, key)
    if isinstance(file, _Rows):
        return file.file.rows
    return file.transitions if file.complete else None


class _Rows:
    """The columns of a table file that a model takes, in its order."""

    def __init__(self, file: TableFile, names: Sequence[str], shown: Sequence[str]) -> None:
        self.file = file
        self._names = tuple(names)  # as the file calls them
        self._shown = tuple(shown)  # as the model calls them, for messages

    def chunks(self) -> Iterator[Tensor]:
        for block in self.file.blocks(self._names, ()):
            yield check_rows(block.rows, self._shown, str(self.file.path), block.first_row, "clip")


def _open(path: str, schema: Mapping[str, Any], key: str | None) -> _Rows | EpisodeFile:
    kind = schema.get("kind")
    if kind not in ("table", "episodes"):
        raise ConfigError(f"expected a schema of kind 'table' or 'episodes', found {kind!r}. Pass the model's own.")
    if kind == "episodes" and key is None and _holds_episodes(path):
        return _matching_episodes(path, schema)
    return _matching_table(path, schema, key)


def _holds_episodes(path: str) -> bool:
    """Whether the file is in a layout of episodes; rows laid out already may come in any table file."""
    place = Path(path)
    if is_sample(path) or place.is_dir():
        return True
    if place.suffix.lower() not in EPISODE_SUFFIXES:
        return False
    return any(name == "observations" or name.startswith("episode_") for name in list_arrays(place))


def _matching_episodes(path: str, schema: Mapping[str, Any]) -> EpisodeFile:
    file = open_episode_file(path, schema["row"])
    expected = tuple(schema["columns"])
    if file.columns != expected:
        raise DataError(
            f"{path}: the model takes rows of {len(expected)} columns ({_ends(expected)}), this file gives "
            f"{len(file.columns)} ({_ends(file.columns)}). Use data of the same environment."
        )
    return file


def _matching_table(path: str, schema: Mapping[str, Any], key: str | None) -> _Rows:
    names = tuple(schema["columns"])
    remembered = schema.get("key")
    file = open_table_file(path, key or _key_for(path, remembered))
    if not isinstance(file, ArrayTable):
        if words := missing_columns(names, file.columns):
            raise DataError(f"{path}: {words} Rename the file's columns as in training: {', '.join(names[:20])}.")
        return _Rows(file, choose_columns(file, list(names)), names)
    width = len(file.columns)
    if width == schema.get("width"):
        return _Rows(file, names, names)  # a file like the one of training: the chosen columns are picked out of it
    if width == len(names):
        return _Rows(file, file.columns, names)
    raise DataError(
        f"{path}: expected {len(names)} columns ({', '.join(names[:20])}), found {width}. "
        "Pass the same columns, in the same order."
    )


def _key_for(path: str, remembered: str | None) -> str | None:
    """The array name of the training file matters only where a file has several arrays."""
    return remembered if Path(path).suffix.lower() in EPISODE_SUFFIXES else None


def _rebatched(chunks: Iterator[Tensor], batch_rows: int, where: str) -> Iterator[Tensor]:
    """The same rows in chunks of ``batch_rows``, the last one shorter.

    Raises:
        DataError: there are no rows.
    """
    waiting: list[Tensor] = []
    held = 0
    count = 0
    for chunk in chunks:
        count += len(chunk)
        start = 0
        while held + len(chunk) - start >= batch_rows:
            stop = start + batch_rows - held
            yield torch.cat([*waiting, chunk[start:stop]]) if waiting else chunk[start:stop]
            waiting, held, start = [], 0, stop
        if start < len(chunk):
            waiting.append(chunk[start:])
            held += len(chunk) - start
    if waiting:
        yield torch.cat(waiting)
    if not count:
        raise DataError(f"{where}: expected at least one row, found none. Check how the file was made.")


def _ends(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ... {', '.join(names[-3:])}"
