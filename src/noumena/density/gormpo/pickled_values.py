"""What may come out of a pickle file: plain values, and what builds them from its bytes; see :mod:`.pickled`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import numpy as np

from noumena.core.errors import ArtifactError

LARGEST_FILE = 1 << 20
"""Bytes; the metadata of a model have a few hundred."""

# What is built from one piece of the file may be named again and again: all of it together is this many times the file.
_GROWTH = 4
_LARGEST_INTEGER = 4096  # bits
_MOST_KEYS = 10_000  # of a dictionary or set: keys that collide on purpose take the square of this
_KEY_PARTS = 100
_MOST_VALUES = 1_000_000  # counted once for every way to reach them
_DEEPEST = 100
_MOST_AXES = 32

_SCALARS = (type(None), bool, int, float, str, bytes, np.generic)
_NUMBER = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class Source:
    """A file by its name in messages, and how much may still be built from its ``size`` bytes."""

    def __init__(self, where: str, size: int) -> None:
        self.where = where
        self._budget = _GROWTH * size

    def refuse(self, asked: str, cause: Exception | None = None) -> NoReturn:
        """Say what the file asks for that is no plain value."""
        raise ArtifactError(
            f"{self.where}: the pickle asks for {asked}. Numbers, text, containers and numpy arrays of numbers are "
            "read, and nothing was executed. Write the values again as such, where the file comes from."
        ) from cause

    def damaged(self, how: str, cause: Exception | None = None) -> NoReturn:
        """Say what is wrong with the file as a pickle."""
        raise ArtifactError(
            f"{self.where}: is no pickle, or damaged: {shown(how)}. Get a fresh copy of the file."
        ) from cause

    def pushed(self, value: Any) -> Any:
        """A number or text as it stands in the file."""
        if isinstance(value, int) and value.bit_length() > _LARGEST_INTEGER:
            self.refuse(f"an integer of {value.bit_length():,} bits")
        return value

    def spend(self, size: int) -> None:
        """Count what is built from values of the file that it can name more than once."""
        self._budget -= size
        if self._budget < 0:
            self.damaged("it builds far more than the file holds")

    def keys(self, values: list[Any], beside: int = 0) -> list[Any]:
        """Values that take little time to look up, in a container that has others ``beside`` them."""
        if len(values) + beside > _MOST_KEYS:
            self.refuse(f"a dictionary or set of more than {_MOST_KEYS:,} entries")
        for value in values:
            parts = cast("tuple[Any, ...]", value if type(value) is tuple else (value,))
            if len(parts) > _KEY_PARTS or not all(isinstance(part, _SCALARS) for part in parts):
                self.refuse(f"a {type(value).__name__} as a key; a key is a scalar or a short tuple of scalars")
        return values


@dataclass(frozen=True)
class Name:
    """Something of a module that the file names, one of :data:`BUILDERS`; it stands for itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown(f"{self.module}.{self.name}")


@dataclass
class Kind:
    """Type of numbers as numpy calls it, such as ``f4``, and their byte order."""

    code: str
    order: str = "="

    def __str__(self) -> str:
        return "numpy.dtype"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The same as numpy's own object."""
        return np.dtype(self.order + self.code)


@dataclass
class Unfilled:
    """An array whose numbers follow, and under which numbers the file remembers it."""

    remembered: list[int] = field(default_factory=list[int])

    def __str__(self) -> str:
        return "numpy.ndarray without numbers"


# What the names in a file stand for, as functions of this module's own


def _kind(source: Source, code: Any, *_: Any) -> Kind:
    if not isinstance(code, str) or code not in _NUMBER:
        name = shown(code) if isinstance(code, str) else type(code).__name__
        source.refuse(f"{'Python objects' if name.startswith('O') else 'values'} of the type numpy.dtype('{name}')")
    return Kind(code)


