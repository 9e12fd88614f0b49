"""Crystals as files, written as they come: CIF, extended XYZ, POSCAR, an archive of CIF files, and Parquet.

Each function takes the path to write, batches of crystals and the model's schema, keeps one batch in memory (and the
names it has given), and leaves to its caller that the file appears whole or not at all. Nothing is said of symmetry:
cells are written as they are, in P 1.
"""

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import formulas_of
from noumena.crystals.elements import SYMBOLS

Chunks = Iterable[CrystalBatch]
Schema = Mapping[str, Any] | None
"""Of a model, which no format has room for; ``None`` where there is none."""

_NAME_LENGTH = 60  # a CIF block's name has room for 75 letters
_DIGITS = 10  # after the point, of coordinates: far below what single precision resolves


def write_cif(path: str | Path, chunks: Chunks, schema: Schema = None) -> None:
    """All crystals as the blocks of one CIF file, each named by its crystal.

    Names become words of letters, digits and ``-_.+`` that differ: a second ``NaCl`` is ``NaCl_2``. Coordinates are
    brought to [0, 1). Lengths and angles say nothing of a cell's orientation, which is lost; a left-handed cell is
    written with its vectors and its coordinates negated, which is the same crystal.

    Args:
        path: file to write.
        chunks: the crystals.
        schema: not used.

    Raises:
        DataError: there is none, or one has a number that is not finite or a cell without volume.
    """
    del schema
    with Path(path).open("w", encoding="ascii", newline="\n") as file:
        for one in _each(chunks, path):
            file.write(cif_text(one) + "\n")


def write_archive(path: str | Path, chunks: Chunks, schema: Schema = None) -> None:
    """A .zip archive with a CIF file for each crystal, named by it; see :func:`write_cif` for names and cells.

    Args:
        path, chunks, schema: as :func:`write_cif`.

    Raises:
        DataError: as :func:`write_cif`.
    """
    del schema
    with zipfile.ZipFile(path, "w") as archive:
        for one in _each(chunks, path):
            # ZipInfo dates a file 1980 unless told the time: the same crystals give the same archive.
            info = zipfile.ZipInfo(f"{one.word}.cif")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, cif_text(one))


def write_extxyz(path: str | Path, chunks: Chunks, schema: Schema = None) -> None:
    """All crystals as the frames of an extended XYZ file, Cartesian in angstrom, with names as ``material_id``.

    Cells keep their orientation, and atoms are not brought into the cell.

    Args:
        path, chunks, schema: as :func:`write_cif`.

    Raises:
        DataError: as :func:`write_cif`.
    """
    del schema
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for one in _each(chunks, path):
            lattice = " ".join(f"{value:.{_DIGITS}f}" for value in one.lattice.reshape(-1).tolist())
            name = f' material_id="{_quotable(one.name)}"' if one.name else ""
            head = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"{name}'
            rows = _rows("{} {:.10f} {:.10f} {:.10f}", one.symbols, one.frac @ one.lattice)
            file.write(f"{len(one.symbols)}\n{head}\n{rows}")


def write_poscar(path: str | Path, chunks: Chunks, schema: Schema = None) -> None:
    """One crystal as a POSCAR file (VASP 5, direct coordinates).

    The format wants the atoms of an element together: they are brought so, elements in the order of their first atom.
    A left-handed cell, which VASP refuses, is written with its vectors and its coordinates negated.

    Args:
        path, chunks, schema: as :func:`write_cif`.

    Raises:
        DataError: as :func:`write_cif`, or there is more than one crystal, for which the format has no room.
    """
    del schema
    crystals = _each(chunks, path)
    one = next(crystals).right_handed()
    if next(crystals, None) is not None:
        raise DataError(
            "a POSCAR file holds one crystal, and there are more to write. Write .zip (a CIF file each), .cif, "
            ".extxyz or .parquet, or give a single crystal."
        )
    order = list(dict.fromkeys(one.symbols))
    place = np.argsort([order.index(symbol) for symbol in one.symbols], kind="stable")
    counts = " ".join(str(one.symbols.count(symbol)) for symbol in order)
    lines = [
        f"{one.word} {one.formula}",
        "1.0",
        *(" ".join(f"{value:.{_DIGITS}f}" for value in row) for row in one.lattice.tolist()),
        " ".join(order),
        counts,
        "Direct",
        *(" ".join(f"{value:.{_DIGITS}f}" for value in row) for row in one.wrapped()[place].tolist()),
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="ascii")


