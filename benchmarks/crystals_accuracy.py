"""Crystals on MP-20: reconstruction, generation and the crystal vector, by the protocol of docs/benchmarks.md.

    python benchmarks/crystals_accuracy.py DATA --seeds 0 1 --stages vae prior property

DATA is a folder with ``mp_20_train_partial.parquet`` and ``mp_20_val.parquet``. Test and validation rows are 1,000 each
of the latter by a stated seed; all other rows are for training. Each result is a line of JSON in ``--out``; stages that
are there already are not computed again. Runs are kept in ``--runs``. ``--table`` prints what is there.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark_results import Row, bold, markdown, picked, read_results

HERE = Path(__file__).parent
SPLIT_SEED = 2026
STAGES = {
    "vae": "crystals/mp20",
    "short": "crystals/mp20",
    "prior": "crystals/mp20-prior",
    "property": "crystals/property",
}


@dataclass(frozen=True)
class Quantity:
    """A line of a table of the page.

    Attributes:
        name: as it is written.
        metric: in the results, behind the prefix of the column.
        unit: behind the figure; ``" %"`` of a share.
        digits: behind the point.
        scale: what the metric is multiplied by.
        aim: set beforehand.
        lacks: prefixes of the columns where it has no sense or was not measured.
    """

    name: str
    metric: str
    unit: str = ""
    digits: int = 2
    scale: float = 1.0
    aim: str = ""
    lacks: tuple[str, ...] = ()

    def cell(self, rows: Sequence[Row], prefix: str) -> str:
        """The figures of all seeds; one where they are written alike."""
        if prefix in self.lacks:
            return ""
        figures = [f"{self.scale * row[prefix + self.metric]:.{self.digits}f}" for row in rows]
        return ", ".join(dict.fromkeys(figures)) + self.unit


def share(name: str, metric: str, digits: int = 1, aim: str = "", lacks: tuple[str, ...] = ()) -> Quantity:
    """A share in per cent."""
    return Quantity(name, metric, " %", digits, 100.0, aim, lacks)


# Prefix of the metrics and what the column is called.
RECONSTRUCTION_COLUMNS = {"": "test", "train_": "training rows", "symmetrised_": "test, symmetrised"}
RECONSTRUCTION = (
    share("match, field's criterion (0.3, 0.5, 10°, r.m.s.)", "match_field", aim="99.5 %"),
    share("match, original's criterion (0.2, 0.3, 5°, maximum)", "match_original", aim="99.3 %"),
    share("match, strict (0.05, 0.05, 1°, maximum)", "match_strict", aim="95 %"),
    Quantity("RMSE of the matched, field's", "rms_field", digits=4),
    share("elements right", "type_accuracy", digits=2, aim="99.95 %"),
    Quantity("coordinates, mean distance", "coord_error", " Å", digits=3, aim="0.02 Å"),
    Quantity("lengths", "length_error", " %", aim="0.3 %"),
    Quantity("angles", "angle_error", "°", aim="0.3°"),
    share("space group kept, within 0.1 Å", "space_group_0.1", aim="80 %", lacks=("train_",)),
    share("space group kept, within 0.01 Å", "space_group_0.01", aim="50 % (symmetrised)", lacks=("train_",)),
)
GENERATION_COLUMNS = {
    "": bold("prior, separated"),
    "raw_": "prior",
    "gaussian_separated_": "Gaussian, separated",
    "gaussian_": "Gaussian",
    "standard_separated_": "N(0, I), separated",
    "standard_": "N(0, I)",
    "ideal_": "ideal",
}
HEADLINE = share("nearest atoms more than 1.5 Å apart", "nearest_above_1.5", aim="85 %")
GENERATION = (
    HEADLINE,
    share("more than 1.0 Å", "nearest_above_1.0"),
    share("more than 0.5 Å (the field's validity)", "valid_structure", aim="99 %"),
    share("composition possible (smact)", "valid_composition", aim="80 %"),
    share("both of the last two", "valid"),
    share("unique", "unique", aim="95 %", lacks=("ideal_",)),
    share("novel, of these", "novel", lacks=("ideal_",)),
    Quantity("elements per crystal (data: {elements_reference:.2f})", "elements", aim="3.0 ± 0.3"),
    share("coverage, recall", "coverage_recall"),
    share("coverage, precision", "coverage_precision"),
    Quantity("Wasserstein distance, density (g/cm³)", "w1_density"),
    Quantity("Wasserstein distance, elements per crystal", "w1_elements"),
    Quantity("Wasserstein distance, nearest atoms (Å)", "w1_nearest"),
)


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


def stage(name: str, seed: int, options: argparse.Namespace) -> Row:
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
        # Where runs are kept is no part of the result.
        "set": [entry.replace(f"{options.runs}/", "") for entry in further],
        **metrics,
    }


def reconstruction_table(rows: Sequence[Row]) -> str:
    """What the autoencoder keeps, both seeds."""
    found = picked(rows, stage="vae")
    lines = [
        [line.name, *(line.cell(found, prefix) for prefix in RECONSTRUCTION_COLUMNS), line.aim]
        for line in RECONSTRUCTION
    ]
    return markdown(["", *RECONSTRUCTION_COLUMNS.values(), "aim"], lines)


def generation_table(rows: Sequence[Row]) -> str:
    """What the prior samples, beside controls and the ideal; the quantity that has the hardest aim in bold."""
    found = picked(rows, stage="prior", seed=0)
    lines: list[list[str]] = []
    for line in GENERATION:
        # All of them is 100 %, without digits that would be none.
        first, *others = (line.cell(found, prefix).replace("100.0 %", "100 %") for prefix in GENERATION_COLUMNS)
        name = line.name.format_map(found[0])
        lines.append([name, bold(first) if line is HEADLINE else first, *others, line.aim])
    return markdown(["", *GENERATION_COLUMNS.values(), "aim"], lines)


def table(rows: Sequence[Row]) -> str:
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
    done = read_results(options.out)
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
