"""What needs no learning: the crystal of the training data whose composition is nearest, and untrained networks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.model import LatentModel
from noumena.core.seeding import fold, seeded
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import counts_of
from noumena.crystals.elements import ELECTRONEGATIVITIES
from noumena.crystals.fingerprints import feature_distances, features_of_counts

_WEIGHTS = 7  # stream of the seed
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Lookup:
    """Training crystals looked up by composition: what a reconstruction without any latent would be.

    Attributes:
        crystals: of the training data.
        counts: of their elements, shape (crystals, 119).
        features: of their compositions.
    """

    crystals: CrystalBatch
    counts: Tensor
    features: Tensor

    @classmethod
    def fit(cls, crystals: CrystalBatch) -> "Lookup":
        """Keep training crystals to look up."""
        counts = counts_of(crystals)
        return cls(crystals, counts, features_of_counts(counts))

    def predict(self, queries: CrystalBatch) -> CrystalBatch:
        """For each query, told only its composition, a training crystal with the query's elements.

        Among the training crystals with the same numbers of atoms per element (such as 1, 1, 3), whatever the elements,
        the one of the nearest composition; its elements are replaced by the query's, ordered by number of atoms, then
        by electronegativity. Where there is none with these numbers, the one of the nearest composition as it is.
        """
        counts = counts_of(queries)
        chosen, alike = self._nearest(counts)
        found = self.crystals.select(chosen)
        types = found.atom_types.clone()
        swapped = _swapped(self.counts[chosen], counts)  # (queries, 119): new element of each old one
        same = alike[found.crystal]
        types[same] = swapped[found.crystal[same], types[same]]
        return CrystalBatch(types, found.frac_coords, found.lattice, found.num_atoms, queries.names)

    def _nearest(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the training crystals, int64, and whether they have the query's numbers of atoms, bool."""
        features = features_of_counts(counts)
        ordered = torch.cat([counts, self.counts]).sort(1, descending=True).values  # numbers without their elements
        pattern, patterns = ordered.unique(dim=0, return_inverse=True)[1].split([len(counts), len(self.counts)])
        chosen: list[Tensor] = []
        alike: list[Tensor] = []
        for rows in torch.arange(len(counts)).split(_BLOCK):
            apart = feature_distances(features[rows], self.features)
            same = pattern[rows][:, None] == patterns[None]
            known = same.any(1)
            apart = torch.where(known[:, None] & ~same, torch.inf, apart)
            chosen.append(apart.argmin(1))
            alike.append(known)
        return torch.cat(chosen), torch.cat(alike)


def _swapped(old: Tensor, new: Tensor) -> Tensor:
    """The new element of each old one, of compositions with the same numbers of atoms; int64, shape (crystals, 119)."""
    found = torch.zeros_like(old)
    return found.scatter_(1, _ranked(old), _ranked(new))


def _ranked(counts: Tensor) -> Tensor:
    """Elements by number of atoms, the most first, then by electronegativity; shape (crystals, 119)."""
    scale = torch.tensor(ELECTRONEGATIVITIES, dtype=torch.float64).nan_to_num(0.0)
    # Electronegativities are below 4, so that 10 keeps the numbers of atoms apart.
    return torch.argsort(counts.double() * 10.0 + scale, dim=1, descending=True, stable=True)


def untrained(model: LatentModel, seed: int) -> LatentModel:
    """The same networks with new weights, and the statistics of the data (its buffers) of the trained model.

    Args:
        model: a trained one.
        seed: of the weights.
    """
    with seeded(fold(seed, _WEIGHTS)):
        fresh = type(model)(**model.hyperparameters())
    known = dict(model.named_buffers())
    for name, buffer in fresh.named_buffers():
        if name in known:
            buffer.copy_(known[name])
    fresh.schema = model.schema
    return fresh.to(model.device).eval()