def write_parquet(path: str | Path, chunks: Chunks, schema: Schema = None) -> None:
    """All crystals as the rows of a Parquet file, which ``data.kind=crystals`` reads.

    Columns: ``material_id``, ``formula`` (reduced), ``num_atoms``, ``atomic_numbers``, ``frac_coords`` (a list of
    three numbers for each atom), ``lattice`` (nine numbers, cell vectors one after the other, in angstrom), ``a``,
    ``b``, ``c`` in angstrom and ``alpha``, ``beta``, ``gamma`` in degrees. Nothing is rounded, wrapped or turned.

    Args:
        path, chunks, schema: as :func:`write_cif`.

    Raises:
        DataError: as :func:`write_cif`.
    """
    del schema
    from pyarrow import parquet

    count = 0
    writer: Any = None
    try:
        for batch in _checked(chunks, path):
            table = _table(batch, count)
            writer = writer or parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            count += len(batch)
    finally:
        if writer is not None:
            writer.close()


@dataclass(frozen=True)
class One:
    """A crystal on its way into a file.

    Attributes:
        word: a name that no format stumbles over and no other crystal of the file has.
        name: as it was given; empty if it was not.
        formula: reduced.
        symbols: of the atoms.
        frac: fractional coordinates, float64, shape (atoms, 3).
        lattice: cell vectors as rows in angstrom, float64, shape (3, 3).
    """

    word: str
    name: str
    formula: str
    symbols: list[str]
    frac: np.ndarray
    lattice: np.ndarray

    def right_handed(self) -> "One":
        """The same crystal in a right-handed cell."""
        if np.linalg.det(self.lattice) > 0:
            return self
        return One(self.word, self.name, self.formula, self.symbols, -self.frac, -self.lattice)

    def wrapped(self) -> np.ndarray:
        """Coordinates in [0, 1), rounded as they are written."""
        return np.mod(np.round(np.mod(self.frac, 1.0), _DIGITS), 1.0)


def cif_text(one: One) -> str:
    """A CIF block of one crystal in P 1."""
    one = one.right_handed()
    lengths = np.linalg.norm(one.lattice, axis=1)
    unit = one.lattice / lengths[:, None]
    cosines = np.array([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]])
    angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    names = [*(f"length_{axis}" for axis in "abc"), "angle_alpha", "angle_beta", "angle_gamma"]
    cell = "".join(
        f"_cell_{name:<20}{value:.{_DIGITS}f}\n" for name, value in zip(names, (*lengths, *angles), strict=True)
    )
    labels = [f"{symbol} {symbol}{number}" for number, symbol in enumerate(one.symbols, 1)]
    return (
        f"data_{one.word}\n"
        f"_chemical_formula_structural  {one.formula}\n"
        f"_chemical_formula_sum  '{' '.join(f'{symbol}{count}' for symbol, count in Counter(one.symbols).items())}'\n"
        f"{cell}"
        f"_cell_volume              {abs(np.linalg.det(one.lattice)):.6f}\n"
        "_symmetry_space_group_name_H-M   'P 1'\n"
        "_symmetry_Int_Tables_number      1\n"
        "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"
        "loop_\n_atom_site_type_symbol\n_atom_site_label\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        + _rows("{} {:.10f} {:.10f} {:.10f} 1", labels, one.wrapped())
    )


def _rows(template: str, words: list[str], numbers: np.ndarray) -> str:
    return "".join(template.format(word, *row) + "\n" for word, row in zip(words, numbers.tolist(), strict=True))


