import io
import math

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.worldmodels.dots.noise import Overlays, Scene
from noumena.worldmodels.dots.world import DotWorld
from noumena.worldmodels.environments.dots import DotReaching
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.planning.control import run_episodes, run_policy
from noumena.worldmodels.planning.costs import ActionEffort, LatentGoal, StateGoal, WeightedSum
from noumena.worldmodels.planning.evaluate import plan_metrics, wilson_interval
from noumena.worldmodels.planning.film import film
from noumena.worldmodels.planning.planners import CEM, MPPI, GradientPlanner, Limit, coloured_noise, costs_of
from noumena.worldmodels.planning.policies import Beginnings, OraclePolicy, RandomPolicy
from noumena.worldmodels.planning.roadmap import Roadmap, deviation, farthest_points, shortest_paths
from noumena.worldmodels.planning.survey import survey
from tests.worldmodels.standin_world import Adding, Exact, PositionReadout

PLANNERS = {
    "cem": CEM(samples=200, iterations=12, elites=20, min_spread=0.005),
    "mppi": MPPI(samples=300, iterations=25, temperature=0.03, spread=0.15),
    "gradient": GradientPlanner(iterations=150, lr=0.02),
}
SMALL = CEM(samples=96, elites=12, iterations=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def rooms():
    """Two rooms, the exact model of them, and what random walks tell of its latents."""
    world = TwoRooms()
    model = Exact(world).eval()
    return world, model, survey(model, world, walks=768, landmarks=256)


# Planners


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_find_the_optimum_of_a_quadratic_problem(name):
    wanted = torch.tensor([[[1.0, -0.5], [0.2, 0.4], [-0.8, 0.1]], [[0.0, 0.9], [0.3, 0.3], [0.5, -0.5]]])

    def cost(latents, actions):
        # Of both what is done and where it leads: the minimum is at `wanted` alone.
        there = wanted.cumsum(1)[:, None]
        return (actions - wanted[:, None]).square().sum((-1, -2)) + (latents - there).square().sum((-1, -2))

    plan = PLANNERS[name].plan(Adding(), torch.zeros(2, 2), cost, horizon=3, limit=Limit(2.0), generator=generator())
    assert torch.allclose(plan, wanted, atol=0.06)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("box", [False, True])
def test_plans_keep_within_the_possible_actions_and_reach_their_bound(name, box):
    far = LatentGoal(torch.tensor([[100.0, 100.0]]), torch.ones(2))
    limit = Limit(1.5, box)
    plan = PLANNERS[name].plan(Adding(), torch.zeros(1, 2), far, horizon=4, limit=limit, generator=generator())
    size = plan.abs().amax(-1) if box else plan.norm(dim=-1)
    assert float(size.max()) <= 1.5 * (1 + 1e-6)
    assert float(size.min()) > 1.3
    assert torch.allclose(limit.project(limit.project(plan * 3)), limit.project(plan * 3))


@pytest.mark.parametrize("name", PLANNERS)
def test_same_seed_same_plan_and_another_seed_another(name):
    def plan(seed):
        goal = LatentGoal(torch.tensor([[3.0, 1.0]]), torch.ones(2))
        return PLANNERS[name].plan(
            Adding(), torch.zeros(1, 2), goal, horizon=3, limit=Limit(1.0), generator=generator(seed)
        )

    assert torch.equal(plan(1), plan(1))
    assert not torch.equal(plan(1), plan(2))


def test_gradient_planner_never_ends_above_the_plan_it_began_with():
    model, start = Adding(), torch.zeros(5, 2)
    cost = LatentGoal(torch.randn(5, 2, generator=generator(3)) * 4, torch.ones(2))
    warm = Limit(1.0).project(torch.randn(5, 6, 2, generator=generator(4)))
    with torch.no_grad():  # as policies call it
        plan = GradientPlanner(starts=1, iterations=15).plan(
            model, start, cost, horizon=6, limit=Limit(1.0), generator=generator(), warm_start=warm
        )
    before, after = (costs_of(model, start, actions[:, None], cost)[:, 0] for actions in (warm, plan))
    assert (after < before).all()


def test_candidates_that_are_not_finite_are_never_taken():
    def cost(latents, actions):
        costs = (latents[..., -1, :] - 1).square().sum(-1)
        return torch.where(latents[..., -1, 0] > 0.5, torch.nan, costs)

    plan = SMALL.plan(Adding(), torch.zeros(1, 2), cost, horizon=2, limit=Limit(1.0), generator=generator())
    assert float(plan.sum(1)[0, 0]) <= 0.5


def test_rolling_out_in_pieces_changes_nothing(monkeypatch):
    goal = LatentGoal(torch.randn(3, 2, generator=generator()), torch.ones(2))
    candidates = torch.randn(3, 50, 4, 2, generator=generator(1))
    whole = costs_of(Adding(), torch.zeros(3, 2), candidates, goal)
    monkeypatch.setattr("noumena.worldmodels.planning.planners._MOST_NUMBERS", 170)
    assert torch.equal(costs_of(Adding(), torch.zeros(3, 2), candidates, goal), whole)


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_coloured_noise_has_variance_one_and_the_power_it_is_to_have(colour):
    noise = coloured_noise((40_000, 16, 2), colour, torch.zeros(1, dtype=torch.float64), generator())
    assert torch.allclose(noise.var(0), torch.ones(16, 2, dtype=torch.float64), atol=0.04)
    neighbours = float((noise[:, 1:] * noise[:, :-1]).mean())
    # Of a series of 32 steps with the power k**-colour at its frequencies k, the constant one like the first.
    k = np.maximum(np.arange(17), 1)
    power = k**-colour * np.where((np.arange(17) == 0) | (np.arange(17) == 16), 1, 2)
    expected = float((power * np.cos(2 * math.pi * np.arange(17) / 32)).sum() / power.sum())
    assert neighbours == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: CEM(elites=1), "cem.elites"),
        (lambda: CEM(samples=8, elites=9), "elites <= samples"),
        (lambda: CEM(momentum=1.0), "cem.momentum"),
        (lambda: CEM(min_spread=2.0), "cem.spread"),
        (lambda: MPPI(temperature=0.0), "mppi.temperature"),
        (lambda: GradientPlanner(lr=0.0), "gradient.lr"),
        (lambda: Limit(0.0), "largest action"),
        (lambda: LatentGoal(torch.zeros(1, 2), torch.ones(2), over="mean"), "'sum', 'last' or 'min'"),
    ],
)
def test_settings_out_of_range_are_refused(make, word):
    with pytest.raises(ConfigError, match=word):
        make()


