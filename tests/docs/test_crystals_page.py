"""Options on the page of the crystals family are those of the code, with its defaults."""

import inspect
import re
from pathlib import Path

import pytest

from noumena.crystals.data import open_crystals
from noumena.crystals.generator import CrystalPrior
from noumena.crystals.model import CrystalVAE
from noumena.crystals.regression import PropertyHead

PAGE = (Path(__file__).parents[2] / "docs" / "crystals.md").read_text(encoding="utf-8")
WORDS = {"none": None, "true": True, "false": False}


def options_of(section):
    """Option and the default that is said of it, for every row of the section's table."""
    table = section.partition("| option | default | |\n|---|---|---|\n")[2].partition("\n\n")[0]
    found = {}
    for row in table.splitlines():
        names, said = (cell.strip() for cell in row.split(" | ")[:2])
        options, defaults = re.findall(r"`(\w+)`", names), said.split(", ")
        if len(options) == len(defaults):
            found |= dict(zip(options, defaults, strict=True))
        else:
            found |= dict.fromkeys(options, "")
    return found


def value_of(said):
    """A number, a word or a name; ``said`` itself where it is none of them, such as "from the data"."""
    try:
        return WORDS[said] if said in WORDS else float(said)
    except ValueError:
        return said.strip("`")


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("## What it learns from", open_crystals),
        ("## `crystals/vae`", CrystalVAE),
        ("## `crystals/prior`", CrystalPrior),
        ("## `crystals/property`", PropertyHead),
    ],
)
def test_the_page_names_every_option_and_its_default(heading, function):
    said = options_of(PAGE.partition(heading)[2])
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "autoencoder_config")
    }
    assert said.keys() == known.keys()
    for name, words in said.items():
        default = known[name]
        if isinstance(default, bool | int | float) or (isinstance(default, str) and f"`{default}`" == words):
            assert value_of(words) == default, name
