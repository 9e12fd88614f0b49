"""The model card written beside the weights."""

from collections.abc import Mapping
from typing import Any


def model_card(
    name: str,
    schema: Mapping[str, Any],
    summary: Mapping[str, Any],
    parameters: int,
    metrics: Mapping[str, float],
) -> str:
    """Markdown for people who find the folder: what it is, on which columns, how good, how to load.

    Args:
        name: registered model name.
        schema: of one sample, as ``config.json`` holds it.
        summary: the hyperparameters in words.
        parameters: number of trained numbers.
        metrics: measured by the evaluation, may be empty.
    """
    lines = [
        f"# {name}",
        "",
        f"A Noumena model with {parameters:,} parameters.",
        "",
        "## Use",
        "",
        "```python",
        "import noumena",
        "",
        'model = noumena.load("path/to/this/folder")',
        "```",
        "",
        "## Data",
        "",
        *_sample(schema),
        "",
        "## Hyperparameters",
        "",
        *(f"- {key}: {value}" for key, value in summary.items()),
        "",
        "## Metrics",
        "",
        *([f"- {key}: {value:.4g}" for key, value in metrics.items()] or ["None recorded."]),
        "",
        "## Licence",
        "",
        "Not stated by the person who trained it; the licence of the training data applies.",
    ]
    return "\n".join(lines) + "\n"


def _sample(schema: Mapping[str, Any]) -> list[str]:
    """What one sample is, in words."""
    if modalities := schema.get("modalities"):
        return ["One sample has the modalities:", ""] + [_modality(entry) for entry in modalities]
    if columns := [str(column) for column in schema.get("columns", [])]:
        return [f"One sample has the columns: {', '.join(columns)}."]
    if isinstance(topology := schema.get("topology"), Mapping):
        atoms, bonds = len(topology["elements"]), len(topology["bonds"])
        return [f"One sample is a conformation of a molecule of {atoms:,} atoms and {bonds:,} bonds, in angstrom."]
    return ["See `schema` in `config.json`."]


def _modality(entry: Mapping[str, Any]) -> str:
    units = entry.get("units")
    unit = units if isinstance(units, str) else ", ".join(dict.fromkeys(units or ()))
    return f"- {entry['name']}: {entry['kind']}, {entry['size']:,} numbers" + (f" in {unit}" if unit else "")