def test_a_warm_start_of_another_length_is_refused():
    goal = LatentGoal(torch.zeros(1, 2), torch.ones(2))
    with pytest.raises(DataError, match="warm_start"):
        SMALL.plan(
            Adding(),
            torch.zeros(1, 2),
            goal,
            horizon=3,
            limit=Limit(1.0),
            generator=generator(),
            warm_start=torch.zeros(1, 2, 2),
        )


# Costs


def test_goal_costs_are_the_distances_they_say():
    z = torch.randn(2, 3, 4, 5, generator=generator())
    goal, scale = torch.randn(2, 5, generator=generator(1)), torch.rand(5, generator=generator(2)) + 0.5
    by_hand = np.sqrt((((z - goal[:, None, None]) / scale).numpy() ** 2).mean(-1))
    for over, expected in (("sum", by_hand.mean(-1)), ("last", by_hand[..., -1]), ("min", by_hand.min(-1))):
        np.testing.assert_allclose(LatentGoal(goal, scale, over)(z, z), expected, rtol=1e-5)
    weight = torch.randn(5, 2, generator=generator(3))
    place = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    cost = StateGoal(place, lambda latents: (latents @ weight)[..., None, :], over="last")
    expected = np.linalg.norm((z[:, :, -1] @ weight).numpy() - place[:, None].numpy(), axis=-1)
    np.testing.assert_allclose(cost(z, z), expected, rtol=1e-5)


def test_a_weighted_sum_adds_the_effort_of_actions():
    actions = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]])
    effort = ActionEffort(size=5.0)
    assert float(effort(actions, actions)) == pytest.approx(0.5)
    goal = LatentGoal(torch.zeros(1, 2), torch.ones(2), "last")
    assert float(WeightedSum(((2.0, goal), (4.0, effort)))(actions, actions)) == pytest.approx(2.0, abs=1e-5)


# Roadmap


def test_shortest_paths_agree_with_scipy():
    graph = pytest.importorskip("scipy.sparse.csgraph")
    steps = torch.rand(30, 30, generator=generator())
    steps = torch.where(steps < 0.1, steps * 10, torch.inf).fill_diagonal_(0)
    np.testing.assert_allclose(shortest_paths(steps), graph.shortest_path(steps.numpy(), method="D"), rtol=1e-6)


