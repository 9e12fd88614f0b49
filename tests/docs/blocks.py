"""The code blocks of a page, in its order."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})([^`]*)$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the page's name, from the root of the repository.
        line: of the first line of code, from 1.
        language: the word behind the fence.
        code: what is in it.
        reason: why it is not run, if the page says so; ``<!-- not run: reason -->`` stands above such a block.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None = None

    @property
    def place(self) -> str:
        """Where to look."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page; those that are directives of the documentation (``{toctree}``) are none."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number, reason = 0, None
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            said = _NOT_RUN.fullmatch(lines[number].strip())
            if said or lines[number].strip():
                reason = said[1] if said else None
            number += 1
            continue
        indent, ticks, language = fence[1], fence[2], fence[3].strip()
        start = number = number + 1
        while not lines[number].strip().startswith(ticks):
            number += 1
        code = "".join(f"{line.removeprefix(indent)}\n" for line in lines[start:number])
        if not language.startswith("{"):
            found.append(Block(name_of(page), start + 1, language, code, reason))
        reason = None
        number += 1
    return found


def said_in_passing(page: Path) -> list[str]:
    """Every ``noumena ...`` between backticks in the text of a page, on one line."""
    text = re.sub(r"^\s*(`{3,}).*?^\s*\1\s*$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [" ".join(one.split()) for one in re.findall(r"`(noumena [^`]+?)`", text)]
