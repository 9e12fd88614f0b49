"""Tables written while they are computed: Parquet, CSV or NPZ by extension, at constant memory, whole or not at all."""

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from noumena.core.errors import ConfigError
from noumena.files import replacing, replacing_folder

# Of one file of a folder, before compression.
PART_BYTES = 256 << 20

Columns = Mapping[str, np.ndarray]
Names = Mapping[str, Sequence[str]]


class _Writer(Protocol):
    def write(self, columns: Columns) -> None: ...

    def close(self) -> None: ...


Write = Callable[[Path, Iterator[Any]], None]


def write_columns(
    chunks: Iterator[Columns],
    output: Path | None,
    *,
    to_stdout: bool = False,
    names: Names | None = None,
    others: Mapping[str, Write] | None = None,
) -> None:
    """Write chunks of columns as they come.

    Args:
        chunks: dictionaries of equally long columns, each chunk with the same names. A 2-D array (rows, size) is one
            array of an .npz file; in the other formats each of its columns is one of the table, ``name.column``.
        output: file ending in .parquet, .csv or .npz.
        to_stdout: with no ``output``, write CSV to the terminal.
        names: name of a 2-D array to names for its columns; 0, 1, ... where missing.
        others: ending, or whole name, of further files to the function that writes them.

    Raises:
        ConfigError: the ending is unknown.
        ArtifactError: the file cannot be written; an older one stays as it was.
    """
    if output is None:
        _drain(chunks, _CsvWriter(sys.stdout.buffer, names or {}) if to_stdout else None)
        return
    if others and (_key(output) in others):
        write_frames(chunks, output, others)
        return
    make = _WRITERS.get(output.suffix)
    if make is None:
        known = ", ".join((*_WRITERS, *(others or {})))
        raise ConfigError(f"{output}: unknown ending '{output.suffix}'. Known: {known}.")
    with replacing(output) as beside:
        _drain(chunks, make(beside, names or {}))


def write_folder(chunks: Iterator[Columns], output: Path, *, names: Names | None = None) -> None:
    """Write chunks of columns as they come to a new folder of Parquet files; read in the order of their names they
    are one table.

    Args:
        chunks, names: as for :func:`write_columns`.
        output: the folder; it appears whole or not at all.

    Raises:
        ArtifactError: it exists already, or cannot be written.
    """
    with replacing_folder(output) as beside:
        _drain(chunks, _FolderWriter(beside, names or {}))


def write_frames(chunks: Iterator[Any], output: Path | None, writers: Mapping[str, Write]) -> None:
    """Write what is no table, as it comes, by a family's own functions.

    Args:
        chunks: what the functions take.
        output: file of one of their endings.
        writers: ending, or whole name, of a file to the function that writes it.

    Raises:
        ConfigError: no file, or its ending is unknown.
        ArtifactError: the file cannot be written; an older one stays as it was.
    """
    known = ", ".join(writers)
    if output is None:
        raise ConfigError(f"give a file to write: -o FILE, ending in {known}.")
    if _key(output) not in writers:
        raise ConfigError(f"{output}: unknown ending '{output.suffix}'. Known: {known}.")
    with replacing(output) as beside:
        writers[_key(output)](beside, chunks)


def _key(output: Path) -> str:
    return output.suffix or output.name


def _drain(chunks: Iterator[Columns], writer: _Writer | None) -> None:
    try:
        for columns in chunks:
            if writer is not None:
                writer.write(columns)
    finally:
        if writer is not None:
            writer.close()


def _record_batch(columns: Columns, names: Names) -> pa.RecordBatch:
    flat: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if column.ndim == 1:
            flat[name] = column
            continue
        parts = names.get(name) or [str(i) for i in range(column.shape[1])]
        flat |= {f"{name}.{part}": column[:, i] for i, part in enumerate(parts)}
    arrays = [pa.array(np.ascontiguousarray(column)) for column in flat.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(flat))


class _ParquetWriter:
    def __init__(self, path: Path, names: Names) -> None:
        self._path = path
        self._names = names
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        batch = _record_batch(columns, self._names)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._path, batch.schema)
        self._writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _FolderWriter:
    """Parquet files of about one size, so that further programs can divide them again."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder = folder
        self._names = names
        self._writer: _ParquetWriter | None = None
        self._held = 0
        self._parts = 0

    def write(self, columns: Columns) -> None:
        if self._writer is None or self._held >= PART_BYTES:
            self.close()
            self._writer = _ParquetWriter(self._folder / f"part-{self._parts:05d}.parquet", self._names)
            self._parts, self._held = self._parts + 1, 0
        self._writer.write(columns)
        self._held += sum(column.nbytes for column in columns.values())

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _CsvWriter:
    def __init__(self, target: Path | IO[bytes], names: Names) -> None:
        self._target = str(target) if isinstance(target, Path) else target
        self._names = names
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        batch = _record_batch(columns, self._names)
        if self._writer is None:
            self._writer = csv.CSVWriter(self._target, batch.schema)
        self._writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _NpzWriter:
    """Columns grow in raw files until their length, which the .npy header states first, is known."""

    def __init__(self, path: Path, names: Names) -> None:
        self._path = path
        self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        self._files: dict[str, IO[bytes]] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._text: dict[str, list[np.ndarray]] = {}  # in memory: how wide it is, the last chunk tells
        self._inner: dict[str, tuple[int, ...]] = {}
        self._rows = 0

    def write(self, columns: Columns) -> None:
        for i, (name, column) in enumerate(columns.items()):
            if column.dtype.kind == "U":
                self._text.setdefault(name, []).append(column)
                continue
            if name not in self._files:
                self._files[name] = (self._folder / str(i)).open("w+b")
                self._dtypes[name] = column.dtype
                self._inner[name] = column.shape[1:]
            self._files[name].write(np.ascontiguousarray(column).data)
        self._rows += len(next(iter(columns.values())))

    def close(self) -> None:
        try:
            with zipfile.ZipFile(self._path, "w") as archive:
                for name, file in self._files.items():
                    header = {
                        "descr": np.lib.format.dtype_to_descr(self._dtypes[name]),
                        "fortran_order": False,
                        "shape": (self._rows, *self._inner[name]),
                    }
                    file.seek(0)
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array_header_2_0(member, header)
                        shutil.copyfileobj(file, member, 1 << 20)
                for name, parts in self._text.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.concatenate(parts), allow_pickle=False)
        finally:
            for file in self._files.values():
                file.close()
            shutil.rmtree(self._folder, ignore_errors=True)


_WRITERS: dict[str, Any] = {".parquet": _ParquetWriter, ".csv": _CsvWriter, ".npz": _NpzWriter}
