"""Evaluating a trained world model: what a probe reads from its imagined futures, and what its latents are like."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError
from noumena.core.evaluation import Evaluation, Picture, Table
from noumena.worldmodels import plots, tables
from noumena.worldmodels.diagnostics import warning
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.probing.measure import UNTRAINED, Measured, Protocol, measure
from noumena.worldmodels.probing.metrics import Errors

log = logging.getLogger("noumena")

_HEADLINES = (
    "rmse",
    "encoding_rmse",
    "untrained/rmse",
    "baseline_constant/rmse",
    "plan/success",
    "slow_index",
    "action_r2",
    "rankme",
)


def evaluate(
    model: WorldModel,
    splits: Splits,
    *,
    baselines: bool = True,
    probe: Literal["ridge", "sgd"] = "ridge",
    probe_train_sequences: int = 4800,
    probe_sequences: int = 1200,
    ridge: float = 1e-3,
    plan_episodes: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Measure a trained model on sequences it was not trained on; the keywords are a recipe's ``evaluate`` section.

    Probes are fitted to training sequences and measured on the test split, else val, else a fifth of the training
    sequences that is kept from the probe. Training data that are made on the fly give the probe new sequences.

    Args:
        model: a trained model of the worldmodels family.
        splits: its data. Without a state there are diagnostics only.
        baselines: also measure trivial guesses of the state, and the same networks with new weights.
        probe: ``sgd`` adds the probe of the study beside the closed-form one: 30 epochs over the same latents.
        probe_train_sequences, probe_sequences: sequences that probes are fitted to and measured on, at most.
        ridge: penalty of the closed-form probe; see :class:`~noumena.worldmodels.probing.ridge.RidgeProbe`.
        plan_episodes: episodes to plan in the world of the data; none by default.
        seed: of the untrained weights, of the SGD probe, and of planning.

    Returns:
        Metrics. From imagined futures: ``rmse`` over all steps, ``rmse_t0``, ``rmse_t<last>``, ``r2``, and with several
        things ``rmse/<thing>``, ``r2/<thing>``; from latents of true frames ``encoding_rmse``, ``encoding_r2``, and of
        first frames, by a probe of their own, ``encoding_rmse_t0``; the same after ``untrained/`` and ``sgd/``, and of
        guesses after ``baseline_<name>/``. The diagnostics of :data:`noumena.worldmodels.diagnostics.WORDS`. Tables,
        pictures, and the error of each step as a file. A collapsed latent is named in a table and logged as a warning.

    Raises:
        ConfigError: a number out of range, or planning where the data have no world.
        DataError: sequences of other frames or actions than the model's, or too few of them.
    """
    _, held = splits.held_out
    protocol = Protocol(baselines, probe, probe_train_sequences, probe_sequences, ridge, seed)
    _check(protocol, held, plan_episodes)
    with _evaluating(model):
        measured = measure(model, model.as_dataset(splits.train), model.as_dataset(held), protocol)
        planned = _plan(model, measured, plan_episodes, seed)
    text = warning(measured.diagnostics)
    if text is not None:
        log.warning(text)
    metrics = {**_metrics(measured), **planned.metrics}
    steps = {"step_errors.csv": tables.steps_file(measured.methods)} if measured.methods else {}
    return Evaluation(
        {name: metrics[name] for name in dict.fromkeys([*_HEADLINES, *metrics]) if name in metrics},
        [*([] if text is None else [tables.warning_table(text)]), *_tables(measured), *planned.tables],
        [*_pictures(measured), *planned.pictures],
        files={**steps, **planned.files},
        pages=planned.pages,
    )


def _check(protocol: Protocol, held: Dataset, plan_episodes: int) -> None:
    for name, value, least in (
        ("probe_train_sequences", protocol.probe_train_sequences, 2),
        ("probe_sequences", protocol.probe_sequences, 4),
        ("plan_episodes", plan_episodes, 0),
    ):
        if value < least:
            raise ConfigError(f"evaluate.{name}: expected at least {least}, got {value}.")
    if not protocol.ridge > 0:
        raise ConfigError(f"evaluate.ridge: expected a number above 0, got {protocol.ridge}.")
    if plan_episodes and not held.schema.get("world"):
        kind = held.schema.get("kind")
        raise ConfigError(f"evaluate.plan_episodes: data of kind '{kind}' have no world to act in. Set it to 0.")


