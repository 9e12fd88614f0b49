"""What decides in an episode: a planner with a model, chance, and one who knows the way; with the same interface."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.core.seeding import fold
from noumena.worldmodels.environments.worlds import World
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.planning.costs import ActionEffort, Cost, LatentGoal, Over, Readout, StateGoal, WeightedSum
from noumena.worldmodels.planning.planners import Limit, Planner
from noumena.worldmodels.planning.roadmap import Roadmap

GoalKind = Literal["image", "state"]
# Stream of the seed.
_BEGINNINGS = 1


@dataclass(frozen=True)
class Beginnings:
    """Where episodes begin and end, the same for all policies that are compared.

    Attributes:
        positions, goals: in pixels, shape (episodes, 2).
        scenes: what stays the same during an episode, shape (episodes, ...), or ``None``.
    """

    positions: Tensor
    goals: Tensor
    scenes: Tensor | None

    @classmethod
    def draw(cls, world: World, episodes: int, seed: int, device: torch.device | str = "cpu") -> "Beginnings":
        """The beginnings of a seed."""
        if episodes < 1:
            raise ConfigError(f"episodes: expected at least 1, got {episodes}.")
        generator = torch.Generator(device).manual_seed(fold(seed, _BEGINNINGS))
        scenes = world.scenes(episodes, generator)
        return cls(*world.reset(episodes, generator, scenes), scenes)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Tensor | slice) -> "Beginnings":
        """Some of the episodes."""
        return Beginnings(self.positions[index], self.goals[index], None if self.scenes is None else self.scenes[index])


@dataclass(frozen=True)
class View:
    """What a policy may look at when it decides, for the episodes that are still going.

    Attributes:
        world: rules and pictures.
        now: present positions, goals and scenes; a policy that has learned looks at frames instead of positions.
        index: which episodes they are, shape (going,).
        step: actions taken so far.
    """

    world: World
    now: Beginnings
    index: Tensor
    step: int

    def frames(self) -> Tensor:
        """What the camera sees, shape (going, channels, height, width)."""
        return self.world.render(self.now.positions, self.now.scenes, time=self.step)


@dataclass(frozen=True)
class Decision:
    """The next actions of the episodes that are going.

    Attributes:
        actions: shape (going, at least 1, 2); at most as many are taken as the loop was told.
        imagined: positions that the policy expects after each action, shape (going, actions, 2), if it can tell.
    """

    actions: Tensor
    imagined: Tensor | None = None


class Policy(Protocol):
    """What decides."""

    def begin(self, world: World, beginnings: Beginnings, generator: torch.Generator) -> None:
        """Forget all, and learn the goals; ``generator`` is the source of all draws of the coming episodes."""
        ...

    def decide(self, view: View, take: int) -> Decision:
        """Actions for the episodes of ``view``, of which the next ``take`` are carried out."""
        ...


@dataclass
class RandomPolicy:
    """Actions of the world's random policy: the floor."""

    _generator: torch.Generator | None = field(default=None, init=False)

    def begin(self, world: World, beginnings: Beginnings, generator: torch.Generator) -> None:
        """See :class:`Policy`."""
        self._generator = generator

    def decide(self, view: View, take: int) -> Decision:
        """See :class:`Policy`."""
        assert self._generator is not None
        some = view.world.random_actions(len(view.index) * take, self._generator)
        return Decision(some.unflatten(0, (len(view.index), take)))


@dataclass
class OraclePolicy:
    """The shortest way, from the true positions: the ceiling."""

    def begin(self, world: World, beginnings: Beginnings, generator: torch.Generator) -> None:
        """See :class:`Policy`."""

    def decide(self, view: View, take: int) -> Decision:
        """See :class:`Policy`."""
        now, actions, places = view.now, [], []
        position = now.positions
        for _ in range(take):
            actions.append(view.world.oracle_action(position, now.goals, now.scenes))
            position = view.world.move(position, actions[-1], now.scenes)
            places.append(position)
        return Decision(torch.stack(actions, dim=1), torch.stack(places, dim=1))


