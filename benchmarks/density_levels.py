"""AUROC on graded out-of-distribution levels of state-action data: every model of the density family.

    python benchmarks/density_levels.py --levels FOLDER/hopper_ood_levels.npz --seeds 0 1 2
    python benchmarks/density_levels.py --table

The file holds ``train`` and ``val`` rows (next observation, action) of the medium policy, and one array per level: its
first half in-distribution, its second half not. Models are trained on ``train`` as the recipes do, in 20 epochs;
half of ``val`` chooses the weights, half calibrates. Each result is one line of JSON in ``--out``; what is there
already is not computed again. ``--threads`` is that of one process.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark_results import Row, bold, markdown, mean_and_spread, picked, read_results

HERE = Path(__file__).parent
EPOCHS = 20
# Model name, hyperparameters and training of the recipes density/hopper*.
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vae": ("density/vae", {}, {"lr_schedule": "plateau"}),
    "realnvp": ("density/flow", {"architecture": "realnvp"}, {"lr_schedule": "cosine"}),
    "nsf": (
        "density/flow",
        {"architecture": "nsf", "transforms": 6, "hidden_dims": (64, 64), "whiten": True},
        {"lr_schedule": "cosine"},
    ),
    "gmm": ("density/gmm", {}, {}),
    "knn": ("density/knn", {}, {}),
}
# What the table calls them; the default in bold.
NAMES = {
    "vae": "`density/hopper`, VAE",
    "realnvp": bold("`density/hopper-realnvp`"),
    "nsf": "`density/hopper-nsf`",
    "gmm": "`density/hopper-gmm`",
    "knn": "`density/knn`",
}
LEVELS = (
    *("shift_0.1", "shift_0.5", "shift_1", "shift_2", "shift_4"),
    *("policy_random", "policy_expert", "action_uniform", "action_shuffled"),
)


def measure(levels: Path, method: str, seed: int, threads: int) -> dict[str, Any]:
    """Train once and score every level."""
    import torch

    from noumena.density.metrics import detection
    from noumena.registry import model_class

    torch.set_num_threads(threads)
    name, hyperparameters, options = METHODS[method]
    with np.load(levels, allow_pickle=False) as arrays:
        train, val = arrays["train"], arrays["val"]
        graded = {key: arrays[key] for key in arrays.files if key.startswith(("shift", "policy", "action"))}
    model: Any = model_class(name)(**hyperparameters)
    began = time.perf_counter()
    model.fit(train, val, max_epochs=EPOCHS, seed=seed, progress=False, **options)
    found: dict[str, Any] = {"method": method, "seed": seed, "fit_seconds": round(time.perf_counter() - began, 1)}
    stopping, _ = model.divide_validation(model.as_dataset(val))
    found["val_score"] = float(model.score_samples(stopping.rows).mean())
    for key, rows in graded.items():
        half = len(rows) // 2
        found[key] = detection(model.score_samples(rows[:half]), model.score_samples(rows[half:]))["roc_auc"]
    found["mean"] = statistics.fmean(found[key] for key in graded)
    return found


def table(results: Sequence[Row]) -> str:
    """AUROC by method and level, means over seeds; the spread is that of the mean over levels."""
    lines: list[list[str]] = []
    for method, name in NAMES.items():
        found = picked(results, method=method)
        levels = [f"{statistics.fmean(row[level] for row in found):.3f}" for level in LEVELS]
        score = statistics.fmean(row["val_score"] for row in found)
        lines.append([name, *levels, mean_and_spread([row["mean"] for row in found]), f"{score:.2f}"])
    return markdown(["", *LEVELS, "mean", "validation score"], lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "density_levels.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results = read_results(options.out)
    done = {(line["method"], line["seed"]) for line in results}
    for seed in options.seeds if options.levels else []:
        for method in options.methods:
            if (method, seed) in done:
                continue
            results.append(measure(options.levels, method, seed, options.threads))
            with options.out.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            print(results[-1], flush=True)
    if options.table:
        print(table(results))


if __name__ == "__main__":
    main()
