"""Make the pictures of docs/concepts.md: small models trained on the samples that come with the package.

usage: OMP_NUM_THREADS=1 python tools/concept_pictures.py [OUTPUT]
    OUTPUT  folder for concepts_*.png, docs/images by default

Every draw has a fixed seed. It takes about a minute on one core.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from noumena.core.posterior import active_units
from noumena.core.seeding import Noise
from noumena.density.data import open_episodes
from noumena.density.gmm import GaussianMixture
from noumena.density.model import VAE
from noumena.density.synthetic import shifted
from noumena.density.table import Table, as_table
from noumena.files import replacing
from noumena.molecules.conformations import Conformations
from noumena.molecules.data import open_trajectory
from noumena.molecules.handedness import HANDS, Handedness
from noumena.molecules.metrics import internal
from noumena.molecules.model import MoleculeVAE
from noumena.style import BLUE, GREY, INK, PALE, PURPLE, SEQUENTIAL, VERMILLION, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BETAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
PLAIN, COLLAPSED = 1.0, 30.0
LATENT_DIM = 8
SHIFTS = (0.5, 1.0)  # in standard deviations of the columns
PAIRS, STEPS = 200, 21
_DPI = 130
_WIDTH = 7.2
_ELLIPSES = 40
_SHOWN = 3.2  # latent units around 0


@dataclass(frozen=True)
class Rows:
    """State-action rows of the Hopper sample, split by trajectory: training, validation and test part."""

    train: Table
    val: Table
    test: Table


@dataclass(frozen=True)
class Trained:
    """A VAE and what it says of the test rows.

    Attributes:
        model: the VAE.
        rate: mean KL of the posterior to the prior, nats per row.
        distortion: mean of minus log p(x | z), z drawn from the posterior, nats per standardised row.
        kl: the rate by latent dimension, shape (latent,).
        active: whether the posterior mean varies, bool, shape (latent,).
        std: standard deviations of the posteriors, shape (rows, latent).
    """

    model: VAE
    rate: float
    distortion: float
    kl: np.ndarray
    active: np.ndarray
    std: np.ndarray


def hopper() -> Rows:
    """The shipped sample, split as the recipe density/hopper does."""
    splits = open_episodes("sample:hopper")
    return Rows(as_table(splits.train), as_table(splits.val), as_table(splits.test))


def train_vae(rows: Rows, *, latent_dim: int, beta: float) -> Trained:
    """A small VAE of the rows, measured on the test part."""
    model = VAE(latent_dim=latent_dim, hidden_dims=(128, 64), beta=beta)
    model.fit(rows.train, rows.val, max_epochs=60, batch_size=128, lr=2e-3, seed=0, patience=None, progress=False)
    with torch.inference_mode():
        posterior = model.encode(rows.test.rows)
        parts = model.loss(rows.test.rows, noise=Noise(0)).parts
    variance = posterior.mean.var(0, correction=0)
    active = (variance > 0.01).numpy()
    assert active.sum() == active_units(posterior.mean)
    return Trained(
        model,
        float(parts["kl"]),
        float(parts["reconstruction"]),
        posterior.kl_per_dimension().mean(0).numpy(),
        active,
        posterior.std.numpy(),
    )


def draw_beta(sweep: Sequence[tuple[float, Trained]]) -> "Figure":
    """Rate against distortion, and active units, of models that differ in beta alone."""
    betas = [beta for beta, _ in sweep]
    rates, distortions = ([getattr(one, name) for _, one in sweep] for name in ("rate", "distortion"))
    figure = new_figure(_WIDTH, 3.0)
    plane, units = figure.subplots(1, 2, width_ratios=[1.35, 1.0])
    plane.plot(rates, distortions, color=BLUE, marker="o", markersize=4.5, zorder=3)
    best = float(np.min(np.add(rates, distortions)))
    ends = np.array([0.0, max(rates) * 1.05])
    plane.plot(ends, best - ends, color=GREY, linestyle="--", linewidth=1.0)
    plane.annotate("equal ELBO", (ends[1] * 0.62, best - ends[1] * 0.62), (-6, -13), textcoords="offset points",
                   color=GREY, fontsize=8, ha="right")  # fmt: skip
    for beta, rate, distortion in zip(betas, rates, distortions, strict=True):
        plane.annotate(f"β = {beta:g}", (rate, distortion), (8, 2), textcoords="offset points", fontsize=8)
    plane.set_xlim(-1.0, ends[1] * 1.1)
    plane.set_xlabel("rate: KL to the prior (nats)")
    plane.set_ylabel("distortion: −log p(x | z) (nats)")
    units.semilogx(betas, [one.active.sum() for _, one in sweep], color=VERMILLION, marker="o", markersize=4.5)
    units.set_xticks(betas, [f"{beta:g}" for beta in betas])  # the style has no formulas, such as powers of ten
    units.minorticks_off()
    units.set_ylim(-0.4, LATENT_DIM + 0.4)
    units.set_xlabel("β")
    units.set_ylabel(f"active units, of {LATENT_DIM}")
    return figure


def draw_collapse(healthy: Trained, collapsed: Trained) -> "Figure":
    """What latent dimensions carry, and how wide posteriors are, with and without collapse."""
    figure = new_figure(_WIDTH, 2.7)
    bars, widths = figure.subplots(1, 2)
    places = np.arange(LATENT_DIM)
    for number, (one, colour, label) in enumerate(
        ((healthy, BLUE, f"β = {PLAIN:g}"), (collapsed, VERMILLION, f"β = {COLLAPSED:g}"))
    ):
        order = np.argsort(-one.kl, kind="stable")
        bars.bar(places + 0.38 * (number - 0.5), one.kl[order], width=0.36, color=colour,
                 label=f"{label}: {one.active.sum()} active")  # fmt: skip
        widths.hist(one.std.ravel(), bins=np.linspace(0.0, 1.1, 45).tolist(), color=colour, alpha=0.75, label=label,
                    density=False, weights=np.full(one.std.size, 100 / one.std.size))  # fmt: skip
    bars.set_xlabel("latent dimension, by rank")
    bars.set_ylabel("mean KL to the prior (nats)")
    bars.set_xticks(places, [str(place + 1) for place in places])
    bars.grid(axis="x", visible=False)
    bars.legend(loc="upper right")
    widths.set_xlabel("standard deviation of the posterior (prior: 1)")
    widths.set_ylabel("% of rows and dimensions")
    widths.legend(loc="upper center")
    return figure


def draw_latent(trained: Trained, test: Table) -> "Figure":
    """Posterior means of a model with two latents, some posteriors as ellipses, the prior as circles."""
    from matplotlib.patches import Ellipse

    with torch.inference_mode():
        posterior = trained.model.encode(test.rows)
    mean, std = posterior.mean.numpy(), posterior.std.numpy()
    height = test.rows[:, 0].numpy()
    figure = new_figure(_WIDTH * 0.8, 4.4)
    axis = figure.subplots()
    dots = axis.scatter(*mean.T, c=height, s=6, cmap=SEQUENTIAL, linewidths=0)
    for row in np.random.default_rng(0).choice(len(mean), _ELLIPSES, replace=False):
        axis.add_patch(
            Ellipse((mean[row, 0], mean[row, 1]), *(2 * std[row]), facecolor="none", edgecolor=INK, linewidth=0.8)
        )
    for radius in (1.0, 2.0):
        axis.add_patch(Ellipse((0.0, 0.0), 2 * radius, 2 * radius, facecolor="none", edgecolor=VERMILLION,
                               linestyle="--", linewidth=1.0))  # fmt: skip
        axis.annotate(f"prior, {radius:g} sd", (-0.6 * radius, -0.8 * radius), (-4, -2), textcoords="offset points",
                      ha="right", va="top", color=VERMILLION, fontsize=8)  # fmt: skip
    beyond = int((np.abs(mean).max(1) > _SHOWN).sum())
    axis.annotate(f"{beyond} of {len(mean):,} rows lie beyond", (_SHOWN, -_SHOWN), (-4, 4), textcoords="offset points",
                  ha="right", color=GREY, fontsize=8)  # fmt: skip
    axis.set_xlim(-_SHOWN, _SHOWN)
    axis.set_ylim(-_SHOWN, _SHOWN)
    axis.set_xlabel("latent 0")
    axis.set_ylabel("latent 1")
    axis.set_aspect("equal")
    bar = figure.colorbar(dots, ax=axis, label="height of the torso (m)", shrink=0.9)
    bar.ax.tick_params(length=0)
    return figure


def paths(model: VAE, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Straight lines between random pairs of rows, in latent space and in the columns.

    Returns:
        Positions on the way from 0 to 1, shape (steps,); decoded points of the latent lines and points of the lines
        between the reconstructions of both ends, each of shape (pairs, steps, columns).
    """
    ends = torch.randint(len(rows), (2, PAIRS), generator=torch.Generator().manual_seed(0))
    position = torch.linspace(0.0, 1.0, STEPS)
    with torch.inference_mode():
        start, end = (model.encode(rows[index]).mean for index in ends)
        z = start[:, None] + position[:, None] * (end - start)[:, None]
        decoded = model.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    straight = decoded[:, :1] + position[:, None] * (decoded[:, -1:] - decoded[:, :1])
    return position, decoded, straight


