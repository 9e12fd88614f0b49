import json
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.matching import CRITERIA, cells_of, match, match_pairs
from noumena.crystals.measures import pairs as pairs_module
from noumena.crystals.measures.cells import Cell, reduced
from noumena.crystals.measures.pairs import Task, answers, read_answer, read_task, write_answer, write_task
from noumena.crystals.measures.pool import run_tasks
from tests.crystals.measured import cubic, described_otherwise, first, perturbed

warnings.simplefilter("ignore")
core = pytest.importorskip("pymatgen.core")
matcher_module = pytest.importorskip("pymatgen.analysis.structure_matcher")


def structures(crystals):
    return [core.Structure(cell.lattice, cell.numbers, cell.frac) for cell in cells_of(crystals)]


def reference(truth, found):
    """What pymatgen's matcher itself says, of each pair."""
    made = {
        name: matcher_module.StructureMatcher(each.ltol, each.stol, each.angle_tol) for name, each in CRITERIA.items()
    }
    for one, other in zip(structures(truth), structures(found), strict=True):
        rms = made["field"].get_rms_dist(one, other)
        yield {
            "rms": None if rms is None else float(rms[0]),
            "original": made["original"].fit(one, other),
            "strict": made["strict"].fit(one, other),
        }


@pytest.mark.parametrize(
    ("sites", "strain"), [(0.02, 0.004), (0.1, 0.02), (0.3, 0.06), (0.5, 0.1)], ids=["tiny", "small", "middle", "large"]
)
def test_every_number_is_that_of_pymatgens_matcher(sites, strain):
    truth = first(50, start=int(100 * sites))
    found = perturbed(truth, sites, strain)
    matches = match(truth, found, workers=0)
    assert matches.failures == {}
    for number, expected in enumerate(reference(truth, found)):
        rms = float(matches.rms[number])
        assert bool(matches.matched["field"][number]) == (expected["rms"] is not None)
        assert np.isnan(rms) if expected["rms"] is None else rms == pytest.approx(expected["rms"], abs=1e-6)
        assert bool(matches.matched["original"][number]) == expected["original"]
        assert bool(matches.matched["strict"][number]) == expected["strict"]


def test_supercells_and_other_descriptions_agree_with_pymatgens_matcher():
    truth = first(24)
    found = perturbed(described_otherwise(truth), 0.05, 0.01)
    # Twice the cell along a: the reduction to the primitive cell has work to do.
    doubled = [
        CrystalBatch(
            one.atom_types.repeat(2),
            torch.cat([one.frac_coords + torch.tensor([k, 0.0, 0.0]) for k in (0, 1)]) / torch.tensor([2.0, 1.0, 1.0]),
            one.lattice * torch.tensor([2.0, 1.0, 1.0])[:, None],
            one.num_atoms * 2,
        )
        for one in found.split(1)
    ]
    found = CrystalBatch.cat(doubled)
    matches = match(truth, found, workers=0)
    expected = list(reference(truth, found))
    assert sum(each["original"] for each in expected) > 20
    for number, each in enumerate(expected):
        assert bool(matches.matched["original"][number]) == each["original"]
        assert bool(matches.matched["strict"][number]) == each["strict"]
        if each["rms"] is not None:
            assert float(matches.rms[number]) == pytest.approx(each["rms"], abs=1e-6)


def test_reduction_is_that_of_pymatgen():
    for cell, structure in zip(
        cells_of(described_otherwise(first(20))), structures(described_otherwise(first(20))), strict=True
    ):
        expected = structure.get_reduced_structure().get_primitive_structure()
        found = reduced(cell)
        assert len(found.numbers) == len(expected)
        assert found.volume == pytest.approx(expected.volume)
        np.testing.assert_allclose(np.linalg.norm(found.lattice, axis=1), expected.lattice.abc, rtol=1e-6)


