"""The RealNVP of GORMPO, weight for weight, so that its trained models score here as they do there."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from noumena.core.errors import ConfigError
from noumena.core.networks import mlp
from noumena.density.flows.networks import LOG_2PI


class _Network(nn.Module):
    """The perceptron under the name that its weights have in a saved file."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = mlp(sizes, "relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class OriginalCoupling(nn.Module):
    """``y = x exp(tanh s(x_m)) + t(x_m)`` in the columns outside of ``mask``; those inside, ``x_m``, stay.

    Buffers: ``mask`` float, 1 for the columns that stay, shape (columns,).
    """

    mask: Tensor

    def __init__(self, columns: int, hidden_dims: Sequence[int], number: int) -> None:
        super().__init__()
        # The even columns stay in the even couplings, the odd ones in the odd.
        mask = torch.arange(columns) % 2 == number % 2
        self.register_buffer("mask", mask.float())
        given = (columns + 1 - number % 2) // 2
        self.scale_net = _Network([given, *hidden_dims, columns - given])
        self.translate_net = _Network([given, *hidden_dims, columns - given])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` (batch, columns) and the log-determinant (batch,)."""
        given, changed, back = self._halves(x)
        scale = torch.tanh(self.scale_net(given))
        changed = changed * scale.exp() + self.translate_net(given)
        return torch.cat([given, changed], -1).index_select(-1, back), scale.sum(-1)

    def inverse(self, y: Tensor) -> Tensor:
        """``x`` (batch, columns)."""
        given, changed, back = self._halves(y)
        scale = torch.tanh(self.scale_net(given))
        changed = (changed - self.translate_net(given)) * torch.exp(-scale)
        return torch.cat([given, changed], -1).index_select(-1, back)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The columns that stay, those that change, and the order that puts them back."""
        stays = self.mask.argsort(descending=True, stable=True)
        given, changed = x.index_select(-1, stays).split(
            [self.scale_net.network[0].in_features, self.scale_net.network[-1].out_features], -1
        )
        return given, changed, stays.argsort()


class OriginalFlow(nn.Module):
    """Couplings whose masks alternate, and a normal prior.

    Its state has the keys of the original's: ``coupling_layers.{i}.mask``,
    ``coupling_layers.{i}.{scale,translate}_net.network.{0,2,...}.{weight,bias}``, ``prior_mean``, ``prior_std``.
    """

    prior_mean: Tensor
    prior_std: Tensor

    def __init__(self, columns: int, transforms: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        if columns < 2:
            raise ConfigError(
                f"model.architecture: 'original' needs at least 2 columns, as one half is told from the other; the "
                f"data have {columns}. Use 'nsf'."
            )
        self.coupling_layers = nn.ModuleList(
            OriginalCoupling(columns, hidden_dims, number) for number in range(transforms)
        )
        self.register_buffer("prior_mean", torch.zeros(columns))
        self.register_buffer("prior_std", torch.ones(columns))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (batch, columns) and the log-determinant (batch,)."""
        total = x.new_zeros(x.shape[:-1])
        for coupling in self._couplings():
            x, log_det = coupling(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """Rows (batch, columns) of latents."""
        for coupling in reversed(self._couplings()):
            z = coupling.inverse(z)
        return z

    def log_prior(self, z: Tensor) -> Tensor:
        """Log-density of latents in nats, shape (batch,)."""
        deviation = ((z - self.prior_mean) / self.prior_std).square().sum(-1)
        return -0.5 * (deviation + z.shape[-1] * LOG_2PI) - self.prior_std.log().sum()

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """``n`` latents (n, columns) of the prior."""
        mean = self.prior_mean
        z = torch.randn((n, len(mean)), generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + self.prior_std * z

    def _couplings(self) -> Sequence[OriginalCoupling]:
        return cast(Sequence[OriginalCoupling], list(self.coupling_layers))
