"""A real explorer without training: curves in the space of their principal components."""

import numpy as np

from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing, Explorer, Points, Slider


class Curves(Explorer):
    """Sums of three waves; the latents are the amplitudes, decoding is exact."""

    def __init__(self, n=200, size=3, *, without=None, sliders=True):
        random = np.random.default_rng(0)
        self.axis = np.linspace(0.0, 1.0, 40)
        self.waves = np.stack([np.sin((k + 1) * np.pi * self.axis) for k in range(size)])
        scale = np.linspace(2.0, 0.5, size)
        self.latents = (random.standard_normal((n, size)) * scale).astype(np.float32)
        kinds = np.asarray(["low", "middle", "high"])[np.digitize(self.latents[:, 0], [-1.0, 1.0])]
        energy = (self.latents**2).sum(1)
        self.points = Points(
            self.latents,
            [f"curve {i}" for i in range(n)],
            {"kind": kinds, "energy": energy},
            f"{n:,} of {n:,} made curves.",
        )
        self.without = without or {}
        self.sliders = [Slider(f"z{k}", -3.0 * s, 3.0 * s) for k, s in enumerate(scale)] if sliders else []
        self.calls = []

    def _draw(self, latents, note):
        curve = np.asarray(latents) @ self.waves
        text = "x,y\n" + "".join(f"{x:.6g},{y:.6g}\n" for x, y in zip(self.axis, curve, strict=True))
        figure = {
            "data": [{"type": "scatter", "x": self.axis.tolist(), "y": curve.tolist(), "mode": "lines"}],
            "layout": {"xaxis": {"title": {"text": "time (s)"}}, "yaxis": {"title": {"text": "height (m)"}}},
        }
        return Drawing(figure, note=note, ending=".csv", file=text.encode)

    def original(self, index):
        self.calls.append(("original", index))
        return self._draw(self.latents[index], f"curve {index}")

    def reconstruction(self, index):
        return self._draw(self.latents[index], "rebuilt, RMSE 0 m")

    def details(self, index):
        rows = [[f"z{k}", float(value)] for k, value in enumerate(self.latents[index])]
        return (Table("Amplitudes", ("wave", "metres"), rows, "Exact."),)

    def positions(self, index):
        return self.latents[index].tolist()

    def moved(self, index, positions):
        self.calls.append(("moved", index, tuple(positions)))
        return self._draw(positions, "moved to " + ", ".join(f"{value:.2f}" for value in positions))

    def path(self, start, end, steps):
        shares = np.linspace(0.0, 1.0, steps)[:, None]
        way = (1 - shares) * self.latents[start] + shares * self.latents[end]
        return [self._draw(z, f"step {k + 1} of {steps}") for k, z in enumerate(way)]

    def samples(self, n, seed):
        drawn = np.random.default_rng(seed).standard_normal((n, self.latents.shape[1]))
        return [self._draw(z, f"sample {k}") for k, z in enumerate(drawn)]
