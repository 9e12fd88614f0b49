"""Layer-wise adaptive rate scaling (You et al. 2017), as joint-embedding models are trained with it."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Momentum SGD whose step on each weight matrix is scaled to that matrix's norm.

    A parameter of more than one axis is decayed and moves by ``lr * eta * |p| / |g + wd p|`` times the gradient;
    biases and normalisation weights (one axis) are neither decayed nor scaled (Grill et al. 2020, appendix J).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        eta: float = 1e-3,
    ) -> None:
        """
        Args:
            params: what is optimised.
            lr: learning rate.
            momentum: of the running sum of steps.
            weight_decay: added to the gradient, of parameters with more than one axis.
            eta: trust coefficient.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure`` computes loss and gradients first, as for every optimiser."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1:
            gradient = gradient + group["weight_decay"] * parameter
            size, force = parameter.norm(), gradient.norm()
            # A matrix of zeros, or without gradient, has no scale to keep to.
            ratio = torch.where((size > 0) & (force > 0), group["eta"] * size / force, torch.ones_like(size))
            gradient = gradient * ratio
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(gradient)
        parameter.sub_(group["lr"] * state["momentum"])
