"""The density family's normalising flows."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.errors import ArtifactError, ConfigError, did_you_mean
from noumena.core.losses import LossTerms
from noumena.core.networks import Activation
from noumena.core.posterior import PointMass
from noumena.core.seeding import Noise
from noumena.density.detector import Detector
from noumena.density.flows.networks import LOG_2PI, CouplingFlow, Whitening
from noumena.density.flows.original import OriginalFlow
from noumena.density.flows.quantisation import find_grids, snap

Architecture = Literal["realnvp", "nsf", "original"]

# The unit of a column that never varied: it has the standard deviation exp(-6) of its own unit, as in the VAE.
_CONSTANT_LOG_SCALE = -6.0
# Rows are pulled in to this many standard deviations, where the score is as low as it gets and still a number.
_FARTHEST = 1e12


class Flow(Detector):
    r"""Normalising flow of table rows: RealNVP or neural spline flow, with exact densities.

    An invertible map ``f`` takes rows to a standard normal, so that

    .. math:: \log p(x) = \log \mathcal{N}(f(x); 0, I) + \log \left| \det \frac{\partial f(x)}{\partial x} \right|

    exactly. The loss is its mean with the sign changed, the score of a row is ``log p(x)``, in nats in the units of
    the data; higher is more normal.

    Rows are standardised, on demand whitened, and sent through coupling transforms, affine (RealNVP, Dinh,
    Sohl-Dickstein & Bengio 2017) or affine and rational-quadratic splines (NSF, Durkan et al. 2019). How a column is
    stretched depends on the others within ten standard deviations only, so that the density of far rows falls as a
    normal one does. Columns that never varied in training are kept out of the flow. ``original`` is the RealNVP of
    GORMPO (Tumay et al., arXiv 2605.24405), which has none of this; with ``standardize=False`` it is that model, see
    :meth:`load_original`.
    """

    has_latents = True
    quantum: Tensor
    origin: Tensor

    def __init__(
        self,
        *,
        input_dim: int | None = None,
        architecture: Architecture = "realnvp",
        transforms: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        bins: int = 8,
        activation: Activation = "relu",
        whiten: bool = False,
        dequantise: bool = True,
        standardize: bool = True,
        anomaly_fraction: float = 0.01,
        calibration_rows: int = 0,
    ) -> None:
        """
        Args:
            input_dim: columns of a row; inferred by ``fit`` when missing.
            architecture: ``realnvp``, affine couplings, fast; ``nsf``, which also bends the columns by splines;
                ``original``, for the models of GORMPO. A single column is always bent by splines, because affine maps
                leave a normal distribution normal; ``original`` refuses one.
            transforms: couplings, each of which changes half of the columns.
            hidden_dims: hidden widths of the network of each coupling.
            bins: of each spline.
            activation: nonlinearity of the hidden layers; ``original`` has relu.
            whiten: take the columns' linear correlations out before the flow. The first epochs gain by it; given more,
                the affine couplings end higher without it on state-action data, where columns mean something. It needs
                ``standardize``; ``original`` does without.
            dequantise: in training, spread the values of columns on a regular grid of few values over its cells; see
                :func:`~noumena.density.flows.quantisation.find_grids`. Other columns are left as they are. Rows are
                scored at the centre of their cell, and sampled rows lie on the grid.
            standardize: map columns to zero mean and unit variance inside the model.
            anomaly_fraction: share of normal rows that the threshold set by ``fit`` calls anomalies.
            calibration_rows: scores that the model holds for p-values; set by ``fit`` and ``calibrate``.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__(input_dim, standardize, anomaly_fraction, calibration_rows)
        self.architecture: Architecture = architecture
        self.transforms = transforms
        self.hidden_dims = tuple(hidden_dims)
        self.bins = bins
        self.activation: Activation = activation
        self.whiten = whiten
        self.dequantise = dequantise
        self._check_hyperparameters()
        if self.is_built:
            self._build()

    def _check_hyperparameters(self) -> None:
        for name, value, choices in (
            ("architecture", self.architecture, get_args(Architecture)),
            ("activation", self.activation, get_args(Activation)),
        ):
            if value not in choices:
                raise ConfigError(f"model.{name}: unknown '{value}'. {did_you_mean(str(value), choices)}")
        for name, least in (("transforms", 1), ("bins", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"model.{name}: expected at least {least}, got {getattr(self, name)}.")
        if not all(width >= 1 for width in self.hidden_dims):
            raise ConfigError(f"model.hidden_dims: expected positive widths, got {list(self.hidden_dims)}.")
        if self.architecture == "original" and self.activation != "relu":
            raise ConfigError(f"model.activation: the architecture 'original' has relu, got '{self.activation}'.")

    def _build(self) -> None:
        super()._build()
        columns = self.input_dim
        assert columns is not None
        self.register_buffer("quantum", torch.zeros(columns))
        self.register_buffer("origin", torch.zeros(columns))
        if self.architecture == "original":
            self.whitening = None
            self.flow = OriginalFlow(columns, self.transforms, self.hidden_dims)
            return
        self.whitening = Whitening(columns) if self.whiten and self.standardize else None
        bins = self.bins if self.architecture == "nsf" or columns == 1 else 0
        self.flow = CouplingFlow(columns, self.transforms, self.hidden_dims, self.activation, bins)

    @torch.no_grad()
    def _fit_preprocessing(self, dataset: Dataset) -> None:
        super()._fit_preprocessing(dataset)
        rows = dataset.batch(torch.arange(len(dataset), device=dataset.device)).to(self.device)
        if self.dequantise:
            grids = find_grids(rows)
            self.quantum.copy_(grids.step)
            self.origin.copy_(grids.origin)
        if self._constant is not None and isinstance(self.flow, CouplingFlow):
            self.flow.leave_out(self._constant)
        if self.whitening is not None:
            self.whitening.fit(self._standardized(rows))

    # Mathematics on tensors

    def encode(self, batch: Any) -> PointMass:
        """The latents (batch, columns) of rows (batch, columns) in the units of the data: one point each."""
        return PointMass(self._to_latents(self._bounded(self._tensor(batch)))[0])

    def decode(self, z: Tensor) -> Tensor:
        """The rows (batch, columns) of latents ``z`` (batch, columns), in the units of the data."""
        x = self.flow.inverse(z.to(self.device, self.dtype))
        if self.whitening is not None:
            x = self.whitening.inverse(x)
        return x if self.standardizer is None else self.standardizer.inverse(x)

    def loss(self, batch: Tensor, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Mean negative log-likelihood in nats of standardised rows (batch, columns), with the part ``nll``."""
        if self.dequantise:
            spread = torch.rand_like(batch) if noise is None else noise.uniform_like(batch)
            batch = batch + (spread - 0.5) * self.quantum
        nll = -self._standardized_density(self._bounded(batch)).mean()
        return LossTerms(nll, {"nll": nll})

    def log_density(self, x: Tensor) -> Tensor:
        """The log-likelihood of rows ``x`` (batch, columns) in nats, shape (batch,); differentiable."""
        return self._standardized_density(self._bounded(x)) + self._log_det

    def _bounded(self, x: Tensor) -> Tensor:
        """Standardised rows; those farther than any arithmetic needs are pulled in along their ray.

        Dividing before scaling keeps every step within the range of float32.
        """
        x = x.to(self.dtype)
        scale: Tensor | float = 1.0
        if self.standardizer is not None:
            x, scale = x - self.standardizer.mean, self.standardizer.scale
        reach = (x.abs() * (1.0 / _FARTHEST) / scale).amax(-1, keepdim=True).clamp(min=1.0)
        return x / reach / scale

    def _standardized_density(self, x: Tensor) -> Tensor:
        """Log-likelihood of standardised rows, shape (batch,)."""
        z, log_det = self._to_latents(x)
        density = self.flow.log_prior(z) + log_det
        constant = self._constant
        if constant is None or not isinstance(self.flow, CouplingFlow):
            return density
        # A column that never varied costs nothing while it stays constant and much as soon as it does not.
        deviation = (x * constant).square().sum(-1) * torch.exp(torch.tensor(-2.0 * _CONSTANT_LOG_SCALE))
        return density - 0.5 * deviation - (_CONSTANT_LOG_SCALE + 0.5 * LOG_2PI) * constant.sum()

    def _to_latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (batch, columns) and log-determinants (batch,) of standardised rows."""
        constant = self._constant
        if constant is not None and isinstance(self.flow, CouplingFlow):
            x = x.masked_fill(constant, 0.0)
        if self.whitening is None:
            return self.flow(x)
        x, before = self.whitening(x)
        z, log_det = self.flow(x)
        return z, before + log_det

    # Use

    @torch.inference_mode()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: bool = False) -> Tensor:
        """``n`` new rows (n, columns) in the units of the data, from the modelled density.

        Args:
            n: number of rows.
            generator: source of randomness; torch's global one when missing.
            noise: has no effect; a flow has no noise besides its latents.
        """
        if n < 0:
            raise ConfigError(f"n: expected a number of rows of at least 0, got {n}.")
        return snap(self.decode(self.flow.draw(n, generator)), self.quantum, self.origin)

    @torch.inference_mode()
    def reconstruct(self, data: Any) -> Tensor:
        """Rows (rows, columns) encoded and decoded: themselves up to rounding, constants as they were in training."""
        return self.decode(self.encode(data).mean)

    def load_original(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a RealNVP of GORMPO.

        Args:
            state: its state dict, with the keys ``coupling_layers.*``, ``prior_mean`` and ``prior_std``; see
                :meth:`original_sizes` for the hyperparameters that a model for it needs.

        Raises:
            ConfigError: this is no model of the architecture ``original``, or standardises.
            ArtifactError: an entry is missing, unknown or of another shape.
        """
        if self.architecture != "original" or self.standardize:
            raise ConfigError("load_original needs a Flow(architecture='original', standardize=False, ...).")
        try:
            self.flow.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(f"not the weights of this RealNVP: {error}") from error

    @staticmethod
    def original_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The hyperparameters that a model for :meth:`load_original` needs, read from the shapes.

        Raises:
            ArtifactError: the state is not that of a RealNVP.
        """
        masks = [name for name in state if name.startswith("coupling_layers.") and name.endswith(".mask")]
        prefix, suffix = "coupling_layers.0.scale_net.network.", ".bias"
        places = sorted(int(name[len(prefix) : -len(suffix)]) for name in state if _between(name, prefix, suffix))
        if not masks or len(places) < 2:
            raise ArtifactError("not the weights of a RealNVP: no coupling_layers.{i}.mask and .scale_net.network.")
        return {
            "architecture": "original",
            "input_dim": len(state[masks[0]]),
            "transforms": len(masks),
            "hidden_dims": [len(state[f"{prefix}{place}{suffix}"]) for place in places[:-1]],
            "standardize": False,
        }


def _between(name: str, prefix: str, suffix: str) -> bool:
    return name.startswith(prefix) and name.endswith(suffix) and name[len(prefix) : -len(suffix)].isdigit()
