"""Speed of molecular training steps and of the pair-distance loss, processor time on one thread.

    OMP_NUM_THREADS=1 python benchmarks/molecules_speed.py --data FOLDER

FOLDER holds aib9_700K.npz. Prints a Markdown table. Ratios are of medians of interleaved repetitions.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from noumena.core.seeding import Noise
from noumena.molecules.conformations import Conformations
from noumena.molecules.data import read_trajectory
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.objective import pairwise_distance_loss

BATCHES = (32, 128)


def step(model: MoleculeVAE, data: Conformations, batch: int) -> Callable[[], None]:
    """One whole training step: loss, gradients, AdamW."""
    model.prepare(data)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    xyz, noise = data.xyz[:batch], Noise(0)

    def run() -> None:
        optimizer.zero_grad()
        model.loss(xyz, noise=noise).total.backward()
        optimizer.step()

    return run


def loop_over_molecules(predicted: Tensor, target: Tensor) -> Tensor:
    """The pair loss molecule by molecule."""
    terms = [(torch.pdist(p) - torch.pdist(t)).square().mean() for p, t in zip(predicted, target, strict=True)]
    return torch.stack(terms).mean()


def flattened(predicted: Tensor, target: Tensor) -> Tensor:
    """One ``pdist`` over the atoms of all molecules, which also compares atoms of different ones."""
    return (torch.pdist(predicted.flatten(0, 1)) - torch.pdist(target.flatten(0, 1))).square().mean()


def with_gradient(loss: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, target: Tensor) -> Callable[[], None]:
    """Loss and gradient with respect to the prediction."""

    def run() -> None:
        predicted.grad = None
        loss(predicted, target).backward()

    return run


def medians(runs: Mapping[str, Callable[[], None]], repetitions: int) -> dict[str, float]:
    """Median processor time of each in milliseconds, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repetitions + 2):
        for name, run in runs.items():
            started = time.process_time()
            run()
            if number >= 2:  # the first ones warm up
                seconds[name].append(time.process_time() - started)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = read_trajectory(options.data / "aib9_700K.npz", stride=12)
    print("| | batch | ms | times the batched loss |\n|---|---|---|---|")
    for batch in BATCHES:
        target = data.xyz[:batch]
        generator = torch.Generator().manual_seed(0)
        predicted = (target + 0.1 * torch.randn(target.shape, generator=generator)).requires_grad_()
        losses = {
            "pair loss, batched": pairwise_distance_loss,
            "pair loss, loop over molecules": loop_over_molecules,
            "pair loss, one pdist over the flattened batch": flattened,
        }
        found = medians({name: with_gradient(loss, predicted, target) for name, loss in losses.items()}, 15)
        least = found["pair loss, batched"]
        for name, value in found.items():
            print(f"| {name} | {batch} | {value:.1f} | {value / least:.1f} |")
    steps = {
        "step, ViSNet + EGNN": step(MoleculeVAE(encoder="visnet", decoder="egnn", mirror=True), data, 32),
        "step, torsions + internal": step(MoleculeVAE(clash=1.0, mirror=True), data, 32),
        "the same with crossover": step(MoleculeVAE(clash=1.0, mirror=True, crossover=0.5), data, 32),
    }
    for name, value in medians(steps, 15).items():
        print(f"| {name} | 32 | {value:.0f} | |")


if __name__ == "__main__":
    main()
