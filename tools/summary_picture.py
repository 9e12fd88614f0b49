"""The picture of the README: the five families side by side, from the folder of a finished ``noumena demo``.

python tools/summary_picture.py runs/demo docs/images/summary.png
"""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from noumena.core.errors import ArtifactError
from noumena.evaluation.demo_page import Result, read_results
from noumena.files import replacing
from noumena.registry import families
from noumena.style import INK, style

_DPI = 100
_WIDTH, _GAP, _HEAD = 16.0, 0.2, 0.75  # inches: of all, between panels, above each picture


@dataclass(frozen=True)
class Panel:
    """One family's place in the picture.

    Attributes:
        family: its name.
        line: what is seen, before the numbers.
        measure: name of the number.
        against: short name of the baseline.
        crop: part of the family's picture that is shown, as shares of its width and height: left, top, right, bottom.
    """

    family: str
    line: str
    measure: str
    against: str
    crop: tuple[float, float, float, float]


ROWS = (
    (
        Panel("density", "rows moved by 0.1, 0.5 and 1 sd", "AUROC at 1 sd", "neighbours", (0.0, 0.0, 1.0, 0.338)),
        Panel("multimodal", "a soft robot's shape, from its pose", "error", "polynomial", (0.0, 0.0, 1.0, 0.425)),
    ),
    (
        Panel("crystals", "cells rebuilt, elements given", "match", "lookup", (0.0, 0.0, 1.0, 0.25)),
        Panel("molecules", "conformations rebuilt from latents", "RMSD", "PCA", (0.0, 0.0, 1.0, 0.37)),
    ),
    (Panel("worldmodels", "a dot in noise, imagined from its actions", "error", "untrained", (0.0, 0.0, 1.0, 0.245)),),
)
"""The panels, row by row."""


def main(demo: Path, target: Path) -> None:
    """Draw the picture.

    Raises:
        ArtifactError: the folder is no demo in which all five families are finished.
    """
    results = {result.family.name: result for result in read_results(demo, families()) if result.is_finished}
    missing = [panel.family for row in ROWS for panel in row if panel.family not in results]
    if missing:
        raise ArtifactError(f"{demo} has no finished {', '.join(missing)}. Run `noumena demo --out {demo}` first.")
    pictures = [[_cropped(results[panel.family], panel) for panel in row] for row in ROWS]
    # Pictures of a row are as high as each other, and together as wide as all.
    heights = [(_WIDTH - _GAP * (len(row) + 1)) / sum(map(_aspect, row)) for row in pictures]
    with style():
        figure = Figure(figsize=(_WIDTH, sum(heights) + _HEAD * len(ROWS) + _GAP))
        top = figure.get_figheight()
        for row, parts, height in zip(ROWS, pictures, heights, strict=True):
            left, top = _GAP, top - _HEAD - height
            for panel, part in zip(row, parts, strict=True):
                width = height * _aspect(part)
                _draw(figure, (left, top, width, height), panel, results[panel.family], part)
                left += width + _GAP
        _save(figure, target)


def _aspect(pixels: Any) -> float:
    return pixels.shape[1] / pixels.shape[0]


def _cropped(result: Result, panel: Panel) -> Any:
    """Pixels of the part that is shown, shape (height, width, channels)."""
    from matplotlib.image import imread

    headline = result.family.headline
    assert headline is not None
    pixels: Any = imread(result.folder / "figures" / f"{headline.picture}.png")
    height, width = pixels.shape[:2]
    left, top, right, bottom = panel.crop
    return pixels[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def _draw(figure: Figure, place: tuple[float, float, float, float], panel: Panel, result: Result, pixels: Any) -> None:
    """Draw a panel at ``place``: left, bottom, width and height in inches."""
    shown = result.shown
    assert shown is not None
    width, height = figure.get_size_inches()
    left, bottom, wide, high = place
    axis = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    axis.imshow(pixels, interpolation="lanczos", aspect="auto")
    axis.set_axis_off()
    numbers = f"{panel.measure} {shown.text} ({panel.against} {shown.baseline_text})"
    above = (bottom + high) / height
    figure.text(left / width, above + 0.34 / height, panel.family, fontsize=15, fontweight="bold", color=INK)
    figure.text(left / width, above + 0.12 / height, f"{panel.line}: {numbers}", fontsize=11.5, color=INK)


def _save(figure: Figure, target: Path) -> None:
    """Write the picture in 256 colours: a quarter of the bytes, and the same demo gives the same ones."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
    with Image.open(drawn) as picture, replacing(target) as beside:
        picture.convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.NONE).save(
            beside, format="PNG", optimize=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
