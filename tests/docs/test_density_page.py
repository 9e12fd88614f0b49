"""What the page of the density family says of options, commands and imports is so."""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import typer.main

from noumena.cli.main import app
from noumena.config import compose
from noumena.density import estimators
from noumena.density.data import open_episodes, open_table
from noumena.density.estimators.auto import Rule
from noumena.density.flow import Flow
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE, Scoring
from noumena.density.neighbours import Neighbours
from noumena.density.penalty import Kind
from noumena.density.rl import gormpo

PAGE = (Path(__file__).parents[2] / "docs" / "density.md").read_text(encoding="utf-8")
WORDS = {"none": None, "true": True, "false": False}
# Said once for all models, or set by fit.
OF_ALL_MODELS = {"standardize", "anomaly_fraction", "input_dim", "calibration_rows", "reference_rows"}
# What may stand for a default that is no single value.
BY_WORDS = {"all", "found"}


def table(heading, header):
    """The rows of the first table with this header after a heading, as lists of cells."""
    section = PAGE.partition(f"\n{heading}\n")[2] or PAGE.partition(heading)[2]
    return [
        [cell.strip() for cell in row.strip("|").split(" | ")]
        for row in section.partition(header)[2].partition("\n\n")[0].splitlines()
    ]


def options_of(heading, header="| option | default | |\n|---|---|---|\n"):
    """Option and the words for its default."""
    found = {}
    for names, said, *_ in table(heading, header):
        options = re.findall(r"`(\w+)`", names)
        # Commas divide defaults, except within a number such as 20,000.
        defaults = re.split(r", ", said) if said else [""]
        assert len(options) == len(defaults), names
        found |= dict(zip(options, defaults, strict=True))
    return found


def value_of(said):
    if said in WORDS:
        return WORDS[said]
    if re.fullmatch(r"\d+(-\d+)+", said):
        return tuple(map(int, said.split("-")))
    try:
        return float(said.replace(",", ""))
    except ValueError:
        return said.strip("`")


def defaults_of(function):
    return {name: one.default for name, one in inspect.signature(function).parameters.items() if name != "self"}


def commands():
    """Every command of the page, without its comment."""
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.S | re.M)).replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    inline = [shlex.split(text) for text in re.findall(r"`(noumena [^`]+?)`", " ".join(PAGE.split()))]
    return [line for line in (*found, *inline) if line and line[0] == "noumena"]


@pytest.mark.parametrize(
    ("heading", "function", "left_out"),
    [
        ("### `density/vae`", VAE, OF_ALL_MODELS),
        ("### `density/flow`", Flow, OF_ALL_MODELS),
        ("### `density/gmm`", GaussianMixture, OF_ALL_MODELS),
        ("### `density/knn`", Neighbours, OF_ALL_MODELS),
        ("**`table`**", open_table, {"path"}),
        ("**`episodes`**", open_episodes, {"path"}),
    ],
)
def test_the_page_names_every_option_and_its_default(heading, function, left_out):
    said = options_of(heading)
    known = {name: default for name, default in defaults_of(function).items() if name not in left_out}
    assert said.keys() == known.keys()
    for name, words in said.items():
        if words not in BY_WORDS:
            assert value_of(words) == known[name], name


@pytest.mark.parametrize("function", [VAE, Flow, GaussianMixture, Neighbours])
def test_what_is_said_of_all_models_is_so(function):
    defaults = defaults_of(function)
    assert "All have `standardize` (true:" in PAGE
    assert "`anomaly_fraction` (0.01:" in PAGE
    assert defaults["standardize"] is True
    assert defaults["anomaly_fraction"] == 0.01


@pytest.mark.parametrize("name", estimators.__all__)
def test_parameters_that_estimators_share_have_the_defaults_of_the_page(name):
    said = options_of("## scikit-learn", "| parameter | default | |\n|---|---|---|\n")
    known = defaults_of(getattr(estimators, name))
    for parameter, words in said.items():
        if parameter in known:
            assert known[parameter] == value_of(words), parameter
    assert said.keys() - known.keys() <= {"validation_fraction"}


def test_parameters_of_estimators_differ_from_those_of_models_where_the_page_says_so():
    pairs = {"VAEDetector": VAE, "FlowDetector": Flow, "GMMDetector": GaussianMixture, "KNNDetector": Neighbours}
    differ = set()
    for name, model in pairs.items():
        ours, theirs = defaults_of(getattr(estimators, name)), defaults_of(model)
        differ |= {(name, key) for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
    assert {key for _, key in differ} == {"anomaly_fraction", "whiten"}
    assert ("FlowDetector", "whiten") in differ


@pytest.mark.parametrize(
    ("heading", "choices"),
    [
        ("### The five scorings of the VAE", get_args(Scoring)),
        ("### AutoDetector", get_args(Rule)),
        ("## Offline reinforcement learning", [kind for kind in get_args(Kind) if kind != "tanh_reg"]),
        ('### `compat="gormpo"`', [*gormpo.FORMULAS]),
    ],
)
def test_a_table_of_choices_has_all_of_them(heading, choices):
    section = PAGE.partition(f"\n{heading}\n")[2]
    header = re.search(r"^\|.*\n\|[-|]+\n", section, re.M).group()
    assert {cells[0].strip("`") for cells in table(heading, header)} == set(choices)


def test_every_recipe_of_the_family_is_on_the_page():
    shipped = Path(importlib.import_module("noumena.density").__file__).parent / "recipes"
    said = set(re.findall(r"density/([a-z0-9]+(?:-[a-z]+)?)", PAGE.partition("## Recipes")[2].partition("\n## ")[0]))
    for path in shipped.glob("*.yaml"):
        task, _, kind = path.stem.partition("-")
        assert path.stem in said or (task in said and kind in ("gmm", "realnvp", "nsf")), path.stem


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_a_command_of_the_page_has_these_arguments(line):
    command = typer.main.get_command(app)
    rest = line[1:]
    while hasattr(command, "commands"):
        assert rest, f"{' '.join(line)}: no verb"
        assert rest[0] in command.commands, " ".join(line)
        command, rest = command.commands[rest[0]], rest[1:]
    if len(rest) < 2:  # named in passing, such as `noumena explain`
        return
    context = command.make_context(line[1], rest)
    if line[1] == "fit" and not context.params["recipe"].endswith(".yaml"):
        compose(context.params["recipe"], [], context.params["overrides"] or [], require_data=False)


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M))
def test_what_the_page_imports_is_there(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("noumena"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_links_within_the_page_and_beside_it_lead_somewhere():
    headings = re.findall(r"^#+ (.+)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    docs = Path(__file__).parents[2] / "docs"
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (docs / target).exists(), target
