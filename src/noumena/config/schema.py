"""Checks a section of a configuration against the signature it will be passed to."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from noumena.core.errors import ConfigError, did_you_mean


def check_section(
    section: str, values: Mapping[str, Any], target: Callable[..., Any], *, optional: frozenset[str] = frozenset()
) -> None:
    """Check keys and types of ``values`` against the keyword parameters of ``target``.

    Args:
        section: name of the section, for the key path in messages.
        values: the section.
        target: the function or class that will be called with them.
        optional: required parameters that may be missing for now.

    Raises:
        ConfigError: unknown key (with the nearest known one), wrong type (with what is accepted) or missing key.
    """
    parameters = configurable(target)
    for key in values:
        if key not in parameters:
            raise ConfigError(f"unknown key '{section}.{key}'. {did_you_mean(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in values and key not in optional:
            raise ConfigError(f"'{section}.{key}' is missing. Give it on the command line: {section}.{key}=VALUE")
    try:
        # JSON mode takes a list for a tuple; strict mode takes neither "10" for 10 nor true for 1.
        _model(target).model_validate_json(json.dumps(dict(values)), strict=True)
    except TypeError as error:
        raise ConfigError(f"'{section}' holds a value that is no number, text, list or mapping: {error}.") from error
    except ValidationError as error:
        problem = next((e for e in error.errors() if e["type"] != "missing"), None)
        if problem is not None:
            raise ConfigError(_explain(section, problem, parameters, target)) from error


def configurable(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters a configuration may set: those that can be passed by keyword and have a JSON-able type.

    Leading parameters of a function that also takes keyword-only ones are its inputs (model, data), unless they are
    plain types themselves, as a path is.
    """
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    return {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and (parameter.kind is parameter.KEYWORD_ONLY or hints.get(name) in (str, int, float, bool))
    }


def _model(target: Callable[..., Any]) -> type[BaseModel]:
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in configurable(target).items()
    }
    config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    return create_model(getattr(target, "__name__", "Section"), __config__=config, **fields)


def _explain(
    section: str, problem: ErrorDetails, parameters: Mapping[str, inspect.Parameter], target: Callable[..., Any]
) -> str:
    # The location of a union's member ends with the member's type; the key path ends before it.
    key = str(problem["loc"][0])
    index = [str(part) for part in problem["loc"][1:] if isinstance(part, int)]
    path = ".".join([section, key, *index])
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    found = problem["input"]
    return f"'{path}': expected {describe(hints[key])}, got {found!r} ({type(found).__name__})."


def describe(hint: Any) -> str:
    """What a type hint accepts, in words."""
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(hint))
    arguments = get_args(hint)
    origin = get_origin(hint)
    if arguments and (origin is None or origin.__name__ in ("UnionType", "Union")):
        return " or ".join(describe(argument) for argument in arguments)
    if arguments:
        inner = ", ".join(describe(argument) for argument in arguments if argument is not Ellipsis)
        return f"a {'mapping' if issubclass(origin, Mapping) else 'list'} of {inner}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
}
