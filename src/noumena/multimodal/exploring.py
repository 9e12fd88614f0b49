"""What the explorer's page shows of a multimodal model: states in every view, each view inferred from the others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing, Explorer, Points, Slider, evenly
from noumena.multimodal.exploring_states import LISTED_COLUMNS, State, Views, distances, length, sizes, whole_name
from noumena.multimodal.metrics import parts_of, row_errors
from noumena.multimodal.modality import Modality
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import Batch, Observations

_MOST_SLIDERS = 16
_ROWS_AT_ONCE = 2048
# Share of the latents' variance below which a principal axis moves nothing one could see.
_LEAST_SHARE = 1e-4
_COLOURING_COLUMNS = 12


def explore(model: MVAE, splits: Splits, limit: int = 20_000) -> "StateExplorer":
    """The explorer of a trained multimodal model.

    Args:
        model: any model of the family.
        splits: its data. The test part is shown, else val, else train, and beside it every further data set.
        limit: states of the map at most.

    Raises:
        DataError: the data have not the model's modalities.
    """
    return StateExplorer(model.eval(), _shown(model, splits, limit))


@dataclass(frozen=True)
class _Shown:
    """The states of the map.

    Attributes:
        batch: on the CPU.
        part: name of the data set that each is of, shape (rows,).
        number: of each in its data set, shape (rows,).
        group: of each, -1 where there is none, shape (rows,).
        side: further quantities that all data sets have, each of shape (rows,).
        about: which rows of how many.
    """

    batch: Batch
    part: np.ndarray
    number: np.ndarray
    group: np.ndarray
    side: Mapping[str, np.ndarray]
    about: str


def _shown(model: MVAE, splits: Splits, limit: int) -> _Shown:
    main, held_out = splits.held_out
    parts: dict[str, Dataset] = {main: held_out, **splits.extra}
    data = {name: model.as_dataset(part).to("cpu") for name, part in parts.items()}
    lengths = np.array([len(rows) for rows in data.values()])
    ends = lengths.cumsum()
    chosen = evenly(int(ends[-1]), limit)
    part = np.searchsorted(ends, chosen, side="right")
    number = chosen - (ends - lengths)[part]
    some = [rows.subset(torch.from_numpy(number[part == k])) for k, rows in enumerate(data.values())]
    present = torch.cat([rows.has_each() for rows in some])
    side = set.intersection(*(set(rows.side) for rows in some))
    flat = [name for name in some[0].side if name in side and all(rows.side[name].ndim == 1 for rows in some)]
    names = np.array(list(data))
    return _Shown(
        Batch(torch.cat([rows.values for rows in some]), None if bool(present.all()) else present),
        names[part],
        number,
        np.concatenate([_groups(rows) for rows in some]),
        {name: np.concatenate([rows.side[name].numpy() for rows in some]) for name in flat},
        ", ".join(f"{len(rows):,} of {len(data[name]):,} {name} rows" for name, rows in zip(data, some, strict=True)),
    )


def _groups(rows: Observations) -> np.ndarray:
    return np.full(len(rows), -1) if rows.groups is None else rows.groups.numpy()


class StateExplorer(Explorer):
    """States of several modalities, and what a model makes of them."""

    def __init__(self, model: MVAE, shown: _Shown) -> None:
        self.model = model
        self._shown = shown
        self._labels = [f"{part} row {number}" for part, number in zip(shown.part, shown.number, strict=True)]
        self._surveyed()
        latents = model.latents
        spread = latents.spread.cpu().double()
        share = spread.square() / spread.square().sum().clamp_min(1e-300)
        self._dims = [k for k in range(min(model.z_dim, _MOST_SLIDERS)) if float(share[k]) > _LEAST_SHARE]
        self._codes = ((self._z - latents.centre.cpu()) @ latents.axes.cpu().T)[:, self._dims]
        self.sliders = [
            Slider(f"axis {k}", *_range(self._codes[:, i], float(spread[k]))) for i, k in enumerate(self._dims)
        ]
        if not self._dims:
            self.without = {
                "moved": "the latents do not vary: the posterior has collapsed, and no slider moves anything."
            }
        about = f"{shown.about}; mapped: posterior means of all modalities that a row has."
        self.points = Points(self._z.numpy(), self._labels, self._colours, about)

    # The map

    @torch.inference_mode()
    def _surveyed(self) -> None:
        """One pass over all states: latents, sizes, errors of the reconstruction, and the box of all surfaces."""
        model, batch = self.model, self._shown.batch
        means: list[Tensor] = []
        found: dict[str, list[np.ndarray]] = {}
        most, nodes = 0.0, np.zeros((1, 3)) if model.mesh is None else model.mesh.nodes.cpu().numpy()
        box = np.stack([nodes.min(0), nodes.max(0)])
        for start in range(0, len(batch), _ROWS_AT_ONCE):
            some = _part(batch, slice(start, start + _ROWS_AT_ONCE))
            z = model.encode(some.to(model.device)).mean
            decoded = model.decode(z)
            means.append(z.float().cpu())
            present = np.ones((len(some), len(model.names)), bool) if some.present is None else some.present.numpy()
            for k, modality in enumerate(model.modalities):
                values = some.values[:, model.slices[modality.name]].numpy()
                inferred = decoded[modality.name].float().cpu().numpy()
                for name, column in _measured(modality, values, inferred).items():
                    found.setdefault(name, []).append(np.where(present[:, k], column, np.nan))
                if modality.kind == "displacement" and modality.size == 3 * len(nodes) and present[:, k].any():
                    field = values[present[:, k]].reshape(-1, len(nodes), 3)
                    moved = nodes + field
                    box = np.stack([np.minimum(box[0], moved.min((0, 1))), np.maximum(box[1], moved.max((0, 1)))])
                    most = max(most, float(np.linalg.norm(field, axis=2).max()))
        self._z = torch.cat(means)
        self.views = Views(model.modalities, model.mesh, box, most)
        # What is seen at a glance comes first: how far the surface is moved, then sizes, errors, columns.
        order = sorted(found, key=lambda name: (not name.endswith("displacement"), "error of" in name, "." in name))
        self._colours = {self._with_unit(name): np.concatenate(found[name]) for name in order} | self._facts()

    def _with_unit(self, name: str) -> str:
        unit = self._units().get(name, "")
        return f"{name} ({unit})" if unit else name

    def _units(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for modality in self.model.modalities:
            for part, columns in parts_of(modality).items():
                found |= dict.fromkeys(_names(modality, part), modality.unit_of(columns))
            found |= {
                f"{modality.name}.{name}": unit for name, unit in zip(modality.columns, modality.units, strict=True)
            }
        return found

    def _facts(self) -> dict[str, np.ndarray]:
        shown = self._shown
        found = dict(shown.side)
        if len(np.unique(shown.part)) > 1:
            found["part"] = shown.part
        if len(np.unique(shown.group)) > 1:
            found["group"] = shown.group
        return found

    # Drawings

    def original(self, index: int) -> Drawing:
        """The state as it is in the data, in every view it was seen by."""
        state = self._state(index)
        # Its numbers are in the reconstruction's table, beside what is decoded.
        return replace(self._draw(state, self._labels[index]), table=None)

    def reconstruction(self, index: int) -> Drawing:
        """Every view decoded from the posterior mean of those the row has, beside the original."""
        return self._compared(index, self._z[index])

    def details(self, index: int) -> Sequence[Table]:
        """How far each view is from the truth when it is inferred from another one, and the inferred columns."""
        state = self._state(index)
        row = _part(self._shown.batch, slice(index, index + 1))
        sources: dict[str, list[str]] = {name: [name] for name in state}
        if len(state) > 1:
            sources["all it has"] = list(state)
        inferred = {label: self.model.infer(row, self.model.names, observed=names) for label, names in sources.items()}
        facts = [[name, _cell(values[index])] for name, values in self._facts().items()]
        tables = [Table(self._labels[index], ["", "value"], facts)] if facts else []
        return [*tables, self._errors(state, inferred), *self._inferred_columns(state, inferred)]

    def _errors(self, state: State, inferred: Mapping[str, Mapping[str, Any]]) -> Table:
        lines: list[list[Any]] = []
        for source, found in inferred.items():
            for modality in self.model.modalities:
                if modality.name not in state:
                    continue
                truth, prediction = state[modality.name][None], found[modality.name]
                wrong = row_errors(modality, truth, prediction.mean)
                expected = row_errors(modality, np.zeros_like(prediction.std), prediction.std)
                for part, columns in parts_of(modality).items():
                    size = (
                        length(modality, truth[0]) if not part else float(np.sqrt(np.square(truth[0, columns]).mean()))
                    )
                    what = f"{whole_name(modality, part)} from {source}"
                    cells = [float(wrong[part][0]), _cell(expected[part][0]), size]
                    lines.append([what, *cells, modality.unit_of(columns)])
        caption = (
            "Root mean square over columns, of displacements over points. Expected: the calibrated standard deviation "
            "of what is inferred. Size: of the true values."
        )
        return Table("Every modality from every other", ["", "error", "expected", "size", "unit"], lines, caption)

    def _inferred_columns(self, state: State, inferred: Mapping[str, Mapping[str, Any]]) -> list[Table]:
        """True and inferred columns, of modalities that have few."""
        tables: list[Table] = []
        for modality in self.model.modalities:
            if modality.size > LISTED_COLUMNS or modality.kind == "displacement":
                continue
            true = state.get(modality.name)
            lines = [
                [
                    f"{column} ({unit})" if unit else column,
                    None if true is None else float(true[k]),
                    *(float(found[modality.name].mean[0, k]) for found in inferred.values()),
                ]
                for k, (column, unit) in enumerate(zip(modality.columns, modality.units, strict=True))
            ]
            headings = ["", "true", *(f"from {source}" for source in inferred)]
            tables.append(Table(f"{modality.name}, inferred", headings, lines))
        return tables

    def positions(self, index: int) -> Sequence[float]:
        """The state's latents along the principal axes of the training latents."""
        if "moved" in self.without:
            raise self._cannot("moved")
        return self._codes[index].tolist()

    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """What is decoded from a state's latents moved along the principal axes, beside the original."""
        if "moved" in self.without:
            raise self._cannot("moved")
        if len(positions) != len(self._dims) or not np.isfinite(positions).all():
            raise ConfigError(f"positions: expected {len(self._dims)} finite numbers, got {list(positions)}.")
        way = torch.tensor(list(positions), dtype=self._codes.dtype) - self._codes[index]
        return self._compared(index, self._z[index] + way @ self.model.latents.axes.cpu()[self._dims])

    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """States decoded from the straight line between the latents of two states."""
        share = torch.linspace(0.0, 1.0, steps)[:, None]
        states = self._decoded(torch.lerp(self._z[start][None], self._z[end][None], share))
        words = [f"{100 * float(part):.0f} % of the way" for part in share]
        return [self._draw(state, word) for state, word in zip(states, words, strict=True)]

    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """States decoded from draws of the mixture fitted to the training latents."""
        drawn = self.model.sample(n, torch.Generator().manual_seed(seed))
        return [self._draw(state, f"sample {k + 1}") for k, state in enumerate(_states(drawn))]

    def _state(self, index: int) -> State:
        batch, model = self._shown.batch, self.model
        there = [True] * len(model.names) if batch.present is None else batch.present[index].tolist()
        row = batch.values[index].numpy()
        return {name: row[model.slices[name]] for name, has in zip(model.names, there, strict=True) if has}

    @torch.inference_mode()
    def _decoded(self, z: Tensor) -> list[State]:
        return _states(self.model.decode(z))

    def _compared(self, index: int, z: Tensor) -> Drawing:
        (state,) = self._decoded(z[None])
        original = self._state(index)
        words = distances(self.model.modalities, state, original)
        return self.views.draw(state, f"decoded; from {self._labels[index]} (root mean square): {words}", original)

    def _draw(self, state: State, words: str) -> Drawing:
        return self.views.draw(state, f"{words}: {sizes(self.model.modalities, state)}")


