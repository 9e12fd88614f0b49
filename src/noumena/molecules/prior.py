"""The distribution of a molecule's latents, fitted after training."""

import warnings
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

Prior = Literal["fitted", "normal"]

_MOST_ROWS = 40_000
_ITERATIONS = 60
_LEAST_DRAWS = 50
# Added to the covariances' diagonals, as a share of the latents' mean variance.
_RIDGE = 1e-4


class LatentMixture(nn.Module):
    """A mixture of Gaussians with full covariances over latents, fitted to draws of the posteriors of training data.

    The aggregate posterior of a molecule with several folds is not the standard normal that the KL term asks for: it
    has lobes, and between them lies what no conformation encodes to. Samples of the mixture stay where the data are.

    Buffers: ``weight`` (components,), ``mean`` (components, latent), ``scale`` (components, latent, latent): lower
    triangular factors of the covariances. Before :meth:`fit` it is the standard normal.
    """

    def __init__(self, components: int, z_dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((components,), 1.0 / components))
        self.register_buffer("mean", torch.zeros(components, z_dim))
        self.register_buffer("scale", torch.eye(z_dim).expand(components, z_dim, z_dim).clone())

    def _buffer(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def fit(self, z: Tensor, *, seed: int = 0) -> None:
        """Fit to draws ``z``, shape (rows, latent), by expectation maximisation from a k-means start.

        With fewer than 50 draws for each component, fewer components are used.
        """
        from sklearn.mixture import GaussianMixture

        rows = z.detach().cpu().double().numpy()
        if len(rows) > _MOST_ROWS:
            rows = rows[np.random.default_rng(seed).permutation(len(rows))[:_MOST_ROWS]]
        components = max(1, min(len(self._buffer("weight")), len(rows) // _LEAST_DRAWS))
        ridge = _RIDGE * float(rows.var(0).mean()) + 1e-10
        mixture: Any = GaussianMixture(components, max_iter=_ITERATIONS, tol=1e-3, reg_covar=ridge, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stopping at the last iteration is fine here
            mixture.fit(rows)
        found = {"weight": mixture.weights_, "mean": mixture.means_, "scale": np.linalg.cholesky(mixture.covariances_)}
        for name, values in found.items():
            buffer = self._buffer(name)
            padded = np.zeros(tuple(buffer.shape))
            padded[:components] = values
            buffer.copy_(torch.from_numpy(padded).to(buffer))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` latents, shape (n, latent)."""
        weight, mean, scale = (self._buffer(name) for name in ("weight", "mean", "scale"))
        component = torch.multinomial(weight, n, replacement=True, generator=generator)
        noise = torch.randn(n, mean.shape[1], generator=generator, dtype=mean.dtype, device=mean.device)
        return mean[component] + torch.einsum("nij,nj->ni", scale[component], noise)