def test_farthest_points_are_each_the_farthest_from_those_before():
    rows = torch.randn(200, 3, generator=generator(), dtype=torch.float64)
    chosen = farthest_points(rows, 20, seed=1)
    for count in range(1, 20):
        distance = torch.cdist(rows, chosen[:count]).amin(1)
        assert float((chosen[count] - chosen[:count]).norm(dim=1).min()) == pytest.approx(float(distance.max()))


def test_the_roadmap_leads_through_the_door_where_the_straight_line_meets_the_wall(rooms):
    world, _, known = rooms
    left, right, door = (torch.tensor([[[place]]]) for place in ([24.0, 8.0], [39.0, 8.0], [31.5, 31.5]))
    goal = LatentGoal(torch.tensor([[39.0, 8.0]]), known.scale)
    cost = known.roadmap.cost(goal)
    at_wall, at_goal, in_door = (float(cost.remaining(place)) for place in (left, right, door))
    assert float(goal.distances(left)) < float(goal.distances(door))
    assert at_goal < 0.5 < in_door < at_wall
    # No way is shorter than the world allows.
    assert at_wall * 1.5 * world.max_step > 2 * (31.5 - 8)


def test_latents_that_no_action_changes_are_of_no_account():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(40, 9, 5, generator=generator)
    scale = deviation(latents, constant=2)
    roadmap = Roadmap.fit(latents, scale=scale, landmarks=12)
    goal = LatentGoal(latents[:3, -1], scale)
    cost, actions = roadmap.cost(goal), torch.zeros(3, 7, 4, 2)
    imagined = torch.randn(3, 7, 4, 5, generator=generator)
    other = imagined.clone()
    other[..., 3:] += 5.0 * torch.randn(3, 7, 4, 2, generator=generator)
    torch.testing.assert_close(goal(other, actions), goal(imagined, actions), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cost(other, actions), cost(imagined, actions), atol=1e-2, rtol=1e-3)


def test_a_roadmap_of_a_collapsed_model_is_refused():
    with pytest.raises(DataError, match="collapsed"):
        Roadmap.fit(torch.ones(10, 5, 3), landmarks=4)
    with pytest.raises(ConfigError, match=r"roadmap\.landmarks"):
        Roadmap.fit(torch.randn(2, 5, 3), landmarks=11)


# Control


@pytest.mark.parametrize("goal", ["image", "state"])
def test_the_exact_model_gets_through_the_door_and_the_random_policy_does_not(rooms, goal):
    world, model, known = rooms
    found = run_episodes(
        model, world, SMALL, scale=known.scale, readout=known.readout, roadmap=known.roadmap, goal=goal, episodes=40,
        horizon=8, replan_every=4,
    )  # fmt: skip
    assert found.rate >= 0.95
    random = run_policy(world, RandomPolicy(), Beginnings.draw(world, 40, 0))
    assert random.rate <= 0.2
    assert torch.equal(random.goals, found.goals)
    assert torch.equal(random.positions[:, 0], found.positions[:, 0])


@pytest.mark.parametrize("planner", [SMALL, MPPI(samples=64, iterations=3), GradientPlanner(starts=4, iterations=15)])
def test_dot_reaching_needs_no_roadmap(planner):
    world = DotReaching()
    found = run_episodes(Exact(world).eval(), world, planner, scale=torch.ones(2), episodes=40, horizon=6)
    assert found.rate >= 0.95


def test_a_model_that_does_not_know_the_wall_gets_past_it_by_recovering(rooms):
    world, _, known = rooms

    class Blind(Exact):
        def rollout(self, start, actions, *, generator=None):
            return start[:, None] + actions.cumsum(1)

    def rate(recover):
        return run_episodes(
            Blind(world).eval(), world, SMALL, scale=known.scale, roadmap=known.roadmap, episodes=30, recover=recover
        ).rate

    assert rate(0.5) > rate(0.0) + 0.1


