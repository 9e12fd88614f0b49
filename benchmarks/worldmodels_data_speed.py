"""Speed of making moving dots, against a plain re-statement of how the study made them; processor time, one thread.

    OMP_NUM_THREADS=1 python benchmarks/worldmodels_data_speed.py [--images SOURCE] [--repetitions N]

SOURCE is a folder or .npz of images, as for the option ``images`` of the data. Prints a Markdown table; the two take
turns of five batches each, and ratios are of medians over the turns.

The re-statement computes an exponential for each pixel, both overlays whatever their levels, directions by torch's
rejection sampler, and converts the photographs of an overlay one by one. It leaves out what cost the study time beside
the computation: the worker processes of its image loader, the reading of the images, and the 100 batches that it draws
for means and deviations when a data set is opened.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.dots.images import load_images
from noumena.worldmodels.dots.sequences import Dots

SIZE, STD, STEPS, STRIDE, KAPPA = 28, 1.3, 17, 4.0, 0.2
TURN = 5
CONDITIONS: Mapping[str, tuple[str, float, float]] = {
    "fixed uniform 1.25": ("uniform", 1.25, 0.0),
    "changing uniform 1": ("uniform", 0.0, 1.0),
    "fixed structured 1": ("structured", 1.0, 0.0),
    "changing structured 1": ("structured", 0.0, 1.0),
    "none": ("uniform", 0.0, 0.0),
}


def plain_walk(batch: int) -> tuple[Tensor, Tensor]:
    """Positions (batch, time, 2) and actions (batch, time - 1, 2), in pixels."""
    low, high = 2 * STD, SIZE - 1 - 2 * STD
    place = torch.rand(batch, 2) * (high - low) + low
    heading = torch.rand(batch, 1) * 2 * math.pi
    directions = torch.distributions.VonMises(heading, torch.full_like(heading, KAPPA))
    angles = directions.sample(torch.Size([STEPS - 1]))[..., 0].T
    lengths = torch.rand(batch, STEPS - 1) * STRIDE
    actions = torch.stack([lengths * angles.cos(), lengths * angles.sin()], dim=-1)
    positions = [place]
    for step in range(STEPS - 1):
        positions.append((positions[-1] + actions[:, step]).clamp(low, high))
    return torch.stack(positions, dim=1), actions


def plain_images(images: np.ndarray, count: int) -> Tensor:
    """Photographs drawn at random and converted one by one, (count, size, size)."""
    rows = torch.randint(len(images), (count,)).tolist()
    converted = [torch.from_numpy(images[row]).float().div(255)[:SIZE, :SIZE] for row in rows]
    return torch.stack(converted)


def plain_batch(batch: int, kind: str, fixed: float, changing: float, images: np.ndarray) -> tuple[Tensor, ...]:
    """Normalised frames, positions and actions."""
    positions, actions = plain_walk(batch)
    axis = torch.arange(SIZE).float()
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    squares = ((pixels - positions[:, :, None, None]) ** 2).sum(-1)
    frames = torch.exp(-squares / (2 * STD**2)) / (2 * math.pi * STD**2)
    largest = frames.max()
    if kind == "uniform":
        still, moving = torch.rand(batch, 1, SIZE, SIZE), torch.rand(batch, STEPS, SIZE, SIZE)
    else:
        still = plain_images(images, batch).view(batch, 1, SIZE, SIZE)
        moving = torch.stack([plain_images(images, batch) for _ in range(STEPS)], dim=1)
    still = still.repeat(1, STEPS, 1, 1)
    frames = frames + fixed * largest * still + changing * largest * moving
    frames = (frames - 0.05) / 0.05
    side = SIZE - 1 - 4 * STD
    places = ((positions - 2 * STD) / side - 0.5) / math.sqrt(1 / 12)
    return frames[:, :, None], places[:, :, None], actions / (0.4102 * STRIDE)


def medians(runs: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median processor time of a batch of each in milliseconds, in turns of some batches."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repetitions + 3):
        for name, run in runs.items():
            started = time.process_time()
            for _ in range(TURN):
                run()
            if number >= 3:  # the first ones warm up
                seconds[name].append((time.process_time() - started) / TURN)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def made_by(dots: Dots, batch: int) -> Callable[[], object]:
    index = torch.arange(batch)
    return lambda: dots.batch(index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="sample:patches")
    parser.add_argument("--repetitions", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    photographs = load_images(options.images, SIZE).train.view(-1, SIZE, SIZE).numpy()
    print("| noise | plain, batch 32, ms | this library, batch 32, ms | ratio | this library, batch 64, ms |")
    print("|---|---|---|---|---|")
    for name, (kind, fixed, changing) in CONDITIONS.items():
        noise = "structured" if kind == "structured" else "uniform"
        dots = open_dots(noise=noise, fixed=fixed, changing=changing, images=options.images).train
        assert isinstance(dots, Dots)
        found = medians(
            {
                "plain": lambda kind=kind, fixed=fixed, changing=changing: plain_batch(
                    32, kind, fixed, changing, photographs
                ),
                "32": made_by(dots, 32),
                "64": made_by(dots, 64),
            },
            options.repetitions,
        )
        plain, ours, large = found.values()
        print(f"| {name} | {plain:.2f} | {ours:.2f} | {plain / ours:.1f} | {large:.2f} |")


if __name__ == "__main__":
    main()
