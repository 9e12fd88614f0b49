"""The model card written beside the weights."""

from collections.abc import Mapping
from typing import Any

_FOLDER = "path/to/this/folder"
_NO_LICENCE = "Not stated by the person who trained it; the licence of the training data applies."


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
        f"A Noumena model of the {name.partition('/')[0]} family with {parameters:,} parameters.",
        "",
        "## Use",
        "",
        "```python",
        "import noumena",
        "",
        f'model = noumena.load("{_FOLDER}")',
        "latents = model.encode(data).mean  # what `data` is, the next section says",
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
        *(_table(metrics) or ["None recorded."]),
        "",
        "## Licence",
        "",
        _NO_LICENCE,
    ]
    return "\n".join(lines) + "\n"


def hub_card(address: str, name: str, card: str, licence: str | None = None) -> str:
    """A model folder's card as the page of its repository on the Hub: with metadata, and loaded from there.

    Args:
        address: ``hf://OWNER/NAME``.
        name: registered model name.
        card: the text that :func:`model_card` made.
        licence: an identifier of the Hub such as ``apache-2.0``; the card says that there is none when missing.
    """
    family, _, model = name.partition("/")
    metadata = [
        "---",
        "library_name: noumena",
        *([] if licence is None else [f"license: {licence}"]),
        "tags:",
        *(f"- {tag}" for tag in ("noumena", family, f"{family}-{model}")),
        "---",
        "",
    ]
    text = card.replace(_FOLDER, address)
    return "\n".join(metadata) + (text if licence is None else text.replace(_NO_LICENCE, f"{licence}."))


def _table(metrics: Mapping[str, float]) -> list[str]:
    if not metrics:
        return []
    return ["| metric | value |", "|---|---|", *(f"| {key} | {value:.4g} |" for key, value in metrics.items())]


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
