"""Notebooks without running them: their code can be compiled, and what it imports and names is there.

``test_notebooks.py`` runs them, which takes minutes.
"""

import ast
import importlib
import json
import re

import pytest

from noumena.config import recipes
from tests.docs.blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(path):
    """The code of every cell, magics and shell lines left out."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in found:
        if cell["cell_type"] == "code":
            yield "".join(line for line in cell["source"] if not line.lstrip().startswith(("%", "!")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path):
    for code in cells(path):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("noumena"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):  # else it has to be a module of that package
                        importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_recipes_that_a_notebook_names_exist(path):
    known = {recipe.name for recipe in recipes()}
    for code in cells(path):
        for name in re.findall(r"run_recipe\(\s*[\"']([\w/-]+)[\"']", code):
            assert name in known


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_ran_and_without_errors(path):
    stored = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [one for cell in stored if cell["cell_type"] == "code" for one in cell["outputs"]]
    assert outputs
    assert not [one for one in outputs if one["output_type"] == "error"]
