"""Speed of matching crystals, beside pymatgen's StructureMatcher, and that both say the same.

    OMP_NUM_THREADS=1 python benchmarks/crystals_matching.py --data mp_20_val.parquet [--crystals 400] [--workers 2]

Crystals are held against copies with sites moved by 0.02 angstrom and cells strained by 0.4 %, as good reconstructions
are. Processor time of one process for single calls, wall time for worker processes (their start included); on a shared
machine the latter says what was left of it. Prints a Markdown table.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.data import read_crystals
from noumena.crystals.libraries import pymatgen
from noumena.crystals.matching import CRITERIA, cells_of, match

Result = TypeVar("Result")


def perturbed(crystals: CrystalBatch, sites: float, strain: float) -> CrystalBatch:
    """Sites moved by normal noise in angstrom along each cell vector, cells strained by normal noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(crystals.frac_coords.shape, generator=generator, dtype=torch.float64)
    bend = torch.randn(crystals.lattice.shape, generator=generator, dtype=torch.float64)
    return replace(
        crystals,
        frac_coords=crystals.frac_coords + sites * noise / crystals.lengths[crystals.crystal],
        lattice=crystals.lattice @ (torch.eye(3, dtype=torch.float64) + strain * bend),
    )


def reference(truth: CrystalBatch, found: CrystalBatch, criterion: str) -> list[float | None]:
    """What ``StructureMatcher`` itself says: the r.m.s., or 0 for a match where it gives no number."""
    each = CRITERIA[criterion]
    structure = pymatgen("core").Structure
    matcher = pymatgen("analysis.structure_matcher").StructureMatcher(each.ltol, each.stol, each.angle_tol)
    answers: list[float | None] = []
    for one, other in zip(cells_of(truth), cells_of(found), strict=True):
        pair = [structure(cell.lattice, cell.numbers, cell.frac) for cell in (one, other)]
        if each.statistic == "rms":
            rms = matcher.get_rms_dist(*pair)
            answers.append(None if rms is None else float(rms[0]))
        else:
            answers.append(0.0 if matcher.fit(*pair) else None)
    return answers


def timed(call: Callable[[], Result], clock: Callable[[], float]) -> tuple[float, Result]:
    """Seconds, and what came of it."""
    started = clock()
    result = call()
    return clock() - started, result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--crystals", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    every = replace(read_crystals(options.data).crystals, names=())
    rows = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[: options.crystals]
    truth = every.select(rows)
    found = perturbed(truth, 0.02, 0.004)
    match(truth.select(rows[:1] * 0), found.select(rows[:1] * 0), workers=0)  # imports
    print("| what | pairs/s | agrees |\n|---|---|---|")
    for name in CRITERIA:
        seconds, expected = timed(lambda name=name: reference(truth, found, name), time.process_time)
        print(f"| StructureMatcher, {name}, one core | {len(truth) / seconds:.0f} | |")
        seconds, got = timed(lambda name=name: match(truth, found, criteria=(name,), workers=0), time.process_time)
        same = sum(
            (value is not None) == bool(hit) for value, hit in zip(expected, got.matched[name].tolist(), strict=True)
        )
        print(f"| noumena, {name}, one core | {len(truth) / seconds:.0f} | {same} of {len(truth)} |")
        if name == "field":
            off = [
                abs(value - float(rms))
                for value, rms in zip(expected, got.rms.tolist(), strict=True)
                if value is not None
            ]
            print(f"| largest difference of an r.m.s. | | {max(off, default=0.0):.1e} |")
    seconds, _ = timed(lambda: match(truth, found, workers=0), time.process_time)
    print(f"| noumena, all three, one core | {len(truth) / seconds:.0f} | |")
    for names in (("field",), tuple(CRITERIA)):
        seconds, _ = timed(
            lambda names=names: match(truth, found, criteria=names, workers=options.workers), time.perf_counter
        )
        print(f"| noumena, {', '.join(names)}, {options.workers} processes, wall | {len(truth) / seconds:.0f} | |")


if __name__ == "__main__":
    main()
