"""Likely causes of a diverged or collapsed training, and what to do."""

import math
from collections.abc import Mapping

from noumena.training.settings import FitSettings

# The KL of one latent dimension whose mean lies ten prior standard deviations out is 50 nats.
_EXPLODED_KL_PER_UNIT = 50.0
_COLLAPSED_KL = 1e-2


def explain_divergence(split: str, terms: Mapping[str, float], settings: FitSettings) -> str:
    """The likeliest cause of a non-finite loss and its remedy, in one sentence or two.

    Args:
        split: ``train``, ``val`` or ``test``.
        terms: the loss terms of the step at which it appeared.
        settings: of the training.
    """
    if settings.precision == "16-mixed":
        return "float16 overflows above 65,504: use precision='bf16-mixed' or '32-true'."
    clip = "" if settings.gradient_clip else " and gradient_clip=1.0"
    if settings.lr > 1e-2:
        return f"The learning rate {settings.lr:g} is high for {settings.optimizer}: try lr={settings.lr / 10:g}{clip}."
    if split != "train":
        return (
            f"The training loss was finite, so look for extreme values in the {split} rows first; "
            f"otherwise lower the learning rate, lr={settings.lr / 10:g}."
        )
    if not math.isfinite(terms.get("kl", 0.0)):
        return (
            f"The posterior's variance ran away (the KL is not finite): try lr={settings.lr / 10:g}{clip}, "
            "or a beta warm-up (beta_schedule='warmup')."
        )
    culprit = "reconstruction" if "reconstruction" in terms else "loss"
    return (
        f"The {culprit} ran away: check the data for extreme values or switch standardisation on; "
        f"otherwise try lr={settings.lr / 10:g}{clip}."
    )


def warn_of(
    metrics: Mapping[str, float], latent_dim: int, active: int | None, *, settled: bool, free_bits: bool = True
) -> list[str]:
    """Warnings about the state of the latent space after an epoch.

    Args:
        metrics: the epoch's means by ``split_term``.
        latent_dim: latent dimensions.
        active: active units on the validation data, ``None`` when not measured.
        settled: whether there was time to use the latent; many trainings begin collapsed and come back.
        free_bits: whether the model has that option.
    """
    split = "val" if "val_kl" in metrics else "train"
    kl = metrics.get(f"{split}_kl")
    if kl is None:
        return []
    if kl > _EXPLODED_KL_PER_UNIT * latent_dim:
        return [
            f"KL explosion: {kl:.3g} nats in {latent_dim} latent dimensions; the posterior is far outside the prior. "
            "Lower the learning rate, clip the gradient (gradient_clip=1.0) or raise beta."
        ]
    if settled and (active == 0 or kl < _COLLAPSED_KL):
        units = "" if active is None else f", {active} of {latent_dim} units active"
        third = " or set free_bits, e.g. 0.1" if free_bits else ""
        return [
            f"posterior collapse: KL {kl:.2g} nats{units}; the latent carries nothing about the data. "
            f"Lower beta{',' if free_bits else ' or'} warm it up (beta_schedule='warmup'){third}."
        ]
    return []
