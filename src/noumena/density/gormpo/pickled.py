"""Plain values out of a pickle file, without unpickling it.

A pickle is a program for a stack machine, and Python's own reader calls whatever function the program names. Here the
instructions are listed by :func:`pickletools.genops`, which executes nothing, and followed by a machine of our own that
knows only how to put numbers, text, containers and numpy's numbers together. A name in the file selects one of the few
builders of :mod:`noumena.density.gormpo.pickled_values` or is refused; nothing is ever imported by it.
"""

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from noumena.core.errors import ArtifactError
from noumena.density.gormpo.pickled_values import (
    BUILDERS,
    LARGEST_FILE,
    Kind,
    Name,
    Source,
    Unfilled,
    array_of,
    checked,
)

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
_PUSHED = frozenset((*_NUMBERS, *_TEXTS, *_BYTES))
_NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_plain_pickle(path: str | Path, *, largest: int = LARGEST_FILE) -> Any:
    """The value in a pickle file, if it is made of plain data alone.

    Those are None, booleans, numbers, text, bytes, lists, tuples, dictionaries and sets of them, numpy's numbers and
    arrays of numbers, as Python 3 writes them at any protocol. Numbers come in the byte order of this machine.

    Args:
        path: the file.
        largest: bytes it may have.

    Raises:
        ArtifactError: no such file, too large, damaged, or it asks for anything else, which the message names.
    """
    place = Path(path)
    try:
        if not place.is_file():
            raise ArtifactError(f"{path}: there is no such file. Check the path.")
        size = place.stat().st_size
        if size > largest:
            raise ArtifactError(f"{path}: has {size:,} bytes; expected at most {largest:,} of plain values.")
        content = place.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}.") from error
    return plain_value(content, str(path))


def plain_value(content: bytes, where: str) -> Any:
    """The value of a pickle; ``where`` is its name in messages. See :func:`read_plain_pickle`."""
    source = Source(where, len(content))
    machine, end = _Machine(source), None
    try:
        for opcode, argument, position in pickletools.genops(content):
            machine.step(opcode.name, argument)
            end = position
    except (ValueError, OverflowError) as error:  # of genops: no instruction, or cut short
        source.damaged(" ".join(str(error).split()), error)
    return checked(machine.result(len(content) - 1 - cast("int", end)), source)


