"""What the explorer's page asks of a family: points of a map, and drawings of what lies at them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from noumena.core.errors import NotSupportedError
from noumena.core.evaluation import Table


@dataclass(frozen=True)
class Drawing:
    """One sample as people of the field look at it: a figure, a table, or both.

    Attributes:
        figure: a plotly figure as plain values, ``{"data": [...], "layout": {...}}``, or ``None``. Colours of text and
            paper, fonts and margins are the page's.
        table: rows to read, or ``None``.
        note: one line below: what is shown, with numbers and units.
        ending: of the file that :attr:`file` makes, such as ``.cif``.
        file: makes the content of the file to download, in a format that programs of the field open.
    """

    figure: Mapping[str, Any] | None = None
    table: Table | None = None
    note: str = ""
    ending: str = ""
    file: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Points:
    """The samples of the map.

    Attributes:
        vectors: of the samples, float32, shape (samples, size); the page maps them to the plane.
        names: one text per sample that finds it again in the data (row, frame, identifier).
        colours: what the map can be coloured by: name to one number or text per sample, shape (samples,). The first
            is shown at first.
        about: one line: which data these are, and how many of how many.
    """

    vectors: np.ndarray
    names: Sequence[str]
    colours: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    about: str = ""


@dataclass(frozen=True)
class Slider:
    """One direction of the latent space that can be moved along.

    Attributes:
        name: such as ``z3``.
        low, high: the range, in units of the latent.
    """

    name: str
    low: float
    high: float


class Explorer:
    """What the explorer's page shows of one trained model and its data.

    A family's explorer is made by the function that :attr:`noumena.core.family.Family.explore` names, called as
    ``function(model, splits, limit=20_000)``. It computes the points at once, in batches, and each drawing when it
    is asked for. Samples are addressed by their position in :attr:`points`, which the page has checked.

    Attributes:
        points: the map.
        sliders: the directions with most effect, at most sixteen; empty where the model has none.
        without: what the model cannot do, each with the reason in words: of ``reconstruction``, ``moved``, ``path``
            and ``samples``. The page says so in place of the panel.
        wide: drawings are strips, so that the original stands above the reconstruction instead of beside it.
    """

    points: Points
    sliders: Sequence[Slider] = ()
    without: Mapping[str, str] = {}
    wide: bool = False

    def original(self, index: int) -> Drawing:
        """The sample as it is in the data."""
        raise NotImplementedError

    def reconstruction(self, index: int) -> Drawing:
        """The sample encoded to its posterior mean and decoded again, drawn like the original."""
        raise self._cannot("reconstruction")

    def details(self, index: int) -> Sequence[Table]:
        """What the family says of a sample in numbers: score, p-value, contributions, properties."""
        return ()

    def positions(self, index: int) -> Sequence[float]:
        """Where each slider stands for a sample."""
        raise self._cannot("moved")

    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """What is decoded from a sample's latents with the sliders at ``positions``."""
        raise self._cannot("moved")

    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """What is decoded on the way between two samples, both included."""
        raise self._cannot("path")

    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """New samples of the model; the same seed gives the same ones."""
        raise self._cannot("samples")

    def _cannot(self, what: str) -> NotSupportedError:
        return NotSupportedError(self.without.get(what, f"this model has no {what}."))


LEAST_POINTS = 10
"""Of fewer points nothing can be told of the directions in which latents vary."""


def why_nothing_moves(points: int, otherwise: str) -> str:
    """The reason why there is no slider: too few points to tell, or what is the matter with the model.

    Args:
        points: how many there are.
        otherwise: what to say of enough of them.
    """
    if points >= LEAST_POINTS:
        return otherwise
    what = "there is a single point" if points == 1 else f"there are {points} points"
    return f"{what}, too few to tell along which directions latents vary; it takes {LEAST_POINTS}. Show more data."


def evenly(n: int, limit: int) -> np.ndarray:
    """Positions of at most ``limit`` of ``n`` samples, evenly spread, in order."""
    return np.unique(np.linspace(0, n - 1, min(n, limit)).round().astype(np.int64))
