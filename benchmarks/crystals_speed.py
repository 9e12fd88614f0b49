"""One training step of the crystal autoencoder: packed against a padded plain re-statement of the original.

    OMP_NUM_THREADS=1 python benchmarks/crystals_speed.py --rounds 6

Both have the original's sizes (width 512, 8 + 8 layers, 51,091,044 parameters), the same weights, and take the same 32
crystals, of the sizes of a batch of MP-20, with the same noise: loss without augmentation, backward, clipping of the
gradient, AdamW. The re-statement pads each batch to its largest crystal and hides the padding by a mask, as Chemeleon2
does. The contenders take turns in one process; the losses of the first step have to agree to 1e-5 of them. The default
model is timed beside them.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.seeding import Noise
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.model import CrystalVAE

# Of 32 crystals of MP-20 drawn at random: 309 atoms, the mean, and the largest size, which most such batches have.
SIZES = (3, 3, *[4] * 9, 6, 6, 6, 7, 8, 8, 8, 8, 10, 10, 11, 14, 16, 16, 17, 18, 18, 20, 20, 20, 20)
WIDTH, LAYERS, HEADS, FEEDFORWARD, SPECIES, LATENT = 512, 8, 8, 2048, 100, 8
PARAMETERS = 51_091_044
RATE, CLIP, CLOSE = 1e-4, 10.0, 1e-5


def transformer() -> nn.TransformerEncoder:
    """Torch's own, for padded sequences."""
    gelu = partial(functional.gelu, approximate="tanh")
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, FEEDFORWARD, 0.0, gelu, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)


