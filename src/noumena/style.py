"""One look for every picture: colours that the colour-blind can tell apart, plain axes, figures without pyplot."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito 2008, without the yellow that vanishes on white.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, ORANGE = "#CC79A7", "#56B4E9", "#E69F00"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)
INK, GREY, PALE = "#1f2933", "#7b8794", "#cbd2d9"
SEQUENTIAL = "viridis"

_LONGEST_NAME = 26
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Names of columns and levels come from files: a dollar sign in one is no formula.
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The library's look, for figures made inside the block; the caller's matplotlib settings are left alone."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of ``width`` x ``height`` inches that keeps its labels from overlapping."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def short(name: str, longest: int = _LONGEST_NAME) -> str:
    """A name from a file as a label: cut in the middle when long, and never hidden from a legend."""
    name = " ".join(name.split()).lstrip("_") or "-"  # matplotlib leaves labels that begin with _ out of legends
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
