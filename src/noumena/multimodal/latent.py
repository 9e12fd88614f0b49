"""The distribution of the training latents: where to draw new ones, and along which directions states change."""

import warnings

import torch
from torch import Tensor, nn

_RIDGE = 1e-6


class LatentMap(nn.Module):
    """Gaussian mixture over latents, and their principal axes, both taken from posterior means of training rows.

    The axes are the latent's primitives ordered by activity: the first explains most of the variance of the posterior
    means. A mixture stands in for the prior N(0, I) when sampling: latents of states that live on a curved manifold
    fill little of the space that the prior covers.

    Buffers: ``weights`` (components,), ``means`` (components, latent), ``factors`` (components, latent, latent) lower
    Cholesky factors; ``centre`` (latent,), ``axes`` (latent, latent) with orthonormal rows, ``spread`` (latent,)
    standard deviations along them.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    centre: Tensor
    axes: Tensor
    spread: Tensor

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1.0 / components))
        self.register_buffer("means", torch.zeros(components, latent_dim))
        self.register_buffer("factors", torch.eye(latent_dim).repeat(components, 1, 1))
        self.register_buffer("centre", torch.zeros(latent_dim))
        self.register_buffer("axes", torch.eye(latent_dim))
        self.register_buffer("spread", torch.ones(latent_dim))

    @torch.no_grad()
    def fit(self, z: Tensor, seed: int = 0) -> None:
        """Take axes and mixture from latents (rows, latent); the mixture by scikit-learn's EM."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        rows = z.detach().cpu().double()
        centre = rows.mean(0)
        covariance = (rows - centre).T @ (rows - centre) / len(rows)
        values, vectors = torch.linalg.eigh(covariance)
        axes = vectors.flip(1).T
        # The sign of an eigenvector is the solver's whim; its largest entry is made positive.
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        self.centre.copy_(centre)
        self.axes.copy_(axes)
        self.spread.copy_(values.flip(0).clamp(min=0.0).sqrt())
        components = min(len(self.weights), max(1, len(rows) // (2 * rows.shape[1])))
        ridge = max(_RIDGE * float(covariance.diagonal().mean()), 1e-10)
        mixture = GaussianMixture(components, reg_covar=ridge, random_state=seed, max_iter=50)
        with warnings.catch_warnings():
            # A mixture that has not quite converged after these rounds is good enough to draw from.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(rows.numpy())
        self.weights.zero_()
        self.weights[:components] = torch.from_numpy(mixture.weights_).to(self.weights)
        self.means[:components] = torch.from_numpy(mixture.means_).to(self.means)
        factors = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))
        self.factors[:components] = factors.to(self.factors)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` latents of the mixture, shape (n, latent)."""
        cpu = generator is None or generator.device.type == "cpu"
        device = torch.device("cpu") if cpu and generator is not None else self.means.device
        uniform = torch.rand(n, generator=generator, device=device).to(self.means.device)
        chosen = torch.bucketize(uniform, self.weights.float().cumsum(0)[:-1])
        noise = torch.randn(n, self.means.shape[1], generator=generator, device=device).to(self.means)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)

    def along(self, axis: int, steps: Tensor, origin: Tensor | None = None) -> Tensor:
        """Latents at ``steps`` standard deviations along one axis, shape (steps, latent)."""
        start = self.centre if origin is None else origin
        return start + steps.to(self.axes)[:, None] * self.spread[axis] * self.axes[axis]
