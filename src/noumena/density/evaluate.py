"""Evaluating a trained density model: how well it fits, what it calls anomalous, what it generates and encodes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.evaluation import Evaluation, Picture
from noumena.core.evaluation import Table as ReportTable
from noumena.core.seeding import fold
from noumena.density.data import open_ood, shifted
from noumena.density.detector import Detector
from noumena.density.explaining.plots import unusual_rows
from noumena.density.metrics import Scorer, detection, mahalanobis, nearest_neighbours
from noumena.density.plots import column_histograms, latent_kl, latent_map, roc_curves, score_histograms
from noumena.density.table import Table, as_table

SHIFTS = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations by which held-out rows are moved where the data bring no anomalies of their own."""

# Key in the metrics and heading in the tables of the plain baselines.
_BASELINES = {"mahalanobis": "Gaussian (Mahalanobis)", "knn": "10 nearest neighbours"}
_ACTIVE_VARIANCE = 0.01
_LISTED_COLUMNS = 40
# Streams of the seed, one for each random choice.
_OOD, _SHIFT, _SAMPLE, _LATENT, _NEIGHBOURS, _EXPLAINED = range(6)


@dataclass(frozen=True)
class Level:
    """One test of telling anomalies from normal rows.

    Attributes:
        key: its name in the metrics.
        label: its name in tables and pictures.
        normal, anomalous: rows, shapes (normal rows, columns) and (anomalies, columns); either may be empty.
    """

    key: str
    label: str
    normal: Tensor
    anomalous: Tensor

    @property
    def lacks(self) -> str | None:
        """What is missing for a test, in words."""
        empty = [word for word, rows in (("normal rows", self.normal), ("anomalies", self.anomalous)) if not len(rows)]
        return f"no {' and no '.join(empty)}" if empty else None


@dataclass(frozen=True)
class Scored:
    """Scores of a level by method key (``""`` is the model): normal rows, anomalies."""

    level: Level
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]


