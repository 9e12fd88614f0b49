"""What the explorer's page shows of a density model: rows as bars and tables, their scores and why, decoded rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError
from noumena.core.evaluation import Table as ReportTable
from noumena.core.exploring import Drawing, Explorer, Points, Slider, evenly, why_nothing_moves
from noumena.core.preprocessing import Standardizer
from noumena.density.detector import Detector
from noumena.density.differentiable import Differentiable, column_names_of, has_gradient
from noumena.density.explanations import contributions
from noumena.density.exploring_rows import cell, draw, table_of
from noumena.density.flow import Flow
from noumena.density.gmm import GaussianMixture
from noumena.density.table import Table, as_table

_MOST_SLIDERS = 16
_ACTIVE_VARIANCE = 0.01
_ROWS_AT_ONCE = 8192
# Rows that say which columns the score depends on most, and training rows among which a normal one is looked for.
_WEIGHED_ROWS = 256
_REFERENCE_ROWS = 2000
_COLOURING_COLUMNS = 6
# Gradients per row at most: an answer to a click, not to a study.
_MOST_STEPS = 512


def explore(model: Detector, splits: Splits, limit: int = 20_000) -> "RowExplorer":
    """The explorer of a trained model of the density family.

    Args:
        model: any model of the family.
        splits: its data. The test part is shown, else val, else train, and beside it every further data set.
        limit: rows of the map at most.

    Raises:
        DataError: the data have not the model's columns.
    """
    return RowExplorer(model.eval(), _shown(model, splits, limit), as_table(splits.train, column_names_of(model)))


@dataclass(frozen=True)
class _Shown:
    """The rows of the map.

    Attributes:
        rows: float32, shape (rows, columns).
        part: name of the data set that each is of, shape (rows,).
        number: of each row in its data set, shape (rows,).
        label: normal, anomaly or unknown, shape (rows,).
        group: number of the trajectory or group, -1 where there is none, shape (rows,).
        about: which rows of how many.
    """

    rows: Tensor
    part: np.ndarray
    number: np.ndarray
    label: np.ndarray
    group: np.ndarray
    about: str


def _shown(model: Detector, splits: Splits, limit: int) -> _Shown:
    main, held_out = splits.held_out
    parts: dict[str, Dataset] = {main: held_out, **splits.extra}
    tables = {name: as_table(part, column_names_of(model)).to("cpu") for name, part in parts.items()}
    ends = np.cumsum([len(table) for table in tables.values()])
    chosen = evenly(int(ends[-1]), limit)
    part = np.searchsorted(ends, chosen, side="right")
    number = chosen - (ends - [len(table) for table in tables.values()])[part]
    some = [table.subset(torch.from_numpy(number[part == k])) for k, table in enumerate(tables.values())]
    names = np.array(list(tables))
    counts = ", ".join(
        f"{len(one):,} of {len(tables[name]):,} {name} rows" for name, one in zip(names, some, strict=True)
    )
    return _Shown(
        torch.cat([one.rows for one in some]),
        names[part],
        number,
        np.concatenate([_labels(one) for one in some]),
        np.concatenate([_groups(one) for one in some]),
        counts,
    )


def _labels(table: Table) -> np.ndarray:
    if table.labels is None:
        return np.full(len(table), "unknown")
    return np.where(table.labels.numpy(), "anomaly", "normal")


def _groups(table: Table) -> np.ndarray:
    return np.full(len(table), -1) if table.groups is None else table.groups.numpy()


class RowExplorer(Explorer):
    """Rows of a table and what a model of their density says of them."""

    def __init__(self, model: Detector, shown: _Shown, train: Table) -> None:
        self.model = model
        self.columns = column_names_of(model)
        self._rows = shown.rows
        self._labels = [f"{part} row {number}" for part, number in zip(shown.part, shown.number, strict=True)]
        self._scale = _scale_of(model, train)
        self._reference = train.rows[torch.from_numpy(evenly(len(train), _REFERENCE_ROWS)).to(train.device)]
        self._scores = model.score_samples(shown.rows)
        self._vectors, kl = self._latents()
        main = torch.from_numpy(shown.part == shown.part[0])
        self._dims = self._directions(self._vectors[main], kl[main]) if model.has_latents else []
        self.sliders = [self._slider(k, self._vectors[main, k]) for k in self._dims]
        self.without = _without(model, self._dims, int(main.sum()))
        space = "their latents" if model.has_latents else f"standardised columns, as {_name(model)} has no latents"
        about = f"{shown.about}; mapped: {space}."
        self.points = Points(self._vectors.numpy(), self._labels, self._colours(shown), about)

    # The map

    @torch.inference_mode()
    def _latents(self) -> tuple[Tensor, Tensor]:
        """Latents of all rows and the KL divergence of each dimension, both (rows, latent); else standardised rows."""
        means: list[Tensor] = []
        kls: list[Tensor] = []
        for part in self._rows.split(_ROWS_AT_ONCE):
            if not self.model.has_latents:
                means.append(self._scale(part))
                continue
            posterior = self.model.encode(part)
            means.append(posterior.mean.float().cpu())
            kls.append(posterior.kl_per_dimension().float().cpu())
        mean = torch.cat(means)
        return mean, torch.cat(kls) if kls else torch.zeros_like(mean)

    @torch.inference_mode()
    def _directions(self, z: Tensor, kl: Tensor) -> list[int]:
        """The latent dimensions that vary over held-out rows ``z`` (rows, latent), those with most effect first."""
        varies = z.var(0, correction=0) > _ACTIVE_VARIANCE
        effect = self._effects(z) if isinstance(self.model, Flow) else kl.mean(0)
        order = effect.nan_to_num(0.0).argsort(descending=True, stable=True)
        return [int(k) for k in order if varies[k]][:_MOST_SLIDERS]

    def _effects(self, z: Tensor) -> Tensor:
        """How far one sd of each latent moves the middle row, in those of the columns; shape (latent,)."""
        step = z.std(0, correction=0).diag()
        low, high = (self._scale(self._decode(z.median(0).values + sign * step)) for sign in (-0.5, 0.5))
        return (high - low).norm(dim=1)

    def _slider(self, dimension: int, z: Tensor) -> Slider:
        return Slider(f"z{dimension}", float(z.min()), float(z.max()))

    def _colours(self, shown: _Shown) -> dict[str, np.ndarray]:
        model, scores = self.model, self._scores
        finite = np.isfinite(scores)
        # A row too far for a number has the colour of the farthest one that has it.
        lowest = scores[finite].min() if finite.any() else 0.0
        found = {f"score ({model.score_unit})": np.where(finite, scores, lowest)}
        if not bool(model.threshold.isnan()):
            found["verdict"] = np.where(model.is_anomaly(scores), "anomaly", "normal")
        if model.calibration_rows:
            found["p-value"] = model.p_value_of(scores)
        found["part"] = shown.part
        if (shown.label != "unknown").any():
            found["label"] = shown.label
        if len(np.unique(shown.group)) > 1:
            found["group"] = shown.group
        for k in self._weightiest():
            found[f"column {self.columns[k]}"] = self._rows[:, k].numpy()
        return found

    def _weightiest(self) -> list[int]:
        """Columns whose standard deviation changes the score most; the first ones where the score has no gradient."""
        if not has_gradient(self.model):
            return list(range(len(self.columns)))[:_COLOURING_COLUMNS]
        some = self._rows[torch.from_numpy(evenly(len(self._rows), _WEIGHED_ROWS))]
        weights = _gradients(self.model, some).abs().mean(0) * self._scale.scale * ~self._scale.constant
        return weights.argsort(descending=True, stable=True)[:_COLOURING_COLUMNS].tolist()

    # Drawings

    def original(self, index: int) -> Drawing:
        """The row: each column in standard deviations from its mean, and as it is in the data."""
        note = f"{self._labels[index]}: {self._words(float(self._scores[index]))}"
        return draw(self.columns, self._scale, self._rows[index], note, listed=False)

    def reconstruction(self, index: int) -> Drawing:
        """The row decoded from its posterior mean, beside the original."""
        if "reconstruction" in self.without:
            raise self._cannot("reconstruction")
        return replace(self._decoded(index, self._vectors[index]), table=None)

    def details(self, index: int) -> Sequence[ReportTable]:
        """Score, p-value and verdict; and each column: as it is, rebuilt, and what it contributes to the score."""
        score = float(self._scores[index])
        lines: list[list[Any]] = [[f"score ({self.model.score_unit})", cell(score)]]
        if self.model.calibration_rows:
            lines.append(["p-value", float(self.model.p_value_of(np.array([score]))[0])])
        if not bool(self.model.threshold.isnan()):
            lines.append(["threshold", float(self.model.threshold)])
            lines.append(["verdict", "anomaly" if self.model.is_anomaly(np.array([score]))[0] else "normal"])
        lines += [
            [name, str(values[index])] for name, values in self.points.colours.items() if name in ("part", "label")
        ]
        caption = "Higher scores are more normal. p-value: the chance of a normal row to score as low or lower."
        verdict = ReportTable(self._labels[index], ["", "value"], lines, caption)
        return [verdict, self._by_column(index)]

    def _by_column(self, index: int) -> ReportTable:
        """The row, its reconstruction and the contributions, one line a column."""
        row = self._rows[index]
        values = {"value": row}
        if "reconstruction" not in self.without:
            rebuilt = self._decode(self._vectors[index][None])[0]
            values |= {"rebuilt": rebuilt, "difference (sd)": self._scale(rebuilt) - self._scale(row)}
        if not math.isfinite(float(self._scores[index])):
            return table_of("Columns", self.columns, values)
        if not has_gradient(self.model):
            reason = "A score of one random draw has no gradient, so it is not taken apart into columns."
            return table_of("Columns", self.columns, values, caption=reason)
        return self._contributions(index, values)

    def _contributions(self, index: int, values: Mapping[str, Tensor]) -> ReportTable:
        """The columns, those first that make the row most abnormal."""
        judged = not bool(self.model.threshold.isnan())
        near = judged and not bool(self.model.predict_anomaly(self._reference).all())
        mean = None if self.model.standardizer is not None else self._scale.mean
        row = self._rows[index][None]
        found = contributions(self.model, row, reference=self._reference if near else mean, max_steps=_MOST_STEPS)
        assert found.reference is not None
        order = np.argsort(found.values[0], kind="stable").tolist()
        start = "nearest normal row" if near else "mean row"
        caption = (
            f"In {self.model.score_unit}, most abnormal first. Together they are the score less that of the {start} of "
            f"the training data, {float(found.base[0]):.4g}; {float(found.residual[0]):.2g} is left over."
        )
        parts = {start: torch.as_tensor(found.reference[0]), "contribution": torch.as_tensor(found.values[0])}
        return table_of("Columns", self.columns, {**values, **parts}, order, caption)

    def positions(self, index: int) -> Sequence[float]:
        """The row's latents in the dimensions of the sliders."""
        if "moved" in self.without:
            raise self._cannot("moved")
        return self._vectors[index, self._dims].tolist()

    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """The row decoded from its latents with some of them changed, beside the original."""
        if "moved" in self.without:
            raise self._cannot("moved")
        if len(positions) != len(self._dims) or not np.isfinite(positions).all():
            raise ConfigError(f"positions: expected {len(self._dims)} finite numbers, got {list(positions)}.")
        z = self._vectors[index].clone()
        z[self._dims] = torch.tensor(list(positions), dtype=z.dtype)
        return self._decoded(index, z)

    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """Rows decoded from the straight line between the latents of two rows."""
        if "path" in self.without:
            raise self._cannot("path")
        share = torch.linspace(0.0, 1.0, steps)[:, None]
        rows = self._decode(torch.lerp(self._vectors[start][None], self._vectors[end][None], share))
        scores = self.model.score_samples(rows).tolist()
        words = [
            f"{100 * float(part):.0f} % of the way: {self._words(score)}"
            for part, score in zip(share, scores, strict=True)
        ]
        return [self._draw(row, note) for row, note in zip(rows, words, strict=True)]

    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """Rows drawn from the modelled density."""
        if "samples" in self.without:
            raise self._cannot("samples")
        generator = torch.Generator(self.model.device).manual_seed(seed)
        rows = self.model.sample(n, generator, noise=True).float().cpu()
        scores = self.model.score_samples(rows).tolist()
        return [
            self._draw(row, f"sample {k + 1}: {self._words(score)}")
            for k, (row, score) in enumerate(zip(rows, scores, strict=True))
        ]

    @torch.inference_mode()
    def _decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z).float().cpu()

    def _decoded(self, index: int, z: Tensor) -> Drawing:
        row = self._decode(z[None])[0]
        score = float(self.model.score_samples(row[None])[0])
        away = float((self._scale(row) - self._scale(self._rows[index])).square().mean().sqrt())
        note = (
            f"decoded: {self._words(score)}; {away:.3g} sd from {self._labels[index]} (root mean square of the columns)"
        )
        return self._draw(row, note, self._rows[index])

    def _words(self, score: float) -> str:
        """A score as people read it, with its p-value and the verdict."""
        words = f"score {cell(score) if not math.isfinite(score) else f'{score:.4g}'} {self.model.score_unit}"
        scores = np.array([score])
        if self.model.calibration_rows:
            words += f", p-value {float(self.model.p_value_of(scores)[0]):.3g}"
        if not bool(self.model.threshold.isnan()):
            words += f", {'an anomaly' if self.model.is_anomaly(scores)[0] else 'normal'}"
        return words

    def _draw(self, row: Tensor, note: str, beside: Tensor | None = None) -> Drawing:
        return draw(self.columns, self._scale, row, note, beside)


