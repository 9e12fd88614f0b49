"""Where structures come from: files, folders and archives, as pieces that can be read one by one."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from noumena.core.errors import DataError
from noumena.crystals.formats.raw import Raw
from noumena.crystals.formats.split import PART, cif_parts, xyz_parts
from noumena.crystals.formats.tables import csv_pieces, parquet_pieces, parquet_rows
from noumena.crystals.formats.texts import MAX_BYTES, Format, Text, Texts

TABLES = (".csv", ".csv.gz", ".parquet", ".pq")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_ENDINGS: dict[str, Format] = {
    ".cif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".xyz": "xyz",
    ".extxyz": "xyz",
}
_PIECE_BYTES = 1 << 23
_HIDDEN = (".", "__MACOSX")


@dataclass(frozen=True)
class Source:
    """Something that structures can be read from.

    Attributes:
        path: of it.
        format: in a word, for reports.
        files: all files it is made of, by name within it.
        expected: structures it holds, 0 if not known before it is read.
        ignored: files in it that are of other formats.
        pieces: gives them, so many structures at a time.
    """

    path: Path
    format: str
    files: dict[str, Path]
    expected: int
    ignored: int
    pieces: Callable[[int], Iterator[Texts | Raw]]


def open_source(path: Path, properties: Sequence[str] | None = None, id_column: str | None = None) -> Source:
    """What is at a path, by its ending.

    Args:
        path: a file, archive or folder.
        properties, id_column: of tables, see :func:`~noumena.crystals.formats.tables.csv_pieces`.

    Raises:
        DataError: it is missing or of no known format, or a folder without structure files.
    """
    name = path.name.lower()
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file or folder.")
    one = {path.name: path}
    if name.endswith((".parquet", ".pq")):
        rows = parquet_rows(path)
        return Source(path, "Parquet", one, rows, 0, lambda n: parquet_pieces(path, n, properties, id_column))
    if name.endswith((".csv", ".csv.gz")):
        return Source(path, "CSV", one, 0, 0, lambda n: csv_pieces(path, n, properties, id_column))
    if name.endswith(ARCHIVES):
        # Counting the members of a compressed archive would take as long as reading them.
        return Source(path, "archive", one, 0, 0, lambda n: _grouped(_members(path), n))
    kind = format_of(path.name)
    if kind is None:
        raise DataError(
            f"{path}: it is of no known format. Known: {', '.join((*_ENDINGS, *TABLES, *ARCHIVES))}, POSCAR, CONTCAR, "
            "and folders of them."
        )
    return Source(path, kind, one, 0, 0, lambda n: _grouped(_file(path, path.name, kind), n))


def format_of(name: str) -> Format | None:
    """Format of a structure file, compressed (.gz) or not, of its name; None for other files."""
    plain = name.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".gz")
    if plain.startswith(("poscar", "contcar")) and not plain.endswith(tuple(_ENDINGS)):
        return "poscar"
    return next((kind for ending, kind in _ENDINGS.items() if plain.endswith(ending)), None)


def _title(name: str) -> str:
    """Name of a structure of the name of its file; of a POSCAR, of the folder it is in."""
    parts = name.replace("\\", "/").split("/")
    last = parts[-1].removesuffix(".gz")
    if last.upper() in ("POSCAR", "CONTCAR") and len(parts) > 1:
        return parts[-2]
    return last.rpartition(".")[0] or last


def _folder(path: Path) -> Source:
    every = sorted(file for file in path.rglob("*") if file.is_file())
    names = {file.relative_to(path).as_posix(): file for file in every}
    names = {name: file for name, file in names.items() if not _is_hidden(name)}
    kinds: dict[str, Format] = {name: kind for name in names if (kind := format_of(name)) is not None}
    if not kinds:
        tables = [name for name in names if name.lower().endswith((*TABLES, *ARCHIVES))]
        hint = f" It has {', '.join(tables[:3])}: give the path of one." if tables else ""
        raise DataError(f"{path}: the folder has no structure files ({', '.join(_ENDINGS)}, POSCAR).{hint}")
    files = {name: names[name] for name in kinds}

    def texts() -> Iterator[Text]:
        for name, file in files.items():
            yield from _file(file, name, kinds[name])

    expected = len(files) if all(file.stat().st_size < PART for file in files.values()) else 0
    return Source(path, "folder", files, expected, len(names) - len(files), lambda n: _grouped(texts(), n))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in name.split("/") if part not in (".", ".."))


def _file(path: Path, name: str, kind: Format) -> Iterator[Text]:
    """A file as one text that is read later, by whichever process; a long one in parts."""
    if path.stat().st_size <= PART or kind == "poscar":
        yield Text(name, _title(name), kind, path)
        return
    try:
        with path.open("rb") as file:
            yield from _unpacked_parts(file, name, kind)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: it cannot be read: {error}.") from error


def _unpacked_parts(file: IO[bytes], name: str, kind: Format) -> Iterator[Text]:
    if not name.lower().endswith(".gz"):
        yield from _parts(file, name, kind)
        return
    with gzip.open(file) as unpacked:
        yield from _parts(unpacked, name, kind)


def _parts(file: IO[bytes] | gzip.GzipFile, name: str, kind: Format) -> Iterator[Text]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace") as text:
        for part, first in (cif_parts if kind == "cif" else xyz_parts)(text):
            yield Text(name, _title(name), kind, part, first=first)


def _members(path: Path) -> Iterator[Text]:
    """Structure files in an archive, read in memory and never unpacked on disk."""
    found = False
    try:
        for name, content in _zip_members(path) if path.suffix.lower() == ".zip" else _tar_members(path):
            kind = format_of(name)
            if kind is None or _is_hidden(name):
                continue
            found = True
            data = content()
            if len(data) > PART and kind != "poscar":
                yield from _unpacked_parts(io.BytesIO(data), name, kind)
            else:
                yield Text(name, _title(name), kind, data)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{path}: the archive cannot be read: {error}.") from error
    if not found:
        raise DataError(f"{path}: the archive has no structure files ({', '.join(_ENDINGS)}, POSCAR).")


def _zip_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, lambda info=info: _limited(archive.open(info), path, info.filename)


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            if info.isfile():
                yield info.name, lambda info=info: _limited(archive.extractfile(info), path, info.name)


def _limited(file: IO[bytes] | None, path: Path, name: str) -> bytes:
    if file is None:
        raise DataError(f"{path}: the member '{name}' cannot be read.")
    with file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: the member '{name}' has more than {MAX_BYTES} bytes. Unpack it and give its path.")
    return data


def _grouped(texts: Iterator[Text], rows: int) -> Iterator[Texts]:
    """Texts put together until there are ``rows`` of them, or many bytes."""
    group: list[Text] = []
    size = 0
    for text in texts:
        group.append(text)
        size += 0 if isinstance(text.content, Path) else len(text.content)
        # A part of a long file has many structures, and is a piece of its own.
        if len(group) >= rows or size >= _PIECE_BYTES or text.first is not None:
            yield Texts(group)
            group, size = [], 0
    if group:
        yield Texts(group)
