"""Crystals on MP-20: reconstruction, generation and the crystal vector, by the protocol of docs/benchmarks.md.

    python benchmarks/crystals_accuracy.py DATA --seeds 0 1 --stages vae prior property

DATA is a folder with ``mp_20_train_partial.parquet`` and ``mp_20_val.parquet``. Test and validation rows are 1,000 each
of the latter by a stated seed; all other rows are for training. Each result is a line of JSON in ``--out``; stages that
are there already are not computed again. Runs are kept in ``--runs``. ``--table`` prints what is there.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SPLIT_SEED = 2026
STAGES = {
    "vae": "crystals/mp20",
    "short": "crystals/mp20",
    "prior": "crystals/mp20-prior",
    "property": "crystals/property",
}


def data_of(folder: Path) -> list[str]:
    """The ``data`` section."""
    train, val = folder / "mp_20_train_partial.parquet", folder / "mp_20_val.parquet"
    return [
        f"data.path={train},{val}",
        f"data.draw_from={val}",
        "data.val_rows=1000",
        "data.test_rows=1000",
        f"data.seed={SPLIT_SEED}",
    ]


def stage(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one stage."""
    from noumena.experiment import run_recipe

    folder = options.runs / f"{name}-{seed}"
    further = list(options.set)
    if name in ("prior", "property"):
        further.append(f"model.autoencoder={options.runs / f'vae-{seed}'}")
    if name == "property":
        further.append("model.target=formation_energy_per_atom")
    began = time.perf_counter()
    result = run_recipe(STAGES[name], [*data_of(options.data), f"fit.seed={seed}", *further], out=folder)
    seconds = time.perf_counter() - began
    parameters = sum(weight.numel() for weight in result.model.parameters() if weight.requires_grad)
    metrics = {} if result.evaluation is None else dict(result.evaluation.metrics)
    return {
        "stage": name,
        "seed": seed,
        "seconds": round(seconds),
        "training_seconds": round(sum(result.history["seconds"])),
        "parameters": parameters,
        "set": further,
        **metrics,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """All metrics of each stage, one column for each seed, as Markdown."""
    lines: list[str] = []
    for name in STAGES:
        found = [row for row in rows if row["stage"] == name]
        if not found:
            continue
        keys = [key for key in found[0] if key not in ("stage", "seed", "set")]
        seeds = " | ".join(f"seed {row['seed']}" for row in found)
        lines += [f"| {name} | {seeds} |", "|---" * (1 + len(found)) + "|"]
        for key in keys:
            values = [row.get(key) for row in found]
            cells = [f"{value:.4g}" if isinstance(value, float | int) else "-" for value in values]
            lines.append(f"| {key} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--stages", nargs="*", default=["vae", "prior", "property"], choices=list(STAGES))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every stage")
    parser.add_argument("--runs", type=Path, default=Path("runs/crystals-benchmark"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "crystals_accuracy.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(row["stage"], row["seed"]) for row in done}
    for seed in options.seeds if options.data else []:
        for name in options.stages:
            if (name, seed) not in known:
                done.append(stage(name, seed, options))
                with options.out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    if options.table:
        print(table(done))


if __name__ == "__main__":
    main()
