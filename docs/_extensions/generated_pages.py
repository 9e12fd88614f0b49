"""Reference pages that are made from the library whenever the documentation is built, and are stored nowhere.

A page says ``<!-- generated: commands -->`` or ``<!-- generated: recipes -->`` where the text belongs.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import typer.main
from sphinx.application import Sphinx

from noumena.cli.main import app as command_line
from noumena.config import recipes
from noumena.registry import FAMILIES, family, model_summary

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.M)


def commands() -> str:
    """Every verb with its arguments and options, as Markdown."""
    root = typer.main.get_command(command_line)
    parts = ["## Before the verb", _options(root)]
    for path, command in _leaves(root, "noumena"):
        parts += [f"## `{path}`", _usage(path, command), _text(command.help or ""), _arguments(command)]
        parts.append(_options(command))
    return "\n\n".join(part for part in parts if part)


def recipe_list() -> str:
    """Every shipped recipe with its description, by family, as Markdown."""
    parts: list[str] = []
    for name in FAMILIES:
        found = [recipe for recipe in recipes() if recipe.name.startswith(f"{name}/")]
        rows = [f"| `{one.name}` | `{one.content['model']['name']}` | {_cell(one.description)} |" for one in found]
        parts += [f"## {name}", family(name).summary, "\n".join(["| recipe | model | |", "|---|---|---|", *rows])]
    return "\n\n".join(parts)


def model_list() -> str:
    """Every model of the built-in families, as Markdown."""
    rows = [
        f"| `{name}/{model}` | {_cell(model_summary(f'{name}/{model}'))} |"
        for name in FAMILIES
        for model in family(name).models
    ]
    return "\n".join(["| model | |", "|---|---|", *rows])


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from _leaves(below, f"{path} {name}")
        else:
            yield f"{path} {name}", below


def _usage(path: str, command: Any) -> str:
    words = [_metavar(one) for one in command.params if one.param_type_name == "argument"]
    return f"```text\n{' '.join([path, *words, '[OPTIONS]'])}\n```"


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip()
    if name.startswith("["):
        return name
    return (name if argument.required else f"[{name}]") + ("..." if argument.nargs == -1 and "..." not in name else "")


def _arguments(command: Any) -> str:
    found = [one for one in command.params if one.param_type_name == "argument"]
    rows = [f"| `{_metavar(one)}` | {_cell(one.help or '')} |" for one in found]
    return "\n".join(["| argument | |", "|---|---|", *rows]) if rows else ""


def _options(command: Any) -> str:
    found = [one for one in command.params if one.param_type_name == "option" and not one.hidden and one.name != "help"]
    rows = [f"| {_names(one)} | {_default(one)} | {_cell(one.help or '')} |" for one in found]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows]) if rows else ""


def _names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names + (", repeated" if option.multiple else "")


def _default(option: Any) -> str:
    default = option.default
    if callable(default) or default in (None, (), []) or default is False:
        return ""
    return f"`{'on' if default is True else default}`"


def _cell(text: str) -> str:
    return " ".join(_text(text).split()).replace("|", "\\|")


def _text(text: str) -> str:
    return text.replace("\b", "").replace("[", "\\[").replace("<", "\\<").replace("*", "\\*").strip()


_PAGES: dict[str, Callable[[], str]] = {"commands": commands, "recipes": recipe_list, "models": model_list}


def _fill(_: Sphinx, __: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda mark: _PAGES[mark[1]](), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Fill the marks of every page as it is read."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
