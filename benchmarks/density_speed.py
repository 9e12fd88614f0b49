"""Training and scoring speed of the density VAE beside a bare PyTorch loop and PyOD's VAE, in one process.

    pip install 'noumena[bench]'
    python benchmarks/density_speed.py [--rows 100000] [--epochs 3] [--rounds 5]

Every contender has the same network (256-128, latent 8), batch (256), rows, optimiser and thread. The contenders take
turns and the ratios are medians over rounds, because machines are noisy. Prints a Markdown table.
"""

import argparse
import contextlib
import importlib
import io
import statistics
import time
from collections.abc import Callable

import torch

from noumena.density.model import VAE

BATCH, HIDDEN, LATENT, COLUMNS = 256, [256, 128], 8, 14


def bare_loop(x: torch.Tensor, epochs: int) -> float:
    """Seconds per epoch of the plainest loop: same model and loss, no features around it."""
    model = VAE(input_dim=COLUMNS, hidden_dims=HIDDEN, latent_dim=LATENT)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    started = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            model.loss(x[index]).total.backward()
            optimizer.step()
    return (time.perf_counter() - started) / epochs


def noumena_fit(x: torch.Tensor, epochs: int) -> float:
    """Seconds per epoch of ``fit``, everything included that happens between the first and the last step."""
    model = VAE(hidden_dims=HIDDEN, latent_dim=LATENT)
    history = model.fit(x, max_epochs=epochs, batch_size=BATCH, lr=1e-3, lr_schedule="constant", progress=False)
    return statistics.fmean(history["seconds"])


def pyod_vae(x: torch.Tensor, epochs: int) -> tuple[float, float]:
    """Seconds per epoch of PyOD's VAE and rows it scores per second."""
    # By name, because it belongs to the extra `bench`, which the type checker's environment lacks.
    make = importlib.import_module("pyod.models.vae").VAE

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        detector = make(
            encoder_neuron_list=HIDDEN,
            decoder_neuron_list=HIDDEN[::-1],
            latent_dim=LATENT,
            batch_size=BATCH,
            epoch_num=epochs,
            lr=1e-3,
            verbose=0,
            dropout_rate=0.0,
            batch_norm=False,
            device="cpu",
        )
        rows = x.numpy()
        # `fit` also scores the training rows; that share is measured apart and taken off, in PyOD's favour.
        started = time.perf_counter()
        detector.fit(rows)
        fitted = time.perf_counter() - started
        scoring = seconds(lambda: detector.decision_function(rows))
    return max(fitted - scoring, 1e-9) / epochs, len(rows) / scoring


def seconds(call: Callable[[], object]) -> float:
    """Duration of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-pyod", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(options.rows, COLUMNS) @ torch.randn(COLUMNS, COLUMNS)
    scorer = VAE(hidden_dims=HIDDEN, latent_dim=LATENT)
    scorer.fit(x[:2000], max_epochs=1, progress=False)
    bare, ours, pyod, ours_rate, pyod_rate = [], [], [], [], []
    for _ in range(options.rounds):
        bare.append(bare_loop(x, options.epochs))
        ours.append(noumena_fit(x, options.epochs))
        ours_rate.append(options.rows / seconds(lambda: scorer.score_samples(x)))
        if not options.no_pyod:
            train, rate = pyod_vae(x, options.epochs)
            pyod.append(train)
            pyod_rate.append(rate)
    median = statistics.median
    print(f"{options.rows:,} x {COLUMNS} rows, network 256-128, latent {LATENT}, batch {BATCH}, one thread\n")
    print("| | s/epoch | rows scored/s |\n|---|---|---|")
    print(f"| bare PyTorch loop | {median(bare):.2f} | |")
    print(f"| Noumena | {median(ours):.2f} | {median(ours_rate):,.0f} |")
    if pyod:
        print(f"| PyOD VAE | {median(pyod):.2f} | {median(pyod_rate):,.0f} |")
    print("\n| ratio (median of rounds) | |\n|---|---|")
    print(f"| training, Noumena / bare loop | {median(a / b for a, b in zip(ours, bare, strict=True)):.2f} |")
    if pyod:
        print(f"| training, PyOD / Noumena | {median(a / b for a, b in zip(pyod, ours, strict=True)):.2f} |")
        print(f"| scoring, Noumena / PyOD | {median(a / b for a, b in zip(ours_rate, pyod_rate, strict=True)):.2f} |")


if __name__ == "__main__":
    main()
