"""One array that holds the modalities side by side, as in the layout of the original ProSoRo."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError
from noumena.multimodal.facts import Facts
from noumena.multimodal.files import Arrays, Piece, Stored
from noumena.multimodal.source import Source
from noumena.readers.arrays import array_blocks, check_two_dimensional, list_arrays
from noumena.readers.common import suffix_of

DATA, TRAINING, TESTING = "data.npy", "training_data.npy", "testing_data.npy"


class StackedPiece:
    """A .npy file of shape (rows, columns), whose columns are those of several modalities in turn.

    Args:
        path: the file.
        sizes: columns of each modality; they add up to those of the file.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
        self.path = path
        rows, width = stacked_shape(path)
        if width != sum(sizes.values()):
            raise DataError(f"{path}: expected {width_in_words(sizes)} columns, found {width}. Take the right file.")
        ends = list(accumulate(sizes.values()))
        kind = list_arrays(path)[""].kind
        self._columns = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self.arrays: Sequence[Stored] = [Stored(name, rows, (size,), kind, (), (name,)) for name, size in sizes.items()]

    def blocks(self, wanted: Mapping[str, Stored]) -> Iterator[Arrays]:
        """See :class:`~noumena.multimodal.files.Piece`."""
        for block in array_blocks(self.path, [""]):
            yield {key: np.ascontiguousarray(block[""][:, self._columns[s.members[0]]]) for key, s in wanted.items()}


def stacked_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of a .npy file.

    Raises:
        DataError: it is missing, damaged, or not 2-D.
    """
    suffix_of(path, (".npy",))
    info = list_arrays(path)[""]
    check_two_dimensional(path, "", info)
    return info.shape[0], info.shape[1]


def stacked_source(path: Path, file: Path, sizes: Mapping[str, int], further: Sequence[Piece] = ()) -> Source:
    """The modalities of one stacked file, and ``further`` files of as many rows."""
    return Source(path, [StackedPiece(file, sizes), *further], Facts())


def stacked_file(path: Path, sizes: Mapping[str, int]) -> Path | None:
    """The file to read where a path is a stacked file of these modalities, or a folder in the layout of ProSoRo.

    Raises:
        DataError: of a folder it cannot be told which file is meant.
    """
    if path.is_dir():
        if not is_prosoro(path) or any((path / f"{name}.npy").is_file() for name in sizes):
            return None
        if (path / DATA).is_file():
            return path / DATA
        raise DataError(f"{path}: has no {DATA}. Name the file: {path / TRAINING} or {path / TESTING}.")
    if path.suffix.lower() != ".npy" or path.stem in sizes or not path.is_file():
        return None
    shape = list_arrays(path)[""].shape
    return path if len(shape) == 2 and shape[1] == sum(sizes.values()) else None


def is_prosoro(folder: Path) -> bool:
    """Whether a folder has one of the stacked files of ProSoRo."""
    return any((folder / name).is_file() for name in (DATA, TRAINING, TESTING))


def width_in_words(sizes: Mapping[str, int]) -> str:
    """The sum, and what it is made of."""
    return f"{sum(sizes.values())} ({' + '.join(f'{size} of {name}' for name, size in sizes.items())})"
