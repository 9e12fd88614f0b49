"""Make the sample of the crystals family: 400 small structures of MP-20's training set.

usage: python tools/make_crystals_sample.py SOURCE OUTPUT
    SOURCE  Parquet file of structures of MP-20's training set, with their coordinates
    OUTPUT  the Parquet file to write
"""

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

CRYSTALS = 400
MOST_ATOMS = 12
ELEMENTS = 119
COLUMNS = (
    "material_id",
    "formula",
    "num_atoms",
    "atomic_numbers",
    "frac_coords",
    "lattice",
    "a",
    "b",
    "c",
    "alpha",
    "beta",
    "gamma",
    "formation_energy_per_atom",
    "band_gap",
)


def chosen_rows(elements: np.ndarray, sizes: np.ndarray, formulas: np.ndarray) -> list[int]:
    """Rows of diverse size and composition, in their order.

    Sizes take turns. Of the size whose turn it is, the crystal is taken whose elements were used least so far, and of
    each formula one at most; the first in the file of those that are as good.

    Args:
        elements: bool, shape (crystals, 119), which each has.
        sizes: atoms of each, shape (crystals,).
        formulas: of each, shape (crystals,).
    """
    used = np.zeros(ELEMENTS)
    free = np.ones(len(sizes), bool)
    chosen: list[int] = []
    turns = sorted(set(sizes.tolist()))
    while len(chosen) < CRYSTALS and free.any():
        size = turns[len(chosen) % len(turns)]
        rows = np.flatnonzero(free & (sizes == size))
        if not len(rows):
            turns.remove(size)
            continue
        row = int(rows[(elements[rows] @ used / elements[rows].sum(1)).argmin()])
        chosen.append(row)
        used += elements[row]
        free &= formulas != formulas[row]
    return sorted(chosen)


def make_sample(source: Path, target: Path) -> None:
    """Write the chosen rows with the columns that a model or a picture can use."""
    compute = cast("Any", pc)
    table = parquet.read_table(source)
    sure = compute.and_(compute.less_equal(table["num_atoms"], MOST_ATOMS), table["cell_equals_mp20"])
    table = table.filter(sure).select(list(COLUMNS)).sort_by("material_id")
    numbers = table["atomic_numbers"].combine_chunks()
    crystal = np.repeat(np.arange(len(table)), table["num_atoms"].to_numpy())
    elements = np.zeros((len(table), ELEMENTS), bool)
    elements[crystal, cast("Any", numbers).flatten().to_numpy()] = True
    rows = chosen_rows(elements, table["num_atoms"].to_numpy(), table["formula"].to_numpy())
    found = table.take(pa.array(rows)).replace_schema_metadata(
        {"source": "MP-20 (train), Materials Project, CC BY 4.0; Jain et al. 2013, Xie et al. 2022"}
    )
    parquet.write_table(found, target, compression="zstd", compression_level=19)


def main() -> None:
    """Read the structures and write the sample."""
    parser = argparse.ArgumentParser(description="Make the sample of the crystals family.")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    files = parser.parse_args()
    files.output.parent.mkdir(parents=True, exist_ok=True)
    make_sample(files.source, files.output)


if __name__ == "__main__":
    main()