def _measured(modality: Modality, values: np.ndarray, inferred: np.ndarray) -> dict[str, np.ndarray]:
    """Sizes, errors and columns of rows (rows, size) by the name of a colour, each of shape (rows,)."""
    found: dict[str, np.ndarray] = {}
    errors = row_errors(modality, values, inferred)
    for part, columns in parts_of(modality).items():
        size, error = _names(modality, part)
        if modality.kind == "displacement":
            found[size] = row_errors(modality, np.zeros_like(values), values)[""]
        else:
            found[size] = np.linalg.norm(values[:, columns].astype(np.float64), axis=1)
        found[error] = errors[part]
    if modality.size <= _COLOURING_COLUMNS:
        found |= {f"{modality.name}.{column}": values[:, k] for k, column in enumerate(modality.columns)}
    return found


def _names(modality: Modality, part: str) -> tuple[str, str]:
    """What the size of a part and the error of its reconstruction are called."""
    whole = whole_name(modality, part)
    size = f"{whole} displacement" if modality.kind == "displacement" else whole if part else f"{whole} norm"
    return size, f"error of {whole}"


def _range(codes: Tensor, spread: float) -> tuple[float, float]:
    """Where a slider may stand: as far as the states reach, and three deviations of the training latents."""
    low, high = min(float(codes.min()), -3.0 * spread), max(float(codes.max()), 3.0 * spread)
    return low, high


def _part(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.values[rows], None if batch.present is None else batch.present[rows])


def _states(decoded: Mapping[str, Tensor]) -> list[State]:
    """Rows of modalities as one state each."""
    arrays = {name: values.float().cpu().numpy() for name, values in decoded.items()}
    count = len(next(iter(arrays.values())))
    return [{name: values[k] for name, values in arrays.items()} for k in range(count)]


def _cell(value: Any) -> Any:
    """A value of a table; a number that is not known is none."""
    if isinstance(value, str):
        return str(value)
    return float(value) if math.isfinite(value) else None
