"""Long files of many structures, a part at a time."""

import re
from collections.abc import Iterator
from typing import IO

PART = 1 << 20
"""Characters of a part, about."""
_BORDER = re.compile(r"^(?:;|[dD][aA][tT][aA]_)", re.MULTILINE)


def cif_parts(file: IO[str]) -> Iterator[tuple[str, int]]:
    """Parts of a CIF that begin with a block, and the number of that block.

    Text fields between semicolons may hold lines that look like the head of a block; they are not cut.
    """
    held, number = "", 0
    while True:
        more = file.read(PART)
        held += more
        heads = _heads(held)
        if not more:
            if held.strip():
                yield held, number
            return
        # The last block may go on, and a line may be cut in two.
        if len(heads) > 1 and len(held) >= PART:
            yield held[: heads[-1]], number
            number += len(heads) - 1
            held = held[heads[-1] :]


def _heads(text: str) -> list[int]:
    """Where the blocks begin."""
    inside, found = False, list[int]()
    for match in _BORDER.finditer(text):
        if match[0] == ";":
            inside = not inside
        elif not inside:
            found.append(match.start())
    return found


def xyz_parts(file: IO[str]) -> Iterator[tuple[str, int]]:
    """Parts of an XYZ file that begin with a frame, and the number of that frame.

    What is not a frame is given as it is, to be reported by who reads it.
    """
    held: list[str] = []
    size, number, frames = 0, 0, 0
    for line in file:
        held.append(line)
        size += len(line)
        if not line.strip():
            continue
        try:
            count = int(line)
        except ValueError:
            held.extend(file)
            break
        held.extend(next(file, "") for _ in range(count + 1))
        size += sum(map(len, held[-count - 1 :]))
        frames += 1
        if size >= PART:
            yield "".join(held), number
            held, size, number, frames = [], 0, number + frames, 0
    if held:
        yield "".join(held), number
