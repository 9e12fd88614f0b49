"""Write the tables of docs/benchmarks.md from the results that are stored in benchmarks/results.

    python tools/benchmark_tables.py            # rewrites the tables
    python tools/benchmark_tables.py --check    # says which differ, and exits with 1 if one does

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. What it shows and how is a matter of the
function of its benchmark: here are only the names.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noumena.core.errors import NoumenaError
from noumena.files import replacing

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
END = "<!-- end of table -->"
_MARK = re.compile(r"<!-- table: (.*?) -->")


class PageError(Exception):
    """The page or a result file is not as it has to be; the text says what to do."""


@dataclass(frozen=True)
class Source:
    """What a table is made from.

    Attributes:
        benchmark: script in ``benchmarks``, and the name of its result file.
        function: of that script, from rows of results to Markdown.
    """

    benchmark: str
    function: str


TABLES = {
    "density_adbench": Source("density_adbench", "table"),
    "density_levels": Source("density_levels", "table"),
    "density_calibration": Source("density_calibration", "alarm_table"),
    "crystals_reconstruction": Source("crystals_accuracy", "reconstruction_table"),
    "crystals_generation": Source("crystals_accuracy", "generation_table"),
    "worldmodels_noise_methods": Source("worldmodels_noise", "method_table"),
    "worldmodels_noise_steps": Source("worldmodels_noise", "step_table"),
    "worldmodels_noise_levels": Source("worldmodels_noise", "level_table"),
    "worldmodels_noise_neither": Source("worldmodels_noise", "neither_table"),
    "worldmodels_noise_three_dots": Source("worldmodels_noise", "three_dots_table"),
    "worldmodels_study": Source("worldmodels_noise", "study_table"),
    "worldmodels_planning": Source("worldmodels_planning", "table"),
}


def made(name: str, results: Path) -> str:
    """The table of this name, from the files in the folder ``results``.

    Raises:
        PageError: its result file is missing, or lacks what the table shows.
    """
    source = TABLES[name]
    path = results / f"{source.benchmark}.jsonl"
    if not path.is_file():
        raise PageError(
            f"table {name}: there is no result file {path}. Restore it from version control, "
            f"or run benchmarks/{source.benchmark}.py, whose --help says how."
        )
    function: Callable[[Sequence[dict[str, Any]]], str] = getattr(_script(source.benchmark), source.function)
    try:
        return function(_script("benchmark_results").read_results(path))
    except KeyError as error:
        raise PageError(f"table {name}: a result in {path} lacks {error}, which the table shows.") from error
    except (ValueError, TypeError) as error:  # TypeError: no number where one has to be
        raise PageError(f"table {name}, made from {path}: {error}") from error


def _script(name: str) -> Any:
    """A module of the folder ``benchmarks``, whose scripts import each other as those of one folder do."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


@dataclass(frozen=True)
class Place:
    """Where a table stands: ``lines[first:last]`` is what lies between its marks."""

    name: str
    first: int
    last: int


def places(text: str) -> list[Place]:
    """The marked tables of a page, in its order.

    Raises:
        PageError: a name that is not known, stands twice or is missing; a mark without its other half.
    """
    found: list[Place] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(text.split("\n")):
        mark = _MARK.fullmatch(line.strip())
        if mark is None and line.strip() != END:
            continue
        if (mark is None) == (opened is None):
            what = f"expected {END} before another mark" if mark else f"{END} ends no table"
            raise PageError(f"line {number + 1}: {what}. A table stands between <!-- table: NAME --> and {END}.")
        if mark is None and opened is not None:
            found.append(Place(*opened, number))
            opened = None
        elif mark is not None:
            opened = (_known(mark[1], number, [place.name for place in found]), number + 1)
    if opened is not None:
        raise PageError(f"line {opened[1]}: table {opened[0]} has no end. Write {END} below it.")
    if missing := [name for name in TABLES if name not in {place.name for place in found}]:
        raise PageError(
            f"the page has no {', '.join(missing)}. Write <!-- table: {missing[0]} --> and {END} where it belongs, "
            "or leave its name out of TABLES in tools/benchmark_tables.py."
        )
    return found


def _known(name: str, number: int, before: Sequence[str]) -> str:
    if name not in TABLES:
        raise PageError(f"line {number + 1}: there is no table {name!r}. Known are {', '.join(TABLES)}.")
    if name in before:
        raise PageError(f"line {number + 1}: table {name} stands twice. Leave one of them.")
    return name


def rewritten(text: str, results: Path) -> tuple[str, list[str]]:
    """The page with its tables made anew, and the names of those that differed."""
    lines = text.split("\n")
    written: list[str] = []
    differ: list[str] = []
    done = 0
    for place in places(text):
        # Empty lines, so that no reader of Markdown takes the mark for a part of the table.
        wanted = ["", *made(place.name, results).splitlines(), ""]
        if lines[place.first : place.last] != wanted:
            differ.append(place.name)
        written += [*lines[done : place.first], *wanted]
        done = place.last
    return "\n".join([*written, *lines[done:]]), differ


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check.

    Returns:
        The exit status: 0, 1 where ``--check`` finds a difference, 2 where the page or a file is not as it should be.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table differs")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    options = parser.parse_args(arguments)
    try:
        text = options.page.read_text(encoding="utf-8")
        new, differ = rewritten(text, options.results)
        if differ and not options.check:
            with replacing(options.page) as beside:
                beside.write_text(new, encoding="utf-8")
    except (PageError, NoumenaError, OSError) as error:
        sys.stderr.write(f"{options.page}: {error}\n")
        return 2
    for name in differ:
        said = "is not what the results say; run python tools/benchmark_tables.py" if options.check else "rewritten"
        sys.stdout.write(f"{options.page}: table {name}: {said}\n")
    return 1 if differ and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
