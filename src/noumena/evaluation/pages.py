"""The HTML templates of pages: escaped by default, and an error for a value that is not given."""

from collections.abc import Callable
from typing import Any


def template(name: str, **filters: Callable[..., Any]) -> Any:
    """A template of this package, ready to be rendered.

    Args:
        name: of its file in ``templates/``.
        filters: functions that the template uses beside those of Jinja.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("noumena.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known: dict[str, Any] = environment.filters
    known |= filters
    return environment.get_template(name)
