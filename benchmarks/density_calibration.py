"""Realised false-alarm and false-discovery rates of calibrated detectors on real tables, beside what theory allows.

    python benchmarks/density_calibration.py DATA/density/adbench [--seeds 20] [--table]

For each set of ADBench (.npz with X and y, 1 = anomaly), seed and detector the normal rows are dealt at random: 40 % to
train, 30 % to calibrate, 30 % to test; the anomalies are tested as well. No row is used twice. Then

- the share of the normal test rows whose score lies below ``threshold_at(rate)`` is counted. By theory it is
  beta-binomial where scores do not tie, and lower where they do. Counted as well with ties drawn (a further random
  number decides between equal scores, in calibration and test alike), where it is exactly beta-binomial;
- anomalies are selected at a target false-discovery rate, and the share of normal rows among them is averaged over the
  seeds of a set. Its expectation is at most the target.

Detectors are Gaussian mixtures and nearest neighbours, which fit in seconds: what is tested holds for any score. Each
result is one line of JSON in ``--out``; what is there already is not computed again. ``--table`` prints the tables.
"""

import argparse
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark_results import Row, markdown, read_results

if TYPE_CHECKING:
    from noumena.density.detector import Detector

HERE = Path(__file__).parent
RATES = (0.01, 0.05, 0.1)
TARGET = 0.1
CONFIDENCE = 0.95
MOST_ROWS = 3000  # normal rows of a set


def mixture() -> "Detector":
    """Few components with diagonal covariance: fits tables of any width in moments."""
    from noumena.density.gmm import GaussianMixture

    return GaussianMixture(components=4, covariance="diag")


def neighbours() -> "Detector":
    """The nearest-neighbour score of the family at its defaults."""
    from noumena.density.neighbours import Neighbours

    return Neighbours()


DETECTORS: dict[str, Callable[[], "Detector"]] = {"gmm": mixture, "knn": neighbours}


