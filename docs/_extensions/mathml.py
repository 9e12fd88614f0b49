"""Formulas as MathML, which browsers draw themselves: no script, no font and no network."""

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


_SPACE = "{http://www.w3.org/1998/Math/MathML}"
_FUNCTIONS = {"log", "exp", "sin", "cos", "tanh", "min", "max"}
ElementTree.register_namespace("", _SPACE.strip("{}"))


def _finished(text: str) -> str:
    """What a browser without a font for formulas needs: bars as borders, accents close by, space after functions."""
    root = ElementTree.fromstring(text)
    for over in root.iter(f"{_SPACE}mover"):
        mark = over[1].text
        if mark in ("\u00af", "\u203e", "\u2015", "_"):
            over.tag = f"{_SPACE}mrow"
            over.remove(over[1])
            over.set("class", "overline")
        else:
            over.set("accent", "true")
            over[1].text = {"^": "\u02c6", "~": "\u02dc"}.get(mark or "", mark)
    for row in list(root.iter()):
        for place, (one, after) in reversed(list(enumerate(pairwise(row)))):
            if one.tag == f"{_SPACE}mi" and one.text in _FUNCTIONS and after.text not in ("(", "{"):
                row.insert(place + 1, ElementTree.Element(f"{_SPACE}mspace", {"width": "0.17em"}))
    return ElementTree.tostring(root, encoding="unicode")


def _mathml(node: nodes.Node, display: str) -> str:
    formula = node.astext().strip()
    text = convert(formula, display=display)
    # What the converter does not know it writes as it stands.
    unknown = re.findall(r"\\[A-Za-z]+", text)
    if unknown:
        logger.warning("formula with unknown commands %s: %s", ", ".join(unknown), formula, location=node)
    return _finished(text)


def _inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(_mathml(node, "block"))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
