"""Evaluating a trained model of crystals: reconstructions, samples and properties, beside plain baselines."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.evaluation import Evaluation, Table
from noumena.core.seeding import fold
from noumena.crystals import tables
from noumena.crystals.baselines import Lookup, untrained
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import composition_keys, formulas_of
from noumena.crystals.dataset import Crystals
from noumena.crystals.generation_metrics import coverage, distribution_distances, elements_of, generation
from noumena.crystals.generator import CrystalPrior
from noumena.crystals.matching import TIME_LIMIT, Matches, match
from noumena.crystals.metrics import Errors, by_atoms, match_values, reconstruction_errors
from noumena.crystals.model import CrystalVAE
from noumena.crystals.pictures import cells_page, reconstruction_pictures, sample_pictures
from noumena.crystals.regression import PropertyHead, evaluate_property
from noumena.crystals.separation import separated
from noumena.crystals.symmetry import space_groups, symmetrised
from noumena.crystals.validity import validity

# Streams of the seed, one for each random choice.
_ROWS, _POSTERIOR, _SAMPLES, _CONTROLS, _IDEAL, _COMPOSITIONS = range(6)
_CONTROL_PRIORS: Mapping[str, str] = {"standard": "N(0, I)", "gaussian": "Gaussian of the latents"}
_ASKED = (20, 5)  # compositions that are asked for, and samples of each
_LOOSE, _EXACT = 0.1, 0.01  # tolerances of space groups, in angstrom
_MAPPED = 2000  # crystals of the latent map
_HEADLINES = (
    "match_field",
    "match_original",
    "match_strict",
    "rms_field",
    "type_accuracy",
    "coord_error",
    "length_error",
    "angle_error",
    "space_group_0.1",
    "symmetrised_space_group_0.01",
    "train_match_field",
    "nearest_above_1.5",
    "valid",
    "elements",
    "unique",
    "novel",
    "composition_honoured",
    "samples_per_second",
)


@dataclass(frozen=True, eq=False)
class Scored:
    """One set of reconstructions.

    Attributes:
        key: prefix of its metrics.
        label: heading of its column.
        truth, found: crystals, in the same order.
        matches: of each crystal with its own.
        errors: atom by atom; ``None`` where the atoms are in another order.
    """

    key: str
    label: str
    truth: CrystalBatch
    found: CrystalBatch
    matches: Matches
    errors: Errors | None

    def values(self) -> dict[str, float]:
        """Match rates and errors."""
        return match_values(self.matches) | ({} if self.errors is None else self.errors.values())


def evaluate(
    model: Any,
    splits: Splits,
    *,
    structures: int = 1000,
    samples: int = 1000,
    baselines: bool = True,
    workers: int | None = None,
    time_limit: float | None = TIME_LIMIT,
    seed: int = 0,
) -> Evaluation:
    """Measure a trained model on crystals it was not trained on; the keywords are a recipe's ``evaluate`` section.

    Args:
        model: a trained ``CrystalVAE``, ``CrystalPrior`` or ``PropertyHead``.
        splits: the data it was trained on. The test split is evaluated, else val, else train.
        structures: held-out crystals that are reconstructed, and as many training crystals; a random choice of more.
        samples: crystals drawn from each prior; 0 for none.
        baselines: evaluate untrained networks and the training crystal of the nearest composition too, and the Gaussian
            priors that a fitted one has to beat.
        workers: processes that compare crystals, see :func:`noumena.crystals.matching.match`.
        time_limit: seconds for each pair of crystals, ``None`` for no limit.
        seed: of the choice of crystals, of posterior samples, of samples and of untrained weights.

    Returns:
        Of an autoencoder: the values of :func:`~noumena.crystals.metrics.match_values` and of
        :meth:`~noumena.crystals.metrics.Errors.values` for reconstructions of held-out crystals from the posterior's
        mean; the same after ``sample_`` (from a sample of the posterior), ``train_`` (training crystals), ``lookup_``
        (training crystal of the nearest composition; match rates only) and ``untrained_``; the values of
        :func:`~noumena.crystals.generation_metrics.generation` after ``standard_`` and ``gaussian_``;
        ``space_group_0.1`` and ``space_group_0.01``, the share that keeps its space group within so many angstrom.
        Of a prior: the values of ``generation`` for its samples, the same after ``standard_`` and ``gaussian_`` for its
        autoencoder's, after ``ideal_`` for as many training crystals; ``samples_per_second``, and
        ``composition_honoured``, the share of samples that have the composition asked for.
        Of a property head: see ``noumena.crystals.regression.evaluate_property``.
        Tables, pictures and a page with cells to turn.

    Raises:
        ConfigError: a number out of range.
        NotSupportedError: the model is none of the three, or pymatgen or smact is not installed.
    """
    for name, value, least in (("structures", structures, 1), ("samples", samples, 0)):
        if value < least:
            raise ConfigError(f"evaluate.{name}: expected at least {least}, got {value}.")
    kind = _kind(model)
    if kind == "property":
        return evaluate_property(model, splits, baselines=baselines, seed=seed)
    held_name, held = _held(splits)
    train = _crystals(model, splits.train)
    options: dict[str, Any] = {"workers": workers, "time_limit": time_limit}
    if kind == "prior":
        if samples < 1:
            raise ConfigError("evaluate.samples: a prior is measured by its samples; expected at least 1, got 0.")
        return _prior(model, train, _crystals(model, held), samples, baselines, options, seed)
    return _autoencoder(model, train, _crystals(model, held), held_name, structures, samples, baselines, options, seed)


def _kind(model: Any) -> str:
    """Which of the family's models it is."""
    kinds = {"vae": CrystalVAE, "prior": CrystalPrior, "property": PropertyHead}
    for kind, cls in kinds.items():
        if isinstance(model, cls):
            return kind
    expected = ", ".join(cls.__name__ for cls in kinds.values())
    raise NotSupportedError(f"evaluation of crystals: expected one of {expected}, got {type(model).__name__}.")


