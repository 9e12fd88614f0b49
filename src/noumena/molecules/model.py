"""The variational autoencoder of a molecule's conformations."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.data import Dataset
from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.core.losses import LossTerms, kl_loss
from noumena.core.model import LatentModel
from noumena.core.posterior import DiagonalGaussian
from noumena.core.seeding import Noise, fold
from noumena.molecules.augmentation import Augmentation
from noumena.molecules.checks import check_hands
from noumena.molecules.conformations import Conformations, as_frames, centred
from noumena.molecules.geometry import superposed
from noumena.molecules.networks.egnn import EGNNDecoder
from noumena.molecules.networks.heads import PosteriorHead, PosteriorKind
from noumena.molecules.networks.internal import InternalDecoder
from noumena.molecules.networks.torsions import TorsionEncoder
from noumena.molecules.networks.visnet import ViSNetEncoder
from noumena.molecules.objective import Loss, Reconstruction, Weights
from noumena.molecules.options import WEIGHTS, Decoder, Encoder, Symmetry, check_options
from noumena.molecules.prior import LatentMixture, Prior
from noumena.molecules.splits import LEAST_FRAMES
from noumena.molecules.topology import Topology

# Training frames that statistics are taken from, at most, spread over all of them.
_STATISTICS_FRAMES = 8192
_TYPICAL_FRAMES = 64
# Numbers that one chunk of frames may hold in its widest tensor.
_CHUNK_NUMBERS = 1 << 24
_PRIOR = 3  # stream of the draws the prior is fitted to


class MoleculeVAE(LatentModel):
    r"""VAE of the conformations of one molecule, whose latents are invariant to rotation and translation.

    .. math:: \mathcal{L} = \mathrm{dist}(\hat x, x) + \sum_t \lambda_t \, t(\hat x, x)
        + \beta\, \mathrm{KL}\big(q(z \mid x) \,\|\, \mathcal{N}(0, I)\big),
        \qquad z \sim q(z \mid x),\; \hat x = d(z)

    ``dist`` is the mean squared error of the bond lengths or of all pair distances. Distances are the same in a mirror,
    so neither of them alone can teach a model which hand a molecule has: the terms ``aligned``, ``torsion`` and
    ``chirality`` can, provided the encoder sees it (``symmetry="SE3"``). With ``symmetry="E3"`` mirror images have the
    same code and no decoder can tell them apart.

    Coordinates are in angstrom. Statistics, mirror image and prior are buffers: a saved model needs nothing beside it.
    """

    sizes_from_data = ("topology",)

    def __init__(
        self,
        *,
        topology: Mapping[str, Any] | None = None,
        z_dim: int = 16,
        encoder: Encoder = "torsions",
        decoder: Decoder = "internal",
        symmetry: Symmetry = "SE3",
        posterior: PosteriorKind = "diagonal",
        width: int = 256,
        blocks: int = 2,
        layers: int = 2,
        channels: int = 32,
        neighbours: int = 12,
        cutoff: float = 12.0,
        loss: Loss = "pairwise",
        aligned: float = 1.0,
        local: float = 1.0,
        torsion: float = 1.0,
        chirality: float = 0.0,
        clash: float = 0.0,
        beta: float = 1e-3,
        free_bits: float = 0.0,
        mirror: bool = False,
        crossover: float = 0.0,
        mixture: int = 128,
    ) -> None:
        """
        Args:
            topology: elements and bonds, see :class:`~noumena.molecules.topology.Topology`; inferred by ``fit``.
            z_dim: number of latents.
            encoder: ``torsions`` (torsions and distances into a network) or ``visnet`` (message passing).
            decoder: ``internal`` (torsions, angles and bonds built into coordinates) or ``egnn`` (message passing on
                coordinates).
            symmetry: what leaves the code unchanged: rotations and translations (``SE3``), or reflections as well.
            posterior: one variance for each latent, or one for all (``isotropic``).
            width: of the hidden layers of ``torsions`` and ``internal``, and of the features of both encoders.
            blocks: residual blocks of every network that has some.
            layers, channels: of the message-passing networks ``visnet`` and ``egnn``.
            neighbours: of each atom there, those within three bonds first.
            cutoff: in angstrom, beyond which atoms of ``visnet`` do not see each other.
            loss: distances compared: of ``bond`` ed atoms, or of all pairs.
            aligned, local, torsion, chirality, clash: weights of further terms, see
                :class:`~noumena.molecules.objective.Weights`.
            beta: weight of the KL term, in square angstrom per nat.
            free_bits: nats per latent that cost nothing.
            mirror: replace half of the training frames by their mirror image, like atoms swapped so that labels keep
                their hand. Right for an achiral molecule only; refused where a centre is chiral.
            crossover: share of the training frames whose part beyond a random bond, of no ring, is taken from another
                frame, unless atoms then overlap more than in either: combinations of folds that the data do not have.
            mixture: components of the Gaussian mixture that :meth:`sample` draws latents from.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        super().__init__()
        self.topology = None if topology is None else dict(topology)
        self.z_dim = z_dim
        self.encoder: Encoder = encoder
        self.decoder: Decoder = decoder
        self.symmetry: Symmetry = symmetry
        self.posterior: PosteriorKind = posterior
        self.width = width
        self.blocks = blocks
        self.layers = layers
        self.channels = channels
        self.neighbours = neighbours
        self.cutoff = cutoff
        self.loss_kind: Loss = loss
        self.aligned = aligned
        self.local = local
        self.torsion = torsion
        self.chirality = chirality
        self.clash = clash
        self.beta = beta
        self.free_bits = free_bits
        self.mirror = mirror
        self.crossover = crossover
        self.mixture = mixture
        check_options({**self.hyperparameters(), "loss": loss})
        if self.is_built:
            self._build()

    def hyperparameters(self) -> dict[str, Any]:
        """The keyword arguments that make this model again, sizes from data included."""
        # The attribute of that name is the method every model has.
        return {**super().hyperparameters(), "loss": self.loss_kind}

    def summary(self) -> dict[str, Any]:
        """The hyperparameters, with the molecule in words."""
        words = f"{self.molecule.formula}, {len(self.molecule)} atoms, {len(self.molecule.bonds)} bonds"
        return {**self.hyperparameters(), "topology": words}

    # What the contract of models asks for

    @property
    def molecule(self) -> Topology:
        """The molecule this model is of.

        Raises:
            NotSupportedError: it is not known yet.
        """
        if self.topology is None:
            raise NotSupportedError("the model has no molecule yet: call fit(data), or load a saved one.")
        return self._molecule

    def as_dataset(self, data: Any) -> Conformations:
        """``data`` as conformations: themselves, a path that the reader takes, or coordinates in angstrom.

        Raises:
            DataError: another molecule than the model's, or coordinates of the wrong shape.
            NotSupportedError: bare coordinates before the molecule is known.
        """
        known = self._molecule if self.topology is not None else None
        if isinstance(data, Conformations):
            if known is not None and (difference := data.topology.difference(known)) is not None:
                raise DataError(f"the data are of another molecule than the model: {difference}.")
            self._check_hands(data.xyz, "the data")
            return data
        if isinstance(data, str | Path):
            from noumena.molecules.data import read_trajectory

            return read_trajectory(data, topology_of_model=known, schema=self.schema or None)
        if known is None:
            raise NotSupportedError(
                "coordinates alone do not tell which molecule they are of: pass Conformations or the path of a file."
            )
        xyz = centred(as_frames(data, len(known)).double()).float()
        self._check_hands(xyz, "coordinates")
        number = torch.arange(len(xyz), device=xyz.device)
        return Conformations(xyz, known, torch.zeros_like(number), number)

    def _check_hands(self, xyz: Tensor, where: str) -> None:
        """Refuse the mirror image of a chiral molecule, and labels of like atoms the other way round."""
        known = self.schema.get("hands")
        if known is not None:
            frames = _spread(xyz, _TYPICAL_FRAMES).cpu().numpy()
            check_hands(frames, self._molecule, np.asarray(known), where)

    def _infer_sizes(self, dataset: Dataset) -> Mapping[str, Any]:
        conformations = cast("Conformations", dataset)
        if self.topology is None:
            return {"topology": conformations.topology.to_json()}
        if (difference := conformations.topology.difference(self._molecule)) is not None:
            raise ConfigError(f"model.topology: the data are of another molecule than the model: {difference}.")
        return {"topology": self.topology}

    def _build(self) -> None:
        molecule = Topology.from_json(self.topology, "model.topology")
        self._molecule = molecule
        self.encoder_network = self._make_encoder(molecule)
        self.head = PosteriorHead(self.width, self.z_dim, self.posterior)
        self.decoder_network = self._make_decoder(molecule)
        weights = Weights(**{name: getattr(self, name) for name in WEIGHTS})
        self.reconstruction = Reconstruction(molecule, self.loss_kind, weights)
        self.augmentation = Augmentation(
            molecule, mirror=self.mirror, crossover=self.crossover, overlaps=self.reconstruction.overlaps
        )
        self.prior = LatentMixture(self.mixture, self.z_dim)

    def _make_encoder(self, molecule: Topology) -> nn.Module:
        if self.encoder == "torsions":
            return TorsionEncoder(molecule, width=self.width, blocks=self.blocks, symmetry=self.symmetry)
        return ViSNetEncoder(
            molecule,
            width=self.channels,
            vectors=max(1, self.channels // 4),
            layers=self.layers,
            neighbours=self.neighbours,
            cutoff=self.cutoff,
            features=self.width,
            blocks=self.blocks,
            symmetry=self.symmetry,
        )

    def _make_decoder(self, molecule: Topology) -> nn.Module:
        if self.decoder == "internal":
            return InternalDecoder(molecule, self.z_dim, width=self.width, blocks=self.blocks)
        return EGNNDecoder(
            molecule,
            self.z_dim,
            width=self.channels,
            layers=self.layers,
            neighbours=self.neighbours,
            trunk=self.width,
            blocks=self.blocks,
        )

    def _fit_preprocessing(self, dataset: Dataset) -> None:
        if len(dataset) < LEAST_FRAMES:
            raise DataError(f"{len(dataset)} frame to train on; {LEAST_FRAMES} are needed at least. Add frames.")
        xyz = _spread(cast("Conformations", dataset).xyz, _STATISTICS_FRAMES).to(self.device)
        self.augmentation.fit(xyz)
        if self.mirror:
            xyz = torch.cat([xyz, self.mirrored(xyz)])
        with torch.no_grad():
            for network in (self.encoder_network, self.decoder_network):
                cast("Any", network).calibrate(xyz)

    def for_training(self, dataset: Dataset) -> Dataset:
        """The same frames, with the largest batch that evaluation should take of them."""
        return replace(cast("Conformations", dataset), evaluation_rows=self.rows_at_once)

    @property
    def rows_at_once(self) -> int:
        """Frames that one call without gradients should take at most, for the memory it needs."""
        atoms = len(self._molecule)
        edges = 8 * self.channels * self.neighbours * atoms if self.encoder == "visnet" or self.decoder == "egnn" else 0
        return max(1, _CHUNK_NUMBERS // max(atoms * atoms, edges, self.width))

    def mirrored(self, xyz: Tensor) -> Tensor:
        """Mirror images of frames, shape (batch, atoms, 3), with like atoms swapped where ``mirror`` is true."""
        return self.augmentation.mirrored(xyz)

    def encode(self, batch: Any) -> DiagonalGaussian:
        """The posterior of each frame.

        Args:
            batch: coordinates in angstrom, shape (batch, atoms, 3), or what :meth:`as_dataset` takes.
        """
        if isinstance(batch, Tensor):
            return self._encode(batch.to(self.device, self.dtype))
        with torch.no_grad():
            frames = self.as_dataset(batch).xyz.split(self.rows_at_once)
            found = [self._encode(part.to(self.device, self.dtype)) for part in frames]
        return type(found[0])(torch.cat([q.mean for q in found]), torch.cat([q.log_var for q in found]))

    def _encode(self, xyz: Tensor) -> DiagonalGaussian:
        # The networks take differences of coordinates only: moving the frame first would round once more.
        return self.head(self.encoder_network(xyz))

    def decode(self, z: Tensor) -> Tensor:
        """Coordinates in angstrom, shape (batch, atoms, 3), centroids at the origin, in an orientation of their own.

        Args:
            z: latents, shape (batch, latent).

        Raises:
            DataError: another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise DataError(f"decode: expected latents of shape (batch, {self.z_dim}), got {tuple(z.shape)}.")
        return self.decoder_network(z)

    def loss(self, batch: Any, *, noise: Noise | None = None, beta_scale: float = 1.0) -> LossTerms:
        """The training objective of frames, shape (batch, atoms, 3), in angstrom; in square angstrom."""
        xyz: Tensor = batch
        if self.training:
            xyz = self.augmentation(xyz, noise)
        posterior = self._encode(xyz)
        drawn = None if noise is None else noise.normal_like(posterior.mean)
        total, parts = self.reconstruction(self.decoder_network(posterior.sample(noise=drawn)), xyz)
        # The unconstrained KL is what is reported; free bits change what is minimised.
        kl = kl_loss(posterior)
        paid = kl_loss(posterior, self.free_bits) if self.free_bits else kl
        return LossTerms(total + self.beta * beta_scale * paid, {**parts, "kl": kl})

    def after_fit(self, train: Dataset, val: Dataset | None) -> None:
        """Fit the prior to draws of the posteriors of the training data, mirror images included if they are."""
        xyz = cast("Conformations", train).xyz
        z = self._draws(xyz, 0)
        if self.mirror:
            # Drawn apart, so that both hands count alike.
            z = torch.cat([z, self._draws(self.mirrored(xyz.to(self.device)), 1)])
        self.prior.fit(z)

    @torch.no_grad()
    def _draws(self, xyz: Tensor, stream: int) -> Tensor:
        found: list[Tensor] = []
        for number, part in enumerate(xyz.split(self.rows_at_once)):
            posterior = self._encode(part.to(self.device, self.dtype))
            noise = Noise(fold(_PRIOR, stream, number)).normal_like(posterior.mean)
            found.append(posterior.sample(noise=noise))
        return torch.cat(found)

    # Verbs

    @torch.no_grad()
    def reconstruct(self, data: Any) -> Tensor:
        """Frames encoded to the posterior mean and decoded, superposed on themselves by a proper rotation.

        Args:
            data: coordinates in angstrom, shape (frames, atoms, 3), or what :meth:`as_dataset` takes.

        Returns:
            Shape (frames, atoms, 3), in angstrom. Centroids are those of coordinates given as a tensor.
        """
        xyz = as_frames(data, len(self.molecule)) if isinstance(data, Tensor) else self.as_dataset(data).xyz
        found: list[Tensor] = []
        for part in xyz.to(self.device, self.dtype).split(self.rows_at_once):
            found.append(superposed(self.decoder_network(self._encode(part).mean), part))
        return torch.cat(found)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *, prior: Prior = "fitted") -> Tensor:
        """``n`` new conformations, shape (n, atoms, 3), in angstrom.

        Args:
            n: how many.
            generator: source of the draws.
            prior: the mixture fitted to the training data's latents, or the standard ``normal`` of the KL term.

        Raises:
            ConfigError: ``n`` below 1 or an unknown prior.
        """
        if n < 1:
            raise ConfigError(f"sample: expected n of at least 1, got {n}.")
        if prior not in get_args(Prior):
            raise ConfigError(f"sample: unknown prior '{prior}'. {did_you_mean(str(prior), get_args(Prior))}")
        if prior == "fitted":
            z = self.prior.sample(n, generator)
        else:
            z = torch.randn(n, self.z_dim, generator=generator, dtype=self.dtype, device=self.device)
        return self.decode_in_chunks(z)

    @torch.no_grad()
    def decode_in_chunks(self, z: Tensor) -> Tensor:
        """:meth:`decode` for any number of latents, without gradients."""
        return torch.cat([self.decode(part) for part in z.to(self.device, self.dtype).split(self.rows_at_once)])

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """A path between two conformations: a straight line between their latents, decoded.

        Args:
            start, end: coordinates in angstrom, shape (atoms, 3).
            steps: frames of the path, ends included.

        Returns:
            Shape (steps, atoms, 3), in angstrom, each superposed on the one before it.

        Raises:
            ConfigError: fewer than two steps.
            DataError: coordinates of the wrong shape.
        """
        if steps < 2:
            raise ConfigError(f"interpolate: expected at least 2 steps, got {steps}.")
        atoms = len(self.molecule)
        ends = torch.cat([as_frames(start, atoms, where="start")[:1], as_frames(end, atoms, where="end")[:1]])
        first, last = self._encode(ends.to(self.device, self.dtype)).mean
        share = torch.linspace(0.0, 1.0, steps, dtype=self.dtype, device=self.device)[:, None]
        path = list(self.decode_in_chunks(first + share * (last - first)).unbind())
        for number in range(1, steps):
            path[number] = superposed(path[number][None], path[number - 1][None])[0]
        return torch.stack(path)


def _spread(xyz: Tensor, most: int) -> Tensor:
    """At most ``most`` frames, evenly spread over all."""
    if len(xyz) <= most:
        return xyz
    return xyz[torch.linspace(0, len(xyz) - 1, most, device=xyz.device).round().long()]
