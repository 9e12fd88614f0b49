"""Speed of the closed-form probe against the probe of the study, seconds of wall time on one thread.

    OMP_NUM_THREADS=1 python benchmarks/worldmodels_probe_speed.py [--repeats 3] [--steps 12]

The study (Sobal et al. 2022) trains a linear map without bias by Adam for 30 epochs of 10,000 new sequences: 300,000
sequences are drawn and encoded. The closed-form probe draws and encodes 4,800, once. Both probe the same untrained
model of the study's size (MeNet5 of width 2, 512 latents, a GRU over 16 actions) on moving dots with fixed uniform
noise, and both are measured as a whole: drawing, encoding, fitting. Of the study's 9,360 steps of 32 sequences a few
are timed in each repetition and scaled up; the whole takes a quarter of an hour and more. Its own computation is
restated plainly: it differentiates through the frozen encoder too, for nothing, as the original does; a row without
that is given beside it. Repetitions are interleaved, ratios are of medians. Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from noumena.core.data import FreshDataset
from noumena.worldmodels.baselines import Random
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.probing.latents import draw, latents
from noumena.worldmodels.probing.metrics import errors
from noumena.worldmodels.probing.ridge import RidgeProbe
from noumena.worldmodels.sequences import Sequences

BATCH = 32
STUDY_STEPS = 30 * (10_000 // BATCH)
FITTED = 4800
HELD = 1200
LATENT = 512


class StudyProbe:
    """The study's probe as its computation is described: one Adam step per new batch."""

    def __init__(self, model: Random, data: FreshDataset, through_encoder: bool) -> None:
        self.model = model
        self.data = data
        self.through_encoder = through_encoder
        self.linear = nn.Linear(LATENT, 2, bias=False)
        self.optimizer = torch.optim.Adam(self.linear.parameters(), lr=1e-3)
        self.step = 0

    def run(self, steps: int) -> float:
        """Seconds that so many steps take."""
        started = time.perf_counter()
        for _ in range(steps):
            self._step()
        return time.perf_counter() - started

    def _step(self) -> None:
        batch = self.data.at_epoch(self.step).batch(torch.arange(BATCH))
        self.step += 1
        with torch.set_grad_enabled(self.through_encoder):
            features = self.model.predict(batch)
        error = (self.linear(features) - normalised(batch)).square().sum(-1).mean()
        self.model.zero_grad()
        self.optimizer.zero_grad()
        error.backward()
        self.optimizer.step()


def normalised(batch: Sequences) -> Tensor:
    """Positions in the study's units, shape (batch, time, 2)."""
    assert batch.state is not None
    return ((batch.state[:, :, 0] - 2.6) / 21.8 - 0.5) * 12**0.5


def ridge(model: Random, data: FreshDataset) -> RidgeProbe:
    """The closed-form probe, from drawing to weights."""
    known = latents(model, draw(data, FITTED, epoch=1 << 30), encode=False)
    assert known.state is not None
    return RidgeProbe.fit(known.predicted, known.state)


def timed(job: Callable[[], object]) -> float:
    """Seconds that a job takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="steps of the study's probe timed in each repetition")
    options = parser.parse_args()
    torch.set_num_threads(1)
    splits = open_dots(fixed=1.0)
    assert isinstance(splits.train, FreshDataset)
    data = splits.train
    model = Random(width=2, latent_dim=LATENT)
    model.prepare(data)
    model.eval()
    whole, light = (StudyProbe(model, data, through) for through in (True, False))
    names = ("closed form", "study, through the encoder", "study, encoder without gradients")
    found: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(options.repeats + 1):
        seconds = (
            timed(lambda: ridge(model, data)),
            whole.run(options.steps) * STUDY_STEPS / options.steps,
            light.run(options.steps) * STUDY_STEPS / options.steps,
        )
        if repeat:  # the first one warms up
            for name, value in zip(names, seconds, strict=True):
                found[name].append(value)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print("| probe | sequences encoded | seconds | times the closed form |\n|---|---|---|---|")
    for name, value in medians.items():
        count, scaled = (FITTED, "") if name == names[0] else (STUDY_STEPS * BATCH, " (scaled up)")
        print(f"| {name} | {count:,} | {value:.1f}{scaled} | {value / medians[names[0]]:.0f} |")
    assert splits.test is not None
    held = latents(model, draw(splits.test, HELD, epoch=0), encode=False)
    assert held.state is not None
    rmse = errors(ridge(model, data).predict(held.predicted), held.state).rmse
    print(f"\nRMSE of the closed-form probe on {HELD:,} test sequences: {rmse:.2f} px.")


if __name__ == "__main__":
    main()
