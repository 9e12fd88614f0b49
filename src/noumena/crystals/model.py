"""The variational autoencoder of periodic crystal structures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.losses import LossTerms, kl_loss
from noumena.core.model import LatentModel
from noumena.core.seeding import Noise, fold
from noumena.crystals.augmentation import Draws, augmented, corrupted
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.dataset import Crystals
from noumena.crystals.inputs import as_crystals, check_known
from noumena.crystals.latents import GaussianLatents, path_between
from noumena.crystals.networks.original import Original
from noumena.crystals.networks.packing import Packing
from noumena.crystals.networks.periodic import Periodic
from noumena.crystals.networks.representation import Decoded, Representation
from noumena.crystals.networks.transformer import Activation, PackedTransformer
from noumena.crystals.networks.vector import CrystalVector
from noumena.crystals.options import WEIGHTS, RepresentationKind, check_options
from noumena.crystals.origin import anchors, moved
from noumena.crystals.posterior import CrystalPosterior
from noumena.crystals.sampling import Composition, Sizes, assigned, sizes_of, types_of
from noumena.crystals.symmetry import symmetrised

Control = Literal["standard", "gaussian"]

# Bounds of the logarithm of the variance, and where the periodic representation starts.
_LOG_VAR = (-30.0, 20.0)
_FIRST_LOG_VAR = -6.0
_ROWS = 512
_UNTRAINED = 0  # seed of the draws of a loss that is given no noise


class CrystalVAE(LatentModel):
    r"""Transformer VAE of crystals with a latent for each atom and one for the cell.

    .. math:: \mathcal{L} = \sum_t w_t \, t(x, \hat x)
        + \beta\, \mathrm{KL}\big(q(z \mid x) \,\|\, \mathcal{N}(0, I)\big), \qquad z \sim q(z \mid x),\; \hat x = d(z)

    with the terms ``types`` (cross-entropy of the elements, a mean over atoms) and those of the representation; KL is
    summed over the latent's numbers and a mean over tokens.

    ``representation="periodic"``: latents are the same however a crystal is described: turned, counted from another
    origin, its atoms in another order or in other images of the cell. Each crystal is moved to an origin that all
    descriptions agree on (:func:`~noumena.crystals.origin.anchors`) before it is encoded. A supercell is another cell;
    reading brings it back to the primitive one. Terms: ``circle``, ``coords`` and ``cell``, see
    :class:`~noumena.crystals.networks.periodic.Periodic`.

    ``representation="original"``: the VAE of Chemeleon2 (Park et al. 2025), which has none of these symmetries and no
    latent of the cell. Terms: ``lengths``, ``angles`` and ``coords``, see
    :class:`~noumena.crystals.networks.original.Original`.

    :meth:`vector` gives one invariant vector for each crystal, for search and regression.
    """

    sizes_from_data = ("max_atoms",)

    def __init__(
        self,
        *,
        max_atoms: int | None = None,
        representation: RepresentationKind = "periodic",
        species: int = 119,
        latent_dim: int = 8,
        width: int = 256,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        heads: int = 8,
        feedforward: int | None = None,
        activation: Activation = "gelu-tanh",
        frequencies: int = 4,
        predict_types: bool = True,
        augment: bool = True,
        corruption: float = 0.02,
        latent_noise: float = 0.0,
        type_weight: float = 1.0,
        circle_weight: float = 5.0,
        coord_weight: float = 5.0,
        cell_weight: float = 1.0,
        length_weight: float = 1.0,
        angle_weight: float = 10.0,
        beta: float = 1e-5,
        vector_dim: int = 64,
    ) -> None:
        """
        Args:
            max_atoms: of the largest cell; inferred by ``fit``.
            representation: how crystals become tokens, and tokens crystals.
            species: one more than the largest atomic number that is known.
            latent_dim: numbers of each latent.
            width, heads, encoder_layers, decoder_layers: of the transformers.
            feedforward: width of their feed-forward networks; four times ``width`` when missing.
            activation: of these networks: GELU approximated by a hyperbolic tangent, or exact.
            frequencies: waves along each axis that coordinates enter as (periodic representation).
            predict_types: whether the decoder tells the elements; if not, they are given to :meth:`decode`, as in
                crystal structure prediction.
            augment: train on random descriptions of each crystal: any atom of its rarest element as origin
                (periodic), or a uniform rotation and origin, drawn for each crystal (original).
            corruption: share of the atoms that the encoder sees without element and 0.1 angstrom off, in training.
            latent_noise: largest standard deviation of noise that training adds to the latents of half of the
                crystals, in units of the spread of the latents. The decoder is told how much, and the elements; so
                it learns to mend the latents of a prior, and loses little on those of a crystal (periodic
                representation).
            type_weight, circle_weight, coord_weight, cell_weight, length_weight, angle_weight: of the terms.
            beta: weight of the KL term.
            vector_dim: numbers of the crystal vector, see :class:`~noumena.crystals.networks.vector.CrystalVector`;
                0 leaves its network out, and the vector is then the mean of the latents.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__()
        self.max_atoms = max_atoms
        self.representation: RepresentationKind = representation
        self.species = species
        self.latent_dim = latent_dim
        self.width = width
        self.encoder_layers = encoder_layers
        self.decoder_layers = decoder_layers
        self.heads = heads
        self.feedforward = 4 * width if feedforward is None else feedforward
        self.activation: Activation = activation
        self.frequencies = frequencies
        self.predict_types = predict_types
        self.augment = augment
        self.corruption = corruption
        self.latent_noise = latent_noise
        self.type_weight = type_weight
        self.circle_weight = circle_weight
        self.coord_weight = coord_weight
        self.cell_weight = cell_weight
        self.length_weight = length_weight
        self.angle_weight = angle_weight
        self.beta = beta
        self.vector_dim = vector_dim
        check_options(self.hyperparameters())
        if self.is_built:
            self._build()

    # What the contract of models asks for

    @property
    def is_periodic(self) -> bool:
        """Whether latents are the same for every description of a crystal."""
        return self.representation == "periodic"

    def as_dataset(self, data: Any) -> Crystals:
        """``data`` as crystals: a dataset, a :class:`CrystalBatch`, a path that the reader takes, or a list of
        pymatgen Structures or ASE Atoms.

        Raises:
            DataError: of the reader; or a cell larger than the model knows, or an element beyond its species.
        """
        found = as_crystals(data, self.schema)
        check_known(found.crystals, self.species, self.max_atoms)
        return found

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        crystals = cast("Crystals", dataset)
        most = crystals.most_atoms or int(crystals.crystals.num_atoms.max())
        # A model made for larger cells than these is no contradiction.
        return {"max_atoms": most if self.max_atoms is None else max(most, self.max_atoms)}

    def _build(self) -> None:
        self.tokens = self._representation()
        sizes = self.heads, self.feedforward
        self.encoder = PackedTransformer(self.width, self.encoder_layers, *sizes, activation=self.activation)
        self.to_posterior = nn.Linear(self.width, 2 * self.latent_dim, bias=False)
        self.from_latent = nn.Linear(self.latent_dim, self.width, bias=False)
        self.decoder = PackedTransformer(self.width, self.decoder_layers, *sizes, activation=self.activation)
        self.gaussian = GaussianLatents(self.latent_dim, self.max_atoms or 1)
        # Learned after training, apart from everything above: see after_fit.
        self.vectors = CrystalVector(self.vector_dim).requires_grad_(False) if self.vector_dim else None

    def _representation(self) -> Periodic | Original:
        if self.is_periodic:
            return Periodic(self.width, self.species, self.frequencies)
        return Original(self.width, self.species)

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        crystals = cast("Crystals", dataset).crystals.to(self.device, self.dtype)
        if isinstance(self.tokens, Periodic):
            self.tokens.calibrate(crystals.lattice, crystals.num_atoms)

    def packing(self, num_atoms: Tensor) -> Packing:
        """Where the tokens of crystals of these sizes lie."""
        return Packing(num_atoms, cells=self.is_periodic)

    # Encoding

    def anchored(self, batch: CrystalBatch, chance: Tensor | None = None) -> tuple[CrystalBatch, Tensor]:
        """Crystals counted from the origin that the encoder takes, and that origin, shape (crystals, 3).

        Args:
            batch: crystals.
            chance: see :func:`~noumena.crystals.origin.anchors`.
        """
        if not self.is_periodic:
            return batch, batch.frac_coords.new_zeros(len(batch), 3)
        origin = batch.frac_coords[anchors(batch, chance)]
        return moved(batch, -origin), origin

    def _posterior(self, batch: CrystalBatch, packing: Packing) -> CrystalPosterior:
        hidden = self.encoder(cast("Representation", self.tokens).embed(batch, packing), packing)
        mean, log_var = self.to_posterior(hidden).chunk(2, -1)
        if self.is_periodic:
            log_var = log_var + _FIRST_LOG_VAR
        return CrystalPosterior(mean, log_var.clamp(*_LOG_VAR), batch.num_atoms)

    def encode(self, batch: Any) -> CrystalPosterior:
        """The posterior of each token: all atoms in the order of the batch, then one for each cell.

        Args:
            batch: a :class:`CrystalBatch`, or what :meth:`as_dataset` takes.

        Returns:
            Means and log-variances of shape (tokens, latent_dim); ``original`` has no tokens of cells.
        """
        if isinstance(batch, CrystalBatch) and torch.is_grad_enabled():
            check_known(batch, self.species, self.max_atoms)
            return self._encode(batch)
        with torch.no_grad():
            crystals = self.as_dataset(batch).crystals
            found = [self._encode(part) for part in crystals.split(_ROWS)]
        rows = [part.atoms.shape[0] for part in found]
        mean = _atoms_first([q.mean for q in found], rows)
        log_var = _atoms_first([q.log_var for q in found], rows)
        return CrystalPosterior(mean, log_var, crystals.num_atoms.to(mean.device))

    def _encode(self, batch: CrystalBatch) -> CrystalPosterior:
        # The origin is chosen in the precision the data came in.
        anchored = self.anchored(batch.to(self.device))[0].to(dtype=self.dtype)
        return self._posterior(anchored, self.packing(anchored.num_atoms))

    @torch.no_grad()
    def vector(self, data: Any) -> Tensor:
        """One vector for each crystal, the same for every description of it, shape (crystals, vector size).

        Args:
            data: what :meth:`as_dataset` takes.
        """
        crystals = self.as_dataset(data).crystals
        return torch.cat([self._vector(part) for part in crystals.split(_ROWS)])

    def _vector(self, batch: CrystalBatch) -> Tensor:
        if self.vectors is not None:
            return self.vectors(batch.to(self.device, self.dtype))
        posterior = self._encode(batch)
        atoms = batch.crystal.to(self.device)
        total = posterior.mean.new_zeros(len(batch), self.latent_dim).index_add(0, atoms, posterior.atoms)
        mean = total / posterior.num_atoms[:, None]
        return torch.cat([mean, posterior.cells], 1) if self.is_periodic else mean

    def embed(self, data: Any) -> Tensor:
        """:meth:`vector`."""
        return self.vector(data)

    # Decoding

    def _decoded(self, z: Tensor, packing: Packing, noise: Tensor, types: Tensor) -> Decoded:
        tokens = cast("Representation", self.tokens)
        return tokens.heads(self.decoder(tokens.place(self.from_latent(z), packing, noise, types), packing), packing)

    def decode(
        self,
        z: Tensor,
        num_atoms: Tensor | None = None,
        *,
        types: Tensor | None = None,
        composition: Composition | None = None,
        noise: float = 0.0,
    ) -> CrystalBatch:
        """Crystals of latents.

        Args:
            z: latents: all atoms, then one for each cell in the periodic representation; shape (tokens, latent_dim).
            num_atoms: of each crystal, int64, shape (crystals,); all tokens are of one crystal when missing.
            types: elements of the atoms, shape (atoms,), instead of those the decoder finds likeliest; it is told.
            composition: elements that each crystal must have, dealt to its atoms as the decoder finds likeliest.
            noise: how far the latents may be off, in units of their spread: 0 for those of a crystal. The decoder was
                trained up to ``latent_noise``.

        Raises:
            ConfigError: both, or neither of a model that does not predict elements; or sizes that are no multiples.
            DataError: shapes that do not agree.
        """
        if num_atoms is None:
            num_atoms = torch.tensor([max(1, len(z) - int(self.is_periodic))])
        num_atoms = num_atoms.to(z.device)
        tokens = int(num_atoms.sum()) + (len(num_atoms) if self.is_periodic else 0)
        if z.shape != (tokens, self.latent_dim):
            raise DataError(
                f"decode: {len(num_atoms)} crystals of {int(num_atoms.sum())} atoms need latents of shape "
                f"({tokens}, {self.latent_dim}), got {tuple(z.shape)}."
            )
        if types is not None and composition is not None:
            raise ConfigError("decode: give types or composition, not both.")
        level = z.new_full((len(num_atoms),), noise)
        known = num_atoms.new_zeros(int(num_atoms.sum())) if types is None else types
        decoded = self._decoded(z, self.packing(num_atoms), level, known)
        if composition is not None:
            types = assigned(decoded.types, types_of(composition, num_atoms), num_atoms)
        elif types is None:
            types = self._likeliest(decoded)
        found = cast("Representation", self.tokens)
        return CrystalBatch(types, found.frac_coords(decoded), found.lattice(decoded, num_atoms), num_atoms)

    def _likeliest(self, decoded: Decoded) -> Tensor:
        if not self.predict_types:
            raise ConfigError("decode: this model does not predict elements; give types or composition.")
        return decoded.types[:, 1:].argmax(-1) + 1  # number 0 is no element

    @torch.no_grad()
    def reconstruct(
        self, data: Any, generator: torch.Generator | None = None, *, symmetrise: bool = False
    ) -> CrystalBatch:
        """Crystals encoded and decoded again: atoms in the order, and counted from the origin, of the data.

        Elements are decoded too, unless the model does not predict them.

        Args:
            data: what :meth:`as_dataset` takes.
            generator: decode a sample of the posterior drawn from it instead of its mean.
            symmetrise: move each onto the space group that it has approximately, see
                :func:`~noumena.crystals.symmetry.symmetrised`; needs moyopy.
        """
        crystals = self.as_dataset(data).crystals
        found: list[CrystalBatch] = []
        for part in crystals.split(_ROWS):
            batch, origin = self.anchored(part.to(self.device))
            posterior = self._posterior(batch.to(dtype=self.dtype), self.packing(batch.num_atoms))
            z = posterior.mean if generator is None else posterior.sample(generator)
            types = None if self.predict_types else batch.atom_types
            found.append(moved(self.decode(z, batch.num_atoms, types=types), origin.to(self.dtype)))
        whole = replace(CrystalBatch.cat(found), names=crystals.names)
        return symmetrised(whole)[0] if symmetrise else whole

    # Training

    def loss(self, batch: Any, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """The training objective of a :class:`CrystalBatch`."""
        crystals = cast("CrystalBatch", batch)
        # Held-out cells may be larger than those of the training data.
        most = max(self.max_atoms or 1, int(crystals.num_atoms.max()))
        draws = Draws(noise or Noise(fold(_UNTRAINED)), crystals, most + 1)
        packing = self.packing(crystals.num_atoms)
        target = self._described(crystals, draws)
        seen = target
        if self.training and self.corruption:
            seen = corrupted(target, self.corruption, draws)
        posterior = self._posterior(seen, packing)
        z = posterior.sample(noise=draws.normal(packing, self.latent_dim))
        z, level = self._disturbed(z, packing, draws)
        known = target.atom_types
        if self.predict_types:
            known = known * (level > 0)[target.crystal]
        decoded = self._decoded(z, packing, level, known)
        parts = cast("Representation", self.tokens).losses(decoded, target)
        if self.predict_types:
            parts = {"types": functional.cross_entropy(decoded.types, target.atom_types), **parts}
        kl = kl_loss(posterior)
        total = sum((getattr(self, WEIGHTS[name]) * part for name, part in parts.items()), kl.new_zeros(()))
        return LossTerms(total + self.beta * beta_scale * kl, {**parts, "kl": kl})

    def _disturbed(self, z: Tensor, packing: Packing, draws: Draws) -> tuple[Tensor, Tensor]:
        """Latents with noise added to those of half of the crystals, and how much, shape (crystals,)."""
        level = z.new_zeros(len(packing.num_atoms))
        if not (self.training and self.latent_noise and self.is_periodic):
            return z, level
        level = self.latent_noise * (2.0 * draws.noise.uniform_like(level) - 1.0).clamp_min(0.0)
        # In units of their spread, and with its gradient, or latents would grow to escape the noise.
        spread = z.std(0, correction=0)
        return z + level[packing.crystal, None] * spread * draws.normal(packing, self.latent_dim), level

    def _described(self, crystals: CrystalBatch, draws: Draws) -> CrystalBatch:
        """Crystals as the loss takes them: a random description of each in training, the one of encoding otherwise."""
        if self.is_periodic:
            chance = draws.uniform() if self.training and self.augment else None
            return self.anchored(crystals, chance)[0]
        return augmented(crystals, draws.noise) if self.training and self.augment else crystals

    def after_fit(self, train: Dataset, val: Dataset | None) -> None:
        """Take the sizes of the training data's cells and the spread of their latents, and learn the vector."""
        posterior = self.encode(train)
        self.gaussian.fit(posterior.mean, posterior.num_atoms)
        if self.vectors is not None:
            self.vectors.fit(cast("Crystals", train).crystals.to(self.device, self.dtype))

    # New crystals

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        n_atoms: Sizes | None = None,
        composition: Composition | None = None,
        prior: Control | None = None,
    ) -> CrystalBatch:
        """``n`` new crystals from a Gaussian of the latents of single atoms: controls, which are poor crystals.

        What makes a crystal, atoms that keep apart and a few elements that go together, is in how its latents go
        together. ``crystals/prior`` learns that.

        Args:
            n: how many.
            generator: source of the draws.
            n_atoms: atoms of each cell; drawn from the training data's sizes when missing.
            composition: a formula that all must have.
            prior: the ``standard`` normal of the KL term, or a ``gaussian`` with the latents' mean and covariance.

        Raises:
            NotSupportedError: no ``prior`` was chosen.
            ConfigError: an unknown prior, or sizes that the model or the composition do not allow.
        """
        if prior is None:
            raise NotSupportedError(
                "an autoencoder alone samples poor crystals. Train a prior on it: noumena fit crystals/mp20-prior "
                "model.autoencoder=RUN; or ask for the controls with prior='gaussian' or prior='standard'."
            )
        if prior not in get_args(Control):
            raise ConfigError(f"sample: unknown prior '{prior}'. {did_you_mean(str(prior), get_args(Control))}")
        histogram = cast("Tensor", self.gaussian.histogram)
        sizes = sizes_of(n, histogram, generator, n_atoms=n_atoms, composition=composition)
        found: list[CrystalBatch] = []
        for part in sizes.split(_ROWS):
            atoms, cells = int(part.sum()), len(part) if self.is_periodic else 0
            if prior == "gaussian":
                z = self.gaussian.sample(atoms, cells, generator)
            else:
                shape = (atoms + cells, self.latent_dim)
                z = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
            found.append(self.decode(z, part, composition=composition))
        return CrystalBatch.cat(found)

    @torch.no_grad()
    def interpolate(self, start: Any, end: Any, steps: int) -> CrystalBatch:
        """A path between two crystals of equally many atoms: a straight line between their latents, decoded.

        Atoms are paired so that the latents of pairs lie close together.

        Args:
            start, end: what :meth:`as_dataset` takes, one crystal each.
            steps: crystals of the path, ends included.

        Raises:
            ConfigError: fewer than two steps.
            DataError: more than one crystal, or different numbers of atoms.
        """
        if steps < 2:
            raise ConfigError(f"interpolate: expected at least 2 steps, got {steps}.")
        one = self.encode(start)
        return self.decode(path_between(one, self.encode(end), steps), one.num_atoms.expand(steps))


def _atoms_first(parts: list[Tensor], atoms: list[int]) -> Tensor:
    """Tokens of several batches as those of one: all atoms, then all cells."""
    if len(parts) == 1:
        return parts[0]
    pairs = list(zip(parts, atoms, strict=True))
    return torch.cat([*(part[:count] for part, count in pairs), *(part[count:] for part, count in pairs)])