class _Machine:
    """Stack, marks and memory of a pickle's program."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memory: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one instruction."""
        if opcode in _PUSHED:
            self.stack.append(self.source.pushed(argument))
        elif opcode in _NEW:
            self.stack.append(_NEW[opcode]())
        elif opcode in _SHORT_TUPLES:
            self.stack.append(tuple(self._last(_SHORT_TUPLES[opcode])))
        elif opcode in ("LIST", "TUPLE", "DICT", "FROZENSET"):
            self._collect(opcode)
        elif opcode in _FILLED:
            how_many, fill = _FILLED[opcode]
            fill(self, self._last(how_many) if how_many else self._since_mark())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._remember(argument)
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self._memory:
                self.source.damaged(f"it recalls value {argument}, which it has not stored")
            self.stack.append(self._memory[argument])
        elif opcode in _STEPS:
            _STEPS[opcode](self)
        else:
            self._refuse_instruction(opcode, argument)

    def _refuse_instruction(self, opcode: str, argument: Any) -> None:
        """The names that there are instructions of their own for, and what makes objects of classes."""
        if opcode in ("GLOBAL", "INST"):
            module, _, name = argument.partition(" ")
            self._name(module, name)
        if opcode.startswith("EXT"):
            self.source.refuse(f"code {argument} of Python's registry of extensions ({opcode})")
        if opcode not in ("GLOBAL", "PROTO", "FRAME", "STOP"):
            self.source.refuse(_REFUSED.get(opcode, f"the instruction {opcode}"))

    def _collect(self, opcode: str) -> None:
        values = self._since_mark()
        self.stack.append({} if opcode == "DICT" else values)
        if opcode == "DICT":
            self.set_items(values)
        elif opcode != "LIST":
            self.stack[-1] = tuple(values) if opcode == "TUPLE" else frozenset(self.source.keys(values))

    def result(self, behind: int) -> Any:
        """The one value that is left at the end, with ``behind`` bytes after it."""
        if behind:
            self.source.damaged(f"{behind} bytes follow its end")
        if len(self.stack) != 1 or self._below:
            self.source.damaged("its end leaves something over")
        return self.stack[0]

    # The stack

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            self.source.damaged("it takes a value where there is none")
        found, self.stack[-count:] = self.stack[-count:], []
        return found

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        if not self._below:
            self.source.damaged("it takes values up to a mark that it has not set")
        found, self.stack = self.stack, self._below.pop()
        return found

    def _top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            self.source.damaged(f"it fills a {kind.__name__} where there is none")
        return self.stack[-1]

    def _remember(self, number: int) -> None:
        if number < 0 or not self.stack:
            self.source.damaged("it stores a value where there is none")
        value = self._memory[number] = self.stack[-1]
        if isinstance(value, Unfilled):
            value.remembered.append(number)

    def memoize(self) -> None:
        self._remember(len(self._memory))

    # Containers

    def append(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def add_items(self, values: list[Any]) -> None:
        found = self._top(set)
        found.update(self.source.keys(values, len(found)))

    def set_items(self, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            self.source.damaged("a key of a dictionary has no value")
        found = self._top(dict)
        found.update(zip(self.source.keys(pairs[::2], len(found)), pairs[1::2], strict=True))

    # Names

    def stack_global(self) -> None:
        module, name = self._last(2)
        if not isinstance(name, str) or not isinstance(module, str):
            self.source.damaged("a name in it is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = Name(module, name)
        if found not in BUILDERS:
            self.source.refuse(str(found))
        self.stack.append(found)

    def reduce(self) -> None:
        name, arguments = self._last(2)
        builder = BUILDERS[name] if isinstance(name, Name) else None
        if builder is None or not isinstance(arguments, tuple):
            self.source.refuse(f"a call of {name if isinstance(name, Name) else type(name).__name__}")
        self.stack.append(builder(self.source, *_padded(arguments)))

    def build(self) -> None:
        value, state = self._last(2)
        if not isinstance(state, tuple) or not isinstance(value, Kind | Unfilled):
            self.source.refuse(f"a state to be set on a {type(value).__name__} (BUILD)")
        if isinstance(value, Kind):
            _, order, *parts = _padded(state)
            if order not in ("<", ">", "|") or parts[:3] != [None, None, None]:
                self.source.refuse("a numpy.dtype of more than one number")
            value.order = "=" if value.code[1] == "1" else order
            self.stack.append(value)
            return
        _, shape, kind, by_column, raw, *_ = _padded(state)
        array = array_of(self.source, raw, kind, shape, "F" if by_column else "C")
        self.stack.append(array)
        for number in value.remembered:
            if self._memory[number] is value:
                self._memory[number] = array
        value.remembered.clear()


def _padded(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """At least five values; the missing ones are None, which no builder takes for anything."""
    return (*values, *[None] * (5 - len(values)))


# Instructions that put values into a container below them: so many, or those since the last mark.
_FILLED: Mapping[str, tuple[int, Callable[[_Machine, list[Any]], None]]] = {
    "APPEND": (1, _Machine.append),
    "APPENDS": (0, _Machine.append),
    "SETITEM": (2, _Machine.set_items),
    "SETITEMS": (0, _Machine.set_items),
    "ADDITEMS": (0, _Machine.add_items),
}
_STEPS: Mapping[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
_REFUSED = {
    "PERSID": "an object from outside of the file (PERSID)",
    "BINPERSID": "an object from outside of the file (BINPERSID)",
    "NEXT_BUFFER": "an array from outside of the file (NEXT_BUFFER)",
    "OBJ": "an object of a class (OBJ)",
    "NEWOBJ": "an object of a class (NEWOBJ)",
    "NEWOBJ_EX": "an object of a class (NEWOBJ_EX)",
}
