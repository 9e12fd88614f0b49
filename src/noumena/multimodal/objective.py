"""Training objectives: which modalities a row is encoded from, and what the decodings cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from noumena.core.errors import ConfigError
from noumena.core.posterior import DiagonalGaussian
from noumena.multimodal.networks import Expert, kl_between, squared_wasserstein

Fusion = Literal["poe", "moe", "mopoe", "mvtcae", "align"]

# A squared error below e^-16 of the features' variance counts no further: by then it is rounding. Of a modality that
# was observed 1 % of the spread is close enough: what is to be learnt are the others, and a code that must give back
# one modality to the last digit can heed no other one beside it.
_LEAST_LOG_NOISE = -16.0
_LEAST_LOG_NOISE_OF_OBSERVED = -9.0
# The noise scales fall by many orders of magnitude while the weights move little: their steps are longer.
_NOISE_GAIN = 10.0


def subsets(modalities: int) -> Tensor:
    """Every non-empty subset, by the number whose bits name the members: bool, shape (2^modalities - 1, modalities)."""
    numbers = torch.arange(1, 2**modalities, device="cpu")
    return ((numbers[:, None] >> torch.arange(modalities, device="cpu")) & 1).bool()


def subset_index(observed: Tensor) -> Tensor:
    """Row of :func:`subsets` for each row of ``observed`` (bool, shape (rows, modalities)), int64."""
    return (observed.long() << torch.arange(observed.shape[1], device=observed.device)).sum(1) - 1


@dataclass(frozen=True)
class Sources:
    """The subsets of modalities that rows are encoded from in training, with their shares.

    Attributes:
        masks: bool, shape (sources, modalities).
        shares: of the rows, summing to 1, shape (sources,).
    """

    masks: Tensor
    shares: Tensor

    @classmethod
    def of(cls, fusion: Fusion, names: Sequence[str], weights: Mapping[str, float], several: float) -> "Sources":
        """The sources of an objective.

        Args:
            fusion: ``poe`` takes single modalities (shares in proportion to ``weights``) and, with the share
                ``several``, larger subsets: half of it for all modalities together, half for the others; ``moe``
                single modalities (Shi et al. 2019); ``mopoe`` every subset alike (Sutter et al. 2021); ``mvtcae`` all
                together (Hwang et al. 2021).
            names: of the modalities.
            weights: by name, 1 where missing; for ``poe``.
            several: share of the rows that see more than one modality; for ``poe``.
        """
        count = len(names)
        every = subsets(count)
        size = every.sum(1)
        # Plain numbers, on the CPU even while the shape of a model is laid out on the meta device.
        shares = torch.zeros(len(every), device="cpu")
        if fusion == "mvtcae":
            shares[size == count] = 1.0
        elif fusion == "mopoe":
            shares[:] = 1.0
        else:
            single = torch.tensor([weights.get(name, 1.0) for name in names], device="cpu")
            shares[size == 1] = single / single.sum()
            between = (size > 1) & (size < count)
            if fusion == "poe" and count > 1:
                whole = several / 2 if bool(between.any()) else several
                shares *= 1.0 - several
                shares[between] = (several - whole) / max(1, int(between.sum()))
                shares[size == count] = whole
        used = shares > 0
        return cls(every[used], shares[used] / shares[used].sum())

    def draw(self, present: Tensor, uniform: Tensor) -> Tensor:
        """The modalities each row is encoded from, bool, shape (batch, modalities).

        Args:
            present: bool, shape (batch, modalities).
            uniform: numbers in [0, 1), shape (batch,).

        A drawn subset of which a row has nothing gives way to all that the row has.
        """
        edges = self.shares.to(uniform).cumsum(0)[:-1]
        drawn = self.masks.to(present.device)[torch.bucketize(uniform, edges)]
        return usable(drawn, present)


def usable(wanted: Tensor, present: Tensor) -> Tensor:
    """Wanted modalities that are present; all present ones in rows that have none of the wanted."""
    found = wanted & present
    return torch.where(found.any(1, keepdim=True), found, present)


class ErrorScales(nn.Module):
    """Learned standard deviations of the decoding errors, one per source and target.

    A source is a single modality, or several together, of which the target may be one or not. Pose tells the shape
    better than force does, and a shared scale would let the worse pair drown the better one (one scale per target is
    the σ-VAE of Rybkin et al. 2021).
    """

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(modalities + 2, modalities))

    @property
    def log_variance(self) -> Tensor:
        """Shape (modalities + 2, modalities): by source and target.

        The last two sources are several modalities together, the target among them and not.
        """
        count = self.raw.shape[1]
        own = torch.zeros_like(self.raw)
        own[:count].fill_diagonal_(1.0)
        own[count] = 1.0
        least = _LEAST_LOG_NOISE + (_LEAST_LOG_NOISE_OF_OBSERVED - _LEAST_LOG_NOISE) * own
        return least + softplus(_NOISE_GAIN * self.raw - least)

    def negative_log_likelihood(self, errors: Tensor, observed: Tensor) -> Tensor:
        """Of each target, per feature, without the constant log(2 pi) / 2.

        Args:
            errors: mean squared errors of the features, shape (batch, modalities).
            observed: what each row was encoded from, bool, shape (batch, modalities).

        Returns:
            Nats per feature, shape (batch, modalities).
        """
        count = observed.shape[1]
        several = torch.where(observed, count, count + 1)
        single = observed.long().argmax(1, keepdim=True)
        source = torch.where(observed.sum(1, keepdim=True) == 1, single, several)
        log_variance = self.log_variance.gather(0, source)
        return 0.5 * (errors * torch.exp(-log_variance) + log_variance)


def fused_objective(
    likelihood: Tensor,
    posterior: DiagonalGaussian,
    experts: Sequence[Expert],
    *,
    fusion: Fusion,
    beta: float,
    alignment: float,
    cvib_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What rows cost that were encoded from some of their modalities.

    Args:
        likelihood: negative log-likelihoods of the decoded modalities, 0 where one is missing, shape (batch,
            modalities).
        posterior: the rows were decoded from.
        experts: the single posteriors it was made of.
        fusion: ``mvtcae`` is eq. 9 of Hwang et al. 2021, whose KL to the single posteriors takes the place of the
            alignment; the others are the negative ELBO, ``poe`` with the alignment added.
        beta: weight of the divergences from the prior.
        alignment: weight of the distance between product and experts, for ``poe``.
        cvib_weight: α of ``mvtcae``.

    Returns:
        The total, and the parts ``reconstruction``, ``kl``, ``alignment`` and, numbered, each modality's
        reconstruction.
    """
    count = likelihood.shape[1]
    per_modality = likelihood.mean(0)
    reconstruction = per_modality.sum()
    kl = posterior.kl().mean()
    apart = _distance_to_experts(posterior, experts, kl_between if fusion == "mvtcae" else squared_wasserstein) / count
    if fusion == "mvtcae":
        reconstruction = (count - cvib_weight) / count * reconstruction
        total = reconstruction + beta * ((1.0 - cvib_weight) * kl + cvib_weight * apart)
    else:
        total = reconstruction + beta * kl + (alignment if fusion == "poe" else 0.0) * apart
    parts = {"reconstruction": reconstruction, "kl": kl, "alignment": apart}
    return total, parts | {f"reconstruction_{number}": per_modality[number] for number in range(count)}


