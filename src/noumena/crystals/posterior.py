"""The posterior over the latents of crystals."""

import torch
from torch import Tensor

from noumena.core.posterior import DiagonalGaussian


class CrystalPosterior(DiagonalGaussian):
    """A normal distribution for each token: those of all atoms, then one for each crystal if cells have tokens.

    Attributes:
        num_atoms: atoms of each crystal, int64, shape (crystals,).
    """

    def __init__(self, mean: Tensor, log_var: Tensor, num_atoms: Tensor | None = None) -> None:
        """
        Args:
            mean, log_var: shape (tokens, latent).
            num_atoms: shape (crystals,); without it, a single crystal without cell token.
        """
        super().__init__(mean, log_var)
        self.num_atoms = torch.tensor([len(mean)], device=mean.device) if num_atoms is None else num_atoms

    @property
    def atoms(self) -> Tensor:
        """Means of the atoms' latents, shape (atoms, latent)."""
        return self.mean[: int(self.num_atoms.sum())]

    @property
    def cells(self) -> Tensor:
        """Means of the cells' latents, shape (crystals, latent); empty without cell tokens."""
        return self.mean[int(self.num_atoms.sum()) :]
