"""AUROC on ADBench tables: every estimator of the density family beside PyOD's, trained on normal rows alone.

    python benchmarks/density_adbench.py --data FOLDER [--sets breastw cardio ...] [--seeds 0 1 2]
    python benchmarks/density_adbench.py --table

Of the normal rows 70 % train, drawn by the seed; the other normal rows and all anomalies are the test. Every method
gets the same training rows, of which ours keep a part to choose and to calibrate; 50 epochs, batches of 256 rows.
Each result is one line of JSON in ``--out``; what is there already is not computed again, so that a run can be stopped
and continued; ``fit_seconds`` of our methods is that of AutoDetector, which fits them all at once. PyOD
(``pip install 'noumena[bench]'``) is left out where it is not installed. ``FOLDER`` holds files of ADBench "Classical",
e.g. ``4_breastw.npz``, with the arrays ``X`` and ``y`` (1 = anomaly).
"""

import argparse
import contextlib
import importlib
import io
import json
import logging
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmark_results import Row, bold_best, markdown, mean_and_spread, read_results

HERE = Path(__file__).parent
TEST_SETS = ("breastw", "cardio", "Ionosphere", "letter", "mammography", "PageBlocks", "pendigits", "thyroid")
DEVELOPMENT_SETS = ("annthyroid", "fault", "glass", "satellite")
EPOCHS, BATCH, TRAIN_SHARE = 50, 256, 0.7

Scores = Callable[[np.ndarray], np.ndarray]
"""Rows (rows, columns) to scores (rows,); higher is more normal."""
Split = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Normal rows to train on, normal rows to test on, anomalies."""


def read_set(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows (rows, columns) and whether each is an anomaly (rows,)."""
    found = sorted(folder.glob(f"*_{name}.npz"))
    if not found:
        raise SystemExit(f"{folder} holds no *_{name}.npz; give the folder of ADBench's classical sets by --data.")
    with np.load(found[0], allow_pickle=False) as arrays:
        return arrays["X"].astype(np.float64), arrays["y"].astype(bool)


def split(rows: np.ndarray, is_anomaly: np.ndarray, seed: int) -> Split:
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(~is_anomaly))
    count = round(TRAIN_SHARE * len(normal))
    return rows[normal[:count]], rows[normal[count:]], rows[is_anomaly]


# Each function fits once and gives one or more methods: name -> scores.


def family(train: np.ndarray, seed: int) -> dict[str, Scores]:
    """The members of AutoDetector on their own, and both of its rules."""
    from noumena.density.estimators import AutoDetector

    auto = AutoDetector(max_epochs=EPOCHS, batch_size=BATCH, random_state=seed).fit(train)
    likely = auto.members_[auto.best_ or ""]
    alone = {f"noumena {name}": member.score_samples for name, member in auto.members_.items()}
    return {**alone, "noumena auto": auto.score_samples, "noumena auto (likelihood)": likely.score_samples}


def spline_flow(train: np.ndarray, seed: int) -> dict[str, Scores]:
    from noumena.density.estimators import FlowDetector

    flow = FlowDetector(architecture="nsf", max_epochs=EPOCHS, batch_size=BATCH, random_state=seed).fit(train)
    return {"noumena flow (nsf)": flow.score_samples}


def pyod(module: str, kind: str, **parameters: Any) -> Callable[[np.ndarray, int], dict[str, Scores]]:
    """A PyOD detector on standardised rows."""

    def fit(train: np.ndarray, seed: int) -> dict[str, Scores]:
        mean, scale = train.mean(0), train.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        seeded = parameters if kind == "KNN" else {**parameters, "random_state": seed}
        # By name, because it belongs to the extra `bench`, which the type checker's environment lacks.
        detector = getattr(importlib.import_module(f"pyod.models.{module}"), kind)(**seeded)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            detector.fit((train - mean) / scale)
        return {f"PyOD {kind}": lambda rows: -detector.decision_function((rows - mean) / scale)}

    return fit


FITS: Mapping[str, tuple[Callable[[np.ndarray, int], dict[str, Scores]], tuple[str, ...]]] = {
    "family": (
        family,
        tuple(f"noumena {name}" for name in ("knn", "gmm", "vae", "flow", "auto", "auto (likelihood)")),
    ),
    "nsf": (spline_flow, ("noumena flow (nsf)",)),
    "pyod-knn": (pyod("knn", "KNN"), ("PyOD KNN",)),
    "pyod-iforest": (pyod("iforest", "IForest"), ("PyOD IForest",)),
    "pyod-vae": (
        pyod(
            "vae",
            "VAE",
            encoder_neuron_list=[256, 128],
            decoder_neuron_list=[128, 256],
            latent_dim=8,
            batch_size=BATCH,
            epoch_num=EPOCHS,
            lr=1e-3,
            dropout_rate=0.0,
            batch_norm=False,
            device="cpu",
            verbose=0,
        ),
        ("PyOD VAE",),
    ),
}