def evaluate(
    model: Detector,
    splits: Splits,
    *,
    ood: str | None = None,
    ood_rows: int = 2500,
    baselines: bool = True,
    samples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Measure a trained model on rows it was not trained on. The keywords are the ``evaluate`` section of a recipe.

    Anomalies are the labelled rows of the test split, every data set in ``splits.extra`` (against the test rows) and
    the levels of the ``ood`` file. Where none of these gives any, held-out rows moved by 0.1, 0.5, 1, 2 and 4
    training standard deviations in random directions stand in, so that every run shows how near an anomaly may come.

    Args:
        model: a trained model of the density family.
        splits: the data it was trained on. The test split is evaluated, else val, else train; metrics say which.
        ood: file of out-of-distribution levels (see :func:`noumena.density.data.open_ood`) or ``sample:hopper``.
        ood_rows: rows of each class at most, for the levels of ``ood`` and the shifts. Labelled rows and extra data
            sets are used in full, since average precision depends on their proportion.
        baselines: also score with one Gaussian and with the 10 nearest neighbours, fitted to the training rows.
        samples: rows drawn from the model, and of the held-out ones shown beside them and in the latent map, at most.
        seed: of every random choice.

    Returns:
        Metrics ``<split>_*`` of the held-out rows, and per level ``auroc/<level>``, ``average_precision/<level>``,
        with a threshold ``accuracy/``, ``true_positive_rate/`` and ``true_negative_rate/<level>``, and with baselines
        ``auroc_mahalanobis/<level>`` and ``auroc_knn/<level>``; the tables and the pictures.

    Raises:
        ConfigError: ``ood_rows`` or ``samples`` is below 1.
        DataError: the ``ood`` file is none, or its levels have other columns than the model.
    """
    _check_at_least_one(ood_rows=ood_rows, samples=samples)
    train, (split, held_out) = as_table(splits.train), _held_out(splits)
    # The order of the metrics is their order of interest: reports show the first ones large.
    metrics = _fit_metrics(model, split, held_out, seed)
    levels = list(_levels(splits, split, held_out, ood, ood_rows, seed))
    if all(level.lacks for level in levels):
        levels += _shift_levels(_normal_rows(held_out), train, ood_rows, seed)
    methods = _methods(model, train, seed) if baselines else {"": model.score_samples}
    scored = [_score(level, methods) for level in levels if not level.lacks]
    threshold = _threshold(model)
    metrics |= _detection_metrics(scored, threshold)
    shown = _draw(_normal_rows(held_out), samples, fold(seed, _LATENT))
    drawn = _compare_samples(model, shown, samples, held_out.columns, seed)
    unusual = unusual_rows(model, held_out.rows, train.rows, seed=fold(seed, _EXPLAINED))
    return Evaluation(
        _headline_first(metrics, split),
        (
            *_level_tables(levels, scored, list(methods), type(model).__name__, threshold),
            *(table for table, _ in (*drawn, *unusual)),
        ),
        (
            *_score_pictures(model, scored, threshold),
            *(picture for _, picture in (*drawn, *unusual)),
            *(_latent_pictures(model, shown, threshold) if model.has_latents else ()),
        ),
    )


# Held-out rows


def _held_out(splits: Splits) -> tuple[str, Table]:
    parts = {"test": splits.test, "val": splits.val, "train": splits.train}
    return next((name, as_table(part)) for name, part in parts.items() if part is not None)


def _normal_rows(table: Table) -> Tensor:
    """Rows that no label calls anomalous; all of them in a table without a normal row."""
    if table.labels is None or bool(table.labels.all()):
        return table.rows
    return table.rows[~table.labels]


def _fit_metrics(model: Detector, split: str, table: Table, seed: int) -> dict[str, float]:
    metrics = {f"{split}_{name}": value for name, value in model.evaluate(table, seed=seed).items()}
    threshold = _threshold(model)
    if threshold is not None and (table.labels is None or not bool(table.labels.all())):
        scores = model.score_samples(_normal_rows(table))
        metrics[f"{split}_false_alarm_rate"] = float((~(np.isfinite(scores) & (scores >= threshold))).mean())
    return metrics


def _headline_first(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    first = [f"{split}_loss", f"{split}_false_alarm_rate", f"{split}_active_units"]
    first += [name for name in metrics if name.startswith("auroc/")]
    return {name: metrics[name] for name in dict.fromkeys([*first, *metrics]) if name in metrics}


def _threshold(model: Detector) -> float | None:
    """The model's threshold, ``None`` when it has none."""
    threshold = float(model.threshold)
    return threshold if np.isfinite(threshold) else None


# Anomalies


def _levels(splits: Splits, split: str, held_out: Table, ood: str | None, ood_rows: int, seed: int) -> Iterator[Level]:
    """The anomalies that the data bring, in the order of the report; a level may lack a class."""
    labels = held_out.labels
    if labels is not None and (bool(labels.any()) or not splits.extra):
        yield Level("labels", f"labelled anomalies ({split})", held_out.rows[~labels], held_out.rows[labels])
    normal = held_out.rows if labels is None else held_out.rows[~labels]
    for name, extra in splits.extra.items():
        yield Level(name, name, normal, as_table(extra, held_out.columns).rows)
    if ood is not None:
        for number, (name, halves) in enumerate(open_ood(ood, held_out.columns).items()):
            inside, outside = (_draw(half, ood_rows, fold(seed, _OOD, number, i)) for i, half in enumerate(halves))
            yield Level(name, name, inside, outside)


def _shift_levels(rows: Tensor, train: Table, ood_rows: int, seed: int) -> Iterator[Level]:
    """Held-out rows against other held-out rows that were moved, further from level to level."""
    rows = _draw(rows, 2 * ood_rows, fold(seed, _SHIFT))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(fold(seed, _SHIFT, 1)))
    normal, others = rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]
    std = train.rows.double().std(0, correction=0).to(rows)
    for number, distance in enumerate(SHIFTS):
        generator = torch.Generator(rows.device).manual_seed(fold(seed, _SHIFT, 2, number))
        label = f"shifted by {distance:g} sd"
        yield Level(f"shift_{distance:g}", label, normal, shifted(others, distance, std, generator))


def _draw(rows: Tensor, most: int, seed: int) -> Tensor:
    """At most ``most`` of the rows, in their order."""
    if len(rows) <= most:
        return rows
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]
    return rows[chosen.sort().values.to(rows.device)]


def _methods(model: Detector, train: Table, seed: int) -> dict[str, Scorer]:
    """The model under the key ``""``, and the baselines fitted to the training rows, labels unseen."""
    rows = _array(train.rows)
    return {
        "": model.score_samples,
        "mahalanobis": mahalanobis(rows),
        "knn": nearest_neighbours(rows, neighbours=10, seed=fold(seed, _NEIGHBOURS)),
    }


def _score(level: Level, methods: Mapping[str, Scorer]) -> Scored:
    normal, anomalous = _array(level.normal), _array(level.anomalous)
    return Scored(level, {key: (score(normal), score(anomalous)) for key, score in methods.items()})


def _detection_metrics(scored: Sequence[Scored], threshold: float | None) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for one in scored:
        for method, pair in one.scores.items():
            found = detection(*pair, threshold if method == "" else None)
            metrics[f"{_auroc(method)}/{one.level.key}"] = found["roc_auc"]
            if method == "":
                metrics |= {f"{name}/{one.level.key}": found[name] for name in _RATES if name in found}
    return metrics


_RATES = {
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "true_positive_rate": "anomalies found",
    "true_negative_rate": "normal rows left alone",
}