def array_of(source: Source, raw: Any, kind: Any, shape: Any, order: Any, *_: Any) -> np.ndarray:
    """Numbers out of bytes, as many as the shape says."""
    axes = cast("tuple[Any, ...]", shape if isinstance(shape, tuple) else (shape,))
    sizes_fit = len(axes) <= _MOST_AXES and all(type(size) is int and 0 <= size <= LARGEST_FILE for size in axes)
    if not (isinstance(raw, bytes | bytearray) and isinstance(kind, Kind) and sizes_fit and order in ("C", "F")):
        source.refuse("a numpy array that is not made of a type, a shape and bytes")
    source.spend(len(raw))
    dtype = kind.dtype
    if math.prod(axes) * dtype.itemsize != len(raw):
        source.damaged(f"an array of shape {shown(str(axes))} and type {dtype} has {len(raw)} bytes")
    found = np.frombuffer(bytes(raw), dtype).reshape(axes, order=order)
    # A copy of one's own in the machine's byte order; bytes other than 0 and 1 are no booleans.
    return (found.view(np.uint8) != 0) if dtype.kind == "b" else found.astype(dtype.newbyteorder("="))


def _scalar(source: Source, kind: Any, raw: Any, *_: Any) -> Any:
    return array_of(source, raw, kind, (), "C")[()]


def _unfilled(source: Source, cls: Any, *_: Any) -> Unfilled:
    if cls != Name("numpy", "ndarray"):
        source.refuse(f"an array that is no numpy.ndarray, but {cls if isinstance(cls, Name) else type(cls).__name__}")
    return Unfilled()


def _bytes_of_text(source: Source, text: Any, encoding: Any, *_: Any) -> bytes:
    """How protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1" or not all(ord(letter) < 256 for letter in text):
        source.refuse("_codecs.encode of other than bytes")
    source.spend(len(text))
    return text.encode("latin-1")


def _no_bytes(source: Source, content: Any, *_: Any) -> bytes:
    if content is not None:
        source.refuse("bytes of a value")
    return b""


def _set(source: Source, values: Any, *_: Any) -> set[Any]:
    if not isinstance(values, list):
        source.refuse("a set of other than a list")
    entries = cast("list[Any]", values)
    source.spend(len(entries))
    return set(source.keys(entries))


def _frozenset(source: Source, values: Any, *_: Any) -> frozenset[Any]:
    return frozenset(_set(source, values))


# A class that is no function: it is named, never called.
BUILDERS: Mapping[Name, Callable[..., Any] | None] = {
    Name("numpy", "ndarray"): None,
    Name("numpy", "dtype"): _kind,
    Name("_codecs", "encode"): _bytes_of_text,
    **{
        Name(f"{package}.{module}", name): builder
        for package in ("numpy.core", "numpy._core")  # before numpy 2 and since
        for module, name, builder in (
            ("multiarray", "_reconstruct", _unfilled),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", array_of),
        )
    },
    **{
        Name(module, name): builder
        for module in ("builtins", "__builtin__")
        for name, builder in (("set", _set), ("frozenset", _frozenset), ("bytes", _no_bytes))
    },
}
# The result


def checked(value: Any, source: Source) -> Any:
    """The value, if it is plain throughout, of finite depth, and not a small file's description of a huge one."""
    extents: dict[int, tuple[int, int]] = {}  # values and depth of each container, by identity
    entered: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting:
        item, left = waiting.pop()
        parts = _parts(item)
        if parts is None:
            if not isinstance(item, (*_SCALARS, np.ndarray)):
                source.refuse(f"{item if isinstance(item, Name | Kind | Unfilled) else type(item).__name__} as a value")
        elif left:
            inside = [extents.get(id(part), (1, 0)) for part in parts]
            count, depth = 1 + sum(size for size, _ in inside), 1 + max((deep for _, deep in inside), default=0)
            if count > _MOST_VALUES or depth > _DEEPEST:
                source.refuse(f"containers more than {_DEEPEST} deep, or of more than {_MOST_VALUES:,} values")
            extents[id(item)] = count, depth
        elif id(item) not in extents:
            if id(item) in entered:
                source.refuse(f"a {type(item).__name__} that contains itself")
            entered.add(id(item))
            waiting.append((item, True))
            waiting.extend((part, False) for part in parts)
    return value


def _parts(item: Any) -> list[Any] | None:
    """What a container contains; None of what is no container."""
    if isinstance(item, dict):
        entries = cast("dict[Any, Any]", item)
        return [*entries.keys(), *entries.values()]
    return list(cast("list[Any]", item)) if isinstance(item, list | tuple | set | frozenset) else None


def shown(text: str) -> str:
    """Text of a file that is safe to print: visible signs, and not too many."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in plain)[:200]