# What the tables call them, in their order. Of all methods, those that ran on all of the test sets.
NAMES = {
    "noumena auto": "`AutoDetector`",
    "noumena auto (likelihood)": '`AutoDetector(rule="likelihood")`',
    "noumena knn": "`KNNDetector`",
    "noumena gmm": "`GMMDetector`",
    "noumena vae": "`VAEDetector`",
    "noumena flow": "`FlowDetector` (RealNVP)",
    "PyOD KNN": "PyOD 3.6.7, 5 nearest neighbours",
}
FURTHER_NAMES = {
    **NAMES,
    "noumena flow (nsf)": "`FlowDetector` (neural spline flow)",
    "PyOD IForest": "PyOD 3.6.7, isolation forest",
    "PyOD VAE": "PyOD 3.6.7, VAE",
}


def measure(data: Path, name: str, seed: int, fit: str) -> Iterable[dict[str, Any]]:
    """One line of results for each method of a fit; a peer that breaks down gets a line that says so."""
    from noumena.density.metrics import detection

    train, normal, anomalous = split(*read_set(data, name), seed)
    make, methods = FITS[fit]
    started = time.perf_counter()
    try:
        found = make(train, seed)
        fitted = time.perf_counter() - started
        for method, score in found.items():
            auroc = detection(score(normal), score(anomalous))["roc_auc"]
            yield {"set": name, "seed": seed, "method": method, "auroc": auroc, "fit_seconds": fitted}
    except (RuntimeError, ValueError, UnboundLocalError) as error:
        if not fit.startswith("pyod"):
            raise
        yield {"set": name, "seed": seed, "method": methods[0], "error": f"{type(error).__name__}: {error}"}


def table(results: Sequence[Row], sets: Sequence[str] = TEST_SETS, names: Mapping[str, str] = NAMES) -> str:
    """Mean AUROC over seeds by method and set; the spread is the standard deviation of the mean over sets.

    Raises:
        ValueError: a method has no result on these sets.
    """
    cells: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in results:
        if "auroc" in row:
            cells[row["method"], row["set"]][row["seed"]] = row["auroc"]
    lines: list[list[str]] = []
    for method in names:
        found = [cells.get((method, name), {}) for name in sets]
        if not any(found):
            raise ValueError(f"there is no result of {method!r} on {', '.join(sets)}.")
        seeds = sorted(set.intersection(*(set(one) for one in found)))
        means = [f"{statistics.fmean(one.values()):.3f}" if one else "–" for one in found]
        by_seed = [statistics.fmean(one[seed] for one in found) for seed in seeds]
        lines.append([*means, mean_and_spread(by_seed)])
    columns = [bold_best(column) for column in zip(*lines, strict=True)]
    rows = [[name, *row] for name, row in zip(names.values(), zip(*columns, strict=True), strict=True)]
    return markdown(["", *sets, "mean"], rows)


def run(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(options.threads)
    logging.getLogger("noumena").setLevel(logging.ERROR)
    fits = [name for name in options.fits or FITS if not name.startswith("pyod") or find_spec("pyod")]
    done = {(line["set"], line["seed"], line["method"]) for line in read_results(options.out)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.sets:
            for fit in fits:
                if all((name, seed, method) in done for method in FITS[fit][1]):
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    lines = list(measure(options.data, name, seed, fit))
                with options.out.open("a") as file:
                    file.writelines(json.dumps(line) + "\n" for line in lines)
                print(*lines, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("NOUMENA_DATA")
    parser.add_argument("--data", type=Path, default=Path(folder) / "density" / "adbench" if folder else None)
    parser.add_argument("--sets", nargs="+", default=[*DEVELOPMENT_SETS, *TEST_SETS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--fits", nargs="+", choices=list(FITS), help="which to run; all when missing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "density_adbench.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        results = read_results(options.out)
        print(f"Test sets\n\n{table(results)}\n")
        print(f"Development sets\n\n{table(results, DEVELOPMENT_SETS, FURTHER_NAMES)}\n")
        return
    if options.data is None:
        parser.error("give the folder of the sets by --data, or the environment variable NOUMENA_DATA")
    run(options)


if __name__ == "__main__":
    main()
