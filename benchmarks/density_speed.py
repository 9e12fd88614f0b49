"""Training and scoring speed of the density VAE beside a bare PyTorch loop and PyOD's VAE, in one process.

    pip install 'noumena[bench]'
    python benchmarks/density_speed.py [--rows 100000] [--epochs 2] [--rounds 5] [--batches 256 1024 2048]

Every contender has the same network (256-128, latent 8), batch (256), rows, optimiser and thread. The contenders take
turns and the ratios are medians over rounds, because machines are noisy. Scores are those of reconstructions, beside
the matrix products alone that any implementation of this network has to compute, as fast as torch does them.

Then what larger batches cost: the same model on the state-action sample of the package with each of ``--batches``
(learning rates grow with the root of the batch), for ``--likelihood-epochs`` epochs; time of an epoch and the mean
log-likelihood of the validation rows, in nats. Prints Markdown tables.
"""

import argparse
import contextlib
import importlib
import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from noumena.density.data import open_episodes
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


def noumena_fit(x: torch.Tensor, epochs: int, batch: int = BATCH) -> float:
    """Seconds per epoch of ``fit``, everything included that happens between the first and the last step."""
    model = VAE(hidden_dims=HIDDEN, latent_dim=LATENT)
    history = model.fit(x, max_epochs=epochs, batch_size=batch, lr=1e-3, lr_schedule="constant", progress=False)
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


def products(rows: int, block: int) -> Callable[[], None]:
    """The matrix products of encoder and decoder alone, for ``rows`` rows in blocks, into memory taken before."""
    widths = [(COLUMNS, HIDDEN[0]), tuple(HIDDEN), (HIDDEN[1], 2 * LATENT)]
    widths += [(LATENT, HIDDEN[1]), (HIDDEN[1], HIDDEN[0]), (HIDDEN[0], COLUMNS)]
    layers = [(torch.randn(block, a), torch.randn(a, b), torch.empty(block, b)) for a, b in widths]

    def compute() -> None:
        for _ in range(rows // block):
            for x, weight, out in layers:
                torch.mm(x, weight, out=out)

    return compute


def likelihoods(batches: Sequence[int], epochs: int, seeds: int) -> str:
    """Seconds of an epoch and validation log-likelihood by batch size, as Markdown; the best epoch of each run."""
    splits = open_episodes("sample:hopper", seed=42)
    val = splits.val
    assert val is not None
    lines = ["| batch | learning rate | s/epoch | validation log-likelihood, nats (spread) |", "|---" * 4 + "|"]
    for batch in batches:
        lr, times, found = 1e-3 * (batch / BATCH) ** 0.5, [], []
        for seed in range(seeds):
            model = VAE(hidden_dims=HIDDEN, latent_dim=LATENT)
            history = model.fit(
                splits.train, val, max_epochs=epochs, patience=None, batch_size=batch, lr=lr, seed=seed, progress=False
            )
            times.append(statistics.median(history["seconds"]))
            found.append(float(model.score_samples(val).mean()))
        spread = statistics.stdev(found) if seeds > 1 else 0.0
        lines.append(
            f"| {batch} | {lr:.1e} | {statistics.median(times):.2f} | {statistics.fmean(found):.2f} ({spread:.2f}) |"
        )
    return "\n".join(lines)


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
    parser.add_argument("--batches", type=int, nargs="*", default=[256, 1024, 2048])
    parser.add_argument("--likelihood-epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(options.rows, COLUMNS) @ torch.randn(COLUMNS, COLUMNS)
    scorer = VAE(hidden_dims=HIDDEN, latent_dim=LATENT, scoring="reconstruction")
    scorer.fit(x[:2000], max_epochs=1, progress=False)
    bound = products(options.rows, scorer.block)
    found: dict[str, list[float]] = {
        name: [] for name in ("bare", "ours", "large", "pyod", "rate", "bound", "pyod rate")
    }
    for _ in range(options.rounds):
        found["bare"].append(bare_loop(x, options.epochs))
        found["ours"].append(noumena_fit(x, options.epochs))
        found["large"].append(noumena_fit(x, options.epochs, max(options.batches, default=BATCH)))
        # The fastest of three: what else the machine does only ever slows one down.
        found["rate"].append(options.rows / min(seconds(lambda: scorer.score_samples(x)) for _ in range(3)))
        with torch.inference_mode():
            found["bound"].append(options.rows / min(seconds(bound) for _ in range(3)))
        if not options.no_pyod:
            train, rate = pyod_vae(x, options.epochs)
            found["pyod"].append(train)
            found["pyod rate"].append(rate)
    print(f"{options.rows:,} x {COLUMNS} rows, network 256-128, latent {LATENT}, batch {BATCH}, one thread\n")
    print(speeds(found, max(options.batches, default=BATCH)))
    if options.batches:
        print(f"\n{likelihoods(options.batches, options.likelihood_epochs, options.seeds)}")


def speeds(found: Mapping[str, Sequence[float]], large: int) -> str:
    """Medians over rounds of times and rates, and of their ratios within a round, as Markdown."""

    def ratio(above: str, below: str) -> str:
        return f"{statistics.median(a / b for a, b in zip(found[above], found[below], strict=True)):.2f}"

    median = {name: statistics.median(values) for name, values in found.items() if values}
    lines = ["| | s/epoch | rows scored/s |", "|---|---|---|", f"| bare PyTorch loop | {median['bare']:.2f} | |"]
    lines.append(f"| Noumena | {median['ours']:.2f} | {median['rate']:,.0f} |")
    lines.append(f"| Noumena, batch {large} | {median['large']:.2f} | |")
    lines.append(f"| matrix products alone | | {median['bound']:,.0f} |")
    if "pyod" in median:
        lines.append(f"| PyOD VAE | {median['pyod']:.2f} | {median['pyod rate']:,.0f} |")
    lines += ["", "| ratio (median of rounds) | |", "|---|---|"]
    lines.append(f"| training, Noumena / bare loop | {ratio('ours', 'bare')} |")
    lines.append(f"| scoring, Noumena / matrix products alone | {ratio('rate', 'bound')} |")
    if "pyod" in median:
        lines.append(f"| training, PyOD / Noumena | {ratio('pyod', 'ours')} |")
        lines.append(f"| training, PyOD / Noumena at batch {large} | {ratio('pyod', 'large')} |")
        lines.append(f"| scoring, Noumena / PyOD | {ratio('rate', 'pyod rate')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
