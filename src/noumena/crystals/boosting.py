"""Gradient boosting on what a crystal is made of: what a vector that knows the structure has to beat."""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.descriptors import SPECIES, element_properties
from noumena.crystals.elements import MASSES

_NORMS = (2.0, 3.0, 5.0)


def composition_columns(crystals: CrystalBatch) -> NDArray[np.float32]:
    """Shares of the elements and statistics of their properties, as Magpie has them (Ward et al. 2016).

    Shares of 118 elements; mean, least, greatest, range, standard and mean absolute deviation over the atoms of each of
    17 properties; norms of the shares and the number of elements. Blind to the structure.

    Returns:
        shape (crystals, 224).
    """
    place = (crystals.crystal * SPECIES + crystals.atom_types).cpu()
    counts = torch.bincount(place, minlength=len(crystals) * SPECIES).view(len(crystals), SPECIES)
    table = torch.cat([torch.arange(SPECIES)[:, None], torch.tensor(MASSES)[:, None], element_properties()], 1)
    return torch.cat([_columns(some, table) for some in counts.split(1024)]).float().numpy()


def _columns(counts: Tensor, table: Tensor) -> Tensor:
    share = counts.double() / counts.sum(1, keepdim=True)
    absent = (counts == 0)[:, :, None]
    mean = share @ table
    least = torch.where(absent, torch.inf, table).min(1).values
    greatest = torch.where(absent, -torch.inf, table).max(1).values
    off = table - mean[:, None]  # (crystals, elements, properties)
    deviation = torch.einsum("ce,cep->cp", share, off.square()).sqrt()
    absolute = torch.einsum("ce,cep->cp", share, off.abs())
    norms = [share.pow(power).sum(1).pow(1.0 / power) for power in _NORMS]
    some = torch.stack([*norms, (counts > 0).sum(1).double()], 1)
    return torch.cat([share[:, 1:], mean, least, greatest, greatest - least, deviation, absolute, some], 1)


class CompositionBoosting:
    """Histogram gradient boosting (Ke et al. 2017, as scikit-learn has it) of a property on composition columns."""

    def __init__(self, *, iterations: int = 1500, rate: float = 0.05, leaves: int = 63, seed: int = 0) -> None:
        """
        Args:
            iterations: trees.
            rate: of learning.
            leaves: of each tree, at most.
            seed: of the histograms' rows.
        """
        from sklearn import ensemble

        self._trees: Any = cast("Any", ensemble).HistGradientBoostingRegressor(
            max_iter=iterations,
            learning_rate=rate,
            max_leaf_nodes=leaves,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )

    def fit(self, crystals: CrystalBatch, target: Tensor) -> "CompositionBoosting":
        """Learn ``target`` (crystals,), in any unit."""
        self._trees.fit(composition_columns(crystals), target.cpu().numpy())
        return self

    def predict(self, crystals: CrystalBatch) -> Tensor:
        """In the unit of the target, float64, shape (crystals,)."""
        return torch.from_numpy(np.asarray(self._trees.predict(composition_columns(crystals)), dtype=np.float64))
