"""Accuracy of the molecular VAE: reconstruction, handedness and samples, several seeds, beside PCA.

    python benchmarks/molecules_accuracy.py --data FOLDER --out results --cases aib9-16 --seeds 0 1 2
    python benchmarks/molecules_accuracy.py --out results --table

FOLDER holds aib9_700K.npz, aib9_500K.npz, alanine_dipeptide_600K.npz, rmd17_aspirin.npz and rmd17_ethanol.npz. Each
case is a shipped recipe with overrides; each case and seed is stored as one JSON file, so a run can be continued.
``--table`` prints Markdown tables of what is stored. Times are processor seconds of the training alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noumena.config import compose
from noumena.experiment import evaluate, make_model, open_data

LAST = ("data.split=time", "data.val_fraction=0.0", "data.test_fraction=0.2")
BLOCKS = ("data.split=blocks", "data.blocks=40", "data.val_fraction=0.05", "data.test_fraction=0.2")


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        recipe: name of a shipped one.
        file: of the data.
        overrides: of the recipe.
        title: in words.
    """

    recipe: str
    file: str
    overrides: tuple[str, ...]
    title: str


MORE = ("model.z_dim=32", "model.beta=5.0e-4")
E3 = ("model.symmetry=E3",)
# What the original compares: nothing that sees handedness.
DISTANCES = ("model.mirror=false", "model.aligned=0.0", "model.torsion=0.0")
CASES = {
    "aib9-16": Case("molecules/aib9", "aib9_700K", LAST, "Aib9 700 K, 16 latents, last 20 %"),
    "aib9-32": Case("molecules/aib9", "aib9_700K", (*LAST, *MORE), "Aib9 700 K, 32 latents, last 20 %"),
    "aib9-blocks": Case("molecules/aib9", "aib9_700K", BLOCKS, "Aib9 700 K, 16 latents, blocks"),
    "aib9-blocks-32": Case("molecules/aib9", "aib9_700K", (*BLOCKS, *MORE), "Aib9 700 K, 32, blocks"),
    "aib9-e3": Case(
        "molecules/aib9", "aib9_700K", (*BLOCKS, *E3, "fit.max_epochs=60"), "Aib9 700 K, 16 latents, blocks, `E3`"
    ),
    "aib9-500": Case(
        "molecules/aib9",
        "aib9_500K",
        (*BLOCKS, "model.mirror=false", "fit.max_epochs=60"),
        "Aib9 500 K (left), 16 latents, blocks",
    ),
    "aib9-500-e3": Case(
        "molecules/aib9", "aib9_500K", (*BLOCKS, *E3, "fit.max_epochs=60"), "Aib9 500 K (left), blocks, `E3`"
    ),
    # Not blind: the labels of like methyls tell the hand of the chain around them.
    "aib9-500-labels": Case(
        "molecules/aib9",
        "aib9_500K",
        (*BLOCKS, *E3, *DISTANCES, "fit.max_epochs=60"),
        "Aib9 500 K (left), blocks, `E3`, distances alone, no mirror images",
    ),
    "alanine": Case("molecules/alanine-dipeptide", "alanine_dipeptide_600K", BLOCKS, "alanine dipeptide, 16 latents"),
    "aspirin": Case("molecules/trajectory", "rmd17_aspirin", BLOCKS, "aspirin, 16 latents"),
    "ethanol": Case("molecules/trajectory", "rmd17_ethanol", (*BLOCKS, "model.z_dim=8"), "ethanol, 8 latents"),
    "pairwise": Case("molecules/aib9-pairwise", "aib9_700K", LAST, "`aib9-pairwise`, 16 latents, last 20 %"),
    "bond": Case("molecules/aib9-bond", "aib9_700K", LAST, "`aib9-bond`, 36 latents, last 20 %"),
}


def run(case: Case, data: Path, seed: int, further: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train, evaluate and save one case."""
    overrides = [f"data.path={data / case.file}.npz", *case.overrides, f"fit.seed={seed}", *further]
    config = compose(case.recipe, [], overrides)
    splits = open_data(config)
    model = make_model(config)
    started, watch = time.process_time(), time.perf_counter()
    model.fit(splits.train, splits.val, **{**config.fit, "progress": False})
    seconds, wall = time.process_time() - started, time.perf_counter() - watch
    metrics = evaluate(config, model, splits).metrics
    model.save(folder, overwrite=True)
    return {"seconds": seconds, "wall_seconds": wall, "overrides": overrides[1:], "metrics": dict(metrics)}


COLUMNS = {
    "pair_rmse": "pair RMSE / Å",
    "baseline_pca/pair_rmse": "PCA",
    "rmsd": "RMSD",
    "rmsd_reflected": "reflected",
    "bond_rmse": "bond RMSE",
    "handed_right": "hand right",
    "bad": "bad",
    "samples/bad": "samples bad",
    "samples/left": "left",
    "samples/right": "right",
    "samples_normal/bad": "N(0,I) bad",
    "samples/chirality": "samples' hands",
    "samples/fes_mae": "FES MAE / kT",
}


def table(out: Path, columns: Mapping[str, str]) -> str:
    """Means over seeds, and half the range behind ±, as Markdown."""
    lines = [
        f"| case | seeds | CPU s | {' | '.join(columns.values())} |",
        "|" + "---|" * (3 + len(columns)),
    ]
    for name, case in CASES.items():
        found = [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}.*.json"))]
        if not found:
            continue
        cells = [_cell([result["metrics"].get(key) for result in found]) for key in columns]
        seconds = statistics.mean(result["seconds"] for result in found)
        lines.append(f"| {case.title} | {len(found)} | {seconds:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.mean(known):.3f} ± {(max(known) - min(known)) / 2:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further overrides")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.table:
        print(table(options.out, COLUMNS))
        return
    if options.data is None:
        parser.error("--data FOLDER is needed, or --table")
    for seed in options.seeds:
        for name in options.cases:
            target = options.out / f"{name}.{seed}.json"
            if target.exists():
                continue
            result = run(CASES[name], options.data, seed, options.set, options.out / f"{name}.{seed}")
            target.write_text(json.dumps(result, indent=1))
            shown = {key: result["metrics"].get(key) for key in ("pair_rmse", "handed_right", "samples/bad")}
            print(name, seed, f"{result['seconds']:.0f} s", shown, flush=True)


if __name__ == "__main__":
    main()