def _quotable(name: str) -> str:
    """A name as it stands between the double quotes of an extended XYZ header."""
    return "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)


@dataclass
class _Words:
    """Names that differ, as words for files and headers."""

    given: dict[str, int] = field(default_factory=dict[str, int])  # and how many copies of each there are

    def word(self, name: str, number: int) -> str:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.+") else "_" for c in name)
        # Files that begin with a point are hidden, and two points are the folder above.
        base = plain.strip("._")[:_NAME_LENGTH] or f"crystal_{number}"
        # Blocks of CIF, and files of some systems, do not tell capital from small letters.
        key = base.casefold()
        found, copy = base, self.given.get(key, 0) + 1
        while copy > 1 and (found := f"{base}_{copy}").casefold() in self.given:
            copy += 1
        self.given[key] = copy
        self.given.setdefault(found.casefold(), 1)
        return found


def _each(chunks: Chunks, path: str | Path) -> Iterator[One]:
    """The crystals one by one."""
    words, number = _Words(), 0
    for batch in _checked(chunks, path):
        sizes = batch.num_atoms.tolist()
        parts = zip(
            batch.names or ("",) * len(batch),
            formulas_of(batch),
            batch.atom_types.split(sizes),
            batch.frac_coords.split(sizes),
            batch.lattice,
            strict=True,
        )
        for name, formula, numbers, frac, lattice in parts:
            number += 1
            symbols = [SYMBOLS[z] for z in numbers.tolist()]
            yield One(words.word(name, number), name, formula, symbols, frac.numpy(), lattice.numpy())


def _checked(chunks: Chunks, path: str | Path) -> Iterator[CrystalBatch]:
    """The batches in double precision on the CPU, each crystal one that can be written; at least one in all."""
    count = 0
    for batch in chunks:
        found = batch.to("cpu", torch.float64)
        bad = (~found.lattice.isfinite().flatten(1).all(1) | ~(found.volume > 0)).long()
        bad = bad.index_add(0, found.crystal, (~found.frac_coords.isfinite().all(1)).long())
        if bool(bad.any()):
            at = int(bad.nonzero()[0, 0])
            name = f" ({found.names[at]})" if found.names else ""
            raise DataError(
                f"crystal {count + at + 1}{name} cannot be written: a coordinate or cell vector is NaN or infinite, or "
                "the cell has no volume. Leave it out."
            )
        count += len(found)
        yield found
    if not count:
        raise DataError(f"no crystals to write to {Path(path).name}. Give at least one.")


def _table(batch: CrystalBatch, first: int) -> Any:
    """A batch as an arrow table; crystals without a name get their number, from ``first`` + 1."""
    import pyarrow as pa

    names = batch.names or tuple(f"crystal_{first + i + 1}" for i in range(len(batch)))
    offsets = pa.array(batch.offsets.to(torch.int32).numpy())
    coordinates = pa.FixedSizeListArray.from_arrays(pa.array(batch.frac_coords.reshape(-1).numpy()), 3)
    cell = torch.cat([batch.lengths, batch.angles], 1)
    columns: dict[str, Any] = {
        "material_id": pa.array(names, pa.string()),
        "formula": pa.array(formulas_of(batch), pa.string()),
        "num_atoms": pa.array(batch.num_atoms.to(torch.int32).numpy()),
        "atomic_numbers": pa.ListArray.from_arrays(offsets, pa.array(batch.atom_types.to(torch.int16).numpy())),
        "frac_coords": pa.ListArray.from_arrays(offsets, coordinates),
        "lattice": pa.FixedSizeListArray.from_arrays(pa.array(batch.lattice.reshape(-1).numpy()), 9),
        **{
            name: pa.array(np.ascontiguousarray(cell[:, i].numpy()))
            for i, name in enumerate(("a", "b", "c", "alpha", "beta", "gamma"))
        },
    }
    return pa.table(columns)
