"""Plain regressions from one modality to others: what the latent model has to be compared with."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.core.seeding import fold, seeded
from noumena.multimodal.frontend import FrontEnd, Images, resolve_components, resolve_scales
from noumena.multimodal.modality import Modality
from noumena.multimodal.networks import SkipMLP
from noumena.multimodal.observations import Observations
from noumena.multimodal.symmetry import Action, PointGroup

COMPONENTS = 64
"""Principal components that stand for a wide modality."""

_MOST_MONOMIALS = 3000
_RIDGES = tuple(10.0**power for power in (-11, -9, -7, -5, -3, -1))
_BLOCK = 4096
# A network is checked on held-out rows this often, and its best weights are kept.
_CHECKS = 20
_ERROR_MEMORY = 0.01
_HELD_OUT_SHARE = 0.15


class Regression(nn.Module):
    """A network from the features of one modality to those of others, fitted by :func:`fit_regression`."""

    def __init__(
        self, source: Modality, targets: Sequence[Modality], fronts: Sequence[FrontEnd], net: nn.Module
    ) -> None:
        """
        Args:
            source, targets: the modalities.
            fronts: fitted, of the source and of each target.
            net: from the features of the source to those of all targets side by side.
        """
        super().__init__()
        self.source = source
        self.targets = tuple(targets)
        self.fronts = nn.ModuleList(fronts)
        self.net = net
        self.widths = [front.features for front in fronts[1:]]

    def features(self, x: Tensor) -> list[Tensor]:
        """Predicted features of each target, shape (rows, features), of features of the source."""
        front = self.fronts[0]
        assert isinstance(front, FrontEnd)
        return list(self.net(front.encoder_input(x)).split(self.widths, dim=1))

    @torch.inference_mode()
    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        """Every target in physical units, shape (rows, size), of rows of the source (rows, size)."""
        front, *others = (front for front in self.fronts if isinstance(front, FrontEnd))
        found: list[list[np.ndarray]] = [[] for _ in others]
        for x in torch.as_tensor(inputs, dtype=torch.float32).split(_BLOCK):
            for parts, other, y in zip(found, others, self.features(front(x)), strict=True):
                parts.append(other.inverse(y).numpy())
        return {target.name: np.concatenate(parts) for target, parts in zip(self.targets, found, strict=True)}


def fit_regression(
    train: Observations,
    val: Observations | None,
    source: str,
    targets: Sequence[str],
    *,
    hidden_dims: Sequence[int] = (256, 256, 256),
    components: int | None = COMPONENTS,
    symmetry: str | None = None,
    steps: int = 4000,
    lr: float = 2e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> Regression:
    """A multilayer perceptron (SiLU, a linear map beside it) trained to predict modalities from one.

    Fused Adam with a cosine schedule. Each target's mean squared error is divided by its running average, so that
    all of them are learned at the same relative pace. The weights that did best on ``val`` are kept.

    Args:
        train: rows to fit to; those that have the source and at least one target.
        val: rows to choose the weights on; a share of the training groups when missing.
        source: name of the input.
        targets: names of the outputs.
        hidden_dims: widths of the hidden layers.
        components: principal components in place of the columns of wider modalities; ``None`` for raw columns.
        symmetry: point group about the z axis: rows are replaced by random images under it, as in
            :class:`~noumena.multimodal.model.MVAE`.
        steps: minibatches.
        lr: initial learning rate.
        batch_size: rows of a minibatch.
        seed: of weights, order and images.

    Raises:
        ConfigError: ``steps`` or ``batch_size`` is below 1, or there is no target.
        DataError: no row has the source and a target, or there is no such modality.
    """
    if steps < 1 or batch_size < 1 or not targets:
        raise ConfigError(f"expected steps >= 1, batch_size >= 1 and a target, got {steps}, {batch_size}, {targets}.")
    names = [source, *targets]
    _check_names(train, names)
    train, held = _parts(train, val, names, seed)
    group = None if symmetry is None else PointGroup.parse(symmetry)
    modalities = [_modality(train, name) for name in names]
    fronts = _fitted_fronts(train, modalities, components, group)
    rows, checked = _rows(train, names, fronts), _rows(held, names, fronts)
    images = None
    if group is not None:
        images = Images(group, modalities, fronts, None if train.surface is None else train.surface.nodes)
    widths = [fronts[0].features, *hidden_dims, sum(front.features for front in fronts[1:])]
    with seeded(fold(seed, 0)):
        model = Regression(modalities[0], modalities[1:], fronts, SkipMLP(widths, "silu", skip=True))
    _train(model, rows, checked, images, steps, lr, batch_size, fold(seed, 1))
    return model


@dataclass(frozen=True)
class _Rows:
    """Features of the source and of each target, and which rows have which target, bool (rows, targets)."""

    source: Tensor
    targets: list[Tensor]
    present: Tensor

    def __len__(self) -> int:
        return len(self.source)


def _rows(data: Observations, names: Sequence[str], fronts: Sequence[FrontEnd]) -> _Rows:
    has = torch.stack([data.has(name) for name in names[1:]], 1)
    x, *targets = (front(data[name].nan_to_num(0.0)) for name, front in zip(names, fronts, strict=True))
    return _Rows(x, targets, has)


def _train(
    model: Regression,
    rows: _Rows,
    held: _Rows,
    images: Images | None,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.net.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    running = torch.ones(len(rows.targets))
    least, best = float("inf"), {}
    every = max(1, steps // _CHECKS)
    for step, index in zip(range(1, steps + 1), _minibatches(len(rows), batch_size, generator), strict=False):
        features = [rows.source[index], *(target[index] for target in rows.targets)]
        if images is not None:
            features = images(features, torch.rand(len(index), generator=generator))
        errors = _errors(model.features(features[0]), features[1:], rows.present[index])
        memory = max(_ERROR_MEMORY, 1.0 / step)
        running = torch.lerp(running, errors.detach(), memory).clamp(min=1e-12)
        optimizer.zero_grad(set_to_none=True)
        (errors / running).sum().backward()
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == steps:
            with torch.inference_mode():
                found = _errors(model.features(held.source), held.targets, held.present)
                loss = float(found.clamp(min=1e-12).log().sum())
            if loss < least:
                least, best = loss, {name: value.clone() for name, value in model.net.state_dict().items()}
    if best:
        model.net.load_state_dict(best)


def _errors(predicted: Sequence[Tensor], targets: Sequence[Tensor], present: Tensor) -> Tensor:
    """Mean squared error of each target over the rows that have it, shape (targets,)."""
    squared = torch.stack([(p - t).square().mean(1) for p, t in zip(predicted, targets, strict=True)], 1)
    return (squared * present).sum(0) / present.sum(0).clamp(min=1)


def _minibatches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled minibatches; the last, smaller one of a pass is left out."""
    size = min(size, rows)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from order[: rows - rows % size].split(size)


