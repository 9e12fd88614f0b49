"""Speed of the multimodal VAE: training steps beside a plain loop of ProSoRo's objective, and single live calls.

    python benchmarks/multimodal_speed.py [--rows 2048] [--epochs 2] [--rounds 5]

The plain loop is the objective written down as it reads: the pose is encoded for itself and again for each
prediction, the divergence is taken from ``torch.distributions``, Adam is the default one. All have the sizes 6, 6 and
2,136 numbers, hidden layers (16, 32), (16, 32), (512, 128), 64 latents, batches of 128 and one thread. Contenders
take turns and ratios are medians over rounds, because machines are noisy. Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from noumena.multimodal.model import MVAE
from noumena.multimodal.streaming import Streamer

SIZES = {"pose": 6, "force": 6, "shape": 2136}
HIDDEN = {"pose": [16, 32], "force": [16, 32], "shape": [512, 128]}
LATENT, BATCH = 64, 128


class PlainLoop(nn.Module):
    """The objective of ProSoRo, modality by modality and term by term."""

    def __init__(self) -> None:
        super().__init__()
        pairs = [(SIZES[name], *HIDDEN[name]) for name in SIZES]
        self.trunks = nn.ModuleList(nn.Sequential(nn.Linear(x, a), nn.ReLU(), nn.Linear(a, b)) for x, a, b in pairs)
        self.means = nn.ModuleList(nn.Linear(b, LATENT) for _, _, b in pairs)
        self.log_vars = nn.ModuleList(nn.Linear(b, LATENT) for _, _, b in pairs)
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(LATENT, b), nn.ReLU(), nn.Linear(b, a), nn.ReLU(), nn.Linear(a, x))
            for x, a, b in pairs
        )

    def posterior(self, number: int, x: Tensor) -> Normal:
        """Of one modality."""
        hidden = self.trunks[number](x)
        return Normal(self.means[number](hidden), torch.exp(0.5 * self.log_vars[number](hidden)))

    def forward(self, x: list[Tensor]) -> Tensor:
        """The objective with all coefficients 1 but that of the divergence, 0.1."""
        mse = nn.functional.mse_loss
        posteriors = [self.posterior(number, part) for number, part in enumerate(x)]
        codes = [posterior.rsample() for posterior in posteriors]
        own = sum(mse(decode(z), part) for decode, z, part in zip(self.decoders, codes, x, strict=True)) / 3
        predicted = sum(mse(self.decoders[j](self.posterior(0, x[0]).rsample()), x[j]) for j in (1, 2)) / 2
        prior = Normal(torch.zeros(LATENT), torch.ones(LATENT))
        kl = sum((q.log_prob(z) - prior.log_prob(z)).mean() for q, z in zip(posteriors, codes, strict=True)) / 3
        apart = sum(mse(first, second) for first, second in combinations(codes, 2))
        return torch.as_tensor(0.5 * own + 0.5 * predicted + 0.1 * kl + apart)


def data(rows: int) -> dict[str, np.ndarray]:
    """Smooth functions of six numbers."""
    rng = np.random.default_rng(0)
    pose = rng.normal(size=(rows, 6)).astype("float32")
    maps = {name: rng.normal(size=(6, size)).astype("float32") / 3 for name, size in SIZES.items()}
    return {"pose": pose, "force": np.tanh(pose @ maps["force"]), "shape": np.sin(pose @ maps["shape"])}


def plain_loop(arrays: dict[str, np.ndarray], epochs: int) -> float:
    """Milliseconds per step."""
    x = [torch.from_numpy(array) for array in arrays.values()]
    model = PlainLoop()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps, started = 0, time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(x[0])).split(BATCH):
            optimizer.zero_grad()
            model([part[index] for part in x]).backward()
            optimizer.step()
            steps += 1
    return 1000 * (time.perf_counter() - started) / steps


def fit(arrays: dict[str, np.ndarray], epochs: int, options: Mapping[str, object]) -> float:
    """Milliseconds per step of ``fit``, everything included between the first step and the last."""
    model = MVAE(z_dim=LATENT, hidden_dims=HIDDEN, **options)  # type: ignore[arg-type]
    history = model.fit(
        arrays, max_epochs=epochs, batch_size=BATCH, lr=1e-3, lr_schedule="constant", patience=None, progress=False
    )
    return 1000 * statistics.fmean(history["seconds"]) / -(-len(arrays["pose"]) // BATCH)


ALIGN = {"fusion": "align", "activation": "relu", "skip": False, "activate_last": False, "components": None}


def live(arrays: dict[str, np.ndarray], calls: int) -> tuple[float, float]:
    """Milliseconds of one call pose -> force and shape: a Streamer, and the model's own ``infer``."""
    model = MVAE()
    model.fit(arrays, max_epochs=1, progress=False)
    streamer = Streamer(model, ["pose"], ["force", "shape"])
    pose = arrays["pose"]

    def per_call(call: object, count: int) -> float:
        times: list[float] = []
        for i in range(count):
            started = time.perf_counter()
            call(i)  # type: ignore[operator]
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times)

    return (
        per_call(lambda i: streamer({"pose": pose[i % len(pose)]}), calls),
        per_call(lambda i: model.infer({"pose": pose[i % len(pose)][None]}), max(1, calls // 10)),
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    arrays = data(options.rows)
    contenders = {
        "plain loop of the original objective": lambda: plain_loop(arrays, options.epochs),
        "fit, fusion=align (the same objective)": lambda: fit(arrays, options.epochs, ALIGN),
        "fit, fusion=poe without components": lambda: fit(arrays, options.epochs, {"components": None}),
        "fit, fusion=poe with 64 components": lambda: fit(arrays, options.epochs, {}),
    }
    for run in contenders.values():
        run()
    times = {name: [run() for _ in ()] for name, run in contenders.items()}
    for _ in range(options.rounds):
        for name, run in contenders.items():
            times[name].append(run())
    base = times["plain loop of the original objective"]
    print(f"\n| training step, batch {BATCH}, {options.threads} thread | ms | times as fast |\n|---|---|---|")
    for name, found in times.items():
        ratio = statistics.median(b / f for b, f in zip(base, found, strict=True))
        print(f"| {name} | {statistics.median(found):.1f} | {ratio:.2f} |")
    fast, slow = live(arrays, 5000)
    print("\n| one call, pose to force and shape | ms |\n|---|---|")
    print(f"| Streamer | {fast:.3f} |\n| MVAE.infer | {slow:.3f} |")


if __name__ == "__main__":
    main()
