"""What ``noumena explore`` shows of spectra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.exploring import Drawing, Explorer, Points, Slider, evenly
from noumena.style import BLUE
from noumena_spectra.data import Spectra
from noumena_spectra.model import SpectraVAE


def explore(model: SpectraVAE, splits: Splits, limit: int = 20_000) -> "SpectraExplorer":
    """The explorer of a trained model and its held-out spectra, ``limit`` of them at most."""
    held_out = splits.test or splits.val or splits.train
    assert isinstance(held_out, Spectra)
    return SpectraExplorer(model, held_out, evenly(len(held_out), limit))


class SpectraExplorer(Explorer):
    """Spectra as curves; each latent has a slider."""

    @torch.inference_mode()
    def __init__(self, model: SpectraVAE, spectra: Spectra, chosen: np.ndarray) -> None:
        self.model = model
        self.rows = spectra.rows[torch.from_numpy(chosen)].cpu()
        self.latents = model.encode(self.rows).mean.cpu()
        self.points = Points(
            vectors=self.latents.numpy(),
            names=[f"spectrum {number}" for number in chosen],
            colours={"score": model.score_samples(self.rows), "total intensity": self.rows.sum(1).numpy()},
            about=f"{len(chosen):,} of {len(spectra):,} held-out spectra",
        )
        self.sliders = [Slider(f"z{k}", -3.0, 3.0) for k in range(model.latent_dim)]

    def original(self, index: int) -> Drawing:
        """The measured spectrum."""
        return self._curve(self.rows[index], self.points.names[index])

    def reconstruction(self, index: int) -> Drawing:
        """What is left of it."""
        return self._decoded(self.latents[index], "reconstruction")

    def positions(self, index: int) -> Sequence[float]:
        """Its latents."""
        return self.latents[index].tolist()

    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """The spectrum of the latents at which the sliders stand."""
        return self._decoded(torch.tensor(positions), f"decoded from {self.points.names[index]}")

    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """Spectra on the straight line between the latents of two."""
        share = torch.linspace(0.0, 1.0, steps)[:, None]
        latents = torch.lerp(self.latents[start], self.latents[end], share)
        return [self._decoded(z, f"{float(t):.0%} of the way") for z, t in zip(latents, share, strict=True)]

    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """Draws from the prior."""
        drawn = self.model.sample(n, torch.Generator().manual_seed(seed)).cpu()
        return [self._curve(row, "sample") for row in drawn]

    @torch.inference_mode()
    def _decoded(self, z: Tensor, note: str) -> Drawing:
        return self._curve(self.model.decode(z[None])[0].cpu(), note)

    def _curve(self, row: Tensor, note: str) -> Drawing:
        axis: list[Any] = self.model.schema["axis"]
        curve = {"type": "scatter", "mode": "lines", "x": axis, "y": row.tolist(), "line": {"color": BLUE}}
        lines = [",".join(map(str, pair)) for pair in zip(axis, row.tolist(), strict=True)]
        return Drawing(
            figure={"data": [curve], "layout": {"xaxis": {"title": "axis"}, "yaxis": {"title": "intensity"}}},
            note=note,
            ending=".csv",
            file=lambda: "\n".join(["axis,intensity", *lines]).encode(),
        )