def test_a_crystal_of_other_elements_does_not_match():
    salt = cubic([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.0)
    other = replace(salt, atom_types=torch.tensor([11, 35]))
    matches = match(CrystalBatch.cat([salt, salt]), CrystalBatch.cat([salt, other]), workers=0)
    assert matches.matched["field"].tolist() == [True, False]
    assert torch.isnan(matches.rms).tolist() == [False, True]


def test_processes_give_what_this_process_gives():
    truth = first(40)
    found = perturbed(truth, 0.2, 0.04)
    inline, pooled = match(truth, found, workers=0), match(truth, found, workers=2)
    for name in CRITERIA:
        assert torch.equal(inline.matched[name], pooled.matched[name])
    torch.testing.assert_close(inline.rms, pooled.rms, equal_nan=True, rtol=1e-9, atol=1e-12)


def test_invalid_cells_are_counted_by_reason_and_are_no_match():
    truth = first(4)
    lattice = truth.lattice.clone()
    lattice[1] = torch.nan
    lattice[2] = 0.0
    matches = match(truth, replace(truth, lattice=lattice), workers=0)
    assert matches.matched["field"].tolist() == [True, False, False, True]
    assert matches.failed == ("", "invalid cell", "invalid cell", "")
    assert matches.failures == {"invalid cell": 2}
    assert "NaN" in matches.details[1]


def test_a_needle_of_a_cell_ends_as_invalid_and_not_in_a_search_without_end():
    salt = cubic([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.0)
    needle = replace(salt, lattice=torch.diag(torch.tensor([1e-2, 1e-2, 1e5], dtype=torch.float64))[None])
    started = time.monotonic()
    assert match(salt, needle, workers=0).failed == ("invalid cell",)
    assert time.monotonic() - started < 30


def test_a_worker_that_exceeds_the_limit_is_replaced_and_the_rest_is_done():
    edge = 11
    grid = torch.cartesian_prod(*[torch.arange(edge, dtype=torch.float64) / edge] * 3)
    huge = CrystalBatch.of(3.0 * edge * torch.eye(3, dtype=torch.float64), grid, torch.full((edge**3,), 6))
    some = first(5)
    both = CrystalBatch.cat([some.select(torch.tensor([0, 1])), huge, some.select(torch.tensor([2, 3, 4]))])
    found: list[object] = []
    # From another thread than the main one, where no alarm would go off.
    thread = threading.Thread(target=lambda: found.append(match(both, both, workers=1, time_limit=0.3)))
    thread.start()
    thread.join(60)
    matches = found[0]
    assert matches.failed == ("", "", "timeout", "", "", "")
    assert matches.matched["field"].tolist() == [True, True, False, True, True, True]


def test_a_worker_that_dies_costs_one_pair(monkeypatch):
    cells = cells_of(first(3))
    # Half a number of atoms cannot be read: the worker ends.
    broken = Cell(cells[0].lattice, cells[0].frac, cells[0].numbers)
    task = Task([*cells, broken], [(0, 0), (1, 1), (2, 2)], CRITERIA, None)
    written = []

    def cut(file, given):
        if not written:
            written.append(given)
            file.write(
                json.dumps({"atoms": ["no number"], "pairs": [], "criteria": {}, "limit": None}).encode() + b"\n"
            )
            file.flush()
            return
        write_task(file, given)

    monkeypatch.setattr("noumena.crystals.measures.pool.write_task", cut)
    (replies,) = run_tasks([task], 1)
    assert [reply.failed for reply in replies] == ["error", "", ""]


def test_a_limit_holds_in_this_process_between_the_steps_of_a_search():
    cells = cells_of(first(1))
    (answer,) = answers(Task(cells, [(0, 0)], CRITERIA, 1e-9))
    assert answer.failed == "timeout"


def test_an_error_of_a_library_is_one_pairs_failure(monkeypatch):
    def broken(cell):
        raise ValueError("no such cell")

    monkeypatch.setattr(pairs_module, "reduced", broken)
    matches = match(first(2), first(2), workers=0)
    assert matches.failed == ("error", "error")
    assert matches.details[0] == "ValueError: no such cell"


def test_tasks_and_answers_survive_the_way_to_a_worker(tmp_path):
    task = Task(cells_of(first(3)), [(0, 1), (2, 2)], CRITERIA, 1.5)
    with (tmp_path / "task").open("wb") as file:
        write_task(file, task)
    with (tmp_path / "task").open("rb") as file:
        found = read_task(file)
        assert read_task(file) is None
    assert found.pairs == task.pairs
    assert found.criteria == dict(CRITERIA)
    assert found.limit == 1.5
    for one, other in zip(found.cells, task.cells, strict=True):
        assert (one.lattice == other.lattice).all()
        assert (one.frac == other.frac).all()
        assert (one.numbers == other.numbers).all()
    with (tmp_path / "answer").open("wb") as file:
        for answer in answers(task):
            write_answer(file, answer)
    with (tmp_path / "answer").open("rb") as file:
        assert [read_answer(file), read_answer(file), read_answer(file)] == [*answers(task), None]


def test_pairs_of_any_crystals():
    crystals = first(3)
    matches = match_pairs(crystals, crystals, torch.tensor([[0, 0], [0, 1], [2, 2]]), workers=0, criteria=("original",))
    assert matches.matched["original"].tolist() == [True, False, True]
    assert list(matches.matched) == ["original"]


def test_no_pairs_are_no_error():
    matches = match_pairs(first(1), first(1), torch.zeros(0, 2, dtype=torch.int64))
    assert len(matches) == 0


def test_a_script_without_a_main_guard_may_match():
    script = (
        "import torch\n"
        "from noumena.crystals.batch import CrystalBatch\n"
        "from noumena.crystals.matching import match\n"
        "one = CrystalBatch.of(4 * torch.eye(3), torch.zeros(1, 3), torch.tensor([29]))\n"
        "print(int(match(one, one, workers=1).matched['field'].sum()))\n"
    )
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criteria": ("fields",)}, "Did you mean 'field'"),
        ({"criteria": ()}, "got none"),
        ({"workers": -1}, "workers"),
        ({"time_limit": 0.0}, "time_limit"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        match(first(1), first(1), **options)


def test_unequal_numbers_of_crystals_are_refused():
    with pytest.raises(DataError, match="2 crystals and 1"):
        match(first(2), first(1))
