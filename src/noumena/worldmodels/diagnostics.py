"""What latents are like, without looking at any state: slow or fast, how many dimensions, do they know the actions."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.worldmodels.probing.metrics import r2
from noumena.worldmodels.probing.ridge import RidgeProbe

WORDS = {
    "slow_index": "slow-feature index: share of the latent variance that lies between sequences",
    "action_r2": "actions read from the latents before and after, R²",
    "action_r2_difference": "actions read from the difference of latents, R²",
    "rollout_error": "roll-out error, in units of the latent variance",
    "persistence_error": "error of repeating the first latent, in the same units",
    "rankme": "RankMe: effective rank of the latents",
    "participation": "participation ratio of the latent variances",
    "latent_std": "root mean square deviation of a latent dimension",
    "dead_dimensions": "latent dimensions that hardly vary (below 1 % of that)",
}
"""What each diagnostic is, in words."""

# Moving dots: 1.00 under fixed noise with the plain objective, .60 to .70 for latents that hold positions.
_SLOW = 0.95
_BLIND = 0.2
# A latent whose deviation is this small a part of its size is the same for all frames.
_STILL = 1e-3
# Two directions of motion need two directions in the latent; with 1.2 there is hardly a second one.
_LINE = 1.2
_DEAD = 0.01
# Rows of the regressions that read actions: twice the latent is many columns.
_ROWS = 20_000
# Latents whose rank is taken, as in Garrido et al.
_RANKED = 25_600


@dataclass(frozen=True)
class Diagnostics:
    """Numbers about latents; see :data:`WORDS`.

    Attributes:
        slow_index: see :func:`slow_index`.
        action_r2, action_r2_difference: see :func:`action_decodability`; NaN for sequences too few to tell.
        rollout_error, persistence_error: see :func:`rollout_errors`.
        rankme: see :func:`rankme`.
        participation: see :func:`participation_ratio`.
        latent_std: root of the mean variance of a dimension.
        dead_dimensions: dimensions whose deviation is below 1 % of ``latent_std``.
        relative_std: deviation of the latents from their mean, relative to their root mean square size.
        latent_size, action_size: numbers in a latent and in an action.
    """

    slow_index: float
    action_r2: float
    action_r2_difference: float
    rollout_error: float
    persistence_error: float
    rankme: float
    participation: float
    latent_std: float
    dead_dimensions: int
    relative_std: float
    latent_size: int
    action_size: int

    def metrics(self) -> dict[str, float]:
        """Those of :data:`WORDS` by name."""
        found = asdict(self)
        return {name: float(found[name]) for name in WORDS}


def diagnose(encoded: Tensor, predicted: Tensor, actions: Tensor) -> Diagnostics:
    """All diagnostics of some sequences.

    Args:
        encoded: latents of true frames, shape (batch, time, latent).
        predicted: those of open-loop roll-outs of the same sequences, same shape.
        actions: shape (batch, time - 1, action).

    Raises:
        DataError: there are fewer than two sequences or frames.
    """
    if encoded.ndim != 3 or min(encoded.shape[:2]) < 2:
        raise DataError(
            f"diagnostics need two sequences of two frames or more, got {encoded.shape[0]} of {encoded.shape[1]} to "
            "measure on. Hold out more (data.test_fraction, data.test_sequences), or make shorter windows of more "
            "episodes (data.steps)."
        )
    flat = encoded.flatten(0, 1)
    std = dimension_std(flat)
    typical = float(std.square().mean().sqrt())
    both, difference = action_decodability(encoded, actions)
    rolled, kept = rollout_errors(encoded, predicted)
    size = float(flat.double().square().mean().sqrt())
    return Diagnostics(
        slow_index(encoded),
        both,
        difference,
        rolled,
        kept,
        rankme(flat[:: -(-len(flat) // _RANKED)]),
        participation_ratio(flat),
        typical,
        int((std < _DEAD * typical).sum()) if typical > 0 else len(std),
        typical / size if size > 0 else 0.0,
        flat.shape[1],
        actions.shape[2],
    )


def slow_index(latents: Tensor) -> float:
    """Share of the variance of latents that lies between sequences: 1 - variance within a sequence / variance.

    1 for a latent that is constant in each sequence. For white noise its expectation is (batch - 1) / (batch time - 1),
    about 1 / time and not 0, because the mean of a few frames varies too. NaN when nothing varies.

    Args:
        latents: shape (batch, time, latent).
    """
    wide = latents.double()
    within = (wide - wide.mean(1, keepdim=True)).square().sum()
    total = (wide - wide.mean((0, 1))).square().sum()
    return float(1 - within / total) if total > 0 else math.nan


def rankme(latents: Tensor, epsilon: float = 1e-7) -> float:
    """Effective rank of a matrix of latents: exp of the entropy of its normalised singular values.

    Garrido et al. 2023, "RankMe" (ICML), eq. 1: ``p_k = sigma_k / |sigma|_1 + epsilon``, of the latents as they are,
    not centred. Between 1 and the number of dimensions.

    Args:
        latents: shape (rows, latent).
        epsilon: of the paper, for float32.
    """
    sigma = singular_values(latents)
    if not sigma.sum() > 0:
        return 1.0
    p = sigma / sigma.sum() + epsilon
    return float(torch.exp(-(p * p.log()).sum()))


def singular_values(latents: Tensor) -> Tensor:
    """Singular values of a matrix (rows, latent) in decreasing order, shape (min(rows, latent),), float64."""
    # Those of R of a QR decomposition, at the cost of a product; the Gram matrix would halve the digits.
    _, triangle = torch.linalg.qr(latents.double(), mode="r")
    return torch.linalg.svdvals(triangle)


def dimension_std(latents: Tensor) -> Tensor:
    """Population deviation of each dimension of latents (rows, latent), shape (latent,), float64."""
    return latents.double().std(0, correction=0)


def participation_ratio(latents: Tensor) -> float:
    """(sum of the eigenvalues of the covariance)^2 / sum of their squares: about how many directions vary.

    Args:
        latents: shape (rows, latent).

    Returns:
        Between 1 and the number of dimensions; NaN when nothing varies.
    """
    wide = latents.double()
    wide = wide - wide.mean(0)
    covariance = wide.T @ wide / len(wide)
    # No eigenvalues needed: their sum is the trace, the sum of their squares the squared Frobenius norm.
    square = float(covariance.square().sum())
    return float(covariance.trace()) ** 2 / square if square > 0 else math.nan


def action_decodability(latents: Tensor, actions: Tensor) -> tuple[float, float]:
    """How well actions are read by a ridge regression from [z_t, z_{t+1}], and from z_{t+1} - z_t.

    Fitted to the first half of the sequences and measured on the second; R², mean over the components of the actions
    that vary, NaN when there is none. For regressions with many columns of few rows it may be negative.

    Args:
        latents: of true frames, shape (batch, time, latent).
        actions: shape (batch, time - 1, action).
    """
    half = len(latents) // 2
    count = min(half, -(-_ROWS // actions.shape[1]))
    rows = torch.cat([torch.arange(count), half + torch.arange(count)])
    before, after, wanted = latents[rows, :-1], latents[rows, 1:], actions[rows].unsqueeze(-1).double()
    found: list[float] = []
    for features in (torch.cat([before, after], dim=-1), after - before):
        probe = RidgeProbe.fit(features[:count], wanted[:count])
        read = probe.predict(features[count:])
        found.append(float(r2(read.flatten(0, 1), wanted[count:].flatten(0, 1)).nanmean()))
    return found[0], found[1]


def rollout_errors(encoded: Tensor, predicted: Tensor) -> tuple[float, float]:
    """Mean squared error of imagined latents, and of the first latent repeated, over the variance of latents.

    Over all steps after the first. 1 is what guessing the mean latent would give. Only for models that are trained to
    predict encodings is the first small.

    Args:
        encoded, predicted: shape (batch, time, latent).
    """
    wide = encoded.double()
    variance = (wide - wide.mean((0, 1))).square().mean()
    if not variance > 0:
        return math.nan, math.nan
    rolled = (predicted[:, 1:].double() - wide[:, 1:]).square().mean()
    kept = (wide[:, :1] - wide[:, 1:]).square().mean()
    return float(rolled / variance), float(kept / variance)


def warning(found: Diagnostics) -> str | None:
    """What is wrong with latents, in words; ``None`` for ones that look usable.

    Three faults are told apart: the same latent for every frame; latents that hold the background of a sequence and
    nothing that moves (the shortcut of joint-embedding objectives under fixed noise); latents on a line.
    """
    if found.relative_std < _STILL or math.isnan(found.slow_index):
        return (
            f"The latent has collapsed: it deviates by {found.relative_std:.1e} of its size, so all frames have the "
            "same. Raise the weight of the variance term, or lower the learning rate."
        )
    if found.slow_index > _SLOW and found.action_r2 < _BLIND:
        return (
            f"The latent has collapsed onto the background: {found.slow_index:.0%} of its variance lies between "
            f"sequences (slow_index), and the actions cannot be read from it (action_r2 {found.action_r2:.2f}). It "
            "tells sequences apart by what stays the same in them and ignores what moves. A training of few epochs may "
            "not have come further: raise fit.max_epochs. If that does not help, a JEPA takes model.swap=auto, which "
            "exchanges backgrounds that stay the same (the recipe worldmodels/jepa-robust has it), or model.idm=1, "
            "which makes it predict the actions."
        )
    if found.participation < _LINE and min(found.action_size, found.latent_size) > 1:
        return (
            f"The latent has collapsed onto a line: its variance fills {found.participation:.1f} of "
            f"{found.latent_size} dimensions, fewer than the {found.action_size} components of an action. Raise the "
            "weight of the covariance term."
        )
    return None
