"""Training, scoring and sampling speed of the density flows beside zuko's own in a bare loop, in one process.

    pip install 'noumena[bench]'
    python benchmarks/density_flow_speed.py [--rows 100000] [--steps 60] [--rounds 3]

Equal batch, widths, bins and optimiser, one thread. zuko's NSF transforms every column in each of its 3 transforms
(autoregressive, or in two passes); one of our couplings changes half of the columns, so that ours has 6: the same
number of splines per row. RealNVP has 6 couplings on both sides. The contenders take turns and the ratios are medians
over rounds, because machines are noisy. Prints a Markdown table.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from noumena.density.flow import Architecture, Flow

COLUMNS, BATCH, HIDDEN, BINS = 14, 256, [64, 64], 8
SAMPLED = 1024
# Couplings of ours; transforms of zuko's with the same number of changed columns.
COUPLINGS = 6
RIVALS: dict[str, tuple[Architecture, str, dict[str, Any]]] = {
    "zuko NSF, autoregressive": ("nsf", "NSF", {"transforms": 3, "bins": BINS}),
    "zuko NSF, two passes": ("nsf", "NSF", {"transforms": 3, "bins": BINS, "passes": 2}),
    "zuko RealNVP": ("realnvp", "RealNVP", {"transforms": 6}),
}


def seconds(call: Callable[[], object]) -> float:
    """Duration of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def rival(kind: str, options: dict[str, Any]) -> Any:
    """A flow of zuko's."""
    # By name, because it belongs to the extra `bench`, which the type checker's environment lacks.
    return getattr(importlib.import_module("zuko.flows"), kind)(COLUMNS, hidden_features=HIDDEN, **options)


def bare_loop(flow: Any, x: torch.Tensor) -> float:
    """Seconds per step of the plainest loop, as in zuko's tutorials."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    started = time.perf_counter()
    batches = torch.randperm(len(x)).split(BATCH)
    for index in batches:
        loss = -flow().log_prob(x[index]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / len(batches)


def noumena_fit(architecture: Architecture, x: torch.Tensor) -> tuple[Flow, float]:
    """A trained flow, and seconds per step of ``fit``, everything included from the first step to the last."""
    model = Flow(architecture=architecture, transforms=COUPLINGS, hidden_dims=HIDDEN, bins=BINS)
    history = model.fit(x, max_epochs=1, batch_size=BATCH, lr=1e-3, lr_schedule="constant", progress=False)
    return model, history["seconds"][0] / -(-len(x) // BATCH)


def rival_rates(flow: Any, x: torch.Tensor) -> tuple[float, float]:
    """Rows that zuko's flow scores and samples per second."""
    with torch.inference_mode():
        scored = seconds(lambda: [flow().log_prob(part) for part in x.split(512)])
        sampled = seconds(lambda: flow().sample((SAMPLED,)))
    return len(x) / scored, SAMPLED / sampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows scored; the training takes the first of them")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(options.rows, COLUMNS) @ torch.randn(COLUMNS, COLUMNS)
    x = (x - x.mean(0)) / x.std(0)
    first = x[: options.steps * BATCH]
    figures: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(options.rounds):
        for architecture in ("realnvp", "nsf"):
            model, step = noumena_fit(architecture, first)
            scored = seconds(lambda model=model: model.score_samples(x))
            sampled = seconds(lambda model=model: model.sample(SAMPLED))
            figures.setdefault(architecture, []).append((step, options.rows / scored, SAMPLED / sampled))
        for name, (_, kind, arguments) in RIVALS.items():
            flow = rival(kind, arguments)
            step = bare_loop(flow, first)
            figures.setdefault(name, []).append((step, *rival_rates(flow, x)))
    report(figures, options.rows)


def report(figures: dict[str, list[tuple[float, float, float]]], rows: int) -> None:
    """Print medians, and ratios within each round."""

    def median(name: str, place: int) -> float:
        return statistics.median(one[place] for one in figures[name])

    def ratio(first: str, second: str, place: int) -> str:
        pairs = zip(figures[first], figures[second], strict=True)
        found = sorted(a[place] / b[place] for a, b in pairs)
        return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"

    print(f"{rows:,} x {COLUMNS} rows, hidden widths {HIDDEN}, {BINS} bins, batch {BATCH}, one thread\n")
    print("| | ms/step | rows scored/s | rows sampled/s |\n|---|---|---|---|")
    for name in figures:
        label = {"realnvp": "Noumena RealNVP, fit", "nsf": "Noumena NSF, fit"}.get(name, f"{name}, bare loop")
        print(f"| {label} | {1e3 * median(name, 0):.1f} | {median(name, 1):,.0f} | {median(name, 2):,.0f} |")
    print("\n| ratio, median (range) over rounds | training time | rows scored/s | rows sampled/s |\n|---|---|---|---|")
    for name, (ours, _, _) in RIVALS.items():
        print(f"| Noumena / {name} | {' | '.join(ratio(ours, name, place) for place in range(3))} |")


if __name__ == "__main__":
    main()
