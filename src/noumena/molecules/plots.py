"""Pictures of distributions of conformations: free energies, bonds, torsions, left and right, and the latent space."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noumena.core.evaluation import Picture
from noumena.molecules.distributions import SURFACE_BINS, Surface, surface
from noumena.molecules.ensembles import Ensemble
from noumena.molecules.handedness import Handedness
from noumena.molecules.path import Path
from noumena.molecules.tables import hand_words
from noumena.style import BLUE, CYCLE, GREY, INK, PALE, SEQUENTIAL, VERMILLION, new_figure, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 8.0  # inches
_HIGHEST = 7.0  # kT, end of the colours of free energies
_SHOWN_TORSIONS = 9
_SHOWN_BONDS = 6
# Least width of a panel in angstrom: bonds that a simulation holds fixed are not to look spread out.
_NARROWEST = 0.02
_DOTS = 4000
_DEGREES = (-180, -90, 0, 90, 180)
# By the key of the set; what is compared lies beside or over what it is compared with.
_LOOKS: dict[str, dict[str, Any]] = {
    "data": {"histtype": "stepfilled", "color": PALE},
    "": {"histtype": "step", "color": BLUE, "linewidth": 1.5},
    "train": {"histtype": "step", "color": GREY, "linewidth": 1.2, "linestyle": "--"},
    "samples": {"histtype": "step", "color": VERMILLION, "linewidth": 1.5},
}


def ramachandran(sets: Sequence[Ensemble], pairs: Sequence[tuple[int, int]], backbone: bool) -> Picture:
    """Free-energy surfaces over two torsions, one panel per set.

    Args:
        sets: shown beside each other.
        pairs: columns of the two torsions; of several pairs all frames are counted together.
        backbone: whether these are phi and psi.
    """
    names = list(sets[0].molecule.topology.torsions)
    first, second = ("φ", "ψ") if backbone else (short(names[i], 24) for i in pairs[0])
    maps = [_together(part, pairs) for part in sets]
    with style():
        figure = new_figure(_WIDTH, 2.3)
        axes = figure.subplots(1, len(sets), squeeze=False, sharex=True, sharey=True)[0].tolist()
        drawn: Any = None
        for axis, part, one in zip(axes, sets, maps, strict=True):
            energy = np.where(np.isfinite(one.energy), one.energy, np.nan).T
            drawn = axis.imshow(
                energy, origin="lower", extent=(-180, 180, -180, 180), cmap=SEQUENTIAL, vmin=0.0, vmax=_HIGHEST
            )
            axis.set_title(part.label)
            axis.set(xticks=_DEGREES, yticks=_DEGREES, xlabel=f"{first} (°)")
            axis.tick_params(axis="x", labelsize=7)
            axis.grid(visible=False)
        axes[0].set_ylabel(f"{second} (°)")
        bar = figure.colorbar(drawn, ax=axes, label="free energy (kT)", extend="max", shrink=0.9, pad=0.01)
        bar.outline.set_visible(False)
    which = "" if not backbone else f" {_pooled(sets[0], pairs)}"
    caption = (
        f"F = −ln p on {SURFACE_BINS} × {SURFACE_BINS} bins in units of kT, the lowest bin of each panel at 0; white: "
        f"no frame.{which}{'' if backbone else ' The two torsions that vary most.'}"
    )
    return Picture("ramachandran", "Free energy over two torsions" if not backbone else "Ramachandran", figure, caption)


def _together(part: Ensemble, pairs: Sequence[tuple[int, int]]) -> Surface:
    angle = part.arrays["torsions"]
    return surface(angle[:, [i for i, _ in pairs]], angle[:, [j for _, j in pairs]])


def _pooled(part: Ensemble, pairs: Sequence[tuple[int, int]]) -> str:
    names = list(part.molecule.topology.torsions)
    residues = [names[i].partition(":")[2] for i, _ in pairs]
    if len(residues) == 1:
        return f"Residue {residues[0]}."
    return f"Residues {residues[0]} to {residues[-1]} ({len(residues)}) counted together."


def hands(sets: Sequence[Ensemble]) -> Picture:
    """Histogram of the coordinate that tells left from right."""
    hand = sets[0].molecule.handedness
    assert hand is not None
    zeta = {part.key: np.degrees(_zeta(part)) for part in sets}
    most = 1.02 * max(float(np.abs(values).max()) for values in zeta.values())
    threshold = math.degrees(hand.threshold)
    most = max(most, 1.3 * threshold)
    with style():
        figure = new_figure(_WIDTH * 0.85, 3.1)
        axis = figure.subplots()
        for part in sets:
            _histogram(axis, zeta[part.key], np.linspace(-most, most, 73), part)
        for end in (-threshold, threshold):
            axis.axvline(end, color=INK, linewidth=0.8, linestyle=":")
        for place, word in ((-0.5 * (most + threshold), "right"), (0.5 * (most + threshold), "left")):
            axis.text(place, 0.97, word, ha="center", va="top", transform=axis.get_xaxis_transform())
        axis.set(xlim=(-most, most), xlabel="ζ (°)", ylabel="share of the frames per degree")
        _plain(axis)
        figure.legend(*_handles(axis), loc="outside upper right", ncols=len(sets))
    caption = f"{hand_words(hand)} Dotted: where left and right begin. A mirror image has −ζ."
    return Picture("handedness", "Left and right", figure, caption)


def _zeta(part: Ensemble) -> np.ndarray:
    zeta = part.zeta
    assert zeta is not None
    return zeta.numpy()


def bonds(sets: Sequence[Ensemble]) -> Picture:
    """Histograms of bond lengths, one panel per pair of elements; of many kinds the most frequent ones."""
    topology = sets[0].molecule.topology
    kinds: dict[str, list[int]] = {}
    for number, (i, j) in enumerate(topology.bonds):
        label = "–".join(sorted((topology.symbols[i], topology.symbols[j]), key=lambda s: (s == "H", s)))
        kinds.setdefault(label, []).append(number)
    shown = sorted(kinds, key=lambda kind: -len(kinds[kind]))[:_SHOWN_BONDS]
    with style():
        figure, axes = _grid(len(shown), columns=3, panel_height=1.9)
        for axis, kind in zip(axes, shown, strict=True):
            lengths = [part.arrays["bonds"][:, kinds[kind]].ravel() for part in sets]
            ends = [np.quantile(values, [0.002, 0.998]) for values in lengths]
            low, high = (float(v) for v in (min(e[0] for e in ends), max(e[1] for e in ends)))
            margin = max(0.08 * (high - low), 0.5 * (_NARROWEST - (high - low)))
            bins = np.linspace(low - margin, high + margin, 61)
            for part, values in zip(sets, lengths, strict=True):
                _histogram(axis, values, bins, part)
            count = len(kinds[kind])
            axis.set_title(f"{kind}, {count} bond{'s' if count > 1 else ''}")
            axis.set_xlim(bins[0], bins[-1])
            axis.locator_params(axis="x", nbins=5)
            _plain(axis)
        figure.supxlabel("length (Å)", fontsize=9)
        figure.supylabel("density", fontsize=9)
        figure.legend(*_handles(axes[0]), loc="outside upper right", ncols=len(sets))
    left_out = "" if len(shown) == len(kinds) else f" The {len(shown)} most frequent of {len(kinds)} kinds."
    caption = f"Densities of bond lengths by the elements that are bonded.{left_out}"
    return Picture("bond_lengths", "Bond lengths", figure, caption)


def torsions(sets: Sequence[Ensemble], order: Sequence[int]) -> Picture:
    """Histograms of the torsions that vary most, in the order of the molecule.

    Args:
        sets: shown over each other.
        order: columns of the torsions, of the greatest spread first.
    """
    names = list(sets[0].molecule.topology.torsions)
    shown = sorted(order[:_SHOWN_TORSIONS])
    with style():
        figure, axes = _grid(len(shown), columns=3, panel_height=1.65)
        for axis, column in zip(axes, shown, strict=True):
            for part in sets:
                _histogram(axis, np.degrees(part.arrays["torsions"][:, column]), np.linspace(-180, 180, 61), part)
            axis.set_title(_torsion(names[column]))
            axis.set(xlim=(-180, 180), xticks=_DEGREES)
            _plain(axis)
        figure.supxlabel("torsion (°)", fontsize=9)
        figure.supylabel("density", fontsize=9)
        figure.legend(*_handles(axes[0]), loc="outside upper right", ncols=len(sets))
    left_out = "" if len(shown) == len(names) else f" The {len(shown)} of {len(names)} that vary most."
    return Picture("torsions", "Torsions", figure, f"Densities of torsions.{left_out}")


def along_path(path: Path, order: Sequence[int]) -> Picture:
    """Torsions, hand and distance from both ends along a path.

    Args:
        path: between two conformations.
        order: columns of the torsions, of the greatest spread first.
    """
    part = path.frames
    names, hand = list(part.molecule.topology.torsions), part.molecule.handedness
    steps = np.arange(1, len(part) + 1)
    bad = part.flaws.bad.numpy()
    shown = sorted(order[: len(CYCLE)])
    panels = (["hand"] if hand is not None else []) + (["torsions"] if shown else []) + ["distance"]
    with style():
        figure = new_figure(_WIDTH * 0.85, 0.5 + 1.75 * len(panels))
        axes = dict(zip(panels, figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0], strict=True))
        if hand is not None:
            axes["hand"].plot(steps, np.degrees(_zeta(part)), color=INK, marker="o", markersize=3)
            for end in (-hand.threshold, hand.threshold):
                axes["hand"].axhline(math.degrees(end), color=INK, linewidth=0.8, linestyle=":")
            axes["hand"].set(ylabel="ζ (°)", title="hand; dotted: where left and right begin")
        for i, column in enumerate(shown):
            angle = np.degrees(np.unwrap(part.arrays["torsions"][:, column]))
            axes["torsions"].plot(
                steps, angle, color=CYCLE[i], marker="o", markersize=2.5, label=_torsion(names[column])
            )
        if shown:
            axes["torsions"].set(ylabel="torsion (°)", title="torsions, without jumps at 180°")
            axes["torsions"].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        last = axes["distance"]
        last.plot(steps, path.from_start, color=BLUE, label="from the start")
        last.plot(steps, path.from_end, color=VERMILLION, label="from the end")
        if bad.any():
            last.plot(steps[bad], np.zeros(bad.sum()), "x", color=INK, clip_on=False, label="clash or broken")
        last.set(xlabel="step", ylabel="RMSD (Å)", title="distance from both ends", ylim=(0, None))
        last.locator_params(axis="x", integer=True)
        last.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        f"The path of the structures above: from frame {path.ends[0] + 1} to frame {path.ends[1] + 1} of the held-out "
        f"ones in {len(part)} steps. Steps with a clash or a broken bond: {int(bad.sum())}."
    )
    return Picture("path_torsions", "Along the path", figure, caption)


def latent_map(codes: np.ndarray, held: Ensemble, order: Sequence[int]) -> Picture:
    """Posterior means on their first two principal axes, coloured by hand and by torsions.

    Args:
        codes: posterior means of the held-out frames, shape (frames, latents).
        held: these frames.
        order: columns of the torsions, of the greatest spread first.
    """
    names, hand = list(held.molecule.topology.torsions), held.molecule.handedness
    centred = codes - codes.mean(0)
    _, singular, axes_of = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes_of[:2].T
    shares = singular[:2] ** 2 / max(float((singular**2).sum()), 1e-12)
    some = slice(None, None, max(1, len(codes) // _DOTS))
    colours = _colours(held, hand, order, names)
    with style():
        figure, axes = _grid(len(colours), columns=3, panel_height=2.2)
        for axis, (title, values, look) in zip(axes, colours, strict=True):
            dots = axis.scatter(*points[some].T, c=values[some], s=6, linewidths=0, rasterized=True, **look)
            axis.set_title(title)
            axis.set_aspect("equal", adjustable="datalim")
            axis.locator_params(nbins=5)
            figure.colorbar(dots, ax=axis, shrink=0.85).outline.set_visible(False)
        figure.supxlabel(f"principal axis 1 ({100 * shares[0]:.0f} % of the variance)", fontsize=9)
        figure.supylabel(f"principal axis 2 ({100 * shares[1]:.0f} %)", fontsize=9)
    caption = (
        f"Posterior means of {len(codes):,} held-out frames on their first two principal axes, in latent units. The "
        "colours of torsions close in a circle."
    )
    return Picture("latent_map", "Map of the latent space", figure, caption)


def _colours(
    held: Ensemble, hand: Handedness | None, order: Sequence[int], names: Sequence[str]
) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    found: list[tuple[str, np.ndarray, dict[str, Any]]] = []
    if hand is not None:
        end = 2 * math.degrees(hand.threshold)
        found.append(("ζ (°): left above 0", np.degrees(_zeta(held)), {"cmap": "RdBu", "vmin": -end, "vmax": end}))
    for column in order[: 3 - len(found)]:
        angle = np.degrees(held.arrays["torsions"][:, column])
        found.append((f"{_torsion(names[column])} (°)", angle, {"cmap": "twilight_shifted", "vmin": -180, "vmax": 180}))
    return found


def _histogram(axis: "Axes", values: np.ndarray, bins: np.ndarray, part: Ensemble) -> None:
    axis.hist(np.clip(values, bins[0], bins[-1]), bins.tolist(), density=True, label=part.label, **_LOOKS[part.key])


def _handles(axis: "Axes") -> tuple[Any, Any]:
    return axis.get_legend_handles_labels()


def _plain(axis: "Axes") -> None:
    """Densities are compared by shape; the numbers of the axis say nothing."""
    axis.set_yticks([])
    axis.grid(visible=False)


def _torsion(name: str) -> str:
    """``phi:3`` as ``φ of residue 3``."""
    kind, _, residue = name.partition(":")
    letter = {"phi": "φ", "psi": "ψ", "omega": "ω"}.get(kind)
    return f"{letter} of residue {residue}" if letter and residue else short(name, 28)


def _grid(panels: int, *, columns: int, panel_height: float) -> "tuple[Figure, list[Axes]]":
    """A figure with ``panels`` axes in reading order, at most ``columns`` beside each other."""
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    width = _WIDTH if columns > 2 else _WIDTH * (0.8 if columns == 2 else 0.6)
    figure = new_figure(width, max(panel_height * rows + 0.7, 2.6))
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]
