"""Texts of structures, whatever file they are in, and how each format's texts become arrays."""

import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from noumena.crystals.formats.cif import read_cif
from noumena.crystals.formats.poscar import read_poscar
from noumena.crystals.formats.raw import Raw, Skipped, Structure
from noumena.crystals.formats.xyz import read_xyz

Format = Literal["cif", "poscar", "xyz"]
MAX_BYTES = 1 << 28
"""Greatest size of one structure file within a folder or an archive."""
_USUAL = 4000  # characters of a structure

_READERS: Mapping[Format, Callable[[str, str, str, int | None], tuple[list[Structure], list[Skipped]]]] = {
    "cif": read_cif,
    "poscar": read_poscar,
    "xyz": read_xyz,
}


@dataclass(frozen=True)
class Text:
    """One text, or the file that holds it.

    Attributes:
        where: of the text, for messages.
        name: of the structure, if the text gives none.
        format: how it is written.
        content: text, bytes (of a compressed file if they begin like one), or the file to read.
        row: whether it is a cell of a table, which holds one structure and not several.
        first: number of the first structure in the file, if the text is a part of a file of several.
    """

    where: str
    name: str
    format: Format
    content: str | bytes | Path
    row: bool = False
    first: int | None = None


@dataclass(frozen=True)
class Texts:
    """Texts that are read together.

    Attributes:
        texts: of them.
        properties: float64, shape (texts,), by name: of the rows of a table.
    """

    texts: list[Text]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    @property
    def weight(self) -> int:
        """About how many structures they hold."""
        return sum(max(1, 0 if isinstance(text.content, Path) else len(text.content) // _USUAL) for text in self.texts)

    def parse(self) -> Raw:
        """Arrays of all structures in the texts; those that cannot be read are left out with the reason."""
        structures: list[Structure] = []
        skipped: list[Skipped] = []
        source: list[int] = []
        for number, text in enumerate(self.texts):
            found, failed = _read(text)
            structures.extend(found)
            source.extend([number] * len(found))
            skipped.extend(failed)
        raw = Raw.of(structures, skipped)
        if not self.properties:
            return raw
        rows = np.array(source, np.int64)
        return replace(raw, properties={name: values[rows] for name, values in self.properties.items()})


def _read(text: Text) -> tuple[list[Structure], list[Skipped]]:
    try:
        content = _decoded(text.content)
    except (OSError, EOFError, ValueError) as error:
        return [], [Skipped(text.where, text.name, f"it cannot be read: {error}")]
    found, failed = _READERS[text.format](content, text.where, text.name, text.first)
    if text.row and len(found) + len(failed) > 1:
        return [], [Skipped(text.where, text.name, f"the row has {len(found) + len(failed)} structures; expected one")]
    return found, failed


def _decoded(content: str | bytes | Path) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Path):
        size = content.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"the file has {size} bytes; expected at most {MAX_BYTES}")
        content = content.read_bytes()
    if content[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"the file has more than {MAX_BYTES} bytes when unpacked")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # every byte is a character of it, and those of numbers are the same
