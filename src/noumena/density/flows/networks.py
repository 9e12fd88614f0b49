"""Invertible maps of rows to standard normal latents, and their log-determinants.

Each map has ``forward(x) -> (z, log_det)`` and ``inverse(z) -> x``, rows first; ``log_det`` has the shape (batch,).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from noumena.core.networks import Activation, mlp
from noumena.density.flows.spline import bend, numbers_of, unbend

# exp(+-3) is the most that one coupling stretches or shrinks a column.
_LOG_SCALE = 3.0
# The networks see a column within these many standard deviations: far rows are stretched and shifted by constants, so
# that their density falls like a normal one, on every ray.
_SEEN = 10.0
# The first step starts near the identity, with a gradient in every weight.
_FIRST_WEIGHTS = 0.01
_LEAST_SHRINKAGE = 1e-5
LOG_2PI = math.log(2.0 * math.pi)


class Whitening(nn.Module):
    """Linear map of standardised rows to uncorrelated ones of unit variance, from their correlations in training.

    Near-linear dependences between columns make a density thin; taken out first, the flow need not learn them.

    Buffers: ``matrix`` (columns, columns), lower triangular.
    """

    matrix: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(columns))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the correlations of standardised rows ``x`` (rows, columns), shrunk towards none.

        The shrinkage is the oracle-approximating one (Chen, Wiesel, Eldar & Hero 2010, eq. 23): with fewer rows than
        columns the correlations are mostly noise, and a direction without variance in training must not become
        infinitely thin. Columns that are 0 throughout keep to themselves.
        """
        rows, columns = x.shape
        wide = x.double()
        still = (wide == 0).all(0)
        covariance = wide.T @ wide / rows
        covariance[still, still] = 1.0
        share = _shrinkage(covariance, rows)
        shrunk = covariance * (1.0 - share)
        shrunk.diagonal().add_(share)
        root = torch.linalg.cholesky(shrunk)
        eye = torch.eye(columns, dtype=torch.float64, device=x.device)
        self.matrix.copy_(torch.linalg.solve_triangular(root, eye, upper=False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened rows (batch, columns) and the log-determinant ()."""
        return x @ self.matrix.T, self.matrix.diagonal().log().sum()

    def inverse(self, z: Tensor) -> Tensor:
        """Back to standardised rows."""
        # Solved rather than multiplied by a stored inverse, whose rounding a steep flow would magnify.
        return torch.linalg.solve_triangular(self.matrix, z.T, upper=False).T


def _shrinkage(covariance: Tensor, rows: int) -> float:
    p = covariance.shape[0]
    if p == 1:
        return 0.0
    trace, square = float(covariance.diagonal().sum()), float(covariance.square().sum())
    spread = (rows + 1 - 2 / p) * (square - trace**2 / p)
    share = ((1 - 2 / p) * square + trace**2) / spread if spread > 0 else 1.0
    return min(1.0, max(_LEAST_SHRINKAGE, share))


class Coupling(nn.Module):
    r"""One half of the columns, each stretched and shifted as a network of the other half says, then bent by a spline.

    .. math:: y_b = f(e^{s(x_a)} x_b + t(x_a);\ w(x_a)), \qquad y_a = x_a

    Affine coupling of Dinh, Sohl-Dickstein & Bengio 2017, eqs. 7-8; f is the identity there (``bins=0``), else a
    monotonic rational-quadratic spline (Durkan, Bekasov, Murray & Papamakarios 2019). A single column has no other
    half: its parameters are then learned as they are.

    Args of ``__init__``:
        order: the columns in the order in which they are halved, shape (columns,); the map leaves them so.
    """

    order: Tensor
    back: Tensor
    live: Tensor

    def __init__(self, hidden_dims: Sequence[int], activation: Activation, bins: int, order: Tensor) -> None:
        super().__init__()
        columns = len(order)
        self.given, self.changed, self.bins = columns // 2, columns - columns // 2, bins
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.register_buffer("live", torch.ones(self.changed))
        numbers = 2 + (numbers_of(bins) if bins else 0)
        # Shifts, scales and the splines' parameters, each of all columns.
        if self.given:
            self.net = mlp([self.given, *hidden_dims, numbers * self.changed], activation)
            last = cast(nn.Linear, self.net[-1])
            with torch.no_grad():
                last.weight.mul_(_FIRST_WEIGHTS)
                last.bias.zero_()
        else:
            self.free = nn.Parameter(_FIRST_WEIGHTS * torch.randn(numbers * self.changed))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` (batch, columns), reordered, and the log-determinant (batch,)."""
        given, changed = x.index_select(-1, self.order).split([self.given, self.changed], -1)
        shift, log_scale, spline = self._maps(given)
        bent = changed.T * log_scale.exp() + shift
        if self.bins:
            bent, log_slope = bend(bent, spline)
            log_scale = log_scale + log_slope
        live = self.live[:, None]
        return torch.cat([given, (bent * live).T], -1), (log_scale * live).sum(0)

    def inverse(self, y: Tensor) -> Tensor:
        """``x`` (batch, columns) in the order before."""
        given, changed = y.split([self.given, self.changed], -1)
        shift, log_scale, spline = self._maps(given)
        straight = unbend(changed.T, spline) if self.bins else changed.T
        straight = (straight - shift) * torch.exp(-log_scale)
        return torch.cat([given, (straight * self.live[:, None]).T], -1).index_select(-1, self.back)

    def _maps(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shifts and log-scales (changed, batch) and the splines' parameters (parameters of one, changed, batch)."""
        if self.given:
            *hidden, last = self.net
            seen = given.clamp(-_SEEN, _SEEN)
            for layer in hidden:
                seen = layer(seen)
            last = cast(nn.Linear, last)
            # Rows last, as the splines want them: no copy turns them round.
            numbers = torch.addmm(last.bias[:, None], last.weight, seen.T)
        else:
            numbers = self.free[:, None].expand(-1, len(given))
        numbers = numbers.unflatten(0, (-1, self.changed))
        log_scale = numbers[1] / (1.0 + numbers[1].abs() / _LOG_SCALE)
        return numbers[0], log_scale, numbers[2:]


class CouplingFlow(nn.Module):
    """Couplings one after the other; of two in a row, the second changes what the first has left.

    Columns that are 0 throughout (:meth:`leave_out`) stay 0 and have no part in the density.
    """

    live: Tensor

    def __init__(
        self, columns: int, transforms: int, hidden_dims: Sequence[int], activation: Activation, bins: int
    ) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(
            Coupling(hidden_dims, activation, bins, _order(columns, number)) for number in range(transforms)
        )
        self.register_buffer("live", torch.ones(columns))

    def leave_out(self, constant: Tensor) -> None:
        """Leave out the columns where ``constant``, bool, shape (columns,)."""
        live = (~constant).to(self.live)
        for coupling in self._couplings():
            live = live[coupling.order]
            coupling.live.copy_(live[coupling.given :])
        self.live.copy_(live)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (batch, columns) and the log-determinant (batch,)."""
        total = x.new_zeros(x.shape[:-1])
        for coupling in self._couplings():
            x, log_det = coupling(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """Rows (batch, columns) of latents."""
        z = z * self.live
        for coupling in reversed(self._couplings()):
            z = coupling.inverse(z)
        return z

    def log_prior(self, z: Tensor) -> Tensor:
        """Log-density of latents in nats, shape (batch,): standard normal in the columns that are not left out."""
        return -0.5 * (z.square().sum(-1) + self.live.sum() * LOG_2PI)

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """``n`` latents (n, columns) of the prior."""
        size = (n, self.live.shape[0])
        return torch.randn(size, generator=generator, dtype=self.live.dtype, device=self.live.device)

    def _couplings(self) -> Sequence[Coupling]:
        return cast(Sequence[Coupling], list(self.couplings))


def _order(columns: int, number: int) -> Tensor:
    """How coupling ``number`` reorders the columns: halves change places, and are dealt anew every other time."""
    if number % 2:
        return torch.arange(columns).roll(columns - columns // 2)
    return torch.randperm(columns, generator=torch.Generator().manual_seed(number))