def _held(splits: Splits) -> tuple[str, Dataset]:
    parts = (("test", splits.test), ("validation", splits.val), ("training", splits.train))
    return next((name, part) for name, part in parts if part is not None)


def _crystals(model: Any, data: Dataset) -> Crystals:
    found: Crystals = data if isinstance(data, Crystals) else model.as_dataset(data)
    return found.to("cpu")


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold(seed, stream))


def _chosen(data: Crystals, most: int, seed: int) -> CrystalBatch:
    return data.crystals.select(_rows(data, most, seed))


def _rows(data: Crystals, most: int, seed: int) -> Tensor:
    """Numbers of at most so many crystals, a random choice in the order of the data."""
    return torch.randperm(len(data), generator=_generator(seed, _ROWS))[:most].sort().values


# Reconstructions


def _autoencoder(
    model: Any,
    train: Crystals,
    held: Crystals,
    split: str,
    structures: int,
    samples: int,
    baselines: bool,
    options: Mapping[str, Any],
    seed: int,
) -> Evaluation:
    truth = _chosen(held, structures, seed)
    known = None if split == "training" else _chosen(train, structures, seed)
    sets = _reconstructions(model, train, truth, known, split, baselines, seed)
    scored = _scored(sets, options)
    metrics = {f"{one.key}{name}": value for one in scored for name, value in one.values().items()}
    columns = {one.label: one.values() for one in scored}
    found_tables: list[Table] = [
        tables.match_table(columns, {one.label: len(one.truth) for one in scored}),
        tables.error_table({one.label: one.errors.values() for one in scored if one.errors is not None}),
    ]
    first = scored[0]
    values, table = _symmetry({one.key: one for one in scored})
    metrics |= values
    found_tables.append(table)
    if first.errors is not None:
        found_tables.append(tables.size_table(by_atoms(first.matches, first.errors), first.label))
    if samples and baselines:
        drawn = _controls(model, samples, seed)
        values, table = _sampled(drawn, {}, train, held, options, "Drawn from the autoencoder; its controls.")
        metrics |= values
        found_tables.append(table)
    mapped = held.subset(_rows(held, _MAPPED, seed))
    pictures = reconstruction_pictures(model, mapped, first.truth, first.found, first.label)
    return Evaluation(_ordered(metrics), found_tables, pictures, pages=[cells_page(first.truth, first.found)])


