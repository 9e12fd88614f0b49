"""Evaluating a trained model of conformations: reconstructions, samples, left and right, beside plain baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError
from noumena.core.evaluation import Evaluation, Page, Picture, Table
from noumena.core.posterior import DiagonalGaussian, active_units
from noumena.core.seeding import fold
from noumena.molecules import plots, structures, tables
from noumena.molecules.baselines import AlignedPCA, mean_distance_rmse, mean_distances, thinned
from noumena.molecules.conformations import Conformations
from noumena.molecules.distributions import backbone_pairs, compare, widest_torsions
from noumena.molecules.ensembles import Ensemble, Molecule
from noumena.molecules.handedness import Handedness
from noumena.molecules.metrics import Errors, errors
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.path import Path, make_path
from noumena.molecules.view import viewer

# Training frames that are reconstructed too, and those whose distributions samples are held against; evenly spaced.
_TRAIN_RECONSTRUCTED = 2000
_TRAIN_REFERENCE = 20_000
# Gas constant in kJ/(mol K).
_GAS = 0.008314462618
# Streams of the seed, one for each random choice.
_FITTED, _NORMAL, _LINEAR, _REFERENCE = range(4)
_HEADLINES = (
    "pair_rmse",
    "baseline_pca/pair_rmse",
    "rmsd",
    "rmsd_reflected",
    "handed_right",
    "bond_rmse",
    "bad",
    "samples/bad",
    "samples/left_of_handed",
    "train/left_of_handed",
    "chirality",
    "samples/chirality",
    "samples/fes_mae",
)


@dataclass(frozen=True)
class Measured:
    """Everything that was computed, before it is written down.

    Attributes:
        split: name of the split that was held out.
        held, reconstructed, train: held-out frames, their reconstructions, training frames (the reference of samples).
        ideal: as many training frames as samples are drawn, at random with replacement.
        samples, normal, linear: drawn from the model's fitted prior, from N(0, I), and from principal components.
        errors: of the reconstructions; ``train_errors`` of training frames' reconstructions.
        train_right: share of the training frames that kept their hand, and their number; empty without hands.
        train_bad: share of the training frames' reconstructions with a clash or a broken bond.
        baselines: errors by heading and by key.
        posterior: of the held-out frames.
        path: between two of the held-out frames.
    """

    split: str
    held: Ensemble
    reconstructed: Ensemble
    train: Ensemble
    ideal: Ensemble
    samples: Ensemble
    normal: Ensemble
    linear: Ensemble | None
    errors: Errors
    train_errors: Errors
    train_right: Mapping[str, float]
    train_bad: float
    baselines: Mapping[str, tuple[str, Mapping[str, float]]]
    posterior: DiagonalGaussian
    path: Path


def evaluate(
    model: MoleculeVAE,
    splits: Splits,
    *,
    baselines: bool = True,
    samples: int = 2000,
    handedness: Sequence[str] | None = None,
    temperature: float | None = None,
    interpolation_steps: int = 20,
    seed: int = 0,
) -> Evaluation:
    """Measure a trained model on frames it was not trained on. The keywords are the ``evaluate`` section of a recipe.

    Reconstructions are held against the held-out frames; samples against the training frames (20,000 of them at most),
    whose distribution they are to follow.

    Args:
        model: a trained model of the molecules family.
        splits: the data it was trained on. The test split is evaluated, else val, else train.
        baselines: fit the mean structure and as many principal components of superposed training frames as there are
            latents.
        samples: conformations drawn from the fitted prior, and from N(0, I).
        handedness: names of the torsions whose sum tells left from right; by default the phi of a peptide's five inner
            residues where it has five or more. An empty list for none.
        temperature: of the data in kelvin; free energies are then also given in kJ/mol.
        interpolation_steps: frames of the path between two conformations, ends included.
        seed: of the samples.

    Returns:
        Metrics of the reconstructions: those of :func:`~noumena.molecules.metrics.errors` and of
        :func:`~noumena.molecules.distributions.compare`; ``bad``, ``clash``, ``broken``; with a coordinate of the hand
        ``handed_right``, ``handed_kept`` and ``handed_frames`` (see :meth:`Handedness.kept`), ``left``, ``right``,
        ``neither`` and ``left_of_handed``; ``chirality`` and ``prochirality`` (share of the frames that keep all
        centres); ``basin_*``, ``gyration``, ``active_units``, ``kl``. The same, where it has a meaning, of held-out
        frames after ``data/``, of training frames after ``train/``, of samples after ``samples/`` and
        ``samples_normal/``, of baselines after ``baseline_pca/`` (its samples after ``baseline_pca/samples/``) and
        ``baseline_mean/``. After ``ideal/`` the distances of distributions of as many training frames as there are
        samples, drawn at random: what perfect samples of this number would have. Tables, pictures, and a page with the
        molecule in 3-D.

    Raises:
        ConfigError: a number out of range, or a torsion that the molecule does not have.
    """
    _check(samples, interpolation_steps, temperature)
    measured = _measure(model, splits, baselines, samples, handedness, interpolation_steps, seed)
    metrics, found = _metrics(measured, temperature)
    return Evaluation(
        {name: metrics[name] for name in dict.fromkeys([*_HEADLINES, *metrics]) if name in metrics},
        _tables(measured, metrics, found, model),
        _pictures(measured),
        pages=[_page(measured)],
    )


def _check(samples: int, steps: int, temperature: float | None) -> None:
    if samples < 1:
        raise ConfigError(f"evaluate.samples: expected at least 1, got {samples}.")
    if steps < 2:
        raise ConfigError(f"evaluate.interpolation_steps: expected at least 2, got {steps}.")
    if temperature is not None and not temperature > 0:
        raise ConfigError(f"evaluate.temperature: expected kelvin above 0, got {temperature}.")


# Computing


def _measure(
    model: MoleculeVAE,
    splits: Splits,
    baselines: bool,
    samples: int,
    handedness: Sequence[str] | None,
    steps: int,
    seed: int,
) -> Measured:
    split, rows = next(
        (name, model.as_dataset(part).to("cpu"))
        for name, part in (("test", splits.test), ("val", splits.val), ("train", splits.train))
        if part is not None
    )
    train = model.as_dataset(splits.train).to("cpu")
    topology = model.molecule
    molecule = Molecule.fit(topology, train.xyz, Handedness.of(topology, handedness))

    def ensemble(key: str, label: str, xyz: Tensor) -> Ensemble:
        return Ensemble.of(key, label, xyz, molecule)

    held = ensemble("data", f"{split} frames" if split != "train" else "frames", rows.xyz)
    reconstructed = ensemble("", "reconstructions", model.reconstruct(rows))
    reference = ensemble("train", "training frames", train.xyz[thinned(len(train), _TRAIN_REFERENCE)])
    # With replacement, or they would be nearer to the whole than independent draws are.
    chosen = torch.randint(len(reference), (samples,), generator=_generator(seed, _REFERENCE))
    drawn = model.sample(samples, _generator(seed, _FITTED))
    normal = model.sample(samples, _generator(seed, _NORMAL), prior="normal")
    known, linear = _baselines(model.z_dim, train, held, samples, seed) if baselines else ({}, None)
    some = train.subset(thinned(len(train), _TRAIN_RECONSTRUCTED))
    first, second = ensemble("train", "training frames", some.xyz), ensemble("", "", model.reconstruct(some))
    return Measured(
        split,
        held,
        reconstructed,
        reference,
        ensemble("ideal", "ideal samples", reference.xyz[chosen]),
        ensemble("samples", "samples", drawn),
        ensemble("samples_normal", "samples, N(0, I)", normal),
        linear,
        _errors(held, reconstructed),
        _errors(first, second),
        _kept_hands(first, second),
        second.flaws.rates["bad"],
        known,
        model.encode(rows),
        make_path(model, held, steps),
    )


def _errors(original: Ensemble, other: Ensemble) -> Errors:
    return errors(original.xyz, other.xyz, original.molecule.topology, (original.parts, other.parts))


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold(seed, stream))


def _kept_hands(original: Ensemble, other: Ensemble) -> dict[str, float]:
    hand = original.molecule.handedness
    if hand is None or original.zeta is None or other.zeta is None:
        return {}
    return hand.kept(original.zeta, other.zeta)


def _confusion(original: Ensemble, other: Ensemble) -> np.ndarray | None:
    hand = original.molecule.handedness
    if hand is None or original.zeta is None or other.zeta is None:
        return None
    return hand.confusion(original.zeta, other.zeta)


def _baselines(
    components: int, train: Conformations, held: Ensemble, samples: int, seed: int
) -> tuple[dict[str, tuple[str, Mapping[str, float]]], Ensemble]:
    """Heading and errors of mean structure and principal components by key, and samples of the latter."""
    pca = AlignedPCA.fit(train.xyz, components)
    molecule = held.molecule
    still = Ensemble.of("baseline_mean", "mean structure", pca.first(0).reconstruct(held.xyz), molecule)
    linear = Ensemble.of("baseline_pca", f"PCA, {len(pca.axes)} components", pca.reconstruct(held.xyz), molecule)
    mean = dict(_errors(held, still).values)
    # The mean of unlike structures is like none of them; the mean distances are the harder rival.
    mean["pair_rmse"] = mean_distance_rmse(held.xyz, mean_distances(train.xyz))
    known: dict[str, tuple[str, Mapping[str, float]]] = {
        linear.key: (
            linear.label,
            {**_errors(held, linear).values, **_kept_hands(held, linear), **linear.flaws.rates, **linear.chirality},
        ),
        still.key: (still.label, mean),
    }
    drawn = pca.sample(samples, _generator(seed, _LINEAR))
    return known, Ensemble.of("baseline_pca/samples", "PCA samples", drawn, molecule)


# Writing down


def _metrics(one: Measured, temperature: float | None) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """All metrics, and the distances of distributions by set."""
    metrics = {**one.errors.values, **_kept_hands(one.held, one.reconstructed)}
    found: dict[str, dict[str, float]] = {}
    for part, against in _compared(one):
        found[part.label], _ = compare(against.arrays, part.arrays, part.molecule.topology)
        if temperature is not None and "fes_mae" in found[part.label]:
            found[part.label]["fes_mae_kj_mol"] = found[part.label]["fes_mae"] * _GAS * temperature
        prefix = f"{part.key}/" if part.key else ""
        metrics |= {f"{prefix}{name}": value for name, value in found[part.label].items()}
    for part in _sets(one):
        metrics |= part.metrics()
    train = {**one.train_errors.values, **one.train_right, "reconstructed_bad": one.train_bad}
    metrics |= {f"train/{name}": value for name, value in train.items()}
    for key, (_, values) in one.baselines.items():
        metrics |= {f"{key}/{name}": value for name, value in values.items()}
    metrics["active_units"] = active_units(one.posterior.mean)
    metrics["kl"] = float(one.posterior.kl().double().mean())
    return metrics, found


def _compared(one: Measured) -> list[tuple[Ensemble, Ensemble]]:
    """Sets, and what their distributions are held against."""
    drawn = [one.ideal, one.samples, one.normal, *([] if one.linear is None else [one.linear])]
    return [(one.reconstructed, one.held), *((part, one.train) for part in drawn)]


def _sets(one: Measured) -> list[Ensemble]:
    """All sets; training frames once where they are the held-out ones."""
    first = [one.held, one.reconstructed] + ([] if one.split == "train" else [one.train])
    return [*first, one.samples, one.normal, *([] if one.linear is None else [one.linear])]


def _tables(
    one: Measured, metrics: Mapping[str, float], found: Mapping[str, Mapping[str, float]], model: MoleculeVAE
) -> list[Table]:
    columns = {"model": one.errors.values, **dict(one.baselines.values())}
    note = (
        "PCA: of training frames superposed on their mean, as many components as the model has latents. Mean "
        "structure: of the superposed training frames; its first row is of the mean distances, which no structure "
        "needs to have."
        if one.baselines
        else ""
    )
    sets = _sets(one)
    found_tables = [tables.error_table(columns, len(one.held), one.split, note)]
    if one.split != "train":
        held = {**one.errors.values, **_kept_hands(one.held, one.reconstructed), "bad": metrics["bad"]}
        own = {**one.train_errors.values, **one.train_right, "bad": one.train_bad}
        words = f"The model's errors. Training frames: at most {_TRAIN_RECONSTRUCTED:,}, evenly spaced."
        found_tables.append(tables.blocks_table({one.held.label: held, "training frames": own}, words))
    found_tables.append(tables.validity_table(sets))
    hand, counts = one.held.molecule.handedness, _confusion(one.held, one.reconstructed)
    if hand is not None and counts is not None:
        found_tables.append(tables.confusion_table(counts, hand))
        found_tables.append(tables.hands_table(sets, "Samples are to have the shares of the training frames."))
    if len(one.held.molecule.centres):
        found_tables.append(tables.chirality_table(sets))
    against = (
        f"Reconstructions against {one.held.label}, samples against training frames. Ideal samples: as many "
        "training frames, drawn at random."
    )
    found_tables.append(tables.distribution_table(found, [*sets, one.ideal], against))
    if one.held.basins:
        found_tables.append(tables.basin_table(sets))
    each = one.posterior.kl_per_dimension().double().mean(0).tolist()
    units = int(metrics["active_units"])
    return [*found_tables, tables.latent_table(units, model.z_dim, metrics["kl"], each)]


def _pictures(one: Measured) -> list[Picture]:
    topology = one.held.molecule.topology
    order = widest_torsions(topology, one.train.arrays["torsions"])
    sets = _sets(one)[: 3 if one.split == "train" else 4]
    found = [structures.overlays(one.held, one.reconstructed, one.errors.aligned)]
    pairs = list(backbone_pairs(topology).values())
    if pairs or len(order) > 1:
        found.append(plots.ramachandran(sets, pairs or [(order[0], order[1])], bool(pairs)))
    if one.held.zeta is not None:
        found.append(plots.hands(sets))
    found.append(plots.bonds(sets))
    if order:
        found.append(plots.torsions(sets, order))
    found += [structures.path(one.path), plots.along_path(one.path, order)]
    # A map of a single frame has no axes.
    if min(one.posterior.mean.shape) > 1 and order:
        found.append(plots.latent_map(one.posterior.mean.numpy(), one.held, order))
    return found


def _page(one: Measured) -> Page:
    return viewer(one.held, one.reconstructed, one.samples, one.path, one.errors.aligned)
