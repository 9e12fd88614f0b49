"""How crystals become tokens and tokens become crystals: what the two representations have in common."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.networks.packing import Packing


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the heads of a decoder give.

    Attributes:
        types: logits of the elements, shape (atoms, species).
        coords: of each atom, shape (atoms, channels): what the representation describes a place by.
        cell: of each crystal, shape (crystals, 6): what the representation describes a cell by.
    """

    types: Tensor
    coords: Tensor
    cell: Tensor


class Representation(Protocol):
    """Tokens of crystals, and crystals from tokens."""

    def embed(self, batch: CrystalBatch, packing: Packing) -> Tensor:
        """Input tokens of the encoder, shape (tokens, width)."""
        ...

    def place(self, hidden: Tensor, packing: Packing, noise: Tensor, types: Tensor) -> Tensor:
        """Input tokens of the decoder, from latents brought to its width, shape (tokens, width).

        ``noise``, shape (crystals,), is how far the latents of each crystal may be off, see ``latent_noise`` of the
        model; ``types``, shape (atoms,), are the elements of atoms where they are known, and 0 elsewhere.
        """
        ...

    def heads(self, hidden: Tensor, packing: Packing) -> Decoded:
        """What the decoder's output tokens say."""
        ...

    def frac_coords(self, decoded: Decoded) -> Tensor:
        """Fractional coordinates in [0, 1), shape (atoms, 3)."""
        ...

    def lattice(self, decoded: Decoded, num_atoms: Tensor) -> Tensor:
        """Cell vectors in angstrom, shape (crystals, 3, 3)."""
        ...

    def losses(self, decoded: Decoded, target: CrystalBatch) -> dict[str, Tensor]:
        """Errors of coordinates and cells by name, each a mean over atoms or crystals."""
        ...
