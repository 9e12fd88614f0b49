"""Accuracy of the multimodal VAE beside regressions and the original objective, in folds over whole load paths.

    python benchmarks/multimodal_accuracy.py --data FOLDER --out results [--folds 0 1 2 3 4] [--methods mvae plain ...]
    python benchmarks/multimodal_accuracy.py --out results --table

FOLDER has the layout that ``noumena data softrobot`` writes. Test paths of a fold choose nothing: weights are kept by
the loss on validation paths, which also calibrate the intervals. Each method and fold is stored as one JSON file, so a
run can be continued; ``--table`` prints Markdown tables of what is stored.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noumena.multimodal.baselines import fit_polynomial, fit_regression
from noumena.multimodal.data import open_arrays
from noumena.multimodal.metrics import pooled_r2
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import Observations

NAMES = ("pose", "force", "shape")
KINDS = {"pose": "pose", "force": "wrench", "shape": "displacement"}
FIT = {"batch_size": 256, "lr": 6e-3, "lr_schedule": "cosine", "warmup_epochs": 5.0, "gradient_clip": 40.0}
ORIGINAL = {
    "fusion": "align",
    "hidden_dims": {"pose": [16, 32], "force": [16, 32], "shape": [1024, 256]},
    "activation": "relu",
    "skip": False,
    "activate_last": False,
    "components": None,
    "scale": "column",
}
WORST = 0.05


def folds(data: Observations, count: int = 5) -> list[tuple[Observations, Observations, Observations]]:
    """Train, validation and test rows of each fold: whole paths, an eighth of the other paths validate."""
    assert data.groups is not None
    paths = np.random.default_rng(0).permutation(data.groups.unique().numpy())
    parts = np.array_split(paths, count)
    found: list[tuple[Observations, Observations, Observations]] = []
    for number in range(count):
        rest = np.concatenate([part for other, part in enumerate(parts) if other != number])
        cut = len(rest) // 8
        chosen = (rest[cut:], rest[:cut], parts[number])
        train, val, test = (data.subset(torch.isin(data.groups, torch.from_numpy(part))) for part in chosen)
        found.append((train, val, test))
    return found


def with_missing(data: Observations, share: float, seed: int) -> Observations:
    """A share of the entries hidden at random; every row keeps one."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(len(data), len(NAMES), generator=generator) >= share
    kept = torch.randint(len(NAMES), (len(data),), generator=generator)
    empty = ~present.any(1)
    present[empty, kept[empty]] = True
    widths = torch.tensor(list(data.sizes.values()))
    return replace(data, present=present, values=data.values * present.repeat_interleave(widths, 1))


