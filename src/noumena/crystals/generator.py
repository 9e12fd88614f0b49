"""A prior of the latents of crystals: sizes, then elements, then latents by flow matching."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.losses import LossTerms
from noumena.core.posterior import DiagonalGaussian, PointMass
from noumena.core.seeding import Noise, fold
from noumena.crystals.augmentation import Draws
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.dataset import Crystals
from noumena.crystals.elements import ELECTRONEGATIVITIES
from noumena.crystals.encoded import Encoded, EncodedBatch
from noumena.crystals.frozen import OnAutoencoder
from noumena.crystals.latents import GaussianLatents
from noumena.crystals.model import CrystalVAE
from noumena.crystals.networks.flow import Velocity
from noumena.crystals.networks.formula import Formula
from noumena.crystals.networks.packing import Packing
from noumena.crystals.sampling import Composition, Sizes, sizes_of, types_of
from noumena.crystals.separation import separated
from noumena.crystals.symmetry import symmetrised

_ROWS = 256
_UNTRAINED = 0


class CrystalPrior(OnAutoencoder):
    r"""New crystals: a size from the training data's, elements one after the other, then latents, then decoding.

    .. math:: p(n)\; p(Z \mid n)\; p(z \mid Z), \qquad
        \mathcal{L} = \mathbb{E}\,\lVert v(z_t, t, Z) - (z - \epsilon) \rVert^2 - w \, \tfrac1n \log p(Z \mid n),
        \qquad z_t = t z + (1 - t)\, \epsilon

    The velocity ``v`` (flow matching, Lipman et al. 2023; Liu et al. 2023) is a transformer over all tokens of a
    crystal: what a Gaussian of the latents of single atoms cannot know, that atoms keep apart and which environments
    go together, is in how the latents of one crystal go together. Elements are known to it, so that a composition that
    is asked for is one that the latents are drawn for. Latents are standardised; the autoencoder is frozen and part of
    the model.
    """

    def __init__(
        self,
        *,
        autoencoder: str | None = None,
        autoencoder_config: Mapping[str, Any] | None = None,
        width: int = 256,
        layers: int = 6,
        heads: int = 8,
        formula_width: int = 128,
        formula_layers: int = 3,
        formula_heads: int = 4,
        formula_weight: float = 0.2,
        formula_dropout: float = 0.1,
        unconditioned: float = 0.1,
        steps: int = 12,
        guidance: float = 1.0,
        decoder_noise: float = 0.1,
        temperature: float = 1.0,
    ) -> None:
        """
        Args:
            autoencoder, autoencoder_config: see :class:`~noumena.crystals.frozen.OnAutoencoder`.
            width, layers, heads: of the velocity's transformer.
            formula_width, formula_layers, formula_heads, formula_dropout: of the transformer of the elements.
            formula_weight: of the elements' log-probability, per atom.
            unconditioned: share of the training crystals whose elements the velocity is not told.
            steps: of the integration from noise to latents when sampling (Heun's method: two evaluations each).
            guidance: of the elements when sampling: the velocity is drawn away from the one without elements so much
                (Ho & Salimans 2022); 1 is none, more makes samples more alike and takes twice the time.
            decoder_noise: how far off latents of samples are taken to be, see ``latent_noise`` of the autoencoder.
            temperature: of the elements when sampling; below 1 common combinations become more common.

        Raises:
            ConfigError: a value is out of range.
        """
        super().__init__(autoencoder=autoencoder, autoencoder_config=autoencoder_config)
        self.width = width
        self.layers = layers
        self.heads = heads
        self.formula_width = formula_width
        self.formula_layers = formula_layers
        self.formula_heads = formula_heads
        self.formula_weight = formula_weight
        self.formula_dropout = formula_dropout
        self.unconditioned = unconditioned
        self.steps = steps
        self.guidance = guidance
        self.decoder_noise = decoder_noise
        self.temperature = temperature
        self._check_options()
        if self.is_built:
            self._build()

    @property
    def _autoencoder(self) -> CrystalVAE:
        return cast("CrystalVAE", self.vae)

    def _check_options(self) -> None:
        for name in ("width", "layers", "heads", "formula_width", "formula_layers", "formula_heads", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: expected at least 1, got {getattr(self, name)}.")
        for width, heads in (("width", "heads"), ("formula_width", "formula_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ConfigError(
                    f"model.{width}: {getattr(self, width)} must be a multiple of model.{heads}, which is "
                    f"{getattr(self, heads)}."
                )
        if not 0.0 < self.temperature < float("inf"):
            raise ConfigError(f"model.temperature: expected a finite number above 0, got {self.temperature}.")
        for name in ("formula_dropout", "unconditioned"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"model.{name}: expected a share from 0 to below 1, got {getattr(self, name)}.")
        for name in ("formula_weight", "guidance", "decoder_noise"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"model.{name}: expected a finite number of at least 0, got {getattr(self, name)}.")
        if self.guidance != 1.0 and self.unconditioned == 0.0:
            raise ConfigError("model.guidance: needs training with some crystals unconditioned (model.unconditioned).")

    def _build(self) -> None:
        super()._build()
        vae = self._autoencoder
        if not vae.is_periodic:
            raise NotSupportedError(
                "a prior needs an autoencoder with representation='periodic': latents of the original one depend on "
                "the order of the atoms and on the origin."
            )
        self.velocity = Velocity(vae.latent_dim, vae.species, self.width, self.layers, self.heads)
        rank = _rank(vae.species)
        self.formula = Formula(
            vae.species, self.formula_width, self.formula_layers, self.formula_heads, rank, dropout=self.formula_dropout
        )
        # Of the autoencoder's latents: mean and spread, and the sizes of this model's own training data.
        self.statistics = GaussianLatents(vae.latent_dim, vae.max_atoms or 1)

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        encoded = self._encoded(cast("Crystals", dataset))
        z = torch.cat([encoded.atoms, encoded.cells])
        self.statistics.fit(z, encoded.data.crystals.num_atoms.to(z.device))

    def for_training(self, dataset: Dataset) -> Dataset:
        """The crystals encoded once for all epochs: posterior means."""
        return self._encoded(cast("Crystals", dataset))

    def _encoded(self, crystals: Crystals) -> Encoded:
        posterior = self._autoencoder.encode(crystals)
        return Encoded(crystals.to(self.device), posterior.atoms, posterior.cells)

    def _standard(self, atoms: int, cells: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents of as many tokens, each of shape (tokens, latent)."""
        mean = cast("Tensor", self.statistics.mean)
        spread = torch.linalg.vector_norm(cast("Tensor", self.statistics.scale), dim=-1).clamp_min(1e-4)
        counts = torch.tensor([atoms, cells], device=mean.device)
        return mean.repeat_interleave(counts, 0), spread.repeat_interleave(counts, 0)

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The autoencoder's posterior; of crystals that are encoded already, a point at their latents."""
        if isinstance(batch, EncodedBatch):
            return PointMass(torch.cat([batch.atoms, batch.cells]))
        return super().encode(batch)

    def loss(self, batch: Any, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """Flow-matching loss of the standardised latents, a mean over tokens and their numbers, and the elements'
        negative log-probability in nats per atom.

        Args:
            batch: an :class:`~noumena.crystals.encoded.EncodedBatch`, or a :class:`CrystalBatch`.
            noise: source of times and noise.
            beta_scale: has no effect; there is no KL term.
        """
        encoded = batch if isinstance(batch, EncodedBatch) else self._encoded(Crystals(batch)).batch(_all(batch))
        crystals = encoded.crystals
        packing = Packing(crystals.num_atoms, cells=True)
        most = max(self._autoencoder.max_atoms or 1, int(crystals.num_atoms.max()))
        draws = Draws(noise or Noise(fold(_UNTRAINED)), crystals, most + 1)
        mean, spread = self._standard(len(encoded.atoms), len(encoded.cells))
        z = (torch.cat([encoded.atoms, encoded.cells]) - mean) / spread
        start = draws.normal(packing, z.shape[1])
        # Times where the velocity is hardest to tell, in the middle, come more often (Esser et al. 2024).
        time = draws.noise.normal_like(encoded.cells[:, 0]).sigmoid()
        share = time[packing.crystal, None]
        types = crystals.atom_types
        if self.training and self.unconditioned:
            told = draws.noise.uniform_like(encoded.cells[:, 0]) >= self.unconditioned
            types = types * told[crystals.crystal]
        found = self.velocity(share * z + (1.0 - share) * start, time, types, packing)
        flow = (found - (z - start)).square().mean()
        order = self.formula.ordered(crystals.atom_types, crystals.crystal)
        nats = -self.formula.log_prob(crystals.atom_types[order], crystals.num_atoms).sum() / len(order)
        return LossTerms(flow + self.formula_weight * nats, {"flow": flow, "formula": nats})

    # New crystals

    @property
    def rows_at_once(self) -> int:
        """Crystals that one call should take at most, for the memory it needs."""
        return 4096

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        n_atoms: Sizes | None = None,
        composition: Composition | None = None,
        separate: bool = True,
        symmetrise: bool = False,
    ) -> CrystalBatch:
        """``n`` new crystals.

        Args:
            n: how many.
            generator: source of the draws.
            n_atoms: atoms of each cell; drawn from the training data's sizes when missing.
            composition: a formula that all have; elements are drawn when missing.
            separate: move atoms apart that came to lie on each other, see
                :func:`~noumena.crystals.separation.separated`; without it crystals are as the decoder gives them.
            symmetrise: move each onto the space group that it has approximately, see
                :func:`~noumena.crystals.symmetry.symmetrised`; needs moyopy.

        Raises:
            ConfigError: sizes that the training data or the composition do not allow, or unknown elements.
        """
        self.check_built()
        histogram = cast("Tensor", self.statistics.histogram)
        sizes = sizes_of(n, histogram, generator, n_atoms=n_atoms, composition=composition)
        # Crystals of one size together make large blocks.
        order = torch.argsort(sizes, stable=True)
        found = CrystalBatch.cat([self._sampled(part, composition, generator) for part in sizes[order].split(_ROWS)])
        found = found.select(torch.argsort(order))
        found = separated(found).crystals if separate else found
        return symmetrised(found)[0] if symmetrise else found

    def _sampled(
        self, sizes: Tensor, composition: Composition | None, generator: torch.Generator | None
    ) -> CrystalBatch:
        if composition is None:
            types = self.formula.sample(sizes, generator, self.temperature)
        else:
            types = types_of(composition, sizes)
            if int(types.max()) >= self._autoencoder.species:
                raise ConfigError(f"sample: {composition} has an element beyond those the model knows.")
        packing = Packing(sizes, cells=True)
        shape = (len(types) + len(sizes), self._autoencoder.latent_dim)
        z = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        z = self._carried(z, types, packing)
        mean, spread = self._standard(len(types), len(sizes))
        return self._autoencoder.decode(z * spread + mean, sizes, types=types, noise=self.decoder_noise)

    def _carried(self, z: Tensor, types: Tensor, packing: Packing) -> Tensor:
        """Noise carried to standardised latents by Heun's method, shape (tokens, latent)."""
        crystals = len(packing.num_atoms)
        times = torch.linspace(0.0, 1.0, self.steps + 1, dtype=z.dtype, device=z.device)
        for now, then in pairwise(times):
            slope = self._guided(z, now.expand(crystals), types, packing)
            guess = z + (then - now) * slope
            z = z + 0.5 * (then - now) * (slope + self._guided(guess, then.expand(crystals), types, packing))
        return z

    def _guided(self, z: Tensor, time: Tensor, types: Tensor, packing: Packing) -> Tensor:
        told = self.velocity(z, time, types, packing)
        if self.guidance == 1.0:
            return told
        untold = self.velocity(z, time, torch.zeros_like(types), packing)
        return untold + self.guidance * (told - untold)


def _all(batch: CrystalBatch) -> Tensor:
    return torch.arange(len(batch), device=batch.device)


def _rank(species: int) -> Tensor:
    """Rank of each atomic number by electronegativity, elements without one first; int64, shape (species,)."""
    known = torch.tensor(ELECTRONEGATIVITIES[:species], dtype=torch.float64).nan_to_num(0.0)
    rank = torch.empty(species, dtype=torch.long)
    rank[torch.argsort(known, stable=True)] = torch.arange(species)
    return rank
