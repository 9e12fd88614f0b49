"""Speed of a training step of recurrent state-space models, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/worldmodels_rssm_speed.py [--rounds N] [--batch N]

The plain step is the study's (Sobal et al. 2022) as it was: one decoding for each time step, through feature maps of
54x54 pixels. Ours: the same model with one decoding in all, and the corrected default model. Prints a Markdown table;
all are timed in turns, in processor time, loss, gradients and optimiser together.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.seeding import Noise
from noumena.worldmodels.rssm import RSSM
from noumena.worldmodels.sequences import Sequences

STATE, FRAME, TIME = 512, (1, 28, 28), 17
Run = Callable[[], None]


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * STATE, STATE), nn.ReLU(), nn.Linear(STATE, STATE), nn.ReLU())


def encoder() -> nn.Sequential:
    """MeNet5 of width 2."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(32)),
        *(nn.Conv2d(32, 64, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(64)),
        *(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.BatchNorm2d(64)),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(576, STATE)),
    )


class Plain(nn.Module):
    """The study's model, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.prior_mean, self.prior_spread = nn.Linear(STATE, STATE), nn.Linear(STATE, STATE)
        self.posterior_mean, self.posterior_spread = two_layers(), two_layers()
        self.input, self.cell = nn.Linear(STATE + 2, STATE), nn.GRUCell(STATE, STATE)
        self.decoder = nn.Sequential(
            *(nn.Linear(2 * STATE, 576), nn.Unflatten(1, (64, 3, 3)), nn.ReLU(), nn.Upsample(scale_factor=2)),
            *(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm2d(64), nn.Upsample(scale_factor=3)),
            *(nn.Conv2d(64, 32, 5, padding=2, bias=False), nn.ReLU(), nn.BatchNorm2d(32), nn.Upsample(scale_factor=3)),
            *(nn.Conv2d(32, 1, 5, padding=2, bias=False), nn.Upsample(size=FRAME[1:], mode="bilinear")),
        )

    def posterior(self, code: Tensor, h: Tensor) -> torch.distributions.Normal:
        """Distribution of z given a frame's encoding and h."""
        both = torch.cat([code, h], -1)
        return torch.distributions.Normal(
            self.posterior_mean(both), functional.softplus(self.posterior_spread(both)) + 0.1
        )

    def prior(self, h: Tensor) -> torch.distributions.Normal:
        """Distribution of z given h alone."""
        spread = functional.softplus(functional.relu(self.prior_spread(h))) + 0.1
        return torch.distributions.Normal(functional.relu(self.prior_mean(h)), spread)

    def decoded(self, z: Tensor, h: Tensor, frame: Tensor) -> Tensor:
        """Error of one frame's decoding."""
        return functional.mse_loss(self.decoder(torch.cat([z, h], -1)), frame)

    def loss(self, frames: Tensor, actions: Tensor) -> Tensor:
        """Frames (batch, time, 1, 28, 28) and actions (batch, time - 1, 2) to the study's loss."""
        codes = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        h = codes[:, 0]
        z = self.posterior(h, h).sample()
        total = self.decoded(z, h, frames[:, 0])
        for t in range(1, TIME):
            h = self.cell(functional.relu(self.input(torch.cat([z, actions[:, t - 1]], -1))), h)
            prior, posterior = self.prior(h), self.posterior(codes[:, t], h)
            total = total + torch.distributions.kl_divergence(prior, posterior).mean().clamp(min=3.0)
            total = total + self.decoded(prior.sample(), h, frames[:, t])
            z = posterior.sample()
        return total / (TIME - 1)


def step(model: nn.Module, loss: Callable[[], Tensor]) -> Run:
    """One whole training step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def run() -> None:
        optimiser.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
        optimiser.step()

    return run


def timed(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, taken in turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = Sequences(torch.randn(options.batch, TIME, *FRAME), torch.randn(options.batch, TIME - 1, 2))
    plain = Plain()
    models: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "the study's, step by step": (plain, lambda: plain.loss(batch.frames, batch.actions))
    }
    ours = {
        "the study's, all steps at once": RSSM(frame=FRAME, action_dim=2, variant="study", width=2, deter=STATE),
        "corrected, encoder of the study, h of 512": RSSM(frame=FRAME, action_dim=2, width=2, deter=STATE),
        "corrected, default sizes": RSSM(frame=FRAME, action_dim=2),
    }
    for name, model in ours.items():
        models[name] = (model, lambda model=model: model.loss(batch, noise=Noise(0)).total)
    seconds = timed({name: step(*entry) for name, entry in models.items()}, options.rounds)
    slowest = seconds["the study's, step by step"]
    print("| step | parameters | median ms | least ms | times faster (medians) | (least) |\n|---|---|---|---|---|---|")
    for name, values in seconds.items():
        middle, least = statistics.median(values), min(values)
        count = sum(p.numel() for p in models[name][0].parameters())
        ratios = f"{statistics.median(slowest) / middle:.1f} | {min(slowest) / least:.1f}"
        print(f"| {name} | {count:,} | {1e3 * middle:.0f} | {1e3 * least:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
