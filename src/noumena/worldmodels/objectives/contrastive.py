"""InfoNCE between predicted and encoded latents (van den Oord et al. 2018; Chen et al. 2020, equation 1)."""

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(predicted: Tensor, target: Tensor, *, temperature: float, normalize: bool) -> Tensor:
    """Each row is told from the 2n - 2 others of its group that are not its partner; both directions.

    Groups of one time step over a batch of sequences give negatives *across* sequences: telling sequences apart is
    then enough, by anything that is constant in them. Groups of one sequence over its time steps give negatives
    *within* it, which nothing constant can tell apart.

    Args:
        predicted, target: partners, shape (groups, n, latent).
        temperature: divides the similarities.
        normalize: cosine similarity, instead of the inner product.

    Returns:
        Scalar in nats: mean over rows and groups.
    """
    n = predicted.shape[1]
    rows = torch.cat([predicted, target], dim=1)
    if normalize:
        rows = functional.normalize(rows, dim=-1)
    similarity = rows @ rows.mT / temperature
    itself = torch.eye(2 * n, dtype=torch.bool, device=rows.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * n, device=rows.device).roll(n)
    return functional.cross_entropy(similarity.flatten(0, 1), partner.repeat(len(rows)))
