"""Comparing pairs of crystals, and the messages in which pairs and answers travel to and from worker processes."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np

from noumena.crystals.measures.cells import Cell, InvalidCell, reduced
from noumena.crystals.measures.search import Criterion, TimeLimit, search

TIMEOUT, INVALID, ERROR = "timeout", "invalid cell", "error"
"""Reasons why a pair could not be compared."""


@dataclass(frozen=True)
class Answer:
    """What came of one pair.

    Attributes:
        best: statistic of the best match by criterion, ``None`` where there is none (see ``search``).
        failed: why the pair could not be compared: ``timeout``, ``invalid cell``, ``error``; empty when it could.
        detail: the same in words.
    """

    best: Mapping[str, float | None]
    failed: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Task:
    """Pairs of crystals to compare.

    Attributes:
        cells: the crystals.
        pairs: numbers of the two cells of each pair.
        criteria: by name.
        limit: seconds for each pair; ``None`` for none.
    """

    cells: Sequence[Cell]
    pairs: Sequence[tuple[int, int]]
    criteria: Mapping[str, Criterion]
    limit: float | None

    def after(self, answered: int) -> "Task":
        """The pairs that are left."""
        return Task(self.cells, self.pairs[answered:], self.criteria, self.limit)


def answers(task: Task) -> Iterator[Answer]:
    """Compare the pairs of a task one after the other; each cell is reduced once."""
    known: dict[int, Cell] = {}
    for first, second in task.pairs:
        yield _answer(task, first, second, known)


def _answer(task: Task, first: int, second: int, known: dict[int, Cell]) -> Answer:
    started = time.monotonic()
    none: dict[str, float | None] = dict.fromkeys(task.criteria)
    try:
        if task.cells[first].formula != task.cells[second].formula:
            return Answer(none)  # Sites match within elements only; reduction keeps the formula.
        for number in (first, second):
            if number not in known:
                known[number] = reduced(task.cells[number])
        left = None if task.limit is None else task.limit - (time.monotonic() - started)
        if left is not None and left < 0:
            raise TimeLimit
        return Answer(search(known[first], known[second], task.criteria, left))
    except TimeLimit:
        return Answer(none, TIMEOUT, f"longer than {task.limit} s")
    except InvalidCell as error:
        return Answer(none, INVALID, str(error))
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        # What a library may do with a strange cell is one pair's failure, counted and named, not the end of all pairs.
        return Answer(none, ERROR, f"{type(error).__name__}: {error}")


def write_task(file: BinaryIO, task: Task) -> None:
    """A line of JSON with the sizes, then lattices, coordinates and atomic numbers as little-endian 8-byte numbers."""
    head = {
        "atoms": [len(cell.numbers) for cell in task.cells],
        "pairs": [list(pair) for pair in task.pairs],
        "criteria": {name: asdict(each) for name, each in task.criteria.items()},
        "limit": task.limit,
    }
    file.write(json.dumps(head).encode() + b"\n")
    for cell in task.cells:
        file.write(cell.lattice.astype("<f8").tobytes())
        file.write(cell.frac.astype("<f8").tobytes())
        file.write(cell.numbers.astype("<i8").tobytes())
    file.flush()


def read_task(file: BinaryIO) -> Task | None:
    """The next task; ``None`` at the end of the file."""
    line = file.readline()
    if not line:
        return None
    head = json.loads(line)
    cells = [_read_cell(file, int(atoms)) for atoms in head["atoms"]]
    criteria = {str(name): Criterion(**each) for name, each in head["criteria"].items()}
    pairs = [(int(first), int(second)) for first, second in head["pairs"]]
    return Task(cells, pairs, criteria, head["limit"])


def _read_cell(file: BinaryIO, atoms: int) -> Cell:
    lattice = np.frombuffer(file.read(72), "<f8").reshape(3, 3).astype(np.float64)
    frac = np.frombuffer(file.read(24 * atoms), "<f8").reshape(atoms, 3).astype(np.float64)
    return Cell(lattice, frac, np.frombuffer(file.read(8 * atoms), "<i8").astype(np.int64))


def write_answer(file: BinaryIO, answer: Answer) -> None:
    """One line of JSON."""
    file.write(json.dumps([dict(answer.best), answer.failed, answer.detail]).encode() + b"\n")
    file.flush()


def read_answer(file: BinaryIO) -> Answer | None:
    """The next answer; ``None`` when the worker is gone."""
    line = file.readline()
    if not line.endswith(b"\n"):
        return None
    best, failed, detail = json.loads(line)
    return Answer(best, failed, detail)