def _parts(
    train: Observations, val: Observations | None, names: Sequence[str], seed: int
) -> tuple[Observations, Observations]:
    """Rows to fit to and rows to choose on, of those that have the source and a target."""

    def usable(data: Observations) -> Observations:
        targets = torch.stack([data.has(name) for name in names[1:]], 1)
        return data.subset(data.has(names[0]) & targets.any(1)).to("cpu")

    train = usable(train)
    if not len(train):
        raise DataError(f"no training row has '{names[0]}' together with any of {', '.join(names[1:])}.")
    held = None if val is None else usable(val)
    if held is not None and len(held):
        return train, held
    groups = torch.arange(len(train)) if train.groups is None else train.groups.unique(return_inverse=True)[1]
    count = int(groups.max()) + 1
    if count < 2:
        return train, train
    order = torch.randperm(count, generator=torch.Generator().manual_seed(fold(seed, 2)))
    chosen = torch.isin(groups, order[: max(1, round(_HELD_OUT_SHARE * count))])
    return train.subset(~chosen), train.subset(chosen)


def _check_names(data: Observations, names: Sequence[str]) -> None:
    for name in names:
        if name not in data.names:
            raise DataError(f"no modality '{name}'. {did_you_mean(name, data.names)}")


def _modality(data: Observations, name: str) -> Modality:
    return next(modality for modality in data.modalities if modality.name == name)


def _fitted_fronts(
    train: Observations, modalities: Sequence[Modality], components: int | None, group: PointGroup | None
) -> list[FrontEnd]:
    sizes = {modality.name: modality.size for modality in modalities}
    kept, rules = resolve_components(sizes, components), resolve_scales(modalities, None)
    nodes = None if train.surface is None else train.surface.nodes
    fronts: list[FrontEnd] = []
    for modality in modalities:
        front = FrontEnd(modality.size, kept[modality.name], rules[modality.name])
        action = None if group is None else Action(group, modality.kind, nodes)
        front.fit(train[modality.name][train.has(modality.name)], action, 1 if group is None else group.order)
        fronts.append(front)
    return fronts


