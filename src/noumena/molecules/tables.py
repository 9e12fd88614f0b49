"""The tables of a trained model of conformations."""

from collections.abc import Mapping, Sequence

import numpy as np

from noumena.core.evaluation import Table
from noumena.molecules.distributions import BASINS, POPULATED, SURFACE_BINS
from noumena.molecules.ensembles import Ensemble
from noumena.molecules.handedness import HANDS, THRESHOLD_PER_TORSION, Handedness
from noumena.molecules.validity import BROKEN_BOND, CLASH_BONDS, CLASH_LIMITS

ERRORS = {
    "pair_rmse": "pair distances, RMS error (Å)",
    "rmsd": "aligned RMSD, proper rotations (Å)",
    "rmsd_reflected": "aligned RMSD, reflections allowed (Å)",
    "rmsd_mean": "aligned RMSD, mean over frames (Å)",
    "rmsd_median": "aligned RMSD, median over frames (Å)",
    "bond_rmse": "bond lengths, RMS error (Å)",
    "angle_rmse_deg": "bond angles, RMS error (°)",
    "torsion_mae_deg": "torsions, mean absolute error (°)",
}
DISTANCES = {
    "bond_tv": "bond lengths, total variation",
    "angle_tv": "bond angles, total variation",
    "torsion_js": "torsions, Jensen-Shannon divergence (nats)",
    "torsion_w1": "torsions, Wasserstein-1 distance (rad)",
    "fes_mae": "free energy over phi and psi, MAE (kT)",
    "fes_mae_kj_mol": "free energy over phi and psi, MAE (kJ/mol)",
    "basin_error": "basin populations, mean absolute difference",
}
_FLAWS = {"bad": "clash or broken bond", "clash": "clash", "broken": "broken bond"}
_LISTED_CENTRES = 20


def error_table(columns: Mapping[str, Mapping[str, float]], frames: int, split: str, note: str) -> Table:
    """Errors of reconstructions, one column per method."""
    rows = [
        [words, *(values.get(name) for values in columns.values())]
        for name, words in ERRORS.items()
        if any(name in values for values in columns.values())
    ]
    caption = (
        f"Over {frames:,} frames of the {split} split. The gap between the two RMSD is the error of handedness: a "
        f"mirror image has the same distances and no proper rotation lays it on the original. {note}"
    )
    return Table("Reconstruction", ["", *columns], rows, caption.strip(), best="min")


def blocks_table(columns: Mapping[str, Mapping[str, float]], note: str) -> Table:
    """Errors on held-out and on training frames beside each other."""
    names = [*ERRORS, "bad", "handed_right", "handed_kept", "handed_frames"]
    words = {**ERRORS, "bad": "clash or broken bond", "handed_right": "handed frames that keep their sign"}
    words |= {"handed_kept": "handed frames that stay handed", "handed_frames": "handed frames"}
    rows = [
        [words[name], *(_whole(values.get(name)) for values in columns.values())]
        for name in names
        if any(name in values for values in columns.values())
    ]
    return Table("Held-out and training frames", ["", *columns], rows, note)


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == value and value >= 1 and value == int(value) else value


def validity_table(sets: Sequence[Ensemble]) -> Table:
    """Share of impossible frames of each set."""
    rows = [[words, *(part.flaws.rates[name] for part in sets)] for name, words in _FLAWS.items()]
    heavy, mixed, light = CLASH_LIMITS
    caption = (
        f"Share of the frames. Clash: two atoms {CLASH_BONDS} bonds or more apart nearer than {heavy} Å ({mixed} Å "
        f"with one hydrogen, {light} Å for two). Broken: a bond more than {BROKEN_BOND} Å off its mean over the "
        "training frames."
    )
    return Table("Impossible conformations", ["", *(part.label for part in sets)], rows, caption)


def confusion_table(counts: np.ndarray, hand: Handedness) -> Table:
    """Hand of originals against that of their reconstructions."""
    rows = [[f"original {name}", *map(int, line)] for name, line in zip(HANDS, counts, strict=True)]
    return Table(
        "Left and right: reconstructions",
        ["frames", *(f"reconstructed {name}" for name in HANDS)],
        rows,
        hand_words(hand),
    )


