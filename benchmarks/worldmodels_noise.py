"""RMSE of positions in imagined futures against the level of noise, for all methods: the figure of the study.

    python benchmarks/worldmodels_noise.py --methods jepa-robust vicreg --kinds fixed-uniform --levels 1 --seeds 0 1 2

Each result is one line of JSON in ``--out``; what is there already is not computed again, so that a run can be stopped
and continued, and extended by further methods. ``--table`` prints what is there, ``--figure FILE`` draws it.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmark_results import Row, bold, markdown, mean_and_range, picked, read_results

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

# What the tables of the page show, in their order: names in the results, and as they are written.
COLUMNS = {
    "none": "none",
    "changing-uniform": "changing uniform",
    "fixed-uniform": "fixed uniform",
    "changing-structured": "changing structured",
    "fixed-structured": "fixed structured",
}
NAMES = {
    "jepa-robust": "`jepa-robust`: VICReg, gated background swap",
    "vicreg": "the same without the swap (control)",
    "within": "`jepa-within`: InfoNCE within sequences, the best objective alone",
    "idm": "`dots-idm`, inverse dynamics alone",
    "simclr": "`dots-simclr`",
    "rssm": "`dots-rssm`",
    "supervised": "`dots-supervised`, the bound",
    "random": "`dots-random`, untrained",
}
STEPS = {
    "rmse_t0": "first frame",
    "rmse_t16": "after 16 actions",
    "encoding_rmse_t0": "first frame, a probe of its own",
    "slow_index": "slow-feature index",
}
LEVELS = (0.0, 0.5, 1.0, 2.0, 3.0)
BY_LEVEL = {
    "changing-uniform": "changing, uniform",
    "fixed-uniform": "fixed, uniform",
    "changing-structured": "changing, structured",
    "fixed-structured": "fixed, structured",
}
NEITHER = {
    "mixed-uniform": "fixed 1 and changing 1, uniform",
    "rolling-uniform": "fixed 1, uniform, rolling by 0.25 px per frame",
    "rolling-structured": "fixed 1, structured, rolling by 0.25 px per frame",
}
THREE_DOTS = {"three-dots": "no noise", "three-dots-fixed": "fixed uniform 1"}
DOTS = {"rmse/dot1": "moved by the actions", "rmse/dot2": "walks by itself", "rmse/dot3": "stands still"}
STUDY_COLUMNS = {
    "none": "none",
    "changing-uniform": "changing uniform 1",
    "fixed-uniform": "fixed uniform 1",
}
STUDY = {"rmse": "trained 400 steps", "untrained/rmse": "untrained, same sequences"}


def run(method: str, kind: str, level: float, seed: int, overrides: Sequence[str], threads: int) -> Row:
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


def key(row: Row) -> tuple[str, str, float, int]:
    """What makes two results the same experiment."""
    return row["method"], row["kind"], row["level"], row["seed"]


def table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Means over seeds with their range, as Markdown."""
    groups: dict[tuple[str, str, float], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["kind"], row["method"], row["level"]].append(row)
    lines: list[list[str]] = []
    for (kind, method, level), found in sorted(groups.items()):
        cells = [mean_and_range([row[metric] for row in found if row.get(metric) is not None]) for metric in metrics]
        lines.append([kind, method, f"{level:g}", f"{len(found)}", *cells])
    return markdown(["kind", "method", "level", "seeds", *metrics], lines)


def of(rows: Sequence[Row], method: str, kind: str, level: float = 1.0) -> list[Row]:
    """The seeds of one experiment; without noise the level is 0."""
    level = 0.0 if kind in ("none", "three-dots") else level
    return [row for row in rows if key(row)[:3] == (method, kind, level)]


def _cell(rows: Sequence[Row], method: str, kind: str, metric: str, level: float = 1.0) -> str:
    """Mean and range of what has to be there."""
    return mean_and_range([row[metric] for row in picked(of(rows, method, kind, level), method=method, kind=kind)])


def method_table(rows: Sequence[Row]) -> str:
    """RMSE by method at level 1, with the seeds of each figure; what was not run has none."""
    lines: list[list[str]] = []
    for method, name in NAMES.items():
        found = [of(rows, method, kind) for kind in COLUMNS]
        if not any(found):
            raise ValueError(f"there is no result of method {method!r} at level 1.")
        cells = [mean_and_range([row["rmse"] for row in seeds]) for seeds in found]
        seeds = ", ".join(f"{len(seeds)}" for seeds in found if seeds)
        lines.append([name, *(bold(cell) if method == "jepa-robust" else cell for cell in cells), seeds])
    return markdown(["method", *COLUMNS.values(), "seeds"], lines)


def step_table(rows: Sequence[Row]) -> str:
    """`jepa-robust` at level 1: first and last step, and how slow the latents are."""
    lines = [[name, *(_cell(rows, "jepa-robust", kind, metric) for kind in COLUMNS)] for metric, name in STEPS.items()]
    return markdown(["`jepa-robust`", *COLUMNS.values()], lines)


def level_table(rows: Sequence[Row]) -> str:
    """RMSE of `jepa-robust` by level; level 0 is the same for all."""
    lines = [
        [name, *(_cell(rows, "jepa-robust", kind if level else "none", "rmse", level) for level in LEVELS)]
        for kind, name in BY_LEVEL.items()
    ]
    return markdown(["`jepa-robust`", *(f"{level:g}" for level in LEVELS)], lines)


def neither_table(rows: Sequence[Row]) -> str:
    """`jepa-robust` under noise that is neither fixed nor changing."""
    return markdown(["`jepa-robust`", "swap", "RMSE"], _with_swap(rows, NEITHER, ["rmse"]))


def three_dots_table(rows: Sequence[Row]) -> str:
    """RMSE of `jepa-robust` for each of three dots."""
    return markdown(["three dots, a channel each", "swap", *DOTS.values()], _with_swap(rows, THREE_DOTS, list(DOTS)))


def _with_swap(rows: Sequence[Row], kinds: Mapping[str, str], metrics: Sequence[str]) -> list[list[str]]:
    """Name, whether the gate opened, and metrics, one line for each kind of noise."""
    lines: list[list[str]] = []
    for kind, name in kinds.items():
        found = picked(of(rows, "jepa-robust", kind), method="jepa-robust", kind=kind)
        swaps = " or ".join(sorted({"on" if row["swaps"] else "off" for row in found}))
        lines.append([name, swaps, *(_cell(rows, "jepa-robust", kind, metric) for metric in metrics)])
    return lines


def study_table(rows: Sequence[Row]) -> str:
    """RMSE in the study's own setting, before and after training."""
    lines = [[name, *(_cell(rows, "study", kind, metric) for kind in STUDY_COLUMNS)] for metric, name in STUDY.items()]
    return markdown(["", *STUDY_COLUMNS.values()], lines)


def draw(rows: Sequence[Row], path: Path) -> None:
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
    done = read_results(options.out)
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