@dataclass(frozen=True)
class _Ridge:
    """A fitted polynomial: of the ``inputs`` leading features, with the weights of its scaled monomials."""

    degree: int
    inputs: int
    scale: Tensor
    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Features of the target, float64, shape (rows, features), of those of the source."""
        return _monomials(x[:, : self.inputs], self.degree) / self.scale @ self.weights


@dataclass(frozen=True)
class Polynomial:
    """Polynomials from one modality to others, fitted by :func:`fit_polynomial`.

    Attributes:
        fitted: front ends of the source and of the target, and the polynomial between them, by target.
    """

    fitted: Mapping[str, tuple[FrontEnd, FrontEnd, _Ridge]]

    @torch.inference_mode()
    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        """Every target in physical units, shape (rows, size), of rows of the source (rows, size)."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.fitted}
        for rows in torch.as_tensor(inputs, dtype=torch.float32).split(_BLOCK):
            for name, (front, out, ridge) in self.fitted.items():
                y = ridge(_polynomial_input(front, rows)).to(out.mean)
                found[name].append(out.inverse(y).numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}


def fit_polynomial(
    train: Observations,
    val: Observations | None,
    source: str,
    targets: Sequence[str],
    *,
    degrees: Sequence[int] = (1, 2, 3, 4, 5),
    seed: int = 0,
) -> Polynomial:
    """Ridge regression on all monomials of the standardised source up to a degree.

    Degree and ridge are those that do best on ``val``, for each target apart. Wide modalities enter, and come out,
    as their 64 leading principal components; the higher the degree, the fewer of them enter, so that there are never
    more than 3,000 monomials nor more than rows. A narrow source enters whole or, where that is too many, not at all.

    Args:
        train, val, source, targets, seed: see :func:`fit_regression`.
        degrees: to choose from; the first one is always tried.

    Raises:
        DataError: no row has the source and a target, or there is no such modality.
    """
    _check_names(train, [source, *targets])
    found = {target: _fit_to_target(train, val, source, target, degrees, seed) for target in targets}
    return Polynomial(found)


def _fit_to_target(
    train: Observations, val: Observations | None, source: str, target: str, degrees: Sequence[int], seed: int
) -> tuple[FrontEnd, FrontEnd, _Ridge]:
    names = [source, target]
    train, held = _parts(train, val, names, seed)
    front, out = _fitted_fronts(train, [_modality(train, name) for name in names], COMPONENTS, None)
    x, x_held = (_polynomial_input(front, part[source]) for part in (train, held))
    y, y_held = (out(part[target]).double() for part in (train, held))
    least, best = float("inf"), None
    for number, degree in enumerate(degrees):
        count = _inputs(x.shape[1], degree, min(_MOST_MONOMIALS, len(x)), front.basis is not None)
        if count == 0 and number > 0:
            continue
        count = count or x.shape[1]
        monomials = _monomials(x[:, :count], degree)
        scale = monomials.square().mean(0).sqrt().clamp(min=1e-12)
        at_held = _monomials(x_held[:, :count], degree) / scale
        for weights in _ridge_weights(monomials / scale, y):
            loss = float((at_held @ weights - y_held).square().mean())
            if loss < least:
                least, best = loss, _Ridge(degree, count, scale, weights)
    assert best is not None  # the largest ridge can always be solved
    return front, out, best


def _polynomial_input(front: FrontEnd, x: Tensor) -> Tensor:
    return front.encoder_input(front(x)).double()


def _inputs(features: int, degree: int, most: int, may_be_fewer: bool) -> int:
    """How many features go into the polynomial; 0 if it would be too large."""
    for count in range(features, 0, -1):
        if math.comb(count + degree, degree) <= most:
            return count
        if not may_be_fewer:
            return 0
    return 0


def _monomials(x: Tensor, degree: int) -> Tensor:
    """All products of at most ``degree`` columns, the constant 1 included, shape (rows, monomials)."""
    padded = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    index = torch.tensor(list(combinations_with_replacement(range(padded.shape[1]), degree)))
    found = padded[:, index[:, 0]]
    for place in range(1, degree):
        found = found * padded[:, index[:, place]]
    return found


def _ridge_weights(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Solutions for each ridge, the smallest first; those that cannot be had in double precision are left out."""
    gram, moment = x.T @ x / len(x), x.T @ y / len(x)
    eye = torch.eye(len(gram), dtype=gram.dtype)
    for ridge in _RIDGES:
        factor, failed = torch.linalg.cholesky_ex(gram + ridge * eye)
        if int(failed) == 0:
            yield torch.cholesky_solve(moment, factor)
