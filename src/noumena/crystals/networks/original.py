"""The representation of Chemeleon2's VAE, as it was: plain coordinates, oriented cells, atoms in order."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.geometry import lattice_of
from noumena.crystals.networks.packing import Packing
from noumena.crystals.networks.representation import Decoded

_PERIOD = 2048.0


class Original(nn.Module):
    """Fractional coordinates and the nine numbers of the lattice through small networks, and a code of each atom's
    number in its crystal.

    Nothing here knows of periodicity: 0.01 and 0.99 are far apart, rotated cells are other cells, atoms in another
    order are another crystal, and the heads can give cells that do not exist. It is kept to load and compare models
    of that kind.
    """

    def __init__(self, width: int, species: int) -> None:
        super().__init__()
        self.types = nn.Embedding(species, width)
        self.lattices = nn.Sequential(nn.Linear(9, width, bias=False), nn.SiLU(), nn.Linear(width, width))
        self.coords = nn.Sequential(nn.Linear(3, width, bias=False), nn.SiLU(), nn.Linear(width, width))
        self.type_head = nn.Linear(width, species)
        self.coord_head = nn.Linear(width, 3, bias=False)
        self.cell_head = nn.Linear(width, 6, bias=False)

    def embed(self, batch: CrystalBatch, packing: Packing) -> Tensor:
        """Input tokens of the encoder, shape (atoms, width)."""
        cell = self.lattices(batch.lattice.flatten(1))[batch.crystal]
        atoms = self.types(batch.atom_types) + cell + self.coords(batch.frac_coords)
        return self._numbered(atoms, packing)

    def place(self, hidden: Tensor, packing: Packing, noise: Tensor, types: Tensor) -> Tensor:
        """Input tokens of the decoder, shape (atoms, width); it is told nothing of noise and elements."""
        del noise, types
        return self._numbered(hidden, packing)

    def _numbered(self, hidden: Tensor, packing: Packing) -> Tensor:
        """Tokens with the code of their number in the crystal added."""
        return hidden + _order_code(packing.within, hidden.shape[1], hidden.dtype)

    def heads(self, hidden: Tensor, packing: Packing) -> Decoded:
        """What the decoder's output tokens say; the cell is read from their mean."""
        crystals = len(packing.num_atoms)
        total = hidden.new_zeros(crystals, hidden.shape[1]).index_add(0, packing.crystal, hidden)
        cell = self.cell_head(total / packing.num_atoms[:, None])
        return Decoded(self.type_head(hidden), self.coord_head(hidden), cell)

    def frac_coords(self, decoded: Decoded) -> Tensor:
        """Fractional coordinates brought to [0, 1), shape (atoms, 3)."""
        return decoded.coords - decoded.coords.floor()

    def lattice(self, decoded: Decoded, num_atoms: Tensor) -> Tensor:
        """Cell vectors in angstrom, shape (crystals, 3, 3); NaN where lengths and angles are those of no cell."""
        lengths, angles = self.lengths_angles(decoded, num_atoms)
        cell = lattice_of(lengths, angles)
        impossible = (lengths <= 0).any(-1) | ~torch.isfinite(cell).flatten(1).all(-1)
        return torch.where(impossible[:, None, None], torch.nan, cell)

    def lengths_angles(self, decoded: Decoded, num_atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths in angstrom and angles in degrees as the head gives them, each of shape (crystals, 3)."""
        lengths = decoded.cell[:, :3] * num_atoms.to(decoded.cell)[:, None].pow(1.0 / 3.0)
        return lengths, torch.rad2deg(decoded.cell[:, 3:])

    def losses(self, decoded: Decoded, target: CrystalBatch) -> dict[str, Tensor]:
        """Mean squared errors of the lengths over the cube root of the number of atoms, of the angles in radians, and
        of the fractional coordinates as plain numbers.
        """
        scaled = target.lengths / target.num_atoms.to(target.lengths)[:, None].pow(1.0 / 3.0)
        return {
            "lengths": functional.mse_loss(decoded.cell[:, :3], scaled),
            "angles": functional.mse_loss(decoded.cell[:, 3:], torch.deg2rad(target.angles)),
            "coords": functional.mse_loss(decoded.coords, target.frac_coords),
        }


def _order_code(number: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sines, then cosines, of ``number * pi / 2048^(2 k / width)``, shape (tokens, width)."""
    k = torch.arange(width // 2, device=number.device, dtype=torch.float32)
    angle = number[:, None] * math.pi / _PERIOD ** (2.0 * k / width)
    return torch.cat([angle.sin(), angle.cos()], -1).to(dtype)
