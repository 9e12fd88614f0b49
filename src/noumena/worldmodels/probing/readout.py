"""A fixed linear map from latents to the state of a world: what a probe becomes once it has been fitted."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from noumena.core.errors import DataError

_KEPT = ("shift", "scale", "weight", "bias", "shape")


class Readout(nn.Module):
    """State read linearly from latents, differentiable in them.

    state = ((z - shift) / scale) weight + bias, reshaped to (things, dims).

    Buffers: ``shift``, ``scale`` of shape (latent,), ``weight`` (latent, things * dims), ``bias`` (things * dims,),
    and ``shape``, int64, the numbers of things and dims.
    """

    shift: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    shape: Tensor

    def __init__(self, shift: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, things: int, dims: int) -> None:
        """
        Args:
            shift, scale, weight, bias: see the class.
            things, dims: of the state.

        Raises:
            DataError: the shapes do not fit each other.
        """
        super().__init__()
        latent, outputs = shift.shape[0], things * dims
        wanted = {"shift": (latent,), "scale": (latent,), "weight": (latent, outputs), "bias": (outputs,)}
        for name, value in (("shift", shift), ("scale", scale), ("weight", weight), ("bias", bias)):
            if tuple(value.shape) != wanted[name]:
                raise DataError(f"readout: {name} has shape {tuple(value.shape)}, expected {wanted[name]}.")
            self.register_buffer(name, value)
        self.register_buffer("shape", torch.tensor([things, dims]))

    @property
    def latent_size(self) -> int:
        """Numbers in a latent."""
        return self.shift.shape[0]

    def forward(self, latents: Tensor) -> Tensor:
        """The state of latents.

        Args:
            latents: shape (..., latent).

        Returns:
            Shape (..., things, dims), in the units of the targets it was fitted to.
        """
        if latents.shape[-1] != self.latent_size:
            raise DataError(f"readout: expected latents of {self.latent_size} numbers, got {latents.shape[-1]}.")
        flat = ((latents.to(self.weight.dtype) - self.shift) / self.scale) @ self.weight + self.bias
        things, dims = self.shape.tolist()
        return flat.unflatten(-1, (things, dims))

    @torch.no_grad()
    def predict(self, latents: Tensor) -> Tensor:
        """:meth:`forward` without gradients."""
        return self(latents)

    def state(self) -> dict[str, Tensor]:
        """Plain tensors from which :meth:`from_state` makes the same readout."""
        return {name: getattr(self, name).detach().clone() for name in _KEPT}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """A readout from what :meth:`state` gave.

        Raises:
            DataError: a tensor is missing or has a shape that does not fit the others.
        """
        missing = [name for name in _KEPT if name not in state]
        if missing:
            raise DataError(f"readout: {', '.join(missing)} missing; it is kept as {', '.join(_KEPT)}.")
        things, dims = (int(size) for size in state["shape"])
        return cls(state["shift"], state["scale"], state["weight"], state["bias"], things, dims)


def check_pairs(features: Tensor, targets: Tensor) -> None:
    """Refuse features and targets of which no probe can be fitted.

    Args:
        features: shape (batch, time, latent).
        targets: shape (batch, time, things, dims).

    Raises:
        DataError: shapes that do not belong together, no rows, or a value that is not finite.
    """
    if features.ndim != 3 or targets.ndim != 4 or features.shape[:2] != targets.shape[:2] or not features.numel():
        raise DataError(
            "a probe needs features (batch, time, latent) and targets (batch, time, things, dims) of the same "
            f"sequences, got {tuple(features.shape)} and {tuple(targets.shape)}."
        )
    for name, values in (("features", features), ("targets", targets)):
        finite = values.isfinite().flatten(2).all(2)
        if not finite.all():
            sequence, step = (int(i) for i in (~finite).nonzero()[0])
            raise DataError(
                f"{name}: sequence {sequence}, step {step} holds a value that is not finite. If these are latents, "
                "the model diverged: train it with a lower learning rate."
            )
