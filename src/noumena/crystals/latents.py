"""Paths between latents, and Gaussians of them: controls for the prior that know single atoms only."""

from typing import cast

import torch
from torch import Tensor, nn

from noumena.core.errors import DataError, NotSupportedError
from noumena.crystals.posterior import CrystalPosterior

_RIDGE = 1e-6
_LEAST = 1e-12  # variance


class GaussianLatents(nn.Module):
    """One normal distribution of the latents of all atoms, one of those of all cells, and the sizes of cells.

    Buffers: ``histogram`` (most atoms + 1,): training crystals of each number of atoms; ``mean`` (2, latent) and
    ``scale`` (2, latent, latent), lower triangular factors of the covariances, of atoms and of cells.
    """

    def __init__(self, latent_dim: int, max_atoms: int) -> None:
        super().__init__()
        self.register_buffer("histogram", torch.zeros(max_atoms + 1))
        self.register_buffer("mean", torch.zeros(2, latent_dim))
        self.register_buffer("scale", torch.eye(latent_dim).expand(2, -1, -1).clone())

    def _buffer(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def fit(self, z: Tensor, num_atoms: Tensor) -> None:
        """Take sizes, means and covariances of latents: atoms, then cells if they have some; shape (tokens, latent)."""
        histogram = self._buffer("histogram")
        histogram.copy_(torch.bincount(num_atoms, minlength=len(histogram)))
        atoms = int(num_atoms.sum())
        for row, part in enumerate((z[:atoms], z[atoms:])):
            if len(part) == 0:
                continue
            part = part.double()
            mean = part.mean(0)
            covariance = (part - mean).mT @ (part - mean) / len(part)
            # A single cell has no covariance at all.
            ridge = _RIDGE * covariance.diagonal().mean().clamp_min(_LEAST)
            ridge = ridge * torch.eye(z.shape[1], dtype=part.dtype, device=z.device)
            self._buffer("mean")[row] = mean.to(z.dtype)
            self._buffer("scale")[row] = torch.linalg.cholesky(covariance + ridge).to(z.dtype)

    def sample(self, atoms: int, cells: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents of as many atoms, then cells; shape (atoms + cells, latent).

        Raises:
            NotSupportedError: no latents have been taken.
        """
        if not bool(self._buffer("histogram").any()):
            raise NotSupportedError(
                "the model has seen no training data, so the spread of its latents is not known. Fit it, or call "
                "after_fit(train, None)."
            )
        mean, scale = self._buffer("mean"), self._buffer("scale")
        noise = torch.randn(atoms + cells, mean.shape[1], generator=generator, dtype=mean.dtype, device=mean.device)
        row = (torch.arange(atoms + cells, device=mean.device) >= atoms).long()
        return mean[row] + torch.einsum("nij,nj->ni", scale[row], noise)


def path_between(one: CrystalPosterior, two: CrystalPosterior, steps: int) -> Tensor:
    """Latents on the straight line between those of two crystals: of all atoms, then of all cells; (tokens, latent).

    Atoms are paired so that the latents of pairs lie close together.

    Raises:
        DataError: more than one crystal at an end, or different numbers of atoms.
    """
    from scipy.optimize import linear_sum_assignment

    sizes = [*one.num_atoms.tolist(), *two.num_atoms.tolist()]
    if len(sizes) != 2 or sizes[0] != sizes[1]:
        raise DataError(
            f"interpolate: expected one crystal at each end with equally many atoms, got {one.num_atoms.tolist()} and "
            f"{two.num_atoms.tolist()} atoms."
        )
    first = one.mean
    _, partner = linear_sum_assignment(torch.cdist(one.atoms, two.atoms).cpu().numpy())
    last = torch.cat([two.atoms[torch.as_tensor(partner, device=first.device)], two.cells])
    share = torch.linspace(0.0, 1.0, steps, dtype=first.dtype, device=first.device)[:, None, None]
    path = first + share * (last - first)  # (steps, tokens, latent)
    return torch.cat([path[:, : sizes[0]].flatten(0, 1), path[:, sizes[0] :].flatten(0, 1)])
