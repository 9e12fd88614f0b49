"""The family's own representation: periodic coordinates, cells without orientation, no order of atoms."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.networks import mlp
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.geometry import cell_of_log, log_cell, wrapped
from noumena.crystals.networks.packing import Packing
from noumena.crystals.networks.representation import Decoded

# Beyond this distance the loss of coordinates grows linearly: far errors must not drown the near ones.
_NEAR = 0.5  # angstrom


class Periodic(nn.Module):
    """Places as waves of the cell, cells as logarithms of their metric, and a token for each cell beside its atoms.

    Coordinates enter as sines and cosines of ``2 pi k f`` for k = 1, 2, ... and leave as a point for each axis whose
    angle is the coordinate: both are the same for ``f`` and ``f + 1``. Cells enter and leave as the six numbers of
    :func:`~noumena.crystals.geometry.log_cell`, less the logarithm of the number of atoms: they know no orientation,
    and any six numbers are a valid cell.
    """

    def __init__(self, width: int, species: int, frequencies: int) -> None:
        super().__init__()
        self.types = nn.Embedding(species, width)
        self.waves = nn.Linear(6 * frequencies, width)
        self.cell_in = mlp([6, width, width], "silu")
        self.count_in = mlp([2, width, width], "silu")
        self.cell_token = nn.Parameter(0.02 * torch.randn(width))
        self.count_out = mlp([3, width, width], "silu")
        self.cell_token_out = nn.Parameter(0.02 * torch.randn(width))
        # Element 0 is an unknown one, and adds nothing.
        self.types_out = nn.Embedding(species, width, padding_idx=0)
        self.type_head = nn.Linear(width, species)
        self.coord_head = nn.Linear(width, 6)
        self.cell_head = nn.Linear(width, 6)
        self.register_buffer("frequencies", 2.0 * math.pi * torch.arange(1.0, frequencies + 1))
        self.register_buffer("cell_mean", torch.zeros(6))
        self.register_buffer("cell_scale", torch.ones(()))

    def _buffer(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def calibrate(self, lattice: Tensor, num_atoms: Tensor) -> None:
        """Take mean and spread of the cells of training data, shape (crystals, 3, 3) and (crystals,)."""
        raw = self._raw_cell(lattice, num_atoms)
        mean = raw.mean(0)
        self._buffer("cell_mean").copy_(mean)
        # One scale for all six: an error of the same strain counts alike in every direction.
        self._buffer("cell_scale").copy_((raw - mean).square().mean().sqrt().clamp_min(1e-3))

    def _raw_cell(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        log = log_cell(lattice)
        per_atom = num_atoms.to(log).log()[:, None] / 3.0
        return torch.cat([log[:, :3] - per_atom, log[:, 3:]], 1)

    def cell_numbers(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        """Standardised numbers of cells, shape (crystals, 6)."""
        return (self._raw_cell(lattice, num_atoms) - self._buffer("cell_mean")) / self._buffer("cell_scale")

    def embed(self, batch: CrystalBatch, packing: Packing) -> Tensor:
        """Input tokens of the encoder: atoms, then cells; shape (tokens, width)."""
        phase = batch.frac_coords[:, :, None] * self._buffer("frequencies")
        waves = torch.cat([phase.sin(), phase.cos()], -1).flatten(1)  # (atoms, 3 * 2 * frequencies)
        cell = self.cell_in(self.cell_numbers(batch.lattice, batch.num_atoms))
        cell = cell + self.count_in(_count(batch.num_atoms, cell))
        atoms = self.types(batch.atom_types) + self.waves(waves) + cell[batch.crystal]
        return torch.cat([atoms, cell + self.cell_token])

    def place(self, hidden: Tensor, packing: Packing, noise: Tensor, types: Tensor) -> Tensor:
        """Input tokens of the decoder, shape (tokens, width)."""
        count = self.count_out(torch.cat([_count(packing.num_atoms, hidden), noise.to(hidden)[:, None]], 1))
        kind = torch.cat([self.types_out(types), self.cell_token_out.expand(len(packing.num_atoms), -1)])
        return hidden + count[packing.crystal] + kind

    def heads(self, hidden: Tensor, packing: Packing) -> Decoded:
        """What the decoder's output tokens say."""
        atoms, cells = hidden.split([len(hidden) - len(packing.num_atoms), len(packing.num_atoms)])
        return Decoded(self.type_head(atoms), self.coord_head(atoms), self.cell_head(cells))

    def frac_coords(self, decoded: Decoded) -> Tensor:
        """Fractional coordinates in [0, 1), shape (atoms, 3): the angles of three points."""
        cosine, sine = decoded.coords.view(-1, 3, 2).unbind(-1)
        turn = torch.atan2(sine, cosine) / (2.0 * math.pi)
        # The remainder of a tiny negative number rounds to 1.
        found = turn.remainder(1.0)
        return torch.where(found >= 1.0, torch.zeros_like(found), found)

    def lattice(self, decoded: Decoded, num_atoms: Tensor) -> Tensor:
        """Cell vectors in angstrom, shape (crystals, 3, 3); always a cell."""
        raw = decoded.cell * self._buffer("cell_scale") + self._buffer("cell_mean")
        per_atom = num_atoms.to(raw).log()[:, None] / 3.0
        return cell_of_log(torch.cat([raw[:, :3] + per_atom, raw[:, 3:]], 1))

    def losses(self, decoded: Decoded, target: CrystalBatch) -> dict[str, Tensor]:
        """``circle``: squared distance of the three points of a place from theirs; ``coords``: distance to the
        nearest image in angstrom, squared up to half an angstrom and linear beyond; ``cell``: squared error of the
        standardised cell.
        """
        turn = 2.0 * math.pi * target.frac_coords
        points = torch.stack([turn.cos(), turn.sin()], -1)
        circle = (decoded.coords.view(-1, 3, 2) - points).square().mean()
        difference = wrapped(self.frac_coords(decoded) - target.frac_coords)
        distance = torch.einsum("ai,aij->aj", difference, target.lattice[target.crystal])
        coords = functional.huber_loss(distance, torch.zeros_like(distance), delta=_NEAR) * 2.0
        cell = functional.mse_loss(decoded.cell, self.cell_numbers(target.lattice, target.num_atoms))
        return {"circle": circle, "coords": coords, "cell": cell}


def _count(num_atoms: Tensor, like: Tensor) -> Tensor:
    """Numbers that tell the number of atoms, small ones finely; shape (crystals, 2)."""
    n = num_atoms.to(like)
    return torch.stack([n.log() - 2.0, n / 20.0 - 0.5], -1)
