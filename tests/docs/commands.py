"""Whether a command line of the library has the verbs and options that it is written with."""

from collections.abc import Sequence
from typing import Any

import typer.main

from noumena.cli.main import app
from noumena.config import compose, recipes
from noumena.core.errors import NoumenaError

ROOT_COMMAND: Any = typer.main.get_command(app)


def parsed(words: Sequence[str], *, whole: bool = True) -> str | None:
    """What is wrong with the words behind ``noumena``; nothing if they can be parsed.

    Args:
        words: verb, arguments and options.
        whole: required arguments have to be there; not so of what a text names in passing.
    """
    command, rest = ROOT_COMMAND, [word for word in words if word not in ("--debug", "-q", "--quiet", "--version")]
    while hasattr(command, "commands"):
        if not rest:
            return None
        if rest[0] not in command.commands:
            return None if rest[0].isupper() else f"no verb '{rest[0]}'"
        command, rest = command.commands[rest[0]], rest[1:]
    unknown = [word for word in rest if word.startswith("-") and not _option(command, word.partition("=")[0])]
    if unknown:
        return f"{command.name} has no {', '.join(unknown)}"
    if not whole:
        return None
    try:
        context = command.make_context(command.name, list(rest))
        if command.name in ("fit", "sweep") and context.params["recipe"] in {recipe.name for recipe in recipes()}:
            compose(context.params["recipe"], [], context.params["overrides"] or [], require_data=False)
    except NoumenaError as error:
        return str(error)
    except Exception as error:  # what the parser of the command line raises, whichever package has it
        return f"{type(error).__name__}: {error}"
    return None


def _option(command: Any, word: str) -> bool:
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    # A negative number is no option; -n5 is -n.
    return word in known or word[1:2].isdigit() or word[:2] in known - {"--"}