def _without(model: Detector, dims: Sequence[int], rows: int) -> Mapping[str, str]:
    if model.has_latents:
        collapsed = (
            "no latent dimension varies from row to row: the posterior has collapsed, and no slider moves anything."
        )
        return {} if dims else {"moved": why_nothing_moves(rows, collapsed)}
    reason = f"{_name(model)} scores rows as they are: it has no latents, so nothing is decoded. Use a VAE or a flow."
    lacking: list[str] = ["reconstruction", "moved", "path"]
    found = dict.fromkeys(lacking, reason)
    if not isinstance(model, GaussianMixture):
        found["samples"] = (
            f"{_name(model)} draws no rows: their density has no finite integral. Use a mixture or a flow."
        )
    return found


def _name(model: Detector) -> str:
    return "a mixture of Gaussians" if isinstance(model, GaussianMixture) else "a search for nearest neighbours"


def _scale_of(model: Detector, train: Table) -> Standardizer:
    """What takes rows to standard deviations of the columns: the model's own, or that of the training rows."""
    scale = Standardizer(len(train.columns))
    if model.standardizer is None:
        scale.fit(train.rows.cpu())
    else:
        scale.load_state_dict(model.standardizer.state_dict())
    return scale


@torch.inference_mode(False)
def _gradients(model: Detector, rows: Tensor) -> Tensor:
    """Gradient of the score of each row, float32, shape (rows, columns); 0 where it is not a number."""
    exact = Differentiable.of(model)
    x = exact.rows(rows.clone()).requires_grad_()
    with torch.enable_grad():
        total = torch.stack([exact.score(part).sum() for part in x.split(exact.block)]).sum()
        (gradient,) = torch.autograd.grad(total, x)
    return gradient.nan_to_num(0.0, 0.0, 0.0).float().cpu()
