"""Links of pages to files of the repository that are outside the documentation.

A link such as ``../CONTRIBUTING.md`` works where the repository is browsed. In the built documentation it leads to the
page that stands for the file, where there is one, and else to a copy of the file.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# Files of the repository that the documentation has as pages.
_PAGES = {"CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing", "README.md": "index"}
_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([\w./-]+)((?:#[\w-]+)?)\)")
_IN_README = re.compile(r"(\]\()docs/")


def _relink(app: Sphinx, document: str, source: list[str]) -> None:
    here = (Path(app.srcdir) / document).parent

    def target(link: re.Match[str]) -> str:
        file = (here / link[2] / link[3]).resolve()
        repository = Path(app.srcdir).parent.resolve()
        if file.is_relative_to(app.srcdir) or not file.is_relative_to(repository):
            return link[0]
        page = _PAGES.get(str(file.relative_to(repository)))
        if page is None:
            return f"{{download}}`{link[1]} <{link[2]}{link[3]}>`"
        return f"[{link[1]}](/{page}.md{link[4]})"

    source[0] = _LINK.sub(target, source[0])


def _included(_: Sphinx, __: Path, ___: str, source: list[str]) -> None:
    source[0] = _IN_README.sub(r"\1/", source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Change links as pages are read; those of files that a page includes stand at the repository's root."""
    app.connect("source-read", _relink)
    app.connect("include-read", _included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