@dataclass
class PlanningPolicy:
    """Plans with a model, from the present frame to a goal image or goal position.

    Attributes:
        model: whose latents are planned in; it sees frames, never positions.
        planner: the search.
        horizon: actions of a plan.
        goal: whether the goal is given as an image or as a position that ``readout`` reads from latents.
        scale: deviation of each dimension of the latent over data, shape (latent,).
        readout: from latents to positions; needed for goals given as states, else only to draw what is imagined.
        roadmap: counts steps around obstacles; the straight distance to the goal where missing.
        over: how distances along the plan are combined.
        effort: weight of the actions' mean square beside the cost of the goal, as a share of the cost's own unit.
        recover: a decision that moved the latent by less than this share of what was imagined has met an obstacle that
            the model does not know of, and the same plan would meet it again: the next decision is a random step,
            repeated. 0 never does so.
    """

    model: WorldModel
    planner: Planner
    horizon: int
    goal: GoalKind
    scale: Tensor
    readout: Readout | None = None
    roadmap: Roadmap | None = None
    over: Over = "sum"
    effort: float = 0.0
    recover: float = 0.5
    _generator: torch.Generator | None = field(default=None, init=False)
    _plans: Tensor | None = field(default=None, init=False)
    _goals: Tensor | None = field(default=None, init=False)
    # Of each episode the latent at the last decision, and the one expected at the next.
    _ways: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.goal not in ("image", "state"):
            raise ConfigError(f"goal: expected 'image' or 'state', got '{self.goal}'.")
        if self.goal == "state" and self.readout is None:
            raise ConfigError("goal='state' needs a readout from latents to positions: pass one, or plan to images.")
        if not self.effort >= 0:
            raise ConfigError(f"effort: expected 0 or more, got {self.effort}.")
        if not 0 <= self.recover < 1:
            raise ConfigError(f"recover: expected 0 <= recover < 1, got {self.recover}.")

    @torch.no_grad()
    def begin(self, world: World, beginnings: Beginnings, generator: torch.Generator) -> None:
        """See :class:`Policy`."""
        self._generator = generator
        self._plans = torch.zeros(len(beginnings), self.horizon, 2, dtype=self.model.dtype, device=self.model.device)
        self._ways = None
        if self.goal == "image":
            # Where backgrounds change, the image is of a time after the last step: no frame of the episode shows it.
            frames = world.render(beginnings.goals, beginnings.scenes, time=world.max_steps + 1)
            self._goals = self.model.start(frames.to(self.model.device))

    @torch.no_grad()
    def decide(self, view: View, take: int) -> Decision:
        """See :class:`Policy`."""
        assert self._generator is not None
        assert self._plans is not None
        start = self.model.start(view.frames().to(self.model.device))
        plans = self.planner.plan(
            self.model,
            start,
            self._cost(view),
            horizon=self.horizon,
            limit=Limit(view.world.max_step),
            generator=self._generator,
            warm_start=self._plans[view.index],
        )
        plans = self._recovered(plans, start, view, take)
        latents = self.model.rollout(start, plans)
        # The rest of this plan is where the next one begins; its last action goes on.
        kept = plans[:, take:]
        self._plans[view.index] = torch.cat([kept, plans[:, -1:].expand(-1, self.horizon - kept.shape[1], -1)], dim=1)
        if self._ways is None:
            self._ways = start.new_zeros(2, len(self._plans), start.shape[-1])
        self._ways[:, view.index] = torch.stack([start, latents[:, min(take, self.horizon) - 1]])
        return Decision(plans, None if self.readout is None else self.readout(latents)[..., 0, :])

    def _recovered(self, plans: Tensor, start: Tensor, view: View, take: int) -> Tensor:
        """Plans, those of episodes that got stuck beginning with a random step, as often as is taken."""
        if self._ways is None or not self.recover:
            return plans
        assert self._generator is not None
        before, expected = self._ways[:, view.index] / self.scale
        hoped, moved = (expected - before).norm(dim=-1), (start / self.scale - before).norm(dim=-1)
        step = view.world.random_actions(len(plans), self._generator).to(plans)
        detour = torch.cat([step[:, None].expand(-1, take, -1), plans[:, take:]], dim=1)
        return torch.where((moved < self.recover * hoped)[:, None, None], detour, plans)

    def _cost(self, view: View) -> Cost:
        goal = self._goal(view)
        cost: Cost = goal if self.roadmap is None else self.roadmap.cost(goal, self.over)
        return WeightedSum(((1.0, cost), (self.effort, ActionEffort(view.world.max_step)))) if self.effort else cost

    def _goal(self, view: View) -> LatentGoal | StateGoal:
        if self.goal == "state":
            assert self.readout is not None
            return StateGoal(view.now.goals.to(self.scale), self.readout, over=self.over)
        assert self._goals is not None
        return LatentGoal(self._goals[view.index], self.scale, over=self.over)
