"""Run as a script: ``train_script.py RUN_DIR KEY=JSON ...`` trains once and prints the hash of the weights."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def main(run_dir, *options):
    import torch

    from tests.training.workers import train, weights_hash

    torch.set_num_threads(1)
    changes = {key: json.loads(value) for key, value in (option.split("=", 1) for option in options)}
    train(run_dir, changes.pop("setting", "plateau"), pause=False, **changes)
    weights = Path(run_dir) / "model" / "model.safetensors"
    if weights.exists():
        print(weights_hash(weights))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(*sys.argv[1:])
