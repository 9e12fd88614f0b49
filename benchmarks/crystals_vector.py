"""What the crystal vector is good for: a property by a small head, and neighbours of the same structure type.

    python benchmarks/crystals_vector.py RUN [--target formation_energy_per_atom] [--epochs 120] [--part test]

RUN is a run folder of ``crystals/vae``; its own data section says what is training and what is held out. A head is
trained on the frozen vectors of its training crystals, and gradient boosting on composition columns of the same ones.
Neighbours of held-out crystals are looked for among the training crystals: in the vectors, and in two descriptions of
the composition. Validation crystals choose the head's weights; choose settings with ``--part val``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from noumena.artifact import load
from noumena.core.data import Splits
from noumena.crystals.boosting import composition_columns
from noumena.crystals.dataset import Crystals
from noumena.crystals.descriptors import Descriptors
from noumena.crystals.fingerprints import composition_features
from noumena.crystals.neighbours import Metric, NearestCrystals, shared_types, structure_types
from noumena.crystals.regression import PropertyHead, evaluate_property
from noumena.experiment import open_data, run_config

NEIGHBOURS = (1, 5, 10)


def property_rows(run: Path, splits: Splits, options: argparse.Namespace) -> list[list[str]]:
    """Errors of the head, of boosting and of the mean."""
    model = PropertyHead(autoencoder=str(run), target=options.target, width=384, members=options.members)
    model.fit(
        splits.train,
        splits.val,
        max_epochs=options.epochs,
        batch_size=128,
        lr=4e-3,
        lr_schedule="cosine",
        warmup_epochs=5.0,
        optimizer="adamw",
        weight_decay=0.05,
        patience=None,
        seed=options.seed,
    )
    found = evaluate_property(model, splits, seed=options.seed)
    return [[str(cell) for cell in row] for row in found.tables[0].rows]


def spaces(model: Any, train: Crystals, held: Crystals) -> dict[str, tuple[Tensor, Tensor, Metric]]:
    """What neighbours are looked for in: of the training crystals, of the held-out ones, and the metric."""
    both = (train.crystals, held.crystals)
    shares = Descriptors().shares
    vectors = tuple(model.vector(crystals) for crystals in both)
    statistics = tuple(composition_features(crystals).float() for crystals in both)
    columns = tuple(torch.from_numpy(composition_columns(crystals)) for crystals in both)
    return {
        "crystal vector": (vectors[0], vectors[1], "euclidean"),
        "statistics of the composition": (statistics[0], statistics[1], "standardised"),
        "columns of the boosting": (columns[0], columns[1], "standardised"),
        "shares of elements": (shares(both[0]), shares(both[1]), "euclidean"),
    }


def neighbour_rows(model: Any, train: Crystals, held: Crystals) -> list[list[str]]:
    """Share of the nearest training crystals that are of a held-out crystal's structure type, in each space."""
    known, asked = structure_types(train.crystals), structure_types(held.crystals)
    rows: list[list[str]] = []
    for name, (reference, queries, metric) in spaces(model, train, held).items():
        index = NearestCrystals(reference, metric).query(queries, max(NEIGHBOURS)).index
        shares = (float(shared_types(index[:, :k], known, asked).nanmean()) for k in NEIGHBOURS)
        rows.append([name, metric, *(f"{share:.3f}" for share in shares)])
    return rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--target", default="formation_energy_per_atom")
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    splits = open_data(run_config(options.run))
    held = splits.test if options.part == "test" else splits.val
    if held is None:
        raise SystemExit(f"{options.run}: the run's data section has no part '{options.part}'.")
    chosen = Splits(splits.train, splits.val, held, about=splits.about)
    print(f"{len(splits.train):,} training crystals, {len(held):,} of {options.part}\n")
    print(markdown(("method", "MAE", "RMSE", "R²"), property_rows(options.run, chosen, options)), end="\n\n")
    rows = neighbour_rows(load(options.run), cast("Crystals", splits.train), cast("Crystals", held))
    print(markdown(("neighbours by", "metric", *(f"k = {k}" for k in NEIGHBOURS)), rows))


if __name__ == "__main__":
    main()