def _distance_to_experts(
    posterior: DiagonalGaussian,
    experts: Sequence[Expert],
    between: Callable[[DiagonalGaussian, Tensor, Tensor], Tensor],
) -> Tensor:
    """Between the product and its experts, summed over these, mean over all rows; 0 for rows with one expert."""
    distance = torch.zeros_like(posterior.mean[:, 0])
    for rows, expert in experts:
        whole = len(rows) == len(distance)
        product = posterior if whole else DiagonalGaussian(posterior.mean[rows], posterior.log_var[rows])
        distance = distance.index_add(0, rows, between(product, expert.mean, expert.log_var))
    return distance.mean()


def aligned_objective(
    features: Sequence[Tensor],
    posteriors: Sequence[DiagonalGaussian],
    decoders: Sequence[nn.Module],
    noises: Sequence[Tensor],
    *,
    recon_pred_scale: float,
    z_coeff: float,
    kl_coeff: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The objective of ProSoRo, in its own means over columns and latent dimensions.

    .. math:: \frac{\alpha}{1+\alpha} \overline{\mathrm{MSE}(d_i(z_i), x_i)}
        + \frac{1}{1+\alpha} \overline{\mathrm{MSE}(d_j(z_0'^{(j)}), x_j)}_{j \ge 1}
        + \gamma\, \overline{\log q_i(z_i) - \log p(z_i)} + \zeta\, \overline{\mathrm{MSE}(z_i, z_j)}_{i<j}

    with fresh samples ``z_0'`` of the first modality's posterior for each prediction (Adv. Intell. Syst. 7,
    e202500444, 2025, as its published code computes it).

    Args:
        features: standardised columns, shape (batch, columns) each.
        posteriors: of each modality.
        decoders: of each modality.
        noises: standard normal, shape (batch, latent): one per modality, then one per modality but the first.
        recon_pred_scale: α.
        z_coeff: ζ.
        kl_coeff: γ.

    Returns:
        The total, and the parts ``reconstruction``, ``prediction``, ``kl`` and ``alignment`` (means over modalities
        or pairs, unweighted), followed by each modality's own, numbered.

    Raises:
        ConfigError: a single modality.
    """
    count = len(features)
    if count < 2:
        raise ConfigError("model.fusion=align needs at least two modalities: it predicts the others from the first.")
    codes = [posterior.sample(noise=eps) for posterior, eps in zip(posteriors, noises[:count], strict=True)]
    fresh = [posteriors[0].sample(noise=eps) for eps in noises[count:]]
    own: list[Tensor] = []
    predicted: list[Tensor] = []
    for number, (decoder, target) in enumerate(zip(decoders, features, strict=True)):
        if number == 0:
            own.append((decoder(codes[0]) - target).square().mean())
            continue
        # One pass over both draws: the matrix products of a wide decoder pay per call.
        both = decoder(torch.cat([codes[number], fresh[number - 1]]))
        error = (both.view(2, *target.shape) - target).square().mean((1, 2))
        own.append(error[0])
        predicted.append(error[1])
    standard = [DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z)) for z in codes]
    kl = [
        (posterior.log_prob(z) - prior.log_prob(z)).mean() / z.shape[-1]
        for posterior, prior, z in zip(posteriors, standard, codes, strict=True)
    ]
    gaps = [(first - second).square().mean() for first, second in combinations(codes, 2)]
    parts = {
        "reconstruction": torch.stack(own).mean(),
        "prediction": torch.stack(predicted).mean(),
        "kl": torch.stack(kl).mean(),
        "alignment": torch.stack(gaps).mean(),
    }
    total = (recon_pred_scale * parts["reconstruction"] + parts["prediction"]) / (1.0 + recon_pred_scale)
    total = total + kl_coeff * parts["kl"] + z_coeff * parts["alignment"]
    for name, terms in (("reconstruction", own), ("prediction", predicted), ("kl", kl)):
        first = 1 if name == "prediction" else 0
        parts |= {f"{name}_{first + number}": term for number, term in enumerate(terms)}
    return total, parts
