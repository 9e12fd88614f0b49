"""How many CIF texts are read in a second, with and without reduction, beside pymatgen.

    python benchmarks/crystals_reading.py --data crystals.parquet

The Parquet file has columns ``atomic_numbers``, ``frac_coords`` and ``lattice``. Its rows are written as CIF texts into
one CSV file, the layout of the field's data sets, as often as ``--rows`` asks for. Rates are by the clock, starting of
processes included, and by processor seconds of all processes, which other programs on the machine do not change.
Prints a Markdown table.
"""

import argparse
import csv
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noumena.crystals import libraries
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.reading import read

CELL = ("_cell_length_a", "_cell_length_b", "_cell_length_c", "_cell_angle_alpha", "_cell_angle_beta")


def cif_texts(crystals: CrystalBatch) -> list[str]:
    """CIF texts in P1, laid out as pymatgen does."""
    sites = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    head = ["_symmetry_space_group_name_H-M   'P 1'", "_symmetry_Int_Tables_number   1"]
    symmetry = ["loop_", " _symmetry_equiv_pos_site_id", " _symmetry_equiv_pos_as_xyz", "  1  'x, y, z'", "loop_"]
    table = [f" _atom_site_{tag}" for tag in sites]
    lengths, angles = crystals.lengths.tolist(), crystals.angles.tolist()
    symbols = [SYMBOLS[number] for number in crystals.atom_types.tolist()]
    places, first = crystals.frac_coords.tolist(), crystals.offsets.tolist()
    texts: list[str] = []
    for number in range(len(crystals)):
        values = (*lengths[number], *angles[number])
        cell = [f"{tag}   {value:.8f}" for tag, value in zip((*CELL, "_cell_angle_gamma"), values, strict=True)]
        rows = [
            f"  {symbols[i]}  {symbols[i]}{i - first[number]}  1  "
            f"{places[i][0]:.8f}  {places[i][1]:.8f}  {places[i][2]:.8f}  1"
            for i in range(first[number], first[number + 1])
        ]
        texts.append("\n".join([f"data_{number}", *head, *cell, *symmetry, *table, *rows, ""]))
    return texts


def with_pymatgen(texts: list[str], *, reduced: bool) -> None:
    """What the field's programs do with each text."""
    parser: Any = libraries.pymatgen("io.cif").CifParser
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in texts:
            structure = parser.from_str(text).parse_structures(primitive=False)[0]
            if reduced:
                structure.get_primitive_structure().get_reduced_structure()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and processor seconds of this process and those it started."""
    clock, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    return time.perf_counter() - clock, used


def row(name: str, count: int, seconds: tuple[float, float]) -> str:
    return f"| {name} | {count:,} | {count / seconds[0]:,.0f} | {count / max(seconds[1], 1e-9):,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of crystals")
    parser.add_argument("--rows", type=int, default=100_000, help="texts to read")
    parser.add_argument("--pymatgen", type=int, default=300, help="texts that pymatgen reads")
    options = parser.parse_args()
    texts = cif_texts(read(options.data, reduction="none").crystals)
    texts = (texts * (options.rows // len(texts) + 1))[: options.rows]
    some = texts[: options.pymatgen]
    print("| reading | texts | texts/s by the clock | texts per processor second |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crystals.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["material_id", "cif"])
            writer.writerows(enumerate(texts))
        for reduction in ("none", "niggli"):
            for workers in (1, 2):
                seconds = timed(lambda r=reduction, w=workers: read(path, reduction=r, workers=w))
                name = f"Noumena, {workers} process{'es' if workers > 1 else ''}, reduction {reduction}"
                print(row(name, len(texts), seconds), flush=True)
        cache = Path(folder) / "cache"
        read(path, workers=1, cache=cache)
        print(row("Noumena, from the cache", len(texts), timed(lambda: read(path, cache=cache))), flush=True)
    print(row("Noumena, Parquet of numbers, reduction niggli", *parquet(options.data)), flush=True)
    for reduced, name in ((False, "none"), (True, "niggli")):
        seconds = timed(lambda r=reduced: with_pymatgen(some, reduced=r))
        print(row(f"pymatgen, reduction {name}", len(some), seconds), flush=True)


def parquet(path: Path) -> tuple[int, tuple[float, float]]:
    """Crystals of the Parquet file itself, and what reading it takes."""
    count = len(read(path).crystals)
    return count, timed(lambda: read(path))


if __name__ == "__main__":
    main()
