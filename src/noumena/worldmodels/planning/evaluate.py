"""How often a model's plans reach their goals, beside a random policy and an oracle with the same starts and goals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

import torch

from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.evaluation import Picture, Table
from noumena.core.seeding import fold
from noumena.worldmodels.environments.worlds import World
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.planning.control import Episodes, run_policy, timed
from noumena.worldmodels.planning.costs import Over
from noumena.worldmodels.planning.pictures import success_curve, trajectories
from noumena.worldmodels.planning.planners import CEM, MPPI, GradientPlanner, Planner
from noumena.worldmodels.planning.policies import (
    Beginnings,
    GoalKind,
    OraclePolicy,
    PlanningPolicy,
    Policy,
    RandomPolicy,
    View,
)
from noumena.worldmodels.planning.survey import Survey, survey

PlannerName = Literal["cem", "mppi", "gradient"]

# Of a roadmap's cost each sample takes some thousand products: fewer of them than the straight distance can afford.
_PLANNERS: Mapping[str, Planner] = {
    "cem": CEM(samples=128, elites=16, iterations=4),
    "mppi": MPPI(samples=256, iterations=4),
    "gradient": GradientPlanner(),
}
_TIMED = 5  # decisions of a single episode that are timed
_NORMAL_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class PlanReport:
    """What planning with a model came to.

    Attributes:
        metrics: numbers by name, all beginning with ``plan/``.
        table: for people.
        pictures: success over time, and some trajectories.
        episodes: of the model's plans.
        world: where they happened.
        survey: what the planning knew of the latent space.
    """

    metrics: Mapping[str, float]
    table: Table
    pictures: Sequence[Picture]
    episodes: Episodes
    world: World
    survey: Survey


def plan_metrics(
    model: WorldModel,
    world: World,
    known: Survey | None = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    planner: PlannerName | Planner = "cem",
    goal: GoalKind = "image",
    horizon: int = 8,
    replan_every: int = 2,
    roadmap: bool | None = None,
    over: Over = "sum",
    recover: float = 0.5,
) -> PlanReport:
    """Measure planning with a model in its world.

    Args:
        model: a fitted model of the world's frames and actions.
        world: where to act.
        known: what is known of the latents; found by random walks in the world where missing.
        episodes: of each policy, with the same starts and goals.
        seed: decides starts, goals and all draws.
        planner: a name, or a planner with settings of its own.
        goal: given as an image, or as a position that the survey's readout reads from latents.
        horizon: actions of a plan.
        replan_every: actions taken of each plan.
        roadmap: whether the cost counts steps on the roadmap; otherwise it is the straight distance to the goal. By
            default where the world has walls.
        over: how the cost of the steps of a plan is combined.
        recover: see :class:`~noumena.worldmodels.planning.policies.PlanningPolicy`.

    Raises:
        ConfigError: an unknown planner, or a number out of range.
    """
    if not 1 <= replan_every <= horizon:
        raise ConfigError(f"replan_every: expected from 1 to the horizon of {horizon}, got {replan_every}.")
    search = planner_of(planner) if isinstance(planner, str) else planner
    was_training = model.training
    model.eval()
    known = known or survey(model, world, seed=seed)
    roadmap = world.obstructed if roadmap is None else roadmap
    way = known.roadmap if roadmap else None
    policy = PlanningPolicy(model, search, horizon, goal, known.scale, known.readout, way, over, recover=recover)
    beginnings = Beginnings.draw(world, episodes, seed, model.device)
    found = {
        "model": run_policy(world, policy, beginnings, replan_every=replan_every, seed=seed),
        "random": run_policy(world, RandomPolicy(), beginnings, seed=seed),
        "oracle": run_policy(world, OraclePolicy(), beginnings, seed=seed),
    }
    single = _single_latency(world, policy, beginnings[:1], replan_every, seed)
    model.train(was_training)
    metrics = _metrics(found, single) | {"plan/readout_rmse": known.readout_rmse}
    words = f"{type(search).__name__}, goals as {goal}s, {horizon} actions ahead, {replan_every} taken of each plan"
    words += ", cost: steps on the roadmap." if roadmap else ", cost: straight distance."
    words += " A random step where a plan got nowhere." if recover else ""
    pictures = [success_curve(found), trajectories(world, found["model"])]
    return PlanReport(metrics, _table(found, world, words, metrics), pictures, found["model"], world, known)


def planner_of(name: str) -> Planner:
    """A planner with the settings that serve in the worlds of this family.

    Raises:
        ConfigError: no planner is called so.
    """
    if name not in _PLANNERS:
        raise ConfigError(f"planner: unknown '{name}'. {did_you_mean(name, get_args(PlannerName))}")
    return _PLANNERS[name]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a probability (Wilson 1927): sensible at 0 and at all successes too.

    Raises:
        ConfigError: not 0 <= successes <= trials, or no trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(f"a success rate: expected 0 <= successes <= trials, got {successes} of {trials}.")
    share, square = successes / trials, _NORMAL_95**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    half = _NORMAL_95 / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    # At 0 and at all, rounding must not leave the bound a hair off.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def _single_latency(world: World, policy: Policy, first: Beginnings, take: int, seed: int) -> float:
    """Median wall time of decisions for one episode alone, in milliseconds; the first one warms up."""
    device = first.positions.device
    policy.begin(world, first, torch.Generator(device).manual_seed(fold(seed, _TIMED)))
    view = View(world, first, torch.zeros(1, dtype=torch.long, device=device), 0)
    return median([timed(lambda: policy.decide(view, take), device)[1] for _ in range(_TIMED + 1)][1:])


def _metrics(found: Mapping[str, Episodes], single: float) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, part in found.items():
        prefix = "plan/" if name == "model" else f"plan/{name}_"
        low, high = wilson_interval(int(part.success.sum()), len(part.success))
        metrics |= {f"{prefix}success": part.rate, f"{prefix}success_low": low, f"{prefix}success_high": high}
        metrics[f"{prefix}nearest_px"] = float(part.nearest.double().mean())
        if part.success.any():
            metrics[f"{prefix}steps"] = float(part.steps[part.success].double().mean())
    own = found["model"]
    each = [took / count for took, count in zip(own.decision_ms, own.decided, strict=True)]
    if each:
        metrics["plan/latency_batch_ms"] = median(each)
    metrics["plan/latency_ms"] = single
    return metrics


def _table(found: Mapping[str, Episodes], world: World, words: str, metrics: Mapping[str, float]) -> Table:
    rows: list[list[str | float | None]] = []
    for name, part in found.items():
        prefix = "plan/" if name == "model" else f"plan/{name}_"
        low, high = (100 * metrics[f"{prefix}success_{end}"] for end in ("low", "high"))
        steps, nearest = metrics.get(f"{prefix}steps"), metrics[f"{prefix}nearest_px"]
        label = {"model": "plans of the model", "random": "random policy", "oracle": "oracle"}[name]
        rows.append([label, f"{100 * part.rate:.1f}", f"{low:.1f} to {high:.1f}", _digits(steps), _digits(nearest)])
    caption = (
        f"{words} {len(found['model'].success)} episodes of at most {world.max_steps} actions, the same starts and "
        f"goals for all. Success: within {world.success_radius:g} px of the goal; the interval is Wilson's. Steps: "
        "mean of the successful episodes. The oracle knows positions and walls. "
        f"A decision for one episode takes {metrics['plan/latency_ms']:.0f} ms (median)."
    )
    columns = ["policy", "success (%)", "95 % interval (%)", "steps", "nearest (px)"]
    return Table("Planning", columns, rows, caption)


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"
