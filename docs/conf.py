"""How the documentation is built: ``make docs``, or ``sphinx-build -W --keep-going -b html docs build/docs``.

Nothing is fetched while it is built or read: fonts and scripts come with the theme, formulas are MathML.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from sphinx.application import Sphinx

import noumena

project = "Noumena"
author = "The Noumena developers"
release = version = noumena.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    # Ours, in _extensions/.
    "generated_pages",
    "repository_links",
    "mathml",
]
exclude_patterns = ["_extensions", "_build"]
# Pages name files and commands in backticks, and so do docstrings, with one as with two.
default_role = "code"
# A documented attribute may have the name of others; its name is text, no reference.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_update_mathjax = False
html_math_renderer = "mathml"

# Notebooks are shown as they are stored; a test executes them.
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# `--out` stays as it is.
smartquotes = False

html_theme = "furo"
html_title = "Noumena"
html_static_path = ["_static"]
html_css_files = ["noumena.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Leave out what scikit-learn adds to every estimator, whose text points into its own documentation."""
    app.connect("autodoc-skip-member", _skip)


def _skip(_: Sphinx, __: str, name: str, ___: object, skip: bool, ____: object) -> bool | None:
    return True if name.startswith("set_") and name.endswith("_request") else None