def errors(truth: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of force in N, torque in N mm and nodes in mm: RMSE over components, and of each row its root mean square."""
    force = found["force"].astype(np.float64) - truth["force"]
    nodes = found["shape"].astype(np.float64) - truth["shape"]
    rows = {"force": force[:, :3], "torque": force[:, 3:], "node": nodes}
    return {name: np.sqrt(np.square(part).mean(1)) for name, part in rows.items()}


def summary(rows: Mapping[str, np.ndarray], worst: np.ndarray) -> dict[str, float]:
    """RMSE, median and 95 % quantile over rows, and the RMSE of the worst rows."""
    found: dict[str, float] = {}
    for name, size in rows.items():
        found[f"{name}_rmse"] = float(np.sqrt(np.square(size).mean()))
        found[f"{name}_median"] = float(np.median(size))
        found[f"{name}_p95"] = float(np.quantile(size, 0.95))
        own = np.sort(size)[-len(worst) :]
        found[f"{name}_rmse_of_own_worst"] = float(np.sqrt(np.square(own).mean()))
        found[f"{name}_rmse_of_extreme"] = float(np.sqrt(np.square(size[worst]).mean()))
    return found


def extreme(train: Observations, test: Observations) -> np.ndarray:
    """Numbers of the test rows whose poses are farthest from the middle of the training poses."""
    poses = train["pose"].double()
    far = ((test["pose"].double() - poses.mean(0)) / poses.std(0)).square().sum(1)
    return far.topk(max(1, round(WORST * len(test)))).indices.numpy()


def latent(options: Mapping[str, Any], fit: Mapping[str, Any], missing: float = 0.0) -> Callable[..., dict[str, Any]]:
    """A multimodal VAE, measured in all directions."""

    def run(train: Observations, val: Observations, test: Observations, epochs: int) -> dict[str, Any]:
        far = extreme(train, test)
        if missing:
            train, val = with_missing(train, missing, 0), with_missing(val, missing, 1)
        model = MVAE(**options)
        started = time.perf_counter()
        model.fit(train, val, max_epochs=epochs, patience=None, progress=False, seed=0, **fit)
        seconds = time.perf_counter() - started
        truth = {name: test[name].numpy() for name in NAMES}
        found = model.infer(test, NAMES, observed=["pose"])
        result: dict[str, Any] = {"seconds": seconds}
        result |= summary(errors(truth, {name: found[name].mean for name in NAMES}), far)
        sources = [["pose"], ["force"], ["shape"], ["pose", "force"], ["pose", "shape"], ["force", "shape"]]
        for source, target in product(sources, NAMES):
            one = model.infer(test, [target], observed=source)[target]
            label = f"{'+'.join(source)}->{target}"
            result[f"r2 {label}"] = pooled_r2(truth[target], one.mean)
            moving = one.std.max(0) > 0
            inside = np.abs(one.mean - truth[target])[:, moving] <= 1.6448536 * one.std[:, moving]
            result[f"coverage {label}"] = float(inside.mean())
            result[f"rmse {label}"] = float(np.sqrt(np.square(one.mean.astype(np.float64) - truth[target]).mean()))
        return result

    return run


def regression(symmetry: str | None, steps: int) -> Callable[..., dict[str, Any]]:
    """The best plain regression of pose to force and shape: components, SiLU, a linear map beside."""

    def run(train: Observations, val: Observations, test: Observations, epochs: int) -> dict[str, Any]:
        started = time.perf_counter()
        fitted = fit_regression(train, val, "pose", ["force", "shape"], symmetry=symmetry, steps=steps)
        seconds = time.perf_counter() - started
        truth = {name: test[name].numpy() for name in NAMES}
        found = fitted.predict(test["pose"])
        result: dict[str, Any] = {"seconds": seconds, **summary(errors(truth, found), extreme(train, test))}
        for target in ("force", "shape"):
            result[f"r2 pose->{target}"] = pooled_r2(truth[target], found[target])
        return result

    return run


def polynomial(train: Observations, val: Observations, test: Observations, epochs: int) -> dict[str, Any]:
    """Ridge regression on polynomials of the pose."""
    started = time.perf_counter()
    fitted = fit_polynomial(train, val, "pose", ["force", "shape"])
    seconds = time.perf_counter() - started
    truth = {name: test[name].numpy() for name in NAMES}
    return {"seconds": seconds, **summary(errors(truth, fitted.predict(test["pose"])), extreme(train, test))}


PLAIN = {"source_weights": {"pose": 4.0, "shape": 1.5}}
SYMMETRIC = {**PLAIN, "symmetry": "C24v"}
METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    "mvae": latent(SYMMETRIC, FIT),
    "mvae, 30 % of the entries missing": latent(SYMMETRIC, FIT, 0.3),
    "mvae, no symmetry": latent(PLAIN, FIT),
    "mvae, zero at rest": latent({**SYMMETRIC, "zero_at_rest": True}, FIT),
    "regression": regression(None, 24000),
    "regression with symmetry": regression("C24v", 24000),
    "polynomial ridge": polynomial,
    "original objective": latent(ORIGINAL, {"batch_size": 128, "lr": 1e-3, "lr_schedule": "cosine"}),
}
EPOCHS = {"original objective": 250}


def table(folder: Path) -> None:
    """Print the stored results: mean and standard deviation over folds."""
    stored: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        entry = json.loads(path.read_text())
        stored.setdefault(entry["method"], []).append(entry)

    def cell(method: str, key: str, digits: int = 3) -> str:
        values = [entry[key] for entry in stored[method] if key in entry]
        if not values:
            return "–"
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"

    for what, unit in (("force", "N"), ("torque", "N mm"), ("node", "mm")):
        columns = ["rmse", "median", "p95", "rmse_of_extreme", "rmse_of_own_worst"]
        print(f"\n{what} error in {unit}\n\n| method | folds | s | {' | '.join(columns)} |")
        print("|---" * (len(columns) + 3) + "|")
        for method in (name for name in METHODS if name in stored):
            cells = " | ".join(cell(method, f"{what}_{column}") for column in columns)
            print(f"| {method} | {len(stored[method])} | {cell(method, 'seconds', 0)} | {cells} |")
    directions(stored, cell)


def directions(stored: Mapping[str, Sequence[Mapping[str, Any]]], cell: Callable[..., str]) -> None:
    """Print what was inferred from what, for the first method and the original objective."""
    columns = [("mvae", "rmse", 4), ("mvae", "r2", 5), ("mvae", "coverage", 3), ("original objective", "r2", 5)]
    columns = [entry for entry in columns if entry[0] in stored]
    print(f"\n| direction | {' | '.join(f'{method}: {what}' for method, what, _ in columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for key in (key.removeprefix("r2 ") for key in stored["mvae"][0] if key.startswith("r2 ")):
        cells = (cell(method, f"{what} {key}", digits) for method, what, digits in columns)
        print(f"| {key} | {' | '.join(cells)} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=int, default=850)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if options.table:
        table(options.out)
        return
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    splits = open_arrays(
        str(options.data),
        modalities=list(NAMES),
        kinds=KINDS,
        units={"shape": "mm"},
        group="path_id",
        val_fraction=0.0,
        test_fraction=0.0,
    )
    assert isinstance(splits.train, Observations)
    for number, (train, val, test) in enumerate(folds(splits.train)):
        for method in options.methods if number in options.folds else ():
            path = options.out / f"{method.replace(' ', '_').replace('%', 'percent')}-{number}.json"
            if path.exists():
                continue
            result = METHODS[method](train, val, test, EPOCHS.get(method, options.epochs))
            path.write_text(json.dumps({"method": method, "fold": number, **result}, indent=1))
            print(f"fold {number}, {method}: {result['seconds']:.0f} s, force {result['force_rmse']:.4f} N", flush=True)


if __name__ == "__main__":
    main()