def test_episodes_record_what_the_world_does(rooms):
    world, model, known = rooms
    found = run_episodes(
        model, world, SMALL, scale=known.scale, readout=PositionReadout(), episodes=6, horizon=5, replan_every=2, seed=3
    )
    for step in range(world.max_steps):
        moved = world.move(found.positions[:, step], found.actions[:, step])
        going = step < found.steps
        assert torch.allclose(
            torch.where(going[:, None], moved, found.positions[:, step]), found.positions[:, step + 1]
        )
    distance = (found.positions - found.goals[:, None]).norm(dim=-1)
    assert torch.allclose(distance.amin(1), found.nearest)
    assert torch.equal(found.nearest <= world.success_radius, found.success)
    # The exact model imagines what then happens.
    assert torch.allclose(found.imagined[:, 0, :2], found.positions[:, 1:3], atol=1e-4)
    assert all(took > 0 for took in found.decision_ms)
    assert len(found.decision_ms) == len(found.decided)


def test_episodes_do_not_depend_on_when_others_end_for_a_policy_without_chance():
    world = TwoRooms(vary_door=True)
    beginnings = Beginnings.draw(world, 12, 5)
    together = run_policy(world, OraclePolicy(), beginnings, replan_every=3)
    alone = run_policy(world, OraclePolicy(), beginnings[7:8], replan_every=3)
    assert together.rate == 1.0
    assert torch.equal(together.positions[7], alone.positions[0])


def test_planning_with_a_changing_background_looks_at_frames_of_the_right_time():
    world = DotReaching(Scene(DotWorld(), Overlays(changing=0.01)))
    found = run_episodes(Exact(world).eval(), world, SMALL, scale=torch.ones(2), episodes=10, horizon=5)
    assert found.rate >= 0.9


def test_impossible_settings_of_control_are_refused(rooms):
    world, model, known = rooms
    with pytest.raises(ConfigError, match="replan_every"):
        run_episodes(model, world, SMALL, scale=known.scale, horizon=3, replan_every=4)
    with pytest.raises(ConfigError, match="readout"):
        run_episodes(model, world, SMALL, scale=known.scale, goal="state")
    with pytest.raises(ConfigError, match="episodes"):
        Beginnings.draw(world, 0, 0)


# Report


def test_wilson_interval_is_where_the_score_test_has_its_bound():
    for successes, trials in ((0, 10), (3, 10), (95, 100), (50, 50), (1, 1)):
        for end in wilson_interval(successes, trials):
            # (share - p)^2 = z^2 p (1 - p) / n defines the ends.
            square = 1.959963984540054**2
            assert (successes / trials - end) ** 2 == pytest.approx(square * end * (1 - end) / trials, abs=1e-12)
    assert wilson_interval(95, 100) == pytest.approx((0.8882495, 0.9784569), abs=1e-6)
    with pytest.raises(ConfigError, match="6 of 5"):
        wilson_interval(6, 5)


def test_report_has_rates_floors_ceilings_latencies_and_pictures(rooms):
    world, model, known = rooms
    found = plan_metrics(model, world, known, episodes=8, planner=SMALL, replan_every=4)
    metrics = found.metrics
    assert metrics["plan/success"] == found.episodes.rate
    assert metrics["plan/success_low"] <= metrics["plan/success"] <= metrics["plan/success_high"]
    assert metrics["plan/oracle_success"] == 1.0
    assert metrics["plan/random_success"] < metrics["plan/success"]
    assert metrics["plan/latency_ms"] > 0
    assert metrics["plan/latency_batch_ms"] > 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(len(row) == len(found.table.columns) for row in found.table.rows)
    for picture in found.pictures:
        picture.figure.savefig(io.BytesIO(), format="png")
    again = plan_metrics(model, world, known, episodes=8, planner=SMALL, replan_every=4)
    assert torch.equal(again.episodes.actions, found.episodes.actions)
    with pytest.raises(ConfigError, match="Did you mean 'mppi'"):
        plan_metrics(model, world, known, planner="mpi")


@pytest.mark.parametrize("world", [TwoRooms(), DotReaching(Scene(DotWorld(), Overlays(fixed=0.3)))])
def test_film_shows_one_picture_per_action_that_pillow_can_read(world):
    image = pytest.importorskip("PIL.Image")
    found = run_policy(world, OraclePolicy(), Beginnings.draw(world, 3, 1))
    with image.open(io.BytesIO(film(world, found, 1))) as opened:
        assert opened.format == "GIF"
        assert opened.n_frames == int(found.steps[1]) + 1
        assert min(opened.size) >= 300
    with pytest.raises(ConfigError, match="from 0 to 2"):
        film(world, found, 3)
