"""All that is measured of one trained model: probes of its latents, guesses without a model, and diagnostics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from noumena.core.data import Dataset, FreshDataset
from noumena.core.preprocessing import Standardizer
from noumena.core.seeding import fold, seeded
from noumena.worldmodels.diagnostics import Diagnostics, diagnose
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.probing.baselines import WORDS, baselines
from noumena.worldmodels.probing.latents import Latents, draw, latents
from noumena.worldmodels.probing.metrics import Errors, errors
from noumena.worldmodels.probing.ridge import RidgeProbe
from noumena.worldmodels.probing.sgd import SGDProbe

UNTRAINED = "untrained model"
"""Label of the same networks with new weights."""

SHOWN = 4
"""Sequences that are kept for pictures."""

# Epochs that no training reaches: the sequences a probe sees are new to the model.
_FITTED, _HELD = 1 << 30, 1 << 31
# Share of stored sequences that probes are fitted to where there are no others to measure them on.
_FITTED_SHARE = 0.8
_WEIGHTS = 101  # stream of the seed; those of `fit` are small numbers


@dataclass(frozen=True)
class Protocol:
    """How a model is measured: the options of :func:`noumena.worldmodels.evaluate.evaluate` of the same names."""

    baselines: bool
    probe: Literal["ridge", "sgd"]
    probe_train_sequences: int
    probe_sequences: int
    ridge: float
    seed: int


@dataclass(frozen=True)
class Measured:
    """Everything that was computed, before it is written down.

    Attributes:
        held: latents of the held-out sequences.
        schema: of the held-out data.
        diagnostics, untrained: of the model, and of the same networks with new weights.
        methods: label and errors by key, the model's own first; empty without a state.
        read: the state read from the imagined latents of the sequences that are shown; ``None`` without a state.
        start: error of the first state, read by a probe of first frames alone, by key.
        fitted: a sentence on what the probes were fitted to.
    """

    held: Latents
    schema: Mapping[str, Any]
    diagnostics: Diagnostics
    untrained: Diagnostics | None
    methods: Mapping[str, tuple[str, Errors]]
    read: Tensor | None
    start: Mapping[str, float]
    fitted: str


def measure(model: WorldModel, train: Dataset, test: Dataset, protocol: Protocol) -> Measured:
    """Fit probes to sequences of ``train`` and measure them, and the latents, on sequences of ``test``.

    Args:
        model: in evaluation mode.
        train, test: datasets. The very same stored one is parted: its first four fifths are fitted to.
        protocol: how.
    """
    to_fit, to_hold = _sources(train, test, protocol)
    held = to_hold(model, True)
    untrained = untrained_copy(model, protocol.seed) if protocol.baselines else None
    other = None if untrained is None else to_hold(untrained, True)
    diagnostics = _diagnosed(held)
    second = None if other is None else _diagnosed(other)
    if held.state is None or not _share_state(train, test):
        return Measured(held, test.schema, diagnostics, second, {}, None, {}, "")
    known = to_fit(model, True)
    methods, probe = _probes(known, held, protocol)
    start = {"": _first_error(known, held, protocol.ridge)}
    if untrained is not None and other is not None:
        before = to_fit(untrained, False)
        found, _ = _read(before.predicted, other.predicted, before, held, protocol.ridge)
        methods["untrained"] = (f"{UNTRAINED}, imagined futures", found)
        start["untrained"] = _first_error(before, other, protocol.ridge)
        guesses = baselines(*_state(known), *_state(held), test.schema)
        methods |= {f"baseline_{key}": (WORDS[key], errors(guess, held.state)) for key, guess in guesses.items()}
    kind = "new" if isinstance(train, FreshDataset) else "training"
    read = probe.predict(held.predicted[: len(held.shown)])
    fitted = f"Probes were fitted to {len(known):,} {kind} sequences."
    return Measured(held, test.schema, diagnostics, second, methods, read, start, fitted)


def untrained_copy(model: WorldModel, seed: int) -> WorldModel:
    """The same networks with new weights, and the preprocessing of ``model``."""
    with seeded(fold(seed, _WEIGHTS)):
        fresh = type(model)(**model.hyperparameters())
    for name, module in model.named_modules():
        if isinstance(module, Standardizer):
            fresh.get_submodule(name).load_state_dict(module.state_dict())
    fresh.schema = model.schema
    return fresh.to(model.device).eval()


_Source = Callable[[WorldModel, bool], Latents]


def _sources(train: Dataset, test: Dataset, protocol: Protocol) -> tuple[_Source, _Source]:
    """Latents of the sequences to fit to, and of the held-out ones, of any model."""
    # A dataset that makes its sequences gives new ones to both, so that it needs no parting.
    split = _FITTED_SHARE if train is test else 1.0
    rest = (_FITTED_SHARE, 1.0) if train is test else (0.0, 1.0)

    def to_fit(model: WorldModel, encode: bool) -> Latents:
        count = protocol.probe_train_sequences
        return latents(model, draw(train, count, epoch=_FITTED, part=(0.0, split)), encode=encode)

    def to_hold(model: WorldModel, encode: bool) -> Latents:
        sequences = draw(test, protocol.probe_sequences, epoch=_HELD, part=rest)
        return latents(model, sequences, encode=encode, shown=SHOWN)

    return to_fit, to_hold


def _diagnosed(found: Latents) -> Diagnostics:
    assert found.encoded is not None
    return diagnose(found.encoded, found.predicted, found.actions)


def _share_state(train: Dataset, test: Dataset) -> bool:
    """Whether a probe of the training data's state can be measured on the held-out data."""
    return list(train.schema["state"]) == list(test.schema["state"]) and (
        train.schema["state_dims"] == test.schema["state_dims"]
    )


def _state(found: Latents) -> tuple[Tensor, Tensor]:
    """State and actions."""
    assert found.state is not None
    return found.state, found.actions


def _read(features: Tensor, asked: Tensor, known: Latents, held: Latents, ridge: float) -> tuple[Errors, RidgeProbe]:
    """A probe fitted to features of known sequences, and its errors on those of held-out ones."""
    probe = RidgeProbe.fit(features, _state(known)[0], ridge=ridge)
    return errors(probe.predict(asked), _state(held)[0]), probe


def _probes(known: Latents, held: Latents, protocol: Protocol) -> tuple[dict[str, tuple[str, Errors]], RidgeProbe]:
    """Label and errors of the model's own probes by key, and the probe of imagined latents."""
    found, probe = _read(known.predicted, held.predicted, known, held, protocol.ridge)
    methods = {"": ("imagined futures", found)}
    if protocol.probe == "sgd":
        trained = SGDProbe.fit(known.predicted, _state(known)[0], seed=protocol.seed)
        methods["sgd"] = ("imagined futures, SGD probe", errors(trained.predict(held.predicted), _state(held)[0]))
    assert known.encoded is not None
    assert held.encoded is not None
    found, _ = _read(known.encoded, held.encoded, known, held, protocol.ridge)
    methods["encoding"] = ("latents of true frames", found)
    return methods, probe


def _first_error(known: Latents, held: Latents, ridge: float) -> float:
    """Error of the first state, read by a probe of first frames alone."""
    first, truth = _state(known)[0][:, :1], _state(held)[0][:, :1]
    probe = RidgeProbe.fit(known.predicted[:, :1], first, ridge=ridge)
    return errors(probe.predict(held.predicted[:, :1]), truth).rmse
