"""The pictures and the page of an evaluation of crystals."""

from typing import Any

import torch

from noumena.core.evaluation import Page, Picture
from noumena.crystals import plots, view
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.dataset import Crystals
from noumena.crystals.histograms import distributions
from noumena.crystals.measures.distances import valid_cells

_SHOWN = 8  # crystals of which cells are drawn


def reconstruction_pictures(
    model: Any, mapped: Crystals, truth: CrystalBatch, found: CrystalBatch, label: str
) -> list[Picture]:
    """Cells beside their reconstructions, and a map of crystal vectors.

    Args:
        model: the autoencoder.
        mapped: crystals of the map.
        truth, found: crystals and their reconstructions.
        label: what the crystals are, for captions.
    """
    shown = min(_SHOWN, len(truth))
    cells = plots.reconstruction_cells(truth, found, most=_SHOWN)
    caption = f"The first {shown} of the {label} that were chosen."
    pictures = [Picture("reconstructions", "Original and reconstructed cells", cells, caption)]
    if len(mapped) > 1:
        colours: dict[str, Any] = {"chemistry": plots.chemistry(mapped.crystals)}
        for name, values in mapped.properties.items():
            unit = mapped.units.get(name)
            colours[f"{name} ({unit})" if unit else name] = values
        caption = f"Vectors of {len(mapped):,} held-out crystals on their first two principal axes."
        pictures.append(
            Picture("latent_map", "Map of the latents", plots.latent_map(model.vector(mapped), colours), caption)
        )
    return pictures


def cells_page(truth: CrystalBatch, found: CrystalBatch) -> Page:
    """Cells and their reconstructions to turn."""
    first = torch.arange(min(_SHOWN, len(truth)))
    html = view.cells_page(truth.select(first), found.select(first))
    return Page("cells", "Original and reconstructed cells", html, "Drag to turn.")


def sample_pictures(held: CrystalBatch, drawn: CrystalBatch) -> list[Picture]:
    """Distributions of data and samples, and cells of samples; of the samples that are cells."""
    kept = drawn.to("cpu", torch.float64)
    kept = kept.select(valid_cells(kept))
    if not len(kept):
        return []
    words = f"{len(held):,} held-out crystals and {len(kept):,} samples that are cells."
    return [
        Picture("distributions", "Data and samples", distributions(held, kept), words),
        Picture("samples", "Samples", plots.cells(kept, _SHOWN), "The first ones, in the order they were drawn."),
    ]