def _reconstructions(
    model: Any,
    train: Crystals,
    truth: CrystalBatch,
    known: CrystalBatch | None,
    split: str,
    baselines: bool,
    seed: int,
) -> list[tuple[str, str, CrystalBatch, CrystalBatch, bool]]:
    """Prefix, heading, originals, reconstructions, and whether atoms keep their order."""
    posterior = model.reconstruct(truth, generator=_generator(seed, _POSTERIOR))
    decoded = model.reconstruct(truth)
    found = [
        ("", f"{split} crystals", truth, decoded, True),
        ("sample_", "posterior sample", truth, posterior, True),
        ("symmetrised_", "symmetrised", truth, symmetrised(decoded.to("cpu", torch.float64))[0], True),
    ]
    if known is not None:
        found.append(("train_", "training crystals", known, model.reconstruct(known), True))
    if baselines:
        found.append(("lookup_", "lookup by composition", truth, Lookup.fit(train.crystals).predict(truth), False))
        fresh: Any = untrained(model, seed)
        found.append(("untrained_", "untrained", truth, fresh.reconstruct(truth), True))
    return found


def _scored(
    sets: Sequence[tuple[str, str, CrystalBatch, CrystalBatch, bool]], options: Mapping[str, Any]
) -> list[Scored]:
    """Match all sets at once, so that worker processes start once."""
    plain = [
        (replace(truth, names=()), replace(found, names=()).to("cpu", torch.float64)) for _, _, truth, found, _ in sets
    ]
    matches = match(
        CrystalBatch.cat([truth for truth, _ in plain]), CrystalBatch.cat([found for _, found in plain]), **options
    )
    scored: list[Scored] = []
    start = 0
    for (key, label, truth, found, ordered), (one, other) in zip(sets, plain, strict=True):
        part = matches.part(start, start + len(truth))
        errors = reconstruction_errors(one, other) if ordered else None
        scored.append(Scored(key, label, truth, found.to("cpu", torch.float64), part, errors))
        start += len(truth)
    return scored


def _symmetry(scored: Mapping[str, Scored]) -> tuple[dict[str, float], Table]:
    """Share of reconstructions that have the space group of their originals, as decoded and symmetrised."""
    group = space_groups(scored[""].truth, _EXACT)
    metrics: dict[str, float] = {"truth_without_symmetry": float((group == 1).double().mean())}
    rows: list[list[Any]] = []
    for key in ("", "symmetrised_"):
        shares: list[float] = []
        for symprec in (_LOOSE, _EXACT):
            share = float((space_groups(scored[key].found, symprec) == group).double().mean())
            metrics[f"{key}space_group_{symprec:g}"] = share
            shares.append(100.0 * share)
        rows.append([scored[key].label, *shares])
    caption = (
        f"Percent that has, within the tolerance, the space group its original has within {_EXACT:g} angstrom. "
        "Symmetrised: atoms and cell of the reconstruction moved onto its approximate space group, an option."
    )
    columns = ["", *(f"within {symprec:g} angstrom" for symprec in (_LOOSE, _EXACT))]
    return metrics, Table("Space groups kept", columns, rows, caption)


# Samples


