"""RMSE of positions in imagined futures against the level of noise, for all methods: the figure of the study.

    python benchmarks/worldmodels_noise.py --methods jepa-robust vicreg --kinds fixed-uniform --levels 1 --seeds 0 1 2

Each result is one line of JSON in ``--out``; what is there already is not computed again, so that a run can be stopped
and continued, and extended by further methods. ``--table`` prints what is there, ``--figure FILE`` draws it.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS: dict[str, list[str]] = {
    "none": [],
    "changing-uniform": ["data.noise=uniform", "data.changing={level}"],
    "fixed-uniform": ["data.noise=uniform", "data.fixed={level}"],
    "changing-structured": ["data.noise=structured", "data.changing={level}"],
    "fixed-structured": ["data.noise=structured", "data.fixed={level}"],
    "mixed-uniform": ["data.noise=uniform", "data.fixed={level}", "data.changing={level}"],
    "mixed-structured": ["data.noise=structured", "data.fixed={level}", "data.changing={level}"],
    "rolling-uniform": ["data.noise=uniform", "data.fixed={level}", "data.drift=0.25"],
    "rolling-structured": ["data.noise=structured", "data.fixed={level}", "data.drift=0.25"],
    "three-dots": ["data.dots=multiple", "data.channels=3"],
    "three-dots-fixed": ["data.dots=multiple", "data.channels=3", "data.noise=uniform", "data.fixed={level}"],
}
METHODS: dict[str, list[str]] = {
    "jepa-robust": ["worldmodels/jepa-robust"],
    "vicreg": ["worldmodels/jepa-robust", "model.swap=never"],
    "always": ["worldmodels/jepa-robust", "model.swap=always"],
    "no-episode": ["worldmodels/jepa-robust", "model.episode_dim=0"],
    "within": ["worldmodels/jepa-within"],
    "supervised": ["worldmodels/dots-supervised"],
    "random": ["worldmodels/dots-random"],
    "rssm": ["worldmodels/dots-rssm"],
    "simclr": ["worldmodels/dots-simclr"],
    "idm": ["worldmodels/dots-idm"],
    "study": ["worldmodels/dots-vicreg"],
}


def run(method: str, kind: str, level: float, seed: int, overrides: Sequence[str], threads: int) -> dict[str, Any]:
    """Train and measure once."""
    import torch

    torch.set_num_threads(threads)
    from noumena import experiment
    from noumena.config import compose

    recipe, *own = METHODS[method]
    noise = ["data.fixed=0.0", "data.changing=0.0", *(entry.format(level=level) for entry in KINDS[kind])]
    config = compose(recipe, [], [*own, *noise, f"fit.seed={seed}", f"data.seed={seed}", *overrides])
    splits = experiment.open_data(config)
    model = experiment.make_model(config)
    began = time.perf_counter()
    model.fit(splits.train, splits.val, **{**config.fit, "progress": False})
    seconds = time.perf_counter() - began
    model.eval()
    evaluation = experiment.evaluate(config, model, splits)
    kept = {name: value for name, value in evaluation.metrics.items() if not name.startswith("baseline_")}
    facts = {"swaps": bool(model.swaps)} if hasattr(model, "swaps") else {}
    return {"method": method, "kind": kind, "level": level, "seed": seed, "seconds": round(seconds, 1), **facts, **kept}


def wanted(options: argparse.Namespace) -> list[tuple[str, str, float, int]]:
    """What is asked for; without noise there is one level, 0."""
    jobs = [
        (method, kind, 0.0 if kind in ("none", "three-dots") else level, seed)
        for seed in options.seeds
        for method in options.methods
        for kind in options.kinds
        for level in options.levels
    ]
    return list(dict.fromkeys(jobs))


def key(row: dict[str, Any]) -> tuple[str, str, float, int]:
    """What makes two results the same experiment."""
    return row["method"], row["kind"], row["level"], row["seed"]


def table(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    """Means over seeds with their range, as Markdown."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["kind"], row["method"], row["level"]].append(row)
    lines = [f"| kind | method | level | seeds | {' | '.join(metrics)} |", "|---" * (4 + len(metrics)) + "|"]
    for (kind, method, level), found in sorted(groups.items()):
        cells = []
        for metric in metrics:
            values = [row[metric] for row in found if row.get(metric) is not None]
            mean = f"{statistics.mean(values):.2f}" if values else "-"
            cells.append(f"{mean} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else mean)
        lines.append(f"| {kind} | {method} | {level:g} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The study's figure."""
    from noumena.worldmodels.plots import noise_curves

    panels = {"fixed-uniform", "changing-uniform", "fixed-structured", "changing-structured"}
    shown = [row for row in rows if row["kind"] in panels]
    # Without noise the four panels have their first point in common.
    shown += [{**row, "kind": kind} for row in rows if row["kind"] == "none" for kind in panels]
    noise_curves([{name: row[name] for name in ("method", "kind", "level", "seed", "rmse")} for row in shown]).savefig(
        path, dpi=150
    )


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=[], choices=list(METHODS))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS)[:5], choices=list(KINDS))
    parser.add_argument("--levels", nargs="*", type=float, default=[1.0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every recipe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "worldmodels_noise.jsonl")
    parser.add_argument("--table", nargs="*", metavar="METRIC", help="print means over seeds")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {key(row) for row in done}
    jobs = [job for job in wanted(options) if job not in known]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, *job, options.set, options.threads) for job in jobs]
        for future in as_completed(futures):
            row = future.result()
            done.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{' '.join(map(str, key(row)))}: {row.get('rmse', float('nan')):.3f} px, {row['seconds']} s",
                flush=True,
            )
    if options.table is not None:
        print(table(done, options.table or ["rmse", "rmse_t0", "rmse_t16", "slow_index", "seconds"]))
    if options.figure is not None:
        draw(done, options.figure)


if __name__ == "__main__":
    main()
