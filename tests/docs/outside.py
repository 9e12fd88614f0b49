"""Commands of other programs on a page: checked against what the repository has, not run."""

import contextlib
import io
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT
from tests.docs.commands import parsed


class Wrong(AssertionError):
    """A command that would not do what the page says."""


def pip(words: list[str], _: Path, __: Any) -> str:
    """Extras that are named exist, and so do files of constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if not words or words[0] != "install":
        raise Wrong("only `pip install` is expected here.")
    for word, before in zip(words[1:], words, strict=False):
        if before in ("-c", "-r") and not (ROOT / word).is_file():
            raise Wrong(f"there is no {word} in the repository.")
        package, bracket, extras = word.partition("[")
        if bracket and package in (".", "noumena"):
            unknown = set(extras.rstrip("]").split(",")) - project["optional-dependencies"].keys()
            if unknown:
                raise Wrong(f"no such extra: {', '.join(sorted(unknown))}.")
    return ""


def make(words: list[str], _: Path, __: Any) -> str:
    """Targets exist."""
    text = (ROOT / "Makefile").read_text()
    for word in words:
        if "=" not in word and not word.startswith("-") and not re.search(rf"^{re.escape(word)}:", text, re.M):
            raise Wrong(f"the Makefile has no target {word}.")
    return ""


def python(words: list[str], folder: Path, session: Any) -> str:
    """Code on the command line is run; a script of the repository exists and has the options; others are run."""
    if words[:2] == ["-m", "venv"]:
        activate = folder / words[2] / "bin" / "activate"
        activate.parent.mkdir(parents=True)
        activate.write_text("")
        return ""
    if words[0] == "-m" and words[1] == "pip":
        return pip(words[2:], folder, session)
    if words[0] == "-c":
        return _run(words[1], folder)
    script = words[0]
    if (folder / script).is_file():
        return _run((folder / script).read_text(), folder)
    if not (ROOT / script).is_file():
        raise Wrong(f"there is no {script} in the repository.")
    text = (ROOT / script).read_text()
    for word in words[1:]:
        option = word.partition("=")[0]
        if option.startswith("--") and f'"{option}"' not in text:
            raise Wrong(f"{script} has no option {option}.")
    return ""


def _run(code: str, folder: Path) -> str:
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        try:
            exec(compile(code, "-c", "exec"), {"__name__": "__main__"})
        except Exception as error:
            raise Wrong(f"{type(error).__name__}: {error}") from error
    return out.getvalue()


def launched(words: list[str], folder: Path, session: Any) -> str:
    """A command of the library behind ``torchrun``, ``srun`` and the like: it can be parsed."""
    for place, word in enumerate(words):
        if word.rpartition("/")[2] in ("noumena", "noumena.cli.main"):
            problem = parsed(words[place + 1 :])
            if problem:
                raise Wrong(problem)
            return ""
    raise Wrong("no command of the library behind it.")


def submitted(words: list[str], folder: Path, _: Any) -> str:
    """A script that is handed to a queue exists."""
    script = folder / words[-1]
    if not script.is_file():
        raise Wrong(f"there is no {words[-1]} beside the page's other files.")
    return ""


def git(words: list[str], folder: Path, _: Any) -> str:
    """A clone makes a folder."""
    if words and words[0] == "clone":
        (folder / words[-1].rpartition("/")[2].removesuffix(".git")).mkdir(exist_ok=True)
    return ""


PROGRAMS: dict[str, Callable[[list[str], Path, Any], str]] = {
    "pip": pip,
    "make": make,
    "python": python,
    "python3": python,
    "torchrun": launched,
    "srun": launched,
    "sbatch": submitted,
    "git": git,
}
