"""A path between two conformations that are far apart."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from noumena.molecules.baselines import thinned
from noumena.molecules.ensembles import Ensemble
from noumena.molecules.geometry import aligned_square_deviation, rotation_onto
from noumena.molecules.model import MoleculeVAE

# Among so many frames the ends are looked for.
_SEARCHED = 2000


@dataclass(frozen=True)
class Path:
    """Conformations decoded on a straight line between two latents.

    Attributes:
        frames: of the path; ends are reconstructions.
        ends: numbers of the two held-out frames.
        start, end: these frames, shape (atoms, 3).
        from_start, from_end: aligned RMSD of each frame from the two, in angstrom, shape (steps,).
    """

    frames: Ensemble
    ends: tuple[int, int]
    start: Tensor
    end: Tensor
    from_start: np.ndarray
    from_end: np.ndarray


def make_path(model: MoleculeVAE, held: Ensemble, steps: int) -> Path:
    """The path between two held-out frames: of opposite hands where there are such, else far apart."""
    first, last = _opposite_hands(held) or _far_apart(held.xyz)
    start, end = held.xyz[first], held.xyz[last]
    xyz = model.interpolate(start, end, steps).cpu().float()
    xyz = moved_onto(xyz, start)
    distances = [aligned_square_deviation(xyz, one.expand_as(xyz)).sqrt().numpy() for one in (start, end)]
    frames = Ensemble.of("path", "path", xyz, held.molecule)
    return Path(frames, (first, last), start, end, distances[0], distances[1])


def moved_onto(xyz: Tensor, start: Tensor) -> Tensor:
    """A path (steps, atoms, 3) moved as a whole so that its first frame lies on ``start`` (atoms, 3)."""
    old, new = xyz[0].mean(0), start.mean(0)
    return (xyz - old) @ rotation_onto((xyz[0] - old)[None], (start - new)[None])[0] + new


def _opposite_hands(held: Ensemble) -> tuple[int, int] | None:
    hand, zeta = held.molecule.handedness, held.zeta
    if hand is None or zeta is None or min(held.hands["left"], held.hands["right"]) == 0:
        return None
    return int(zeta.argmax()), int(zeta.argmin())


def _far_apart(xyz: Tensor) -> tuple[int, int]:
    """The frame farthest from the first one, and the frame farthest from that."""
    chosen = thinned(len(xyz), _SEARCHED)
    some = xyz[chosen]
    first = int(aligned_square_deviation(some, some[:1].expand_as(some)).argmax())
    last = int(aligned_square_deviation(some, some[first].expand_as(some)).argmax())
    return int(chosen[first]), int(chosen[last])
