"""What the blocks of one page do, from the first to the last: Python in one namespace, commands in one folder.

Commands of a block are run by a real shell, with its loops, variables and redirections. Those of the library come back
into this process, which is faster than starting one for each; those that set something up (pip, make) are checked
against what the repository has.
"""

import contextlib
import io
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from noumena.cli.main import main
from noumena.config import compose
from tests.docs.blocks import Block
from tests.docs.commands import parsed
from tests.docs.outside import PROGRAMS, Wrong
from tests.docs.shell import shell

Quicken = Callable[[list[str], Path], list[str]]


class Broken(AssertionError):
    """A block that does not do what the page says."""


class Session:
    """Runs blocks one after the other.

    Args:
        folder: where they are run.
        namespace: names that the Python of the page takes for granted.
        quicken: makes a command cheaper: from its words and the folder to the words that are run.
        replace: text of blocks, and what it is replaced by, to make them cheaper.
    """

    def __init__(
        self, folder: Path, namespace: Mapping[str, object], quicken: Quicken, replace: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.namespace = {"__name__": "__page__", **namespace}
        self.quicken = quicken
        self.replace = dict(replace)
        self.used: set[str] = set()
        self._problems: list[str] = []

    def run(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            Broken: it cannot be done.
        """
        runners = {"python": self.python, "bash": self.bash, "console": self.console, "yaml": self.yaml}
        if block.language in runners:
            runners[block.language](block, self._cheaper(block.code))

    def _cheaper(self, code: str) -> str:
        for old, new in self.replace.items():
            if old in code:
                self.used.add(old)
                code = code.replace(old, new)
        return code

    def python(self, block: Block, code: str) -> None:
        """Run Python; what it prints is thrown away."""
        try:
            # As many empty lines before it as on the page, so that a traceback has the page's lines.
            compiled = compile("\n" * (block.line - 1) + code, block.page, "exec")
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()):
                exec(compiled, self.namespace)
        except Exception as error:
            raise Broken(f"{block.place}\n{code}\n{traceback.format_exc()}") from error

    def console(self, block: Block, code: str) -> None:
        """Run what stands behind the prompts; it has to print what stands below, with anything for ``...``."""
        for part in re.split(r"^\$ ", code, flags=re.M)[1:]:
            line, _, shown = part.partition("\n")
            _, *words = shlex.split(line)
            status, out, err = noumena(words, self.folder)
            said, expected = " ".join((out + err).split()), " ".join(shown.split())
            if not re.search(re.escape(expected).replace(r"\.\.\.", ".*"), said):
                raise Broken(f"{block.place}\n$ {line}\nexpected\n{expected}\ngot\n{said}")
            if status and "Error: " not in expected:
                raise Broken(f"{block.place}\n$ {line}\nexit code {status}\n{said}")

    def yaml(self, block: Block, code: str) -> None:
        """Write the file that the first line names, and check it if it is a recipe."""
        name, _, _ = code.partition("\n")[0].removeprefix("#").strip().partition(":")
        if not code.startswith("# ") or not name.endswith((".yaml", ".yml")):
            raise Broken(f"{block.place}: the first line of a YAML block names its file: '# NAME.yaml: what it is'.")
        content = yaml.safe_load(code)
        (self.folder / name).write_text(code, encoding="utf-8")
        if "model" in content and "data" in content:
            with contextlib.chdir(self.folder):
                compose(name, require_data=False)

    def bash(self, block: Block, code: str) -> None:
        """Run a script, and each command of the library that it calls."""
        self._problems = []
        status, errors = shell(code, self.folder, ("noumena", *PROGRAMS), self._answer)
        if status:
            said = "\n".join((*self._problems, errors))
            raise Broken(f"{block.place}\n{code}\nexit code {status}\n{said}")

    def _answer(self, folder: str, words: list[str]) -> tuple[int, str]:
        program, *rest = words
        if program != "noumena":
            try:
                return 0, PROGRAMS[program](rest, Path(folder), self)
            except Wrong as error:
                self._problems.append(f"{shlex.join(words)}\n{error}")
                return 1, ""
        if rest[:1] in (["demo"], ["explore"]):  # minutes, or until Ctrl-C: tests of their own run them
            problem = parsed(rest)
            self._problems += [problem] if problem else []
            return int(problem is not None), ""
        cheaper = self.quicken(rest, Path(folder))
        code, out, err = noumena(cheaper, folder)
        if code:
            self._problems.append(f"{shlex.join(words)}\nrun as {shlex.join(cheaper)}\nexit code {code}\n{err}")
        return code, out


def noumena(words: Sequence[str], folder: str | Path) -> tuple[int, str, str]:
    """The command line in this process: exit code, output, error output."""
    old, code = sys.argv, 0
    sys.argv = ["noumena", *words]
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), io.StringIO()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = old
    return code, out.buffer.getvalue().decode(), err.getvalue()