def _auroc(method: str) -> str:
    return f"auroc_{method}" if method else "auroc"


# Tables and pictures


def _level_tables(
    levels: Sequence[Level], scored: Sequence[Scored], methods: Sequence[str], model_name: str, threshold: float | None
) -> tuple[ReportTable, ReportTable]:
    by_key = {one.level.key: one for one in scored}
    areas: list[Sequence[Any]] = []
    rates: list[Sequence[Any]] = []
    for level in levels:
        one = by_key.get(level.key)
        if one is None:
            note = f"{level.label}: {level.lacks}, so no test"
            areas.append([note, *[None] * len(methods)])
            rates.append([note, len(level.normal), len(level.anomalous), *[None] * len(_RATES)])
            continue
        areas.append([level.label, *(detection(*one.scores[method])["roc_auc"] for method in methods)])
        found = detection(*one.scores[""], threshold)
        rates.append([level.label, len(level.normal), len(level.anomalous), *(found.get(name) for name in _RATES)])
    return (
        ReportTable(
            "Anomalies told from normal rows: AUROC",
            ["anomalies", model_name, *(_BASELINES[method] for method in methods if method)],
            areas,
            "Chance that a normal row scores above an anomaly: 0.5 is guessing, 1 is perfect. The baselines are fitted "
            "to the same training rows (nearest neighbours: to at most 20,000 of them).",
            best="max",
        ),
        ReportTable(
            f"{model_name} at its threshold",
            ["anomalies", "normal rows", "anomalous rows", *_RATES.values()],
            rates,
            "Average precision depends on the proportion of anomalies. "
            + (
                "No threshold is set, so there are no rates."
                if threshold is None
                else f"The rates are shares of the rows at the threshold {threshold:.4g}."
            ),
        ),
    )


def _compare_samples(
    model: Detector, real: Tensor, samples: int, columns: Sequence[str], seed: int
) -> list[tuple[ReportTable, Picture]]:
    """Columns of real and of drawn rows side by side; nothing of a model that cannot draw rows."""
    generator = torch.Generator(model.threshold.device).manual_seed(fold(seed, _SAMPLE))
    try:
        theirs = _array(model.sample(samples, generator, noise=True)).astype(np.float64)
    except NotSupportedError:
        return []
    ours = _array(real).astype(np.float64)
    gap = np.array([_largest_gap(ours[:, i], theirs[:, i]) for i in range(len(columns))])
    shown = np.sort(np.argsort(-gap, kind="stable")[:_LISTED_COLUMNS])
    numbers = (ours.mean(0), theirs.mean(0), ours.std(0), theirs.std(0), gap)
    rows = [[columns[i], *(float(values[i]) for values in numbers)] for i in shown]
    left_out = "" if len(shown) == len(columns) else f" The {len(shown)} of {len(columns)} columns that differ most."
    table = ReportTable(
        "Sampled rows and real rows, column by column",
        ["column", "real mean", "sampled mean", "real sd", "sampled sd", "KS distance"],
        rows,
        f"{len(real):,} held-out rows and {samples:,} rows drawn from the model, decoder noise included, in the units "
        f"of the data. KS: largest gap between the two cumulative distributions, 0 to 1.{left_out}",
    )
    return [(table, column_histograms(ours, theirs, columns, gap))]


def _largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov distance."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(part), values, side="right") / len(part) for part in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _score_pictures(model: Detector, scored: Sequence[Scored], threshold: float | None) -> list[Picture]:
    """Histograms by level; ROC curves by level, or by method where there is one level."""
    if not scored:
        return []
    pairs = {one.level.label: one.scores[""] for one in scored}
    pictures = [score_histograms(pairs, threshold=threshold, unit=model.score_unit)]
    if len(scored) > 1:
        return [*pictures, roc_curves(pairs, threshold=threshold)]
    names = {"": type(model).__name__, **_BASELINES}
    lines = {names[method]: pair for method, pair in scored[0].scores.items()}
    # The model's threshold is on the model's scale, not on that of the baselines.
    return [*pictures, roc_curves(lines, threshold=threshold if len(lines) == 1 else None)]


@torch.inference_mode()
def _latent_pictures(model: Detector, rows: Tensor, threshold: float | None) -> tuple[Picture, Picture]:
    posterior = model.encode(rows)
    means = _array(posterior.mean).astype(np.float64)
    kl = _array(posterior.kl_per_dimension().double().mean(0))
    scores = model.score_samples(rows)
    return (
        latent_map(means, scores, threshold=threshold, unit=model.score_unit),
        latent_kl(kl, means.var(axis=0) > _ACTIVE_VARIANCE),
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _check_at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"evaluate.{name}: expected at least 1, got {count}.")