def deal(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to calibrate on, normal test rows and anomalies, each (rows, columns)."""
    with np.load(path, allow_pickle=False) as archive:
        x, y = archive["X"].astype(np.float32), archive["y"].astype(bool)
    normal = x[~y][np.random.default_rng(seed).permutation(int((~y).sum()))[:MOST_ROWS]]
    train, calibration, test = np.split(normal, [int(0.4 * len(normal)), int(0.7 * len(normal))])
    return train, calibration, test, x[y]


def run(path: Path, seed: int, name: str) -> Row:
    """Fit, calibrate and count once."""
    from noumena.density.calibration import threshold_of
    from noumena.density.selection import select_anomalies

    train, calibration, test, anomalies = deal(path, seed)
    model = DETECTORS[name]()
    model.fit(train, seed=seed, progress=False)
    model.calibrate(calibration, RATES[0])
    scores, known = model.score_samples(test), model.calibration.numpy()
    drawn, drawn_known = ranks_with_drawn_ties(scores, known, seed)
    chosen = select_anomalies(model, np.concatenate([test, anomalies]), TARGET)
    false = int(chosen.mask[: len(test)].sum())
    return {
        "set": path.stem.partition("_")[2],
        "seed": seed,
        "detector": name,
        "calibration_rows": len(calibration),
        "normal_rows": len(test),
        "anomalies": len(anomalies),
        "tied": round(1.0 - len(np.unique(known)) / len(known), 4),
        "alarms": [int(model.is_anomaly(scores, model.threshold_at(rate)).sum()) for rate in RATES],
        "alarms_ties_drawn": [int((drawn < threshold_of(drawn_known, rate)).sum()) for rate in RATES],
        "selected": len(chosen),
        "false": false,
    }


def ranks_with_drawn_ties(scores: np.ndarray, calibration: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of test and (ascending) calibration scores among all of them, equal scores in drawn order."""
    together = np.concatenate([scores, calibration])
    order = np.lexsort((np.random.default_rng(seed).random(len(together)), together))
    ranks = np.empty(len(together))
    ranks[order] = np.arange(len(together))
    return ranks[: len(scores)], np.sort(ranks[len(scores) :])


@cache
def interval(n: int, m: int, rate: float) -> tuple[float, float, float]:
    """Fewest and most false alarms by theory, and the chance that they lie between: it is discrete, so above .95.

    Args:
        n: calibration rows.
        m: normal rows of the test.
        rate: of false alarms, the target.
    """
    from scipy.stats import betabinom

    from noumena.density.calibration import rate_interval

    low, high = (round(m * end) for end in rate_interval(n, rate, CONFIDENCE, rows=m))
    k = max(1, math.floor(rate * (n + 1) * (1 + 1e-12)))
    cumulative = betabinom(m, k, n + 1 - k).cdf
    return low, high, float(cumulative(high) - cumulative(low - 1))


def rate_table(rows: Sequence[Row]) -> str:
    """Realised rates, one line for each set and detector."""
    lines: list[list[str]] = []
    for name, detector, found in grouped(rows):
        rates = [np.mean([row["alarms"][i] / row["normal_rows"] for row in found]) for i in range(len(RATES))]
        ties = np.mean([row["tied"] for row in found])
        lines.append([name, detector, f"{100 * ties:.0f} %", *(f"{rate:.4f}" for rate in rates)])
    return markdown(["set", "detector", "ties", *(f"mean rate at {rate:g}" for rate in RATES)], lines)


def alarm_table(rows: Sequence[Row]) -> str:
    """How many runs lie above and inside the interval of their false alarms, one line for each rate."""
    lines: list[list[str]] = []
    for i, rate in enumerate(RATES):
        ends = [interval(row["calibration_rows"], row["normal_rows"], rate) for row in rows]
        above = sum(row["alarms"][i] > high for row, (_, high, _) in zip(rows, ends, strict=True))
        inside = sum(low <= row["alarms_ties_drawn"][i] <= high for row, (low, high, _) in zip(rows, ends, strict=True))
        expected = sum(chance for _, _, chance in ends)
        most = len(rows) * (1 - CONFIDENCE) / 2
        lines.append([f"{rate:g}", f"{len(rows)}", f"{above}", f"{most:.1f}", f"{inside}", f"{expected:.1f}"])
    header = ["target", "runs", "above the interval", "expected, at most", "inside, ties drawn", "expected"]
    return markdown(header, lines)


def discovery_table(rows: Sequence[Row]) -> str:
    """Mean share of false discoveries with its 95 % interval over seeds, and the share of anomalies found."""
    from scipy.stats import t

    lines = [
        f"| set | detector | false discoveries (target {TARGET:g}) | 95 % interval | anomalies found | keeps target |",
        "|---" * 6 + "|",
    ]
    kept = total = 0
    for name, detector, found in grouped(rows):
        shares = np.array([row["false"] / max(1, row["selected"]) for row in found])
        power = np.mean([(row["selected"] - row["false"]) / row["anomalies"] for row in found])
        half = t.ppf(0.975, len(shares) - 1) * shares.std(ddof=1) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
        ok = shares.mean() - half <= TARGET
        kept, total = kept + ok, total + 1
        bounds = f"{max(0.0, shares.mean() - half):.3f} to {shares.mean() + half:.3f}"
        lines.append(
            f"| {name} | {detector} | {shares.mean():.3f} | {bounds} | {power:.2f} | {'yes' if ok else 'no'} |"
        )
    lines.append(f"\n{kept} of {total} keep the target within their interval.")
    return "\n".join(lines)


def grouped(rows: Sequence[Row]) -> Iterable[tuple[str, str, list[Row]]]:
    """Rows of each set and detector, in the order they came."""
    for name, detector in dict.fromkeys((row["set"], row["detector"]) for row in rows):
        yield name, detector, [row for row in rows if (row["set"], row["detector"]) == (name, detector)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="Folder of ADBench .npz files.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "density_calibration.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    # Mixtures that stop early, too few rows for a rate of 1 %: the intervals are those of the rate that is reached.
    warnings.simplefilter("ignore")
    logging.getLogger("noumena").setLevel(logging.ERROR)
    there = read_results(options.out)
    done = {(row["set"], row["seed"], row["detector"]) for row in there}
    if options.folder is not None:
        import torch

        torch.set_num_threads(1)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            for path in sorted(options.folder.glob("*.npz")):
                for seed in range(options.seeds):
                    for name in options.detectors:
                        if (path.stem.partition("_")[2], seed, name) not in done:
                            there.append(run(path, seed, name))
                            file.write(json.dumps(there[-1]) + "\n")
                            file.flush()
    if options.table:
        print(rate_table(there), alarm_table(there), discovery_table(there), sep="\n\n")


if __name__ == "__main__":
    main()
