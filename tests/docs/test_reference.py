"""The reference has every verb, every recipe, every model, and every module that a page imports from."""

import ast
import re
import sys

import pytest

from noumena.config import recipes
from noumena.registry import FAMILIES, family
from tests.docs.blocks import ROOT, blocks_of, pages
from tests.docs.commands import ROOT_COMMAND

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def generated():
    sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
    import generated_pages

    yield generated_pages
    sys.path.remove(str(ROOT / "docs" / "_extensions"))


def _verbs(command, path):
    for name, below in command.commands.items():
        yield from _verbs(below, f"{path} {name}") if hasattr(below, "commands") else [(f"{path} {name}", below)]


def test_every_verb_and_each_of_its_options_is_in_the_reference(generated):
    text = generated.commands()
    for path, command in _verbs(ROOT_COMMAND, "noumena"):
        section = text.partition(f"## `{path}`\n")[2].partition("\n## ")[0]
        assert section, path
        for one in command.params:
            if one.param_type_name == "option" and not one.hidden and one.name != "help":
                assert all(f"`{name}`" in section for name in one.opts), (path, one.name)


def test_every_recipe_and_every_model_is_in_the_reference(generated):
    text = generated.recipe_list() + generated.model_list()
    assert all(f"`{recipe.name}`" in text for recipe in recipes())
    assert all(f"`{name}/{model}`" in text for name in FAMILIES for model in family(name).models)


def test_every_module_that_a_page_imports_from_is_in_the_reference():
    listed = set(re.findall(r"automodule:: ([\w.]+)", "".join(page.read_text() for page in REFERENCE.glob("*.md"))))
    used = set()
    for page in (page for page in pages() if page.name != "new_family.md"):  # has excerpts of files
        for block in blocks_of(page):
            if block.language == "python":
                used |= {node.module for node in ast.walk(ast.parse(block.code)) if isinstance(node, ast.ImportFrom)}
    ours = {module for module in used if module and module.startswith("noumena.")}
    # Packages that only pass on what their modules have.
    missing = {
        module for module in ours if module not in listed and not any(one.startswith(f"{module}.") for one in listed)
    }
    assert not missing


def test_the_reference_lists_only_modules_that_exist():
    for page in REFERENCE.glob("*.md"):
        for module in re.findall(r"automodule:: ([\w.]+)", page.read_text()):
            place = ROOT / "src" / module.replace(".", "/")
            assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), module


def test_every_page_is_in_the_sidebar():
    index = (ROOT / "docs" / "index.md").read_text()
    entries = {
        line.strip() for block in re.findall(r"```\{toctree\}(.*?)```", index, re.S) for line in block.splitlines()
    }
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert name == "index" or name in entries or f"{name.rpartition('/')[0]}/*" in entries, name