class Plain(nn.Module):
    """The original's model, written down as its description reads."""

    def __init__(self) -> None:
        super().__init__()
        self.types = nn.Embedding(SPECIES, WIDTH)
        self.lattices = nn.Sequential(nn.Linear(9, WIDTH, bias=False), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.coords = nn.Sequential(nn.Linear(3, WIDTH, bias=False), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.encoder = transformer()
        self.quant = nn.Linear(WIDTH, 2 * LATENT, bias=False)
        self.post_quant = nn.Linear(LATENT, WIDTH, bias=False)
        self.decoder = transformer()
        self.type_head = nn.Linear(WIDTH, SPECIES)
        self.coord_head = nn.Linear(WIDTH, 3, bias=False)
        self.cell_head = nn.Linear(WIDTH, 6, bias=False)

    def loss(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        """The objective; ``noise`` of the latents, shape (atoms, latent)."""
        crystal, count = batch.crystal, batch.num_atoms
        number = torch.arange(len(crystal)) - batch.offsets[crystal]
        k = torch.arange(WIDTH // 2)
        angle = number[:, None] * math.pi / 2048 ** (2 * k / WIDTH)
        code = torch.cat([angle.sin(), angle.cos()], 1)
        x = self.types(batch.atom_types) + self.lattices(batch.lattice.flatten(1))[crystal]
        x = x + self.coords(batch.frac_coords) + code
        mean, log_var = self.quant(self._padded(self.encoder, x, crystal, number, count)).chunk(2, 1)
        log_var = log_var.clamp(-30.0, 20.0)
        z = mean + (0.5 * log_var).exp() * noise
        x = self._padded(self.decoder, self.post_quant(z) + code, crystal, number, count)
        pooled = torch.zeros(len(batch), WIDTH).index_add(0, crystal, x) / count[:, None]
        cell = self.cell_head(pooled)
        kl = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).sum(1).mean()
        return (
            functional.cross_entropy(self.type_head(x), batch.atom_types)
            + functional.mse_loss(cell[:, :3], batch.lengths / count[:, None] ** (1 / 3))
            + 10.0 * functional.mse_loss(cell[:, 3:], torch.deg2rad(batch.angles))
            + 10.0 * functional.mse_loss(self.coord_head(x), batch.frac_coords)
            + 1e-5 * kl
        )

    @staticmethod
    def _padded(network: nn.TransformerEncoder, x: Tensor, crystal: Tensor, number: Tensor, count: Tensor) -> Tensor:
        most = int(count.max())
        dense = x.new_zeros(len(count), most, WIDTH)
        dense[crystal, number] = x
        hidden = torch.arange(most)[None] >= count[:, None]
        return network(dense, src_key_padding_mask=hidden)[crystal, number]


def plain_weights(model: CrystalVAE) -> dict[str, Tensor]:
    """The weights of a model of this library by the names of :class:`Plain`."""
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name.startswith("gaussian."):
            continue
        name = name.removeprefix("tokens.").replace("in_proj.", "in_proj_")
        name = name.replace("to_posterior", "quant").replace("from_latent", "post_quant")
        found[name] = value.clone()
    return found


def batch_of_sizes() -> CrystalBatch:
    """Crystals of the sizes of a batch of MP-20; time does not depend on where their atoms are."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor(SIZES)
    atoms = int(sizes.sum())
    edges = 2.5 * sizes ** (1 / 3)
    lattice = edges[:, None, None] * (torch.eye(3) + 0.1 * torch.randn(len(sizes), 3, 3, generator=generator))
    frac = torch.rand(atoms, 3, generator=generator)
    return CrystalBatch.of(lattice, frac, torch.randint(1, 90, (atoms,), generator=generator), sizes)


def stepper(weights: list[nn.Parameter], loss: Callable[[], Tensor]) -> Callable[[], float]:
    """One step of AdamW; gives the loss."""
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=0.0, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        return float(found.detach())

    return step


def contenders(batch: CrystalBatch) -> dict[str, Callable[[], float]]:
    """What takes turns, by name; the first is what the others are compared with."""
    torch.manual_seed(0)
    ours = CrystalVAE(
        representation="original",
        species=SPECIES,
        width=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        heads=HEADS,
        feedforward=FEEDFORWARD,
        max_atoms=max(SIZES),
        coord_weight=10.0,
        corruption=0.0,
        augment=False,
        vector_dim=0,
    ).train()
    plain = Plain().train()
    plain.load_state_dict(plain_weights(ours))
    assert sum(weight.numel() for weight in ours.parameters()) == PARAMETERS
    within = torch.arange(len(batch.crystal)) - batch.offsets[batch.crystal]
    drawn = Noise(0).normal_like(torch.empty(len(batch), max(SIZES) + 1, LATENT))[batch.crystal, within]
    default = CrystalVAE(max_atoms=max(SIZES)).train()
    trained = [weight for weight in default.parameters() if weight.requires_grad]
    count = sum(weight.numel() for weight in trained)
    return {
        "padded re-statement": stepper(list(plain.parameters()), lambda: plain.loss(batch, drawn)),
        "Noumena, representation=original": stepper(
            list(ours.parameters()), lambda: ours.loss(batch, noise=Noise(0)).total
        ),
        f"Noumena, default (width {default.width}, {count / 1e6:.1f} M parameters)": stepper(
            trained, lambda: default.loss(batch, noise=Noise(0)).total
        ),
    }


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = batch_of_sizes()
    taking_turns = contenders(batch)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in taking_turns}
    for turn in range(options.rounds + 1):
        losses: list[float] = []
        for name, step in taking_turns.items():
            processor, wall = time.process_time(), time.perf_counter()
            losses.append(step())
            times[name].append((time.process_time() - processor, time.perf_counter() - wall))
        if turn == 0:
            print(f"losses of the first step: {losses[0]:.7f} and {losses[1]:.7f}")
            if abs(losses[0] - losses[1]) > CLOSE * abs(losses[0]):
                raise SystemExit(f"they differ by more than {CLOSE} of them")
    largest = int(batch.num_atoms.max())
    print(f"{len(batch)} crystals, {len(batch.atom_types)} atoms, the largest of {largest}; {options.rounds} rounds\n")
    print("| step | processor, median ms | wall, median ms | times faster (processor) | times faster (wall) |")
    print("|---|---|---|---|---|")
    first = [statistics.median(column) for column in zip(*times["padded re-statement"][1:], strict=True)]
    for name, values in times.items():
        processor, wall = (statistics.median(column) for column in zip(*values[1:], strict=True))
        ratios = f"{first[0] / processor:.2f} | {first[1] / wall:.2f}"
        print(f"| {name} | {1e3 * processor:.0f} | {1e3 * wall:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
