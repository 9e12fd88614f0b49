"""Evaluating a trained multimodal model: every modality from every other, beside plain regressions and the laws of
physics.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.evaluation import Evaluation, Picture
from noumena.core.seeding import fold
from noumena.multimodal import metrics as figures
from noumena.multimodal import plots
from noumena.multimodal.baselines import COMPONENTS, Polynomial, Regression, fit_polynomial, fit_regression
from noumena.multimodal.frontend import FrontEnd
from noumena.multimodal.metrics import Hard, Measured
from noumena.multimodal.modality import Modality
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import Observations
from noumena.multimodal.physics import consistency
from noumena.multimodal.primitives import (
    LatentQuality,
    compared_surfaces,
    displaced,
    latent_quality,
    latent_table,
    swept_surfaces,
)
from noumena.multimodal.tables import BASELINES, column_tables, direction_table, error_tables

log = logging.getLogger("noumena")

Baseline = Literal["poly", "mlp", "pca_mlp"]

_FAR, _HARD = "worst", "worst_by_baseline"


@dataclass(frozen=True)
class Far:
    """How far rows are from the training centre, in the columns of one modality.

    Attributes:
        reference: name of the modality.
        distance: root mean square of its standardised columns, NaN in rows that miss it, shape (rows,).
        limit: where the far rows begin.
    """

    reference: str
    distance: np.ndarray
    limit: float

    @property
    def chosen(self) -> np.ndarray:
        """The far rows, bool, shape (rows,)."""
        return self.distance >= self.limit


def evaluate(
    model: MVAE,
    splits: Splits,
    *,
    baselines: bool | Sequence[Baseline] = True,
    baseline_steps: int = 4000,
    worst: float = 0.05,
    traversals: int = 6,
    seed: int = 0,
) -> Evaluation:
    """Measure a trained model on rows it was not trained on. The keywords are the ``evaluate`` section of a recipe.

    Every modality is inferred from every single one (itself included), from each pair and from all together, each time
    in the rows that have what it takes, and compared in physical units.

    Args:
        model: a trained model of the multimodal family.
        splits: the data it was trained on. The test split is evaluated, else val, else train.
        baselines: regressions fitted to the same training rows: ``poly`` (ridge on monomials, all ordered pairs),
            ``mlp`` and ``pca_mlp`` (a network on raw columns, or on principal components of wide modalities; from the
            first modality to the others, with the model's symmetry). ``true`` fits all three, ``false`` none.
        baseline_steps: minibatches of each network.
        worst: share of the rows that are reported apart: those farthest from the training centre in the pose (in the
            first modality where there is no pose), whatever their error; and those hardest for the best baseline.
        traversals: the most active latent axes that are drawn and written as files, at most.
        seed: of the baselines.

    Returns:
        Metrics ``<measure>/<from>-><to>[/<part>]`` with measures ``rmse``, ``median``, ``p95`` and, for displacements,
        ``node_rmse``, ``node_p95``, ``node_max`` (see :func:`~noumena.multimodal.metrics.error_metrics`), ``r2`` and
        ``coverage90``; the same of baselines after ``baseline_<name>/``, of the far rows after ``worst/`` and of those
        hard for the best baseline after ``worst_by_baseline/``; ``active_units``, ``active_axes``, ``kl``,
        ``latent_correlation/<a>~<b>`` (mean absolute value over the drawn axes) and those of
        :func:`~noumena.multimodal.physics.consistency`. Tables, pictures, and files for other programs.

    Raises:
        ConfigError: an unknown baseline, or a number out of range.
    """
    if isinstance(baselines, bool):
        baselines = get_args(Baseline) if baselines else ()
    _check(baselines, baseline_steps, worst, traversals)
    split, rows = next(
        (name, model.as_dataset(part))
        for name, part in (("test", splits.test), ("val", splits.val), ("train", splits.train))
        if part is not None
    )
    rows = rows.to("cpu")
    measured = [one for sources in _sources(model.names) for one in _measure(model, rows, sources)]
    fitted: dict[str, dict[str, Measured]] = {}
    for name in dict.fromkeys(baselines):
        log.info("evaluation: fitting the baseline %s", BASELINES[name])
        fitted[name] = _baseline(name, model, splits, rows, baseline_steps, seed)
    far = _far(model, rows, worst)
    hard = _hard(fitted, measured, worst)
    quality = latent_quality(model, rows)
    laws, laws_table = consistency(model, rows)
    metrics = _metrics(model, measured, fitted, far, hard) | _latent_metrics(quality, traversals) | laws
    tables = [
        *error_tables(measured, fitted, far.chosen, hard, caption=_error_caption(model, fitted, far, worst)),
        direction_table(measured, split, len(rows)),
        *column_tables(model.modalities, measured),
        latent_table(model.modalities, quality),
    ]
    if laws_table is not None:
        tables.append(laws_table)
    pictures, files = _pictures(model, rows, measured, far, quality, traversals)
    return Evaluation(_headline_first(metrics, model), tables, pictures, files)


def _check(baselines: Sequence[str], baseline_steps: int, worst: float, traversals: int) -> None:
    for name in baselines:
        if name not in get_args(Baseline):
            raise ConfigError(f"evaluate.baselines: unknown '{name}'. {did_you_mean(name, get_args(Baseline))}")
    if baseline_steps < 1:
        raise ConfigError(f"evaluate.baseline_steps: expected at least 1, got {baseline_steps}.")
    if not 0.0 < worst <= 1.0:
        raise ConfigError(f"evaluate.worst: expected a share above 0 and at most 1, got {worst}.")
    if traversals < 0:
        raise ConfigError(f"evaluate.traversals: expected at least 0, got {traversals}.")


# Inference


def _sources(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Single modalities, pairs, and all together."""
    sizes = sorted({1, 2, len(names)} & set(range(1, len(names) + 1)))
    return [chosen for size in sizes for chosen in combinations(names, size)]


def _label(model: MVAE, sources: Sequence[str]) -> str:
    return "all" if len(sources) == len(model.names) > 1 else "+".join(sources)


def _measure(model: MVAE, rows: Observations, sources: tuple[str, ...]) -> list[Measured]:
    """Every modality inferred from ``sources``, where there are rows."""
    seen = rows.has(*sources)
    if not bool(seen.any()):
        return []
    inferred = model.infer(rows.subset(seen), model.names, observed=sources)
    found: list[Measured] = []
    for target in model.modalities:
        has = rows.has(target.name)[seen].numpy()
        if has.any():
            number = seen.nonzero()[:, 0].numpy()[has]
            truth = rows[target.name][torch.from_numpy(number)].numpy()
            mean, std = (part[has] for part in inferred[target.name])
            found.append(figures.compared(_label(model, sources), sources, target, number, truth, mean, std))
    return found


def _baseline(
    name: Baseline, model: MVAE, splits: Splits, rows: Observations, steps: int, seed: int
) -> dict[str, Measured]:
    """One kind of regression by direction."""
    train = model.as_dataset(splits.train)
    val = None if splits.val is None else model.as_dataset(splits.val)
    found: dict[str, Measured] = {}
    for number, source in enumerate(model.names if name == "poly" else model.names[:1]):
        targets = [
            target
            for target in model.names
            if target != source and bool(train.has(source, target).any()) and bool(rows.has(source, target).any())
        ]
        if not targets:
            continue
        own = fold(seed, number)
        fit: Polynomial | Regression
        if name == "poly":
            fit = fit_polynomial(train, val, source, targets, seed=own)
        else:
            kept = None if name == "mlp" else COMPONENTS
            fit = fit_regression(
                train, val, source, targets, components=kept, symmetry=model.symmetry, steps=steps, seed=own
            )
        predicted = fit.predict(rows[source][rows.has(source)])
        for target in model.modalities:
            if target.name in targets:
                has = rows.has(source, target.name)
                mean = predicted[target.name][has[rows.has(source)].numpy()]
                number_of, truth = has.nonzero()[:, 0].numpy(), rows[target.name][has].numpy()
                one = figures.compared(source, (source,), target, number_of, truth, mean)
                found[one.label] = one
    return found


# Rows apart


def _reference(model: MVAE) -> Modality:
    """The modality that says how extreme a state is: the pose, or the first one."""
    return next((modality for modality in model.modalities if modality.kind == "pose"), model.modalities[0])


def _far(model: MVAE, rows: Observations, share: float) -> Far:
    reference = _reference(model)
    front = cast("FrontEnd", model.fronts[model.names.index(reference.name)])
    distance = np.full(len(rows), np.nan)
    has = rows.has(reference.name)
    with torch.inference_mode():
        features = front(rows[reference.name][has].to(front.mean)).cpu().double()
    distance[has.numpy()] = features.square().mean(1).sqrt().numpy()
    limit = float(np.nanquantile(distance, 1.0 - share)) if bool(has.any()) else float("inf")
    return Far(reference.name, distance, limit)


def _hard(fitted: Mapping[str, Mapping[str, Measured]], measured: Sequence[Measured], share: float) -> dict[str, Hard]:
    """By direction the baseline that does best, and for each part the rows that are hardest for it, bool."""
    found: dict[str, Hard] = {}
    for one in measured:
        rivals = {name: lines[one.label] for name, lines in fitted.items() if one.label in lines}
        if not rivals:
            continue
        part = next(iter(one.errors))
        best = min(rivals, key=lambda name: rivals[name].values[one.main, part])
        chosen = {p: e >= np.quantile(e, 1.0 - share) for p, e in rivals[best].errors.items()}
        found[one.label] = Hard(best, chosen)
    return found


# Metrics


def _metrics(
    model: MVAE,
    measured: Sequence[Measured],
    fitted: Mapping[str, Mapping[str, Measured]],
    far: Far,
    hard: Mapping[str, Hard],
) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in measured:
        found |= _of_direction(one) | {f"coverage90/{one.label}": one.coverage}
        found |= _prefixed(_FAR, one, one.among(far.chosen))
    for name, lines in fitted.items():
        for one in lines.values():
            found |= {f"baseline_{name}/{key}": value for key, value in _of_direction(one).items()}
            found |= _prefixed(f"baseline_{name}/{_FAR}", one, one.among(far.chosen))
    for one in measured:
        if one.label in hard:
            best, rival = hard[one.label].baseline, fitted[hard[one.label].baseline][one.label]
            found |= _prefixed(_HARD, one, hard[one.label].errors(one))
            found |= _prefixed(f"baseline_{best}/{_HARD}", one, hard[one.label].errors(rival))
    return found


def _of_direction(one: Measured) -> dict[str, float]:
    found = figures.named(one.values, one.label) | {f"r2/{one.label}": one.r2}
    return found | {f"r2/{one.label}/{part}": r2 for part, r2 in one.r2_of.items() if part}


def _prefixed(prefix: str, one: Measured, values: Mapping[str, float]) -> dict[str, float]:
    named = figures.named({(one.main, part): value for part, value in values.items()}, one.label)
    return {f"{prefix}/{name}": value for name, value in named.items()}


def _latent_metrics(quality: LatentQuality, traversals: int) -> dict[str, float]:
    found: dict[str, float] = {
        "active_units": quality.active_units,
        "active_axes": quality.active_axes,
        "kl": quality.kl,
    }
    axes = quality.axes(max(1, traversals))
    for (first, second), values in quality.correlation.items():
        found[f"latent_correlation/{first}~{second}"] = float(np.abs(values[axes]).mean()) if axes else float("nan")
    return found


def _headline_first(metrics: Mapping[str, float], model: MVAE) -> dict[str, float]:
    first, *others = model.modalities
    targets = others or [first]
    keys = [
        name
        for target in targets
        for part in figures.parts_of(target)
        for name in figures.named({(figures.main_measure(target), part): 0.0}, f"{first.name}->{target.name}")
    ]
    keys += [f"coverage90/{first.name}->{target.name}" for target in targets[:1]]
    keys += ["energy_wrench_error", "active_units", "kl"]
    return {name: metrics[name] for name in dict.fromkeys([*keys, *metrics]) if name in metrics}


def _error_caption(model: MVAE, fitted: Mapping[str, Any], far: Far, share: float) -> str:
    far_words = (
        f"Far rows: the {100 * share:g} % farthest from the training centre in {far.reference}, whatever their error."
    )
    if not fitted:
        return f"On rows that were not trained on. {far_words}"
    names = " and ".join(BASELINES[name] for name in fitted if name != "poly")
    images = (
        f" {names} see random images under {model.symmetry}, as the model does." if model.symmetry and names else ""
    )
    return (
        "On rows that were not trained on; the regressions are fitted to the same training rows, each from one "
        f"modality only.{images} {far_words} Hard rows: the {100 * share:g} % with the largest error of the regression "
        "that is best overall, a choice that is unkind to that regression."
    )


# Pictures and files


def _pictures(
    model: MVAE, rows: Observations, measured: Sequence[Measured], far: Far, quality: LatentQuality, traversals: int
) -> tuple[list[Picture], dict[str, bytes]]:
    by_label = {one.label: one for one in measured}
    shown = {
        target.name: one
        for target in model.modalities
        if (one := _shown_direction(model, target, by_label)) is not None
    }
    pictures: list[Picture] = []
    files: dict[str, bytes] = {}
    on_surface = displaced(model)
    for one in shown.values():
        if one.target.kind != "displacement":
            mean, _ = _inferred(model, rows, one)
            pictures.append(plots.scatter(one.target, _words(one), _truth(rows, one), mean))
    if on_surface is not None and on_surface[0].name in shown:
        one = shown[on_surface[0].name]
        mean, _ = _inferred(model, rows, one)
        picture, files = compared_surfaces(*on_surface, _words(one), _truth(rows, one), mean, one.errors[""])
        pictures.append(picture)
    pictures += _error_pictures(model, rows, list(shown.values()), by_label, far)
    axes = quality.axes(traversals)
    if on_surface is not None and axes:
        picture, sweeps = swept_surfaces(model, axes, *on_surface)
        pictures.append(picture)
        files |= sweeps
    reference = _reference(model)
    has = rows.has(reference.name).numpy()
    if has.sum() > 1 and model.z_dim > 1:
        values = rows[reference.name][torch.from_numpy(has)].numpy()
        pictures.append(plots.latent_map(quality.codes[has, :2], quality.shares[:2], values, reference))
    return pictures, files


def _shown_direction(model: MVAE, target: Modality, by_label: Mapping[str, Measured]) -> Measured | None:
    """The direction that stands for a target: from the first other modality from which there are rows."""
    names = [name for name in model.names if name != target.name] or [target.name]
    return next((by_label[f"{name}->{target.name}"] for name in names if f"{name}->{target.name}" in by_label), None)


def _words(one: Measured) -> str:
    return one.label.replace("->", " → ").replace("+", " + ")


def _truth(rows: Observations, one: Measured) -> np.ndarray:
    return rows[one.target.name][torch.from_numpy(one.rows)].numpy()


def _inferred(model: MVAE, rows: Observations, one: Measured) -> tuple[np.ndarray, np.ndarray]:
    name = one.target.name
    return model.infer(rows.subset(torch.from_numpy(one.rows)), [name], observed=one.sources)[name]


def _error_pictures(
    model: MVAE, rows: Observations, shown: Sequence[Measured], by_label: Mapping[str, Measured], far: Far
) -> list[Picture]:
    pictures: list[Picture] = []
    over: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for one in shown:
        known = np.isfinite(far.distance[one.rows])
        for part, columns in figures.parts_of(one.target).items():
            unit = one.target.unit_of(columns)
            label = f"{_words(one)}{f', {part}' if part else ''}{f' ({unit})' if unit else ''}"
            if known.any():
                over[label] = one.rows[known], one.errors[part][known]
    if over:
        pictures.append(plots.errors_by_distance(far.distance, over, far.limit, far.reference))
    intervals: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    together = [by_label[label] for name in model.names if (label := f"all->{name}") in by_label]
    for one in {one.label: one for one in (*shown, *together)}.values():
        mean, std = _inferred(model, rows, one)
        intervals[_words(one)] = _truth(rows, one), mean, std
    picture = plots.calibration(intervals)
    return pictures if picture is None else [*pictures, picture]
