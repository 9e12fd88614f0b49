"""The arrays that one file holds, whatever its format, and reading them block by block."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from noumena.core.errors import DataError
from noumena.readers.arrays import ArrayInfo, array_blocks, list_arrays
from noumena.readers.checks import listed
from noumena.readers.tables import open_table_file

Arrays = dict[str, np.ndarray]

_MASKS = ("mask", "present")
# Names inside a group of HDF5 that say nothing beside the group's own name.
_PLAIN = ("values", "data")
# What pandas calls the column of a row index.
_INDEX = ("", "__index_level_0__")


@dataclass(frozen=True)
class Stored:
    """An array of a source, as headers tell it.

    Attributes:
        name: of the array.
        rows: how many; ``None`` where only reading tells.
        inner: shape of one row, () for a 1-D array.
        kind: letter of its type as in numpy, U for text.
        columns: names of its numbers, where the file has them.
        members: what makes it up in its file: one array or column, or one for each number.
        piece: number of its file among those of the source.
        text: of a table, its columns that hold text, and an example.
    """

    name: str
    rows: int | None
    inner: tuple[int, ...]
    kind: str
    columns: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    piece: int = 0
    text: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def size(self) -> int:
        """Numbers of one row."""
        return math.prod(self.inner)

    @property
    def in_words(self) -> str:
        """Name and shape."""
        return f"{self.name} ({', '.join(['rows' if self.rows is None else str(self.rows), *map(str, self.inner)])})"

    @property
    def is_number(self) -> bool:
        """Whether it holds real numbers; true and false are none."""
        return self.kind in "fiu"

    def picked(self, columns: Sequence[str]) -> "Stored":
        """Some of its named columns, in the order given."""
        members = dict(zip(self.columns, self.members, strict=True))
        chosen = tuple(members[name] for name in columns)
        text = {member: what for member, what in self.text.items() if member in chosen}
        kind = "f" if self.kind == "U" and not text else self.kind
        return replace(self, inner=(len(chosen),), kind=kind, columns=tuple(columns), members=chosen, text=text)


class Piece(Protocol):
    """A file of a source."""

    path: Path

    @property
    def arrays(self) -> Sequence[Stored]:
        """What it holds."""
        ...

    def blocks(self, wanted: Mapping[str, Stored]) -> Iterator[Arrays]:
        """Some of it from the first row to the last, a bounded number of rows at a time, under the keys given."""
        ...


class ArrayPiece:
    """A .npy, .npz or HDF5 file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        infos = {name: info for name, info in list_arrays(path).items() if info.shape and 0 not in info.shape[1:]}
        self.arrays: Sequence[Stored] = (
            [_stored(path.stem, "", infos[""])] if "" in infos else list(_ungrouped(path, infos).values())
        )

    def blocks(self, wanted: Mapping[str, Stored]) -> Iterator[Arrays]:
        """See :class:`Piece`."""
        members = list(dict.fromkeys(member for stored in wanted.values() for member in stored.members))
        for block in array_blocks(self.path, members):
            yield {
                key: np.stack([block[member] for member in stored.members], 1)
                if stored.columns
                else block[stored.members[0]]
                for key, stored in wanted.items()
            }