def hand_words(hand: Handedness) -> str:
    """What left and right mean."""
    degrees = np.degrees(THRESHOLD_PER_TORSION) * len(hand.names)
    return (
        f"By ζ, the sum of {_listed(hand.names)}: left where it is above {degrees:.0f}°, right where it is below "
        f"−{degrees:.0f}°."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def hands_table(sets: Sequence[Ensemble], note: str) -> Table:
    """Shares of left- and right-handed frames of each set."""
    rows = [[part.label, *(part.hands[name] for name in HANDS), _balance(part)] for part in sets]
    return Table(
        "Left and right: shares", ["", *HANDS, "left of the handed"], rows, f"Share of the frames. {note}".strip()
    )


def _balance(part: Ensemble) -> float | None:
    handed = part.hands["left"] + part.hands["right"]
    return part.hands["left"] / handed if handed > 0 else None


def chirality_table(sets: Sequence[Ensemble]) -> Table:
    """Share of the frames in which each centre keeps the sign it has in training; the worst ones first."""
    centres = sets[0].molecule.centres
    kept = np.stack([part.molecule.centres.kept(part.xyz).double().mean(0).numpy() for part in sets], axis=1)
    order = sorted(range(len(centres)), key=lambda i: (not centres.stereogenic[i], kept[i].min(), i))[:_LISTED_CENTRES]
    rows = [[centres.labels[i], "yes" if centres.stereogenic[i] else "by label", *kept[i].tolist()] for i in order]
    left_out = "" if len(order) == len(centres) else f" The {len(order)} worst of {len(centres)}."
    caption = (
        "Share of the frames in which the neighbours of an atom are arranged as in at least 99.9 % of the training "
        "frames. By label: two neighbours are chemically alike, so the other arrangement is the same molecule with "
        f"their names swapped.{left_out}"
    )
    return Table("Stereocentres", ["centre", "chiral", *(part.label for part in sets)], rows, caption)


def distribution_table(columns: Mapping[str, Mapping[str, float]], sets: Sequence[Ensemble], note: str) -> Table:
    """Distances of distributions, and radius of gyration, one column per set that was compared."""
    rows: list[list[object]] = [
        [words, *(values.get(name) for values in columns.values())]
        for name, words in DISTANCES.items()
        if any(name in values for values in columns.values())
    ]
    by_label = {part.label: part for part in sets}
    rows.append(["radius of gyration, mean (Å)", *(by_label[label].gyration[0] for label in columns)])
    rows.append(["radius of gyration, standard deviation (Å)", *(by_label[label].gyration[1] for label in columns)])
    surfaces = (
        f"Free energies: on {SURFACE_BINS} × {SURFACE_BINS} bins where the data have {POPULATED} frames or more, zeros "
        "set by the mean over these bins, a bin without samples counted as half a sample; mean over residues. "
    )
    caption = (
        "Total variation: half the L1 distance of histograms of 100 bins. Torsions: means over all. "
        f"{surfaces if any('fes_mae' in values for values in columns.values()) else ''}{note}"
    )
    return Table("Distributions", ["", *columns], rows, caption)


def basin_table(sets: Sequence[Ensemble]) -> Table:
    """Populations of the basins of the Ramachandran map."""
    words = {
        "alphaR": "αR: phi < 0, −100° ≤ psi < 50°",
        "beta": "β, C7eq: phi < 0, else",
        "alphaL": "αL: phi ≥ 0, −50° < psi ≤ 100°",
        "gamma": "C7ax: phi ≥ 0, else",
    }
    rows = [[words[name], *(part.basins[name] for part in sets)] for name in BASINS]
    return Table("Basins", ["", *(part.label for part in sets)], rows, "Share of the frames, all residues together.")


def latent_table(units: int, z_dim: int, kl: float, kl_each: Sequence[float]) -> Table:
    """Numbers of the posterior."""
    rows = [
        ["latents", z_dim],
        ["active units", units],
        ["KL to the prior (nats per molecule)", kl],
        ["largest KL of a latent (nats)", max(kl_each)],
        ["smallest KL of a latent (nats)", min(kl_each)],
    ]
    caption = "Active: the posterior mean's variance over the held-out frames is above 0.01."
    return Table("Latents", ["", "value"], rows, caption)
