"""Model-predictive control: plan from what is seen, act for a few steps, look again; many episodes at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.core.seeding import fold
from noumena.worldmodels.environments.worlds import World, reached
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.planning.costs import Over, Readout
from noumena.worldmodels.planning.planners import Planner
from noumena.worldmodels.planning.policies import Beginnings, Decision, GoalKind, PlanningPolicy, Policy, View
from noumena.worldmodels.planning.roadmap import Roadmap

_POLICY = 2  # stream of the seed


@dataclass(frozen=True)
class Episodes:
    """What happened.

    Attributes:
        positions: shape (episodes, steps + 1, 2), in pixels; an episode that has reached its goal stays there.
        goals: shape (episodes, 2).
        actions: shape (episodes, steps, 2), 0 after the goal.
        scenes: shape (episodes, ...), or ``None``.
        success: shape (episodes,).
        steps: actions until the goal was reached, all of them where it was not; shape (episodes,).
        nearest: least distance from the goal at any time, shape (episodes,).
        imagined: positions expected by the plan that each action is from, shape (episodes, steps, actions, 2), not
            a number where there is none; ``None`` if the policy cannot tell.
        decision_ms: wall time of each decision.
        decided: episodes that each decision was for.
    """

    positions: Tensor
    goals: Tensor
    actions: Tensor
    scenes: Tensor | None
    success: Tensor
    steps: Tensor
    nearest: Tensor
    imagined: Tensor | None
    decision_ms: tuple[float, ...]
    decided: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Share of the episodes that reached their goal."""
        return float(self.success.double().mean())


def run_policy(
    world: World, policy: Policy, beginnings: Beginnings, *, replan_every: int = 1, seed: int = 0
) -> Episodes:
    """Let a policy act until its goals are reached or the world's steps are used up.

    Args:
        replan_every: actions that are taken of each decision.
        seed: of the policy's draws.

    Raises:
        ConfigError: ``replan_every`` is below 1.
    """
    if replan_every < 1:
        raise ConfigError(f"replan_every: expected at least 1, got {replan_every}.")
    device = beginnings.positions.device
    policy.begin(world, beginnings, torch.Generator(device).manual_seed(fold(seed, _POLICY)))
    record = _Record(world, beginnings)
    while record.step < world.max_steps and len(index := record.going()):
        take = min(replan_every, world.max_steps - record.step)
        now = beginnings[index]
        now = Beginnings(record.positions[index, record.step], now.goals, now.scenes)
        view = View(world, now, index, record.step)
        decision, took = timed(lambda view=view, take=take: policy.decide(view, take), device)
        record.decision_ms.append(took)
        record.decided.append(len(index))
        for k in range(min(take, decision.actions.shape[1])):
            record.act(index, decision, k)
    return record.episodes()


class _Record:
    """Fills in what happens."""

    def __init__(self, world: World, beginnings: Beginnings) -> None:
        self.world, self.beginnings = world, beginnings
        start = beginnings.positions
        self.positions = start[:, None].repeat(1, world.max_steps + 1, 1)
        self.actions = start.new_zeros(len(start), world.max_steps, 2)
        self.imagined: Tensor | None = None
        self.distance = (start - beginnings.goals).norm(dim=-1)
        self.done = reached(world, start, beginnings.goals)
        self.steps = torch.where(self.done, 0, world.max_steps)
        self.step = 0
        self.decision_ms: list[float] = []
        self.decided: list[int] = []

    def going(self) -> Tensor:
        return (~self.done).nonzero()[:, 0]

    def act(self, index: Tensor, decision: Decision, k: int) -> None:
        """Carry out action ``k`` of a decision in those of its episodes that have not reached their goal since."""
        some = ~self.done[index]
        index, actions = index[some], decision.actions[some, k].to(self.actions)
        now = self.beginnings[index]
        places = self.world.move(self.positions[index, self.step], actions, now.scenes)
        self.actions[index, self.step] = actions
        if decision.imagined is not None:
            self._imagine(index, decision.imagined[some].to(places))
        self.step += 1
        self.positions[index, self.step :] = places[:, None]
        self.distance[index] = torch.minimum(self.distance[index], (places - now.goals).norm(dim=-1))
        arrived = index[reached(self.world, places, now.goals)]
        self.done[arrived] = True
        self.steps[arrived] = self.step

    def _imagine(self, index: Tensor, imagined: Tensor) -> None:
        if self.imagined is None:
            shape = (*self.actions.shape[:2], *imagined.shape[1:])
            self.imagined = torch.full(shape, torch.nan, dtype=imagined.dtype, device=imagined.device)
        self.imagined[index, self.step, : imagined.shape[1]] = imagined

    def episodes(self) -> Episodes:
        given = self.beginnings
        return Episodes(
            self.positions,
            given.goals,
            self.actions,
            given.scenes,
            self.done,
            self.steps,
            self.distance,
            self.imagined,
            tuple(self.decision_ms),
            tuple(self.decided),
        )


def timed(call: Callable[[], Decision], device: torch.device) -> tuple[Decision, float]:
    """What a call gives, and the wall time it took in milliseconds, work on the accelerator included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, 1000 * (time.perf_counter() - begin)


def run_episodes(
    model: WorldModel,
    world: World,
    planner: Planner,
    *,
    scale: Tensor,
    episodes: int = 100,
    goal: GoalKind = "image",
    readout: Readout | None = None,
    roadmap: Roadmap | None = None,
    horizon: int = 10,
    replan_every: int = 2,
    over: Over = "sum",
    effort: float = 0.0,
    recover: float = 0.5,
    seed: int = 0,
) -> Episodes:
    """Model-predictive control of many episodes with one model; the arguments are those of :class:`PlanningPolicy`.

    Args:
        episodes: how many; their starts and goals are those of ``seed``.
        replan_every: actions taken of each plan, at most ``horizon``.
    """
    if not 1 <= replan_every <= horizon:
        raise ConfigError(f"replan_every: expected from 1 to the horizon of {horizon}, got {replan_every}.")
    policy = PlanningPolicy(model, planner, horizon, goal, scale, readout, roadmap, over, effort, recover)
    beginnings = Beginnings.draw(world, episodes, seed, model.device)
    return run_policy(world, policy, beginnings, replan_every=replan_every, seed=seed)