@contextmanager
def _evaluating(model: WorldModel) -> Iterator[None]:
    """The model in evaluation mode inside the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _plan(model: WorldModel, measured: Measured, episodes: int, seed: int) -> Evaluation:
    """What planning with the model achieves; empty where it was not asked for."""
    if episodes == 0:
        return Evaluation({})
    from noumena.worldmodels.environments.worlds import world_of
    from noumena.worldmodels.planning.evaluate import plan_metrics
    from noumena.worldmodels.planning.film import film

    # What is known of the latents is found by walks in the world: a goal is where no recorded walk may have been.
    found = plan_metrics(model, world_of(measured.schema), episodes=episodes, seed=seed)
    shown = film(found.world, found.episodes, 0)
    return Evaluation(found.metrics, [found.table], found.pictures, files={"planning.gif": shown})


# Writing down


def _metrics(one: Measured) -> dict[str, float]:
    things = list(one.schema["state"])
    found: dict[str, float] = {}
    for key, (_, measured) in one.methods.items():
        if key == "encoding":
            found |= {"encoding_rmse": measured.rmse, "encoding_r2": measured.r2}
        else:
            found |= _named(f"{key}/" if key else "", measured, things)
    found |= {f"{f'{key}/' if key else ''}encoding_rmse_t0": value for key, value in one.start.items()}
    found |= one.diagnostics.metrics()
    if one.untrained is not None:
        found |= {f"untrained/{name}": value for name, value in one.untrained.metrics().items()}
    return found


def _named(prefix: str, one: Errors, things: list[str]) -> dict[str, float]:
    """Errors of one method by name of the metric."""
    steps = one.per_step.tolist()
    found = {"rmse": one.rmse, "r2": one.r2, "rmse_t0": steps[0], f"rmse_t{len(steps) - 1}": steps[-1]}
    if len(things) > 1:
        found |= {f"rmse/{name}": float(one.per_thing[i]) for i, name in enumerate(things)}
        found |= {f"r2/{name}": float(one.r2_per_thing[i]) for i, name in enumerate(things)}
    return {f"{prefix}{name}": value for name, value in found.items()}


def _tables(one: Measured) -> list[Table]:
    found: list[Table] = []
    unit = str(one.schema.get("state_unit", ""))
    if one.methods:
        found.append(tables.probe_table(one.methods, unit, len(one.held), one.fitted))
        if len(one.schema["state"]) > 1:
            found.append(tables.things_table(one.methods, list(one.schema["state"]), unit))
    columns = {"model": one.diagnostics.metrics()}
    if one.untrained is not None:
        columns[UNTRAINED] = one.untrained.metrics()
    return [*found, tables.diagnostics_table(columns)]


def _pictures(one: Measured) -> list[Picture]:
    encoded, state = one.held.encoded, one.held.state
    assert encoded is not None
    found: list[Picture] = []
    things, unit = list(one.schema["state"]), str(one.schema.get("state_unit", ""))
    if one.read is not None and state is not None:
        found.append(plots.step_errors({key: (label, x.per_step) for key, (label, x) in one.methods.items()}, unit))
        if _are_positions(one):
            found.append(plots.strips(one.held.shown, one.read, things))
        else:
            found.append(plots.traces(state[: len(one.read)], one.read, things))
    return [*found, plots.latent_map(encoded, _colours(one)), plots.latent_spectrum(encoded)]


def _are_positions(one: Measured) -> bool:
    """Whether the state is where things are in a frame."""
    return one.schema.get("state_unit") == "px" and one.schema.get("state_dims") == 2


def _colours(one: Measured) -> dict[str, Tensor]:
    """What latents are coloured by: the first thing's position, single numbers of the state, or the step."""
    state, things = one.held.state, list(one.schema["state"])
    if state is None:
        batch, time = one.held.predicted.shape[:2]
        return {"step": torch.arange(time).expand(batch, time)}
    if _are_positions(one):
        return {f"{axis} of {things[0]} (px)": state[:, :, 0, i] for i, axis in enumerate("xy")}
    return {name: state[:, :, i, 0] for i, name in enumerate(things)}
