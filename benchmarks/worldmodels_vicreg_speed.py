"""One training step of VICReg: this library's against a plain re-statement of the study's computation.

    OMP_NUM_THREADS=1 python benchmarks/worldmodels_vicreg_speed.py --rounds 8

Both have the study's sizes: MeNet5 of width 2, 512 latents, a GRU, batches of 32 sequences of 17 frames, LARS. The
re-statement follows Sobal et al. 2022: all frames through the encoder at once, then variance and the whole covariance
matrix of each time step, one after the other. The contenders take turns in one process; times are of the processor.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from noumena.core.seeding import Noise
from noumena.training.lars import LARS
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.sequences import Sequences

BATCH, WIDTH, LATENTS = 32, 2, 512
SIM, STD = 20.553, 9.1378


class Plain(nn.Module):
    """The study's model, written down as its description reads."""

    def __init__(self) -> None:
        super().__init__()
        one, two = 16 * WIDTH, 32 * WIDTH
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, one, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(one)),
            *(nn.Conv2d(one, two, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(two)),
            *(nn.Conv2d(two, two, 3, 1, 1), nn.ReLU(), nn.BatchNorm2d(two)),
            nn.AvgPool2d(2),
        )
        self.head = nn.Linear(9 * two, LATENTS)
        self.rnn = nn.GRU(2, LATENTS)

    def loss(self, frames: Tensor, actions: Tensor) -> Tensor:
        """VICReg, of frames (batch, time, 1, 28, 28) and actions (batch, time - 1, 2)."""
        batch, steps = frames.shape[:2]
        encoded = self.head(self.convolutions(frames.flatten(0, 1)).flatten(1))
        encoded = encoded.unflatten(0, (batch, steps)).transpose(0, 1)
        predicted = self.rnn(actions.transpose(0, 1).contiguous(), encoded[:1].contiguous())[0]
        sim = torch.stack([(predicted[t] - encoded[t + 1]).square().mean() for t in range(steps - 1)]).mean()
        std, cov = [], []
        for latents in encoded[1:]:
            centred = latents - latents.mean(0)
            std.append(torch.relu(1.0 - (latents.var(0) + 1e-4).sqrt()).mean())
            covariance = centred.T @ centred / (batch - 1)
            outside = covariance - torch.diag(covariance.diagonal())
            cov.append(outside.square().sum() / LATENTS)
        return SIM * sim + STD * torch.stack(std).mean() + torch.stack(cov).mean()


def stepper(parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of LARS."""
    optimizer = LARS(parameters, 0.17, weight_decay=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = open_dots(fixed=1.25, sequences=BATCH, test_sequences=0).train
    batch: Sequences = data.batch(torch.arange(BATCH))
    torch.manual_seed(0)
    plain = Plain().train()
    ours = JEPA(frame=(1, 28, 28), action_dim=2, width=WIDTH, latent_dim=LATENTS, sim=SIM, std=STD).train()
    fewer = JEPA(frame=(1, 28, 28), action_dim=2, width=WIDTH, latent_dim=LATENTS, targets=6).train()
    contenders = {
        "re-statement": stepper(list(plain.parameters()), lambda: plain.loss(batch.frames, batch.actions)),
        "Noumena, the same computation": stepper(
            list(ours.parameters()), lambda: ours.loss(batch, noise=Noise(0)).total
        ),
        "Noumena, 6 of 16 later frames": stepper(
            list(fewer.parameters()), lambda: fewer.loss(batch, noise=Noise(0)).total
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds + 1):
        for name, step in contenders.items():
            began = time.process_time()
            step()
            times[name].append(time.process_time() - began)
    first = statistics.median(times["re-statement"][1:])
    print("| step | median ms | least ms | times faster |\n|---|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values[1:])
        print(f"| {name} | {1e3 * median:.0f} | {1e3 * min(values[1:]):.0f} | {first / median:.2f} |")


if __name__ == "__main__":
    main()