def draw_interpolation(model: VAE, judge: GaussianMixture, rows: Tensor) -> "Figure":
    """Log-density, by another model, along straight lines in latent space and in the columns."""
    position, decoded, straight = paths(model, rows)
    figure = new_figure(_WIDTH * 0.75, 3.0)
    axis = figure.subplots()
    for points, colour, label in (
        (decoded, BLUE, "line in latent space, decoded"),
        (straight, VERMILLION, "line between the same two rows"),
    ):
        scores = judge.score_samples(points.flatten(0, 1)).reshape(PAIRS, STEPS)
        low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75], axis=0)
        axis.fill_between(position.numpy(), low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(position.numpy(), middle, color=colour, label=label)
    axis.axhline(float(judge.threshold), color=GREY, linestyle="--", linewidth=1.0)
    axis.annotate("threshold", (1.0, float(judge.threshold)), (0, 3), textcoords="offset points", color=GREY,
                  ha="right", fontsize=8)  # fmt: skip
    axis.set_xlabel("position between two rows")
    axis.set_ylabel("log-density by a mixture (nats)")
    axis.legend(loc="lower left")
    return figure


def draw_scores(model: VAE, test: Table, train: Table) -> "Figure":
    """Scores with the threshold, and p-values, of normal rows and of the same rows moved."""
    std = train.rows.double().std(0, correction=0).to(test.rows)
    groups = [("test rows", GREY, test.rows)]
    for number, (distance, colour) in enumerate(zip(SHIFTS, (BLUE, VERMILLION), strict=True)):
        generator = torch.Generator().manual_seed(number)
        groups.append((f"moved by {distance:g} sd", colour, shifted(test.rows, distance, std, generator)))
    threshold = float(model.threshold)
    figure = new_figure(_WIDTH, 2.9)
    left, right = figure.subplots(1, 2)
    bins = np.linspace(threshold - 30.0, 20.0, 50)
    for label, colour, rows in groups:
        share = np.full(len(rows), 100 / len(rows))
        scores = np.maximum(model.score_samples(rows), bins[0])
        left.hist(scores, bins=bins.tolist(), color=colour, alpha=0.6, weights=share, label=label)
        right.hist(model.p_value(rows), bins=np.linspace(0.0, 1.0, 21).tolist(), color=colour, histtype="step",
                   linewidth=1.5, weights=share, label=label)  # fmt: skip
    left.axvline(threshold, color=INK, linestyle="--", linewidth=1.0)
    left.annotate("threshold", (threshold, 1.0), (-4, -8), xycoords=("data", "axes fraction"),
                  textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
    left.set_xlabel("score (nats); lower ones in the first bin")
    left.set_ylabel("% of rows")
    left.legend(loc="center left")
    right.axhline(5.0, color=PALE, linestyle="--", linewidth=1.0)
    right.set_xlabel("p-value")
    right.set_ylabel("% of rows")
    right.legend(loc="upper right")
    return figure


def draw_mirror() -> "Figure":
    """Codes of helices and of their mirror images, by a model that tells them apart and one that cannot."""
    figure = new_figure(_WIDTH, 3.3)
    for axis, symmetry in zip(figure.subplots(1, 2), ("SE3", "E3"), strict=True):
        _draw_codes(axis, symmetry)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, markerscale=2.0)
    return figure


def _draw_codes(axis: "Axes", symmetry: Literal["SE3", "E3"]) -> None:
    splits = open_trajectory("sample:aib9")
    parts = [part for part in (splits.train, splits.val, splits.test) if isinstance(part, Conformations)]
    topology = parts[0].topology
    model = MoleculeVAE(z_dim=2, width=128, symmetry=symmetry, mirror=True)
    model.fit(splits.train, splits.val, max_epochs=40, batch_size=64, lr=2e-3, seed=0, patience=None, progress=False)
    xyz = torch.cat([part.xyz for part in parts])
    hand = Handedness.of(topology)
    assert hand is not None
    hands = hand.hands(hand.zeta(internal(xyz, topology).torsions))
    with torch.inference_mode():
        mean, mirrored = model.encode(xyz).mean, model.encode(model.mirrored(xyz)).mean
    for number, colour in ((2, PALE), (0, BLUE), (1, VERMILLION)):
        chosen = hands == number
        axis.scatter(*mean[chosen].T.numpy(), s=7, color=colour, linewidths=0, label=HANDS[number])
    shown = (hands < 2).nonzero()[:, 0][:: max(1, int((hands < 2).sum()) // 8)]
    for row in shown.tolist():
        axis.plot(*torch.stack([mean[row], mirrored[row]]).T.numpy(), color=PURPLE, linewidth=0.7, marker="x",
                  markersize=4, markevery=[1])  # fmt: skip
    apart = float((mean - mirrored).norm(dim=1).median())
    axis.set_title(f"{symmetry}: mirror images are {apart:.2f} apart")
    axis.set_xlabel("latent 0")
    axis.set_ylabel("latent 1")


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, without the version of matplotlib in it."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=_DPI, metadata={"Software": None})


def pictures() -> dict[str, Callable[[], "Figure"]]:
    """Train the models; name of each picture to the function that draws it."""
    rows = hopper()
    sweep = [(beta, train_vae(rows, latent_dim=LATENT_DIM, beta=beta)) for beta in BETAS]
    by_beta = dict(sweep)
    plane = train_vae(rows, latent_dim=2, beta=PLAIN)
    judge = GaussianMixture()
    judge.fit(rows.train, rows.val, seed=0)
    plain = by_beta[PLAIN]
    return {
        "beta": lambda: draw_beta(sweep),
        "collapse": lambda: draw_collapse(plain, by_beta[COLLAPSED]),
        "latent": lambda: draw_latent(plane, rows.test),
        "interpolation": lambda: draw_interpolation(plain.model, judge, rows.test.rows),
        "scores": lambda: draw_scores(plain.model, rows.test, rows.train),
        "mirror": draw_mirror,
    }


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/concepts.md.")
    images = Path(__file__).parents[1] / "docs" / "images"
    parser.add_argument("output", type=Path, nargs="?", default=images)
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures().items():
        with style():
            save(draw(), output / f"concepts_{name}.png")


if __name__ == "__main__":
    main()
