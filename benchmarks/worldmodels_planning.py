"""Planning with trained models: how often goals are reached, beside a random policy and an oracle.

    python benchmarks/worldmodels_planning.py --worlds two-rooms dots-none --seeds 0 1 2 --episodes 100

Each result is one line of JSON in ``--out``; what is there already is not computed again. ``--table`` prints the means.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmark_results import Row, markdown, picked, read_results

HERE = Path(__file__).parent
WORLDS: dict[str, list[str]] = {
    "two-rooms": ["worldmodels/two-rooms"],
    "dots-none": ["worldmodels/jepa-robust"],
    "dots-fixed": ["worldmodels/jepa-robust", "data.fixed=1.0"],
    "dots-changing": ["worldmodels/jepa-robust", "data.changing=1.0"],
}
# Name of a way to plan: options of plan_metrics.
WAYS: dict[str, dict[str, Any]] = {
    "CEM": {},
    "MPPI": {"planner": "mppi"},
    "gradient": {"planner": "gradient"},
    "CEM, goal as position": {"goal": "state"},
    "CEM, no recovery": {"recover": 0.0},
    "CEM, straight distance": {"roadmap": False},
}
# Where nothing is in the way there is no edge to get stuck at and no way round.
OPEN_WAYS = tuple(WAYS)[:4]
# What the table shows, in its order.
SHOWN: Mapping[str, Sequence[str]] = {"two-rooms": tuple(WAYS), "dots-none": OPEN_WAYS, "dots-fixed": OPEN_WAYS}


def run(world: str, seed: int, episodes: int, overrides: list[str]) -> list[Row]:
    """Train once, plan in every way."""
    import torch

    torch.set_num_threads(1)
    from noumena import experiment
    from noumena.config import compose
    from noumena.worldmodels.environments.worlds import world_of
    from noumena.worldmodels.planning.evaluate import plan_metrics

    recipe, *own = WORLDS[world]
    config = compose(recipe, [], [*own, f"fit.seed={seed}", f"data.seed={seed}", *overrides])
    splits = experiment.open_data(config)
    model: Any = experiment.make_model(config)
    began = time.perf_counter()
    model.fit(splits.train, **{**config.fit, "progress": False})
    seconds = round(time.perf_counter() - began, 1)
    place, known, rows = world_of(model.schema), None, []
    ways = WAYS if place.obstructed else {way: WAYS[way] for way in OPEN_WAYS}
    for way, options in ways.items():
        # Starts and goals that no choice was made on.
        report = plan_metrics(model, place, known, episodes=episodes, seed=1000 + seed, **options)
        known = report.survey
        found = {name.removeprefix("plan/"): value for name, value in report.metrics.items()}
        rows.append({"world": world, "seed": seed, "way": way, "episodes": episodes, "seconds": seconds, **found})
    return rows


def table(rows: Sequence[Row]) -> str:
    """Success over all seeds with Wilson's interval, as Markdown."""
    header = ["world", "way", "seeds", "success", "95 % interval", "steps", "random", "oracle", "ms per decision"]
    return markdown(header, [_line(rows, world, way) for world, ways in SHOWN.items() for way in ways])


def _line(rows: Sequence[Row], world: str, way: str) -> list[str]:
    from scipy.stats import binomtest

    found = picked(rows, world=world, way=way)
    trials = sum(row["episodes"] for row in found)
    hits = round(sum(row["success"] * row["episodes"] for row in found))
    interval = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    random, oracle, latency = (
        sum(row[name] for row in found) / len(found) for name in ("random_success", "oracle_success", "latency_ms")
    )
    # A run that never reached a goal has no number of steps.
    steps = [row["steps"] for row in found if "steps" in row]
    return [
        *(world, way, f"{len(found)}", f"{100 * hits / trials:.1f} %"),
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        f"{sum(steps) / len(steps):.1f}" if steps else "-",
        *(f"{100 * random:.1f} %", f"{100 * oracle:.1f} %", f"{latency:.0f}"),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="*", default=[], choices=list(WORLDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every recipe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "worldmodels_planning.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    done = read_results(options.out)
    known = {(row["world"], row["seed"]) for row in done}
    jobs = [(world, seed) for seed in options.seeds for world in options.worlds if (world, seed) not in known]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, *job, options.episodes, options.set) for job in jobs]
        for future in as_completed(futures):
            rows = future.result()
            done += rows
            with options.out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            for row in rows:
                print(f"{row['world']} {row['seed']} {row['way']}: {100 * row['success']:.0f} %", flush=True)
    if options.table:
        print(table(done))


if __name__ == "__main__":
    main()