class TablePiece:
    """A CSV or Parquet file: columns ``modality.column``, or plain ones.

    Args:
        path: the file.
        whole: all its columns are one array that has the name of the file, as in a folder with a file for each.
    """

    def __init__(self, path: Path, *, whole: bool) -> None:
        self.path = path
        self._file = open_table_file(path)
        names = [name for name in self._file.columns if name not in _INDEX]
        self._text = self._file.not_numeric(names)
        parts: dict[str, dict[str, str]] = {}
        plain: list[str] = []
        for name in names:
            prefix, dot, column = name.partition(".")
            if whole:
                parts.setdefault(path.stem, {})[name] = name
            elif dot and prefix and column:
                parts.setdefault(prefix, {})[column] = name
            else:
                plain.append(name)
        if both := sorted(set(plain) & set(parts)):
            raise DataError(f"{path}: '{both[0]}' is a column and '{both[0]}.' begins others. Rename the column.")
        self.plain = tuple(plain)
        arrays = [self._flat(name, name) for name in plain]
        for name, columns in parts.items():
            only = next(iter(columns))
            alone = whole and len(columns) == 1
            arrays.append(self._flat(name, only) if alone else self._wide(name, list(columns), list(columns.values())))
        self.arrays: Sequence[Stored] = arrays

    def combined(self, name: str, columns: Sequence[str]) -> Stored:
        """Plain columns as one array."""
        return self._wide(name, columns, columns)

    def _flat(self, name: str, member: str) -> Stored:
        kind = "U" if member in self._text else "f"
        return Stored(name, self._file.rows, (), kind, (), (member,), text=self._examples([member]))

    def _wide(self, name: str, columns: Sequence[str], members: Sequence[str]) -> Stored:
        text = self._examples(members)
        kind = "U" if text else "f"
        return Stored(name, self._file.rows, (len(members),), kind, tuple(columns), tuple(members), text=text)

    def _examples(self, members: Sequence[str]) -> dict[str, str]:
        return {member: self._text[member] for member in members if member in self._text}

    def blocks(self, wanted: Mapping[str, Stored]) -> Iterator[Arrays]:
        """See :class:`Piece`."""
        numbers = dict.fromkeys(member for stored in wanted.values() if stored.kind != "U" for member in stored.members)
        texts = dict.fromkeys(stored.members[0] for stored in wanted.values() if stored.kind == "U")
        place = {name: number for number, name in enumerate(numbers)}
        for block in self._file.blocks(list(numbers), list(texts)):
            arrays: Arrays = {}
            for key, stored in wanted.items():
                if stored.kind == "U":
                    arrays[key] = block.side[stored.members[0]]
                else:
                    part = block.rows[:, [place[member] for member in stored.members]]
                    arrays[key] = part.reshape(len(part), *stored.inner)
            yield arrays


def mask_names(name: str) -> tuple[str, ...]:
    """How the mask of an array may be called."""
    return tuple(f"{name}_{word}" for word in _MASKS)


def _stored(name: str, member: str, info: ArrayInfo) -> Stored:
    return Stored(name, info.shape[0], info.shape[1:], info.kind, (), (member,))


def _ungrouped(path: Path, infos: Mapping[str, ArrayInfo]) -> dict[str, Stored]:
    """Arrays by name; a group of 1-D arrays is one array with a column for each.

    Raises:
        DataError: two arrays have the same name.
    """
    groups: dict[str, dict[str, ArrayInfo]] = {}
    for name, info in infos.items():
        group, _, leaf = name.rpartition("/")
        groups.setdefault(group, {})[leaf] = info
    found: dict[str, Stored] = {}
    for group, members in groups.items():
        for stored in _of_group(group, members):
            if stored.name in found:
                places = [*found[stored.name].members[:1], *stored.members[:1]]
                raise DataError(f"{path}: two arrays are called '{stored.name}': {listed(places)}. Rename one.")
            found[stored.name] = stored
    return found


def _of_group(group: str, members: Mapping[str, ArrayInfo]) -> Iterator[Stored]:
    name = group.rpartition("/")[2]
    prefix = f"{group}/" if group else ""
    numbers = {leaf: info for leaf, info in members.items() if leaf not in _MASKS and info.kind in "fiu"}
    if group and name != "mesh" and numbers and all(len(info.shape) == 1 for info in numbers.values()):
        first = next(iter(numbers.values()))
        if len({info.shape for info in numbers.values()}) == 1:
            kind = "f" if any(info.kind == "f" for info in numbers.values()) else first.kind
            # HDF5 lists names by the alphabet, which puts 10 before 2.
            numbers = {
                leaf: numbers[leaf] for leaf in (sorted(numbers, key=_by_number) if _is_sorted(numbers) else numbers)
            }
            places = tuple(prefix + leaf for leaf in numbers)
            yield Stored(name, first.shape[0], (len(numbers),), kind, tuple(numbers), places)
            members = {leaf: info for leaf, info in members.items() if leaf not in numbers}
    for leaf, info in members.items():
        joined = group and (leaf in _MASKS or name == "mesh")
        called = f"{name}_{leaf}" if joined else name if group and leaf in _PLAIN else leaf
        yield _stored(called, prefix + leaf, info)


def _is_sorted(names: Iterable[str]) -> bool:
    return list(names) == sorted(names)


def _by_number(name: str) -> list[tuple[str, int]]:
    """For sorting: the numbers in a name count as such."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
