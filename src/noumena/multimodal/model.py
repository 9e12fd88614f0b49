"""The multimodal variational autoencoder."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.losses import LossTerms
from noumena.core.model import LatentModel
from noumena.core.networks import Activation
from noumena.core.posterior import DiagonalGaussian
from noumena.core.seeding import Noise
from noumena.multimodal.calibration import Calibration
from noumena.multimodal.frontend import FrontEnd, Images, Scale, resolve_components, resolve_scales
from noumena.multimodal.inference import Prediction, calibrate, chunks, explained, infer
from noumena.multimodal.latent import LatentMap
from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.networks import (
    Encoder,
    Expert,
    SkipMLP,
    mixture_of_experts,
    product_of_experts,
)
from noumena.multimodal.objective import (
    ErrorScales,
    Fusion,
    Sources,
    aligned_objective,
    fused_objective,
)
from noumena.multimodal.observations import (
    Batch,
    FeatureBatch,
    FeatureTable,
    Observations,
    as_observations,
    slices,
)
from noumena.multimodal.options import check_names, check_options
from noumena.multimodal.symmetry import Action, PointGroup

# Latents this near to the rest state's are the rest state, up to the rounding of matrix products.
_REST_TOLERANCE = 1e-5


class MVAE(LatentModel):
    r"""Multimodal VAE: one latent space for several views of a state, any view inferred from any others.

    Every modality has an encoder to a Gaussian over the shared latents and a decoder from them. The posterior of
    several observed modalities is the product of theirs. In training each row is encoded from a subset S of its
    modalities, half of the time a single one, and every modality m it has is decoded from that code:

    .. math:: \mathcal{L} = \mathbb{E}_S \Big[ -\sum_m w_m \log \mathcal{N}(x_m \mid d_m(z), \sigma_{S,m}^2)
        + \beta\, \mathrm{KL}(q_S \| \mathcal{N}(0, I)) \Big] + \lambda \sum_{m \in S} W_2^2(q_m, q_S) / M,
        \qquad z \sim q_S

    so that all ordered pairs are trained (cross-reconstruction from single modalities is what coordination alone
    lacks: CRMVAE), each with its own learned noise. ``fusion`` selects this objective (``poe``) or that of MMVAE (Shi
    et al. 2019, ``moe``), MoPoE-VAE (Sutter et al. 2021), MVTCAE (Hwang et al. 2021), or of ProSoRo (``align``).

    Statistics, surface, calibration and latent axes are buffers: a saved model needs nothing beside it.
    """

    sizes_from_data = ("sizes", "surface")

    def __init__(
        self,
        *,
        sizes: Mapping[str, int] | None = None,
        surface: Mapping[str, int] | None = None,
        z_dim: int = 32,
        fusion: Fusion = "poe",
        hidden_dims: Sequence[int] | Mapping[str, Sequence[int]] = (128, 128, 128),
        activation: Activation = "silu",
        skip: bool = True,
        activate_last: bool = True,
        components: int | Mapping[str, int] | None = 64,
        scale: Scale | Mapping[str, Scale] | None = None,
        beta: float = 0.005,
        alignment: float = 1.0,
        balance: bool = True,
        source_weights: Mapping[str, float] | None = None,
        joint_share: float = 0.5,
        cvib_weight: float = 0.9,
        recon_pred_scale: float = 1.0,
        z_coeff: float = 1.0,
        kl_coeff: float = 0.1,
        symmetry: str | None = None,
        zero_at_rest: bool = False,
        mixture: int = 16,
    ) -> None:
        """
        Args:
            sizes: numbers of each modality by name; inferred by ``fit`` when missing.
            surface: ``nodes`` and ``triangles`` of the surface; inferred by ``fit``.
            z_dim: size of the latent.
            fusion: the objective, see the class.
            hidden_dims: widths of each encoder's hidden layers; decoders mirror them. One list, or one by modality.
            activation: nonlinearity of the hidden layers.
            skip: a linear map beside each network.
            activate_last: without it no nonlinearity stands between an encoder's last hidden layer and its heads.
            components: principal components in place of the columns: a number, for modalities with more columns than
                that, or numbers by modality.
            scale: one divisor per ``column`` or per ``modality``, see :class:`FrontEnd`; by default one for
                displacements and columns for others.
            beta: weight of the KL term.
            alignment: weight λ of the distance between single posteriors and their product (``poe``).
            balance: weigh each modality as if it had the average number of features, so that a wide one does not
                drown the others; without it the terms are plain log-likelihoods.
            source_weights: how often a modality is the single source, by name, 1 where missing (``poe``).
            joint_share: share of the rows that are encoded from several modalities (``poe``).
            cvib_weight: α of MVTCAE between the VIB (0) and the conditional VIB (1) terms.
            recon_pred_scale, z_coeff, kl_coeff: α, ζ and γ of ``align``, see
                :func:`~noumena.multimodal.objective.aligned_objective`.
            symmetry: point group of the body about the z axis, as ``C24v``: training rows are replaced by random
                images under it, and statistics become invariant. Vectors of kind ``vector`` must be invariant.
            zero_at_rest: subtract the decoding of the rest pose (all zeros) from those of poses, wrenches and
                displacements, so that rest gives exactly zero. Needs a modality of kind ``pose``.
            mixture: components of the Gaussian mixture that :meth:`sample` draws latents from.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__()
        self.sizes = None if sizes is None else dict(sizes)
        self.surface = None if surface is None else dict(surface)
        self.z_dim = z_dim
        self.fusion: Fusion = fusion
        by_name = isinstance(hidden_dims, Mapping)
        self.hidden_dims = {k: list(v) for k, v in hidden_dims.items()} if by_name else list(hidden_dims)
        self.activation: Activation = activation
        self.skip = skip
        self.activate_last = activate_last
        self.components = dict(components) if isinstance(components, Mapping) else components
        self.scale = dict(scale) if isinstance(scale, Mapping) else scale
        self.beta = beta
        self.alignment = alignment
        self.balance = balance
        self.source_weights = None if source_weights is None else dict(source_weights)
        self.joint_share = joint_share
        self.cvib_weight = cvib_weight
        self.recon_pred_scale = recon_pred_scale
        self.z_coeff = z_coeff
        self.kl_coeff = kl_coeff
        self.symmetry = symmetry
        self.zero_at_rest = zero_at_rest
        self.mixture = mixture
        check_options(self.hyperparameters())
        self._modalities: tuple[Modality, ...] = ()
        self._read_entries: Any = None  # what they were read from
        self.images: Images | None = None
        if self.is_built:
            self._build()

    @property
    def is_built(self) -> bool:
        """Whether the sizes are known and the networks exist."""
        return self.sizes is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self._known_sizes())

    def _known_sizes(self) -> dict[str, int]:
        """The sizes.

        Raises:
            NotSupportedError: they are not known yet, so there are no weights either.
        """
        if self.sizes is None:
            raise NotSupportedError("the model has no weights yet: call fit(data), or load a saved one.")
        return self.sizes

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Names, units and kinds, as in the training data."""
        entries = self.schema.get("modalities")
        if entries is None:
            return tuple(Modality.of_size(name, size) for name, size in self._known_sizes().items())
        # Thousands of columns are named once for each schema, not at every call.
        if entries is not self._read_entries:
            self._modalities = tuple(Modality.from_json(entry) for entry in entries)
            self._read_entries = entries
        return self._modalities

    @property
    def mesh(self) -> Surface | None:
        """The surface of the displacements, if the training data had one."""
        return Surface(self.surface_nodes, self.surface_triangles) if len(self.surface_nodes) else None

    # Construction

    surface_nodes: Tensor
    surface_triangles: Tensor

    def _build(self) -> None:
        sizes = self._known_sizes()
        check_names(self.hyperparameters(), sizes)
        self.slices = slices(sizes)
        components = resolve_components(sizes, self.components)
        rules = dict.fromkeys(sizes, "column") | (self.scale if isinstance(self.scale, dict) else {})
        self.fronts = nn.ModuleList(
            FrontEnd(size, components[name], cast("Scale", rules[name])) for name, size in sizes.items()
        )
        features = [cast("FrontEnd", front).features for front in self.fronts]
        widths = [self.hidden_dims[name] if isinstance(self.hidden_dims, dict) else self.hidden_dims for name in sizes]
        bounded = self.fusion != "align"
        self.encoders = nn.ModuleList(
            Encoder(
                size,
                hidden,
                self.z_dim,
                self.activation,
                skip=self.skip,
                activate_last=self.activate_last,
                bounded=bounded,
            )
            for size, hidden in zip(features, widths, strict=True)
        )
        self.decoders = nn.ModuleList(
            SkipMLP([self.z_dim, *reversed(hidden), size], self.activation, skip=self.skip)
            for size, hidden in zip(features, widths, strict=True)
        )
        self.error_scales = None if self.fusion == "align" else ErrorScales(len(sizes))
        self.calibration = Calibration(2 ** len(sizes) - 1, len(sizes), sum(sizes.values()), self.z_dim)
        self.latents = LatentMap(self.z_dim, self.mixture)
        counts = self.surface or {"nodes": 0, "triangles": 0}
        self.register_buffer("surface_nodes", torch.zeros(counts["nodes"], 3))
        self.register_buffer("surface_triangles", torch.zeros(counts["triangles"], 3, dtype=torch.int64))
        average = sum(features) / len(features)
        self._feature_weights = [average if self.balance else float(size) for size in features]
        self._sources = Sources.of(self.fusion, self.names, self.source_weights or {}, self.joint_share)

    def as_dataset(self, data: Any) -> Observations:
        """Data of any kind as :class:`~noumena.multimodal.observations.Observations`."""
        return as_observations(data, self.modalities if self.is_built and self.schema else None)

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        data = cast("Observations", dataset)
        surface = data.surface
        counts = (0, 0) if surface is None else (len(surface.nodes), len(surface.triangles))
        return {"sizes": data.sizes, "surface": dict(zip(("nodes", "triangles"), counts, strict=True))}

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        data = cast("Observations", dataset)
        self._check_data(data)
        rules = resolve_scales(data.modalities, cast("Scale | Mapping[str, Scale] | None", self.scale))
        group = None if self.symmetry is None else PointGroup.parse(self.symmetry)
        if data.surface is not None and len(self.surface_nodes):
            self.surface_nodes.copy_(data.surface.nodes)
            self.surface_triangles.copy_(data.surface.triangles)
        nodes = self.surface_nodes.cpu() if len(self.surface_nodes) else None
        for number, (modality, front) in enumerate(zip(data.modalities, self._fronts, strict=True)):
            front.rule = rules[modality.name]
            there = data.values if data.present is None else data.values[data.present[:, number]]
            action = None if group is None else Action(group, modality.kind, nodes)
            front.fit(there[:, self.slices[modality.name]].to("cpu"), action, 1 if group is None else group.order)

    def _check_data(self, data: Observations) -> None:
        if self.fusion == "align" and data.present is not None:
            raise ConfigError(
                "model.fusion=align is the original objective, which needs every modality in every row. Leave the "
                "incomplete rows out, or use fusion=poe."
            )
        if self.zero_at_rest and not any(modality.kind == "pose" for modality in data.modalities):
            raise ConfigError(
                "model.zero_at_rest needs a modality of kind 'pose', whose zero is the rest. Name it in data.kinds."
            )

    @property
    def _fronts(self) -> list[FrontEnd]:
        return cast("list[FrontEnd]", list(self.fronts))

    def _image_maker(self) -> Images:
        """Made on first use, since it follows from what is saved."""
        assert self.symmetry is not None
        if self.images is None:
            nodes = self.surface_nodes.cpu() if len(self.surface_nodes) else None
            self.images = Images(PointGroup.parse(self.symmetry), self.modalities, self._fronts, nodes).to(self.device)
        return self.images

    @torch.no_grad()
    def after_fit(self, train: Dataset, val: Dataset | None) -> None:
        """Take the latents' distribution from training rows and calibrate the errors on validation rows."""
        z = torch.cat([self.encode(batch).mean for batch in chunks(cast("Observations", train))])
        self.calibration.set_latents(z)
        self.latents.fit(z)
        if val is not None:
            self.calibrate(val)

    @torch.no_grad()
    def calibrate(self, data: Any) -> None:
        """Set the standard deviations of :meth:`infer` on rows that were not trained on.

        Args:
            data: complete or incomplete rows of the modalities; a subset of modalities that fewer than 8 rows have
                keeps its former deviations.
        """
        calibrate(self, self.as_dataset(data))

    # Mathematics on tensors

    @torch.no_grad()
    def for_training(self, dataset: Dataset) -> FeatureTable:
        """The features of all rows, which no epoch changes."""
        data = cast("Observations", dataset)
        features = [torch.cat(self._features(batch), 1) for batch in chunks(data.to(self.device))]
        return FeatureTable(torch.cat(features).to(data.device), data.present, data)

    def _features(self, batch: Batch | FeatureBatch) -> list[Tensor]:
        if isinstance(batch, FeatureBatch):
            return list(batch.features.split([front.features for front in self._fronts], dim=1))
        values = batch.values.to(self.dtype)
        return [front(values[:, part]) for front, part in zip(self._fronts, self.slices.values(), strict=True)]

    def _experts(self, features: Sequence[Tensor], observed: Tensor) -> list[Expert]:
        """The posterior of each modality for the rows in which it is observed; encoders see no other rows.

        In training an encoder without rows runs all the same, on none: processes that share a minibatch exchange the
        gradients of all weights, whatever their own rows were.
        """
        found: list[Expert] = []
        for number, (x, front, encoder) in enumerate(zip(features, self._fronts, self.encoders, strict=True)):
            rows = observed[:, number].nonzero().flatten()
            if len(rows) or self.training:
                found.append(Expert(rows, encoder(front.encoder_input(x if len(rows) == len(x) else x[rows]))))
        return found

    def _fused(self, experts: Sequence[Expert], batch: int) -> DiagonalGaussian:
        if len(experts) == 1 and len(experts[0].rows) == batch:
            return experts[0].posterior
        if self.fusion in ("moe", "align"):
            return mixture_of_experts(experts, batch)
        return product_of_experts(experts, batch)

    @property
    def prior_size(self) -> int | None:
        """The size of the latent; ``None`` with ``align``, whose KL is a mean over it."""
        return None if self.fusion == "align" else self.z_dim

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The posterior over latents (batch, latent) given the modalities that each row has.

        The product of the single posteriors; with ``fusion`` ``moe`` and ``align`` the Gaussian with the moments of
        their equal mixture.

        Args:
            batch: :class:`Batch`, :class:`Observations`, a mapping from names to arrays (some may be left out), or a
                path.
        """
        rows = self._batch(batch)
        return self._fused(self._experts(self._features(rows), self.present_in(rows)), len(rows))

    def _rest_latent(self) -> Tensor:
        """Posterior mean of the rest pose, shape (1, latent)."""
        number = next(i for i, modality in enumerate(self.modalities) if modality.kind == "pose")
        front = self._fronts[number]
        return self.encoders[number](front.encoder_input(front(front.mean.new_zeros(1, 6)))).mean

    def _rest_features(self) -> list[Tensor | None]:
        """What is subtracted from decoded features of each modality: their value at rest less that of zero."""
        if not self.zero_at_rest:
            return [None] * len(self.names)
        z = self._rest_latent()
        found: list[Tensor | None] = []
        for modality, front, decoder in zip(self.modalities, self._fronts, self.decoders, strict=True):
            zero = front(front.mean.new_zeros(1, modality.size))
            found.append(None if modality.kind == "vector" else decoder(z) - zero)
        return found

    def decode(self, z: Tensor) -> dict[str, Tensor]:
        """Every modality (batch, size), in physical units, given latents ``z`` (batch, latent)."""
        return self.decode_some(z, self.names)

    def decode_some(self, z: Tensor, targets: Sequence[str]) -> dict[str, Tensor]:
        """Like :meth:`decode`, of the modalities ``targets`` alone."""
        z = z.to(self.device, self.dtype)
        found: dict[str, Tensor] = {}
        rest = self._rest_latent() if self.zero_at_rest else None
        for name, modality, front, decoder in zip(
            self.names, self.modalities, self._fronts, self.decoders, strict=True
        ):
            if name not in targets:
                continue
            value = front.inverse(decoder(z))
            if rest is not None and modality.kind != "vector":
                value = value - front.inverse(decoder(rest))
                at_rest = ((z - rest).abs() <= _REST_TOLERANCE).all(1, keepdim=True)
                value = torch.where(at_rest, torch.zeros_like(value), value)
            found[name] = value
        return found

    def loss(self, batch: Batch | FeatureBatch, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """The training objective of a batch.

        Parts ``reconstruction``, ``kl``, ``alignment`` and, for each modality, ``reconstruction_<name>``.
        Nats per row, features as if they were ``balance``d; for ``align`` in the means of the original.
        """
        noise = noise or Noise(int(torch.randint(2**62, ()).item()))
        features = self._features(batch)
        if self.fusion == "align":
            return self._aligned_loss(features, noise, beta_scale)
        present = self.present_in(batch)
        if self.symmetry is not None and self.training:
            features = self._image_maker()(features, _uniform(noise, features[0]))
        # Held-out rows draw by the noise of their batch, which is the same in every epoch.
        observed = self._sources.draw(present, _uniform(noise, features[0]))
        return self._loss_from(features, present, observed, noise, beta_scale)

    def _loss_from(
        self,
        features: Sequence[Tensor],
        present: Tensor,
        observed: Tensor,
        noise: Noise,
        beta_scale: float,
    ) -> LossTerms:
        """Terms of rows encoded from their ``observed`` modalities."""
        assert self.error_scales is not None
        experts = self._experts(features, observed)
        posterior = self._fused(experts, len(present))
        z = posterior.sample(noise=noise.normal_like(posterior.mean))
        errors: list[Tensor] = []
        for decoder, target, offset in zip(self.decoders, features, self._rest_features(), strict=True):
            decoded = decoder(z) if offset is None else decoder(z) - offset
            errors.append((decoded - target).square().mean(1))
        likelihood = self.error_scales.negative_log_likelihood(torch.stack(errors, 1), observed)
        weights = torch.tensor(self._feature_weights, dtype=z.dtype, device=z.device)
        total, parts = fused_objective(
            likelihood * weights * present,
            posterior,
            experts,
            fusion=self.fusion,
            beta=self.beta * beta_scale,
            alignment=self.alignment,
            cvib_weight=self.cvib_weight,
        )
        return LossTerms(total, self._named(parts))

    def _named(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parts whose number of a modality is replaced by its name."""
        renamed: dict[str, Tensor] = {}
        for key, value in parts.items():
            head, _, number = key.rpartition("_")
            renamed[f"{head}_{self.names[int(number)]}" if number.isdigit() else key] = value
        return renamed

    def _aligned_loss(self, features: Sequence[Tensor], noise: Noise, beta_scale: float) -> LossTerms:
        everywhere = torch.ones(len(features[0]), len(features), dtype=torch.bool, device=features[0].device)
        posteriors = [expert.posterior for expert in self._experts(features, everywhere)]
        noises = [noise.normal_like(posteriors[0].mean) for _ in range(2 * len(posteriors) - 1)]
        total, parts = aligned_objective(
            features,
            posteriors,
            list(self.decoders),
            noises,
            recon_pred_scale=self.recon_pred_scale,
            z_coeff=self.z_coeff,
            kl_coeff=self.kl_coeff * beta_scale,
        )
        return LossTerms(total, self._named(parts))

    # Use

    @torch.inference_mode()
    def infer(
        self, inputs: Any, targets: Sequence[str] | None = None, *, observed: Sequence[str] | None = None
    ) -> dict[str, Prediction]:
        """Modalities inferred from others: means and standard deviations in physical units.

        Deterministic: the mean decodes the posterior mean. The deviations are calibrated on the validation rows of
        the training such that mean ± 1.645 std holds 90 % of the values; NaN if there were none. Rows may have
        different modalities.

        Args:
            inputs: mapping from names to arrays (rows, size), ``Observations``, ``Batch`` or a path.
            targets: names of what to infer; by default the modalities that no row has, or all of them.
            observed: use only these of the inputs' modalities.

        Raises:
            ConfigError: an unknown name.
            DataError: inputs that are not the model's modalities.
        """
        batch = self._batch(inputs)
        if isinstance(batch, FeatureBatch):
            raise DataError("expected physical values, found features. Pass what the features were made from.")
        return infer(self, batch if observed is None else self.restricted(batch, observed), targets)

    @torch.inference_mode()
    def reconstruct(self, data: Any) -> dict[str, Tensor]:
        """Every modality (rows, size), in physical units, decoded from the posterior mean of what each row has."""
        return self.decode(self.encode(data).mean)

    @torch.inference_mode()
    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``n`` new states: every modality (n, size) in physical units.

        Latents are drawn from the mixture fitted to the training latents (before training: N(0, I)).

        Args:
            n: number of states.
            generator: source of randomness; torch's global one when missing.
        """
        if n < 0:
            raise ConfigError(f"n: expected a number of states of at least 0, got {n}.")
        self._known_sizes()
        return self.decode(self.latents.sample(n, generator))

    @torch.inference_mode()
    def latent_traversal(
        self, axis: int = 0, steps: int = 9, span: float = 2.0, origin: Any = None
    ) -> dict[str, Tensor]:
        """States along one primitive: decodings of a straight line through the latent space.

        Args:
            axis: number of the principal axis of the training latents; 0 is the most active.
            steps: states on the line.
            span: half-length of the line in standard deviations of the training latents along the axis.
            origin: a single row of modalities (as for :meth:`encode`) the line goes through; the mean latent when
                missing.

        Returns:
            Every modality, shape (steps, size), in physical units, in the order of the line.
        """
        if not 0 <= axis < self.z_dim:
            raise ConfigError(f"axis: expected 0 to {self.z_dim - 1}, got {axis}.")
        if steps < 1 or span <= 0.0:
            raise ConfigError(f"expected steps >= 1 and span > 0, got {steps} and {span}.")
        start = None if origin is None else self.encode(origin).mean
        if start is not None and len(start) != 1:
            raise DataError(f"origin: expected one row, found {len(start)}.")
        line = torch.linspace(-span, span, steps) if steps > 1 else torch.zeros(1)
        return self.decode(self.latents.along(axis, line, None if start is None else start[0]))

    @torch.inference_mode()
    def evaluate(self, data: Any) -> dict[str, float]:
        """R² of every modality from every single one and from all together, pooled over columns; see
        :func:`noumena.multimodal.evaluate.evaluate` for everything else.
        """
        return explained(self, self.as_dataset(data))

    # Inputs

    def present_in(self, batch: Batch | FeatureBatch) -> Tensor:
        """Which modalities the rows have, bool, shape (batch, modalities)."""
        if batch.present is not None:
            return batch.present
        return torch.ones(len(batch), len(self.names), dtype=torch.bool, device=self.device)

    def restricted(self, batch: Batch, names: Sequence[str]) -> Batch:
        """The batch as if only the modalities ``names`` had been seen."""
        self.check_names(names)
        mask = torch.tensor([name in names for name in self.names], device=batch.values.device)
        present = self.present_in(batch) & mask
        if not bool(present.any(1).all()):
            row = int((~present.any(1)).long().argmax())
            raise DataError(f"row {row} (counted from 0) has none of {', '.join(names)}. Leave it out, or add others.")
        return Batch(batch.values, present)

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse names that are not the model's modalities.

        Raises:
            ConfigError: it names the nearest one.
        """
        if not names:
            raise ConfigError(f"name at least one modality of {', '.join(self.names)}.")
        for name in names:
            if name not in self.names:
                raise ConfigError(f"no modality '{name}'. {did_you_mean(name, self.names)}")

    def _batch(self, data: Any) -> Batch | FeatureBatch:
        """Rows of any kind as a checked batch on the model's device."""
        if isinstance(data, FeatureBatch):
            return data
        if isinstance(data, Batch):
            width = sum(self._known_sizes().values())
            if data.values.ndim != 2 or data.values.shape[1] != width:
                raise DataError(f"expected rows of {width} numbers, found shape {tuple(data.values.shape)}.")
            return data if data.values.device == self.device else data.to(self.device)
        self._known_sizes()
        return as_observations(data, self.modalities).whole().to(self.device)


def _uniform(noise: Noise, like: Tensor) -> Tensor:
    """Numbers in [0, 1], one per row, from the minibatch's noise, so that they do not depend on how it is shared."""
    return torch.special.ndtr(noise.normal_like(like[:, 0].double()))
