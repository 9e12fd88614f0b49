"""What the readers share: the view of a table file, finding a file, and turning a library's failure into words."""

import difflib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from noumena.core.errors import ConfigError, DataError, did_you_mean

# One read holds about this many bytes, whatever the size of the file or the width of its rows.
BLOCK_BYTES = 8 << 20

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
COLUMN_SUFFIXES = (".csv", ".parquet", ".pq")
TABLE_SUFFIXES = COLUMN_SUFFIXES + ARRAY_SUFFIXES
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        rows: numbers, shape (rows, features); a missing value is NaN.
        side: label and group columns as text, each of shape (rows,); a missing value is "".
        first_row: the number, in the file, of the block's first row.
    """

    rows: np.ndarray
    side: Mapping[str, np.ndarray]
    first_row: int


class TableFile(Protocol):
    """A table file whose header has been read and checked."""

    path: Path

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns; ``x_0``, ``x_1``, ... where the file has none."""
        ...

    @property
    def rows(self) -> int | None:
        """Number of rows, where the header tells."""
        ...

    def not_numeric(self, names: Sequence[str]) -> dict[str, str]:
        """Which of the columns are known to hold something else than numbers, and what."""
        ...

    @property
    def layout(self) -> Mapping[str, Any]:
        """What to remember in order to read further files the same way."""
        ...

    def blocks(self, features: Sequence[str], side: Sequence[str]) -> Iterator[Block]:
        """The rows from first to last, a bounded number at a time; ``side`` names label and group columns."""
        ...


def block_rows(width: int, itemsize: int = 8) -> int:
    """Rows of ``width`` numbers of ``itemsize`` bytes that one read may hold; at least one."""
    return max(1, BLOCK_BYTES // max(1, width * itemsize))


def suffix_of(path: Path, accepted: tuple[str, ...]) -> str:
    """The extension of an existing file, in lower case.

    Raises:
        DataError: the file is missing, empty, a folder, or of an extension that is not ``accepted``.
    """
    if path.is_dir():
        raise DataError(
            f"{path} is a folder. Name a file in it ({', '.join(accepted)}); "
            "a Minari data set is read as episodes (open_episodes, data.kind=episodes)."
        )
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Check the path."
        raise DataError(f"{path}: no such file. {hint}")
    suffix = path.suffix.lower()
    if suffix in _PICKLES and suffix not in accepted:
        raise DataError(
            f"{path}: pickled files can run code when they are opened and are not read. Save the arrays as .npz."
        )
    if suffix not in accepted:
        found = f"'{suffix}'" if suffix else "no extension"
        raise DataError(f"{path}: expected one of {', '.join(accepted)}, found {found}. Convert or rename the file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes). Write it again.")
    return suffix


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Report a failure inside numpy, zipfile, h5py or pyarrow as a damaged or foreign file.

    Raises:
        DataError: in place of the library's own error.
    """
    try:
        yield
    except PermissionError as error:
        raise DataError(f"{path}: not allowed to read it. Change its permissions.") from error
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, BadZipFile, zlib.error) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        remedy = "The file is damaged, cut short or of another format; copy or write it again."
        if "utf" in words.lower():
            remedy = "Save the text as UTF-8."
        raise DataError(f"{path}: cannot be read as {path.suffix.lower()[1:].upper()} ({words}). {remedy}") from error


def check_choice(option: str, value: str, accepted: tuple[str, ...]) -> None:
    """Refuse an option's value that is not one of the ``accepted`` words.

    Raises:
        ConfigError: it names the nearest accepted word.
    """
    if value not in accepted:
        raise ConfigError(f"{option}={value!r} is not known. {did_you_mean(str(value), accepted)}")


def minari_metadata(path: Path) -> dict[str, Any]:
    """The ``metadata.json`` of a Minari data set.

    Raises:
        DataError: it is missing, damaged, or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Download the data set again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(found).__name__}. Download the data set again.")
    return found