def _prior(
    model: Any,
    train: Crystals,
    held: Crystals,
    samples: int,
    baselines: bool,
    options: Mapping[str, Any],
    seed: int,
) -> Evaluation:
    started = time.perf_counter()
    drawn: CrystalBatch = model.sample(samples, generator=_generator(seed, _SAMPLES))
    seconds = time.perf_counter() - started
    raw: CrystalBatch = model.sample(samples, generator=_generator(seed, _SAMPLES), separate=False)
    others = {"raw_": ("prior, atoms not separated", raw)}
    others |= _controls(model.trained_autoencoder(), samples, seed) if baselines else {}
    rows = torch.randint(len(train), (samples,), generator=_generator(seed, _IDEAL))
    ideal = train.crystals.select(rows)
    note = "Ideal: as many training crystals, drawn at random, none of them novel."
    metrics, table = _sampled(
        {"": ("prior", drawn), **others}, {"ideal_": ("ideal", ideal)}, train, held, options, note
    )
    metrics["samples_per_second"] = samples / seconds
    honoured = _honoured(model, held.crystals, seed)
    metrics["composition_honoured"] = honoured
    asked = Table(
        "Asked compositions",
        ["", ""],
        [
            ["samples with the composition asked for (%)", 100.0 * honoured],
            ["samples per second", metrics["samples_per_second"]],
        ],
        f"Reduced formulas of {_ASKED[0]} held-out crystals, {_ASKED[1]} samples each.",
    )
    return Evaluation(_ordered(metrics), [table, asked], sample_pictures(held.crystals, drawn))


def _controls(model: Any, samples: int, seed: int) -> dict[str, tuple[str, CrystalBatch]]:
    """Heading and samples of the priors that know nothing of the atoms of a crystal together, by prefix."""
    found: dict[str, tuple[str, CrystalBatch]] = {}
    for prior, words in _CONTROL_PRIORS.items():
        drawn: CrystalBatch = model.sample(samples, generator=_generator(seed, _CONTROLS), prior=prior)
        found[f"{prior}_"] = (words, drawn)
        found[f"{prior}_separated_"] = (f"{words}, atoms separated", separated(drawn).crystals)
    return found


def _sampled(
    drawn: Mapping[str, tuple[str, CrystalBatch]],
    data: Mapping[str, tuple[str, CrystalBatch]],
    train: Crystals,
    held: Crystals,
    options: Mapping[str, Any],
    note: str,
) -> tuple[dict[str, float], Table]:
    """Values by prefix, and the table. Data are not held against the training crystals that they are."""
    found: dict[str, Mapping[str, float]] = {}
    for key, (_, crystals) in drawn.items():
        found[key] = generation(crystals.to("cpu", torch.float64), train.crystals, held.crystals, **options).values
    for key, (_, crystals) in data.items():
        spread = coverage(crystals, held.crystals) | distribution_distances(crystals, held.crystals)
        elements = {"elements": float(elements_of(crystals).double().mean())}
        found[key] = validity(crystals) | spread | elements
    labels = {**drawn, **data}
    metrics = {f"{key}{name}": value for key, values in found.items() for name, value in values.items()}
    number = len(next(iter(labels.values()))[1])
    return metrics, tables.sample_table({labels[key][0]: values for key, values in found.items()}, number, note)


def _honoured(model: Any, held: CrystalBatch, seed: int) -> float:
    """Share of samples whose reduced formula is the one asked for."""
    rows = torch.randperm(len(held), generator=_generator(seed, _COMPOSITIONS))[: _ASKED[0]]
    asked = replace(held, names=()).select(rows)
    generator = _generator(seed, _COMPOSITIONS)
    right = 0
    keys = composition_keys(asked)
    for formula, key in zip(formulas_of(asked, reduced=False), keys, strict=True):
        found: CrystalBatch = model.sample(_ASKED[1], generator=generator, composition=formula)
        right += int((composition_keys(found.to("cpu")) == key).sum())
    return right / (len(asked) * _ASKED[1])


def _ordered(metrics: Mapping[str, float]) -> dict[str, float]:
    """The headlines first."""
    return {name: metrics[name] for name in dict.fromkeys([*_HEADLINES, *metrics]) if name in metrics}
