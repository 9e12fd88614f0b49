"""The files of one data set as one source of arrays, read side by side at constant memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.multimodal.facts import Facts, read_facts
from noumena.multimodal.files import ArrayPiece, Arrays, Piece, Stored, TablePiece, mask_names
from noumena.readers.checks import listed, missing_columns
from noumena.readers.common import ARRAY_SUFFIXES, COLUMN_SUFFIXES, TABLE_SUFFIXES, suffix_of

SAMPLE = "sample:"
_FOLDER_SUFFIXES = (".npy", *COLUMN_SUFFIXES)


class Source:
    """The arrays of one or more files, whose rows belong together.

    Attributes:
        path: as given.
        folder: where files named by the data are looked for.
        pieces: the files.
        arrays: by name.
        facts: what the metadata say.
    """

    def __init__(self, path: Path, pieces: Sequence[Piece], facts: Facts) -> None:
        self.path = path
        self.folder = path if path.is_dir() else path.parent
        self.pieces = pieces
        self.facts = facts
        self.arrays: dict[str, Stored] = {}
        for number, piece in enumerate(pieces):
            for stored in piece.arrays:
                if stored.name in self.arrays:
                    first = pieces[self.arrays[stored.name].piece].path.name
                    raise DataError(f"{path}: '{stored.name}' is in {first} and in {piece.path.name}. Remove one.")
                self.arrays[stored.name] = replace(stored, piece=number)

    def find(self, name: str, columns: Sequence[str] | None = None) -> Stored | None:
        """The array of a name, with some of its columns where it has names for them; ``None`` where it is not there.

        Plain columns of a table are an array of any name, if ``columns`` names them.

        Raises:
            DataError: some of the columns are there and some are not.
        """
        stored = self.arrays.get(name)
        if columns is None:
            return stored
        if stored is not None and stored.columns:
            if words := missing_columns(columns, stored.columns):
                raise DataError(f"{self.path}: '{name}' has {words}")
            return stored.picked(columns)
        tables = [(number, piece) for number, piece in enumerate(self.pieces) if isinstance(piece, TablePiece)]
        for number, piece in tables:
            if set(columns) & set(piece.plain) and (words := missing_columns(columns, piece.plain)):
                raise DataError(f"{piece.path}: '{name}' is made of plain columns, but there is {words}")
            if set(columns) <= set(piece.plain):
                return replace(piece.combined(name, columns), piece=number)
        return stored

    def mask_of(self, name: str) -> Stored | None:
        """The array that tells in which rows the array ``name`` is there.

        Raises:
            DataError: there are two.
        """
        found = [self.arrays[mask] for mask in mask_names(name) if mask in self.arrays]
        if len(found) > 1:
            raise DataError(f"{self.path}: both {listed([mask.name for mask in found])} are there. Remove one.")
        return found[0] if found else None

    def check_rows(self, wanted: Mapping[str, Stored]) -> int | None:
        """The common number of rows, where headers tell.

        Raises:
            DataError: they differ.
        """
        known = [stored for stored in wanted.values() if stored.rows is not None]
        if len({stored.rows for stored in known}) > 1:
            found = ", ".join(f"'{stored.name}' has {stored.rows}" for stored in known)
            raise DataError(f"{self.path}: every array needs the same number of rows, found: {found}. Align the files.")
        if known and known[0].rows == 0:
            raise DataError(f"{self.path}: '{known[0].name}' has no rows. Check how it was made.")
        return known[0].rows if known else None

    def blocks(self, wanted: Mapping[str, Stored], rows: int) -> Iterator[tuple[int, Arrays]]:
        """Arrays side by side, ``rows`` rows at a time, the last time fewer.

        Yields:
            The number of the first row, and the arrays under the keys of ``wanted``.

        Raises:
            DataError: one ends before another, there are no rows at all, or a file is damaged.
        """
        self.check_rows(wanted)
        pieces: dict[int, dict[str, Stored]] = {}
        for key, stored in wanted.items():
            pieces.setdefault(stored.piece, {})[key] = stored
        takers = {number: _Taker(self.pieces[number].blocks(part)) for number, part in pieces.items()}
        first_row = 0
        while True:
            taken = {number: taker.take(rows) for number, taker in takers.items()}
            lengths = {self.pieces[number].path.name: length for number, (length, _) in taken.items()}
            if len(set(lengths.values())) > 1:
                short = min(lengths, key=lambda name: lengths[name])
                raise DataError(
                    f"{self.path}: {short} ends after {first_row + lengths[short]} rows, "
                    f"{max(lengths, key=lambda name: lengths[name])} has more. Align the files."
                )
            length = next(iter(lengths.values()))
            if length:
                yield first_row, {key: array for _, arrays in taken.values() for key, array in arrays.items()}
            first_row += length
            if length < rows:
                break
        if not first_row:
            raise DataError(f"{self.path}: expected at least one row, found none. Check how it was made.")


class _Taker:
    """An iterator of blocks, from which any number of rows can be taken at a time."""

    def __init__(self, blocks: Iterator[Arrays]) -> None:
        self._blocks = blocks
        self._held: list[Arrays] = []
        self._rows = 0

    def take(self, rows: int) -> tuple[int, Arrays]:
        """At most ``rows`` further rows; fewer only at the end."""
        while self._rows < rows and (block := next(self._blocks, None)) is not None:
            self._held.append(block)
            self._rows += len(next(iter(block.values())))
        if not self._held:
            return 0, {}
        joined = self._held[0]
        if len(self._held) > 1:
            joined = {key: np.concatenate([block[key] for block in self._held]) for key in joined}
        length = min(rows, self._rows)
        self._rows -= length
        self._held = [{key: array[length:] for key, array in joined.items()}] if self._rows else []
        return length, {key: array[:length] for key, array in joined.items()}


def open_source(path: str | Path) -> Source:
    """Read the headers of what a path names.

    Args:
        path: a folder with a .npy, .csv or .parquet file for each array; a .npy, .npz, .h5 or .hdf5 file; a .csv or
            .parquet file; or the name of shipped data such as ``sample:softrobot``.

    Raises:
        ConfigError: there is no such sample.
        DataError: the path is missing, a file is damaged, pickled or of another format, or the metadata are wrong.
    """
    place = sample_path(str(path)) if str(path).startswith(SAMPLE) else Path(path).expanduser()
    if place.is_dir():
        return _open_folder(place)
    suffix = suffix_of(place, TABLE_SUFFIXES)
    piece = ArrayPiece(place) if suffix in ARRAY_SUFFIXES else TablePiece(place, whole=False)
    return Source(place, [piece], read_facts(place.with_suffix(".json")))


def sample_path(name: str) -> Path:
    """The shipped file for a name such as ``sample:softrobot``.

    Raises:
        ConfigError: there is no such sample.
    """
    folder = Path(str(resources.files("noumena.multimodal") / "samples"))
    known = [SAMPLE + file.stem for file in sorted(folder.glob("*.npz"))]
    if name not in known:
        raise ConfigError(f"no data '{name}' in the package. {did_you_mean(name, known)}")
    return folder / f"{name.removeprefix(SAMPLE)}.npz"


def _open_folder(folder: Path) -> Source:
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in _FOLDER_SUFFIXES]
    if not files:
        found = listed(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise DataError(
            f"{folder}: expected a {', '.join(_FOLDER_SUFFIXES)} file for each modality, found {found}. Name a file in "
            "it, or write the arrays there."
        )
    pieces = [ArrayPiece(file) if file.suffix.lower() == ".npy" else TablePiece(file, whole=True) for file in files]
    return Source(folder, pieces, read_facts(folder / "metadata.json"))
