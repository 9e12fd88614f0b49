"""Which files a piece of data is: one, a pattern's, or those of a folder of tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noumena.core.errors import DataError

_TABLES = (".parquet", ".pq", ".csv")
_SIGNS = "*?["


def files_of(data: str, schema: Mapping[str, Any]) -> list[str]:
    """The files of ``data``, in the order of their names; what a family reads as one stays one.

    Args:
        data: a file or anything else that the family reads; a pattern such as ``day*/part-*.parquet`` (``**`` goes
            into folders); or, for a model of plain tables, a folder of Parquet or CSV files.
        schema: of the model. Only where its ``kind`` is ``table`` is a folder one of tables: other families read
            folders themselves.

    Raises:
        DataError: nothing matches the pattern, or the folder has no table, or tables of both formats.
    """
    place = Path(data)
    if place.is_dir():
        return _tables_in(place) if schema.get("kind") == "table" else [data]
    if place.exists() or not any(sign in data for sign in _SIGNS):
        return [data]
    matches = Path(place.anchor or ".").glob(str(place.relative_to(place.anchor)))
    found = sorted(str(file) for file in matches if not file.is_dir())
    if not found:
        raise DataError(f"{data}: no file matches this pattern. Check the path.")
    return found


def _tables_in(folder: Path) -> list[str]:
    """The tables of a folder; names that begin with a dot or an underscore are marks of the programs that wrote it."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in _TABLES and file.name[0] not in "._"]
    if not files:
        raise DataError(f"{folder}: a folder without any {', '.join(_TABLES)} file. Name another one, or a pattern.")
    kinds = sorted({".csv" if file.suffix.lower() == ".csv" else ".parquet" for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: has files of both {' and '.join(kinds)}; which of them are meant? Say it with a pattern such "
            f"as {folder / '*'}{kinds[1]}"
        )
    return [str(file) for file in files]
