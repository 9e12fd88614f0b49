"""Scores that are sums over columns by construction, taken apart."""

import math

import torch
from torch import Tensor

from noumena.core.errors import NotSupportedError
from noumena.density.detector import Detector
from noumena.density.gmm import GaussianMixture
from noumena.density.mixtures import component_log_densities
from noumena.density.model import VAE
from noumena.density.networks import _MIN_LOG_SCALE
from noumena.density.noise import normal_nodes


def column_terms(model: Detector, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""One term per column of each row's score, and what remains of the score.

    Of a VAE that scores by ``reconstruction`` or ``reconstruction_probability`` a term is minus half the squared error
    of the column in the decoder's standard deviations (with the fixed scale minus the squared error); the rest is the
    score of a row that is its own reconstruction. Of a mixture with the responsibilities :math:`r_k` it is

    .. math:: -\tfrac12 \sum_k r_k\, (x - m_k)_i\, (C_k^{-1} (x - m_k))_i
        = -\tfrac12 \sum_k r_k\, \frac{(x_i - m_{ki}) (x_i - E_k[x_i \mid x_{-i}])}{\mathrm{Var}_k[x_i \mid x_{-i}]},

    and the rest :math:`\sum_k r_k (\log w_k + \log \mathcal{N}(m_k; m_k, C_k) - \log r_k)`, since
    :math:`\log p = \log w_k \mathcal{N}_k - \log r_k` for every component.

    Args:
        model: a detector in any precision.
        x: rows in the units of the data, shape (batch, columns).

    Returns:
        Terms (batch, columns) and rests (batch,); together they are the score.

    Raises:
        NotSupportedError: the model's score is no such sum.
    """
    if isinstance(model, GaussianMixture):
        return _of_mixture(model, x)
    if isinstance(model, VAE) and model.active_scoring in ("reconstruction", "reconstruction_probability"):
        return _of_reconstruction(model, x)
    raise NotSupportedError(
        "method='terms' is for scores that are sums over columns: density/gmm, and density/vae with "
        "scoring='reconstruction' or 'reconstruction_probability'. Use method='gradients'."
    )


def _of_reconstruction(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    rows = model._standardized(x)
    posterior = model.encoder(rows)
    z = posterior.mean[:, None]  # (batch, draws, latent)
    if model.active_scoring == "reconstruction_probability":
        z = z + posterior.std[:, None] * normal_nodes(model.draws, model.latent_dim).to(rows)
    mean = model.decoder(z)
    if model._constant is not None:
        mean = mean.masked_fill(model._constant, 0.0)
    squares = (rows[:, None] - mean).square().mean(1)
    if model.decoder_scale == "fixed":
        return -squares, rows.new_zeros(len(rows))
    spread = model.decoder.std
    if model._constant is not None:
        spread = spread.masked_fill(model._constant, math.exp(_MIN_LOG_SCALE))
    exactly = rows.new_zeros(1, rows.shape[1])
    rest = model.decoder.log_prob(exactly, exactly, model._constant) + model._log_det
    return -0.5 * squares / spread.square(), rest.expand(len(rows))


def _of_mixture(model: GaussianMixture, x: Tensor) -> tuple[Tensor, Tensor]:
    rows = model._within_reach(x)
    joint = component_log_densities(rows, model.weights, model.means, model.factors)
    share = joint.softmax(-1)
    apart = rows[:, None] - model.means  # (batch, components, columns)
    if model.factors.ndim == 2:
        half = 0.5 * (apart * model.factors).square()
    else:
        # P P^T is the inverse of the covariance.
        white = torch.einsum("bkc,kcd->bkd", apart, model.factors)
        half = 0.5 * apart * torch.einsum("bkd,kcd->bkc", white, model.factors)
    # A component without weight has no share, and minus infinity as its logarithm.
    heights = torch.where(share > 0, joint + half.sum(-1), 0.0)
    rest = (share * heights).sum(-1) + torch.special.entr(share).sum(-1) + model._log_det
    return -(share[..., None] * half).sum(1), rest
