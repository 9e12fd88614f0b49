"""Make the samples of the molecules family: stretches of two molecular dynamics runs.

usage: python tools/make_molecules_sample.py SOURCE OUTPUT
    SOURCE  folder with aib9_700K.npz and alanine_dipeptide_600K.npz
    OUTPUT  folder for aib9.npz and alanine-dipeptide.npz
"""

import argparse
from pathlib import Path

import numpy as np

RUNS = {"aib9": "aib9_700K.npz", "alanine-dipeptide": "alanine_dipeptide_600K.npz"}
STRETCHES = 20
FRAMES = 50  # consecutive ones in a stretch
DECIMALS = 3  # of coordinates in angstrom, far below what atoms move from frame to frame


def stretch_starts(frames: int) -> np.ndarray:
    """First frame of each stretch: the middle of as many equal parts of the run."""
    part = frames / STRETCHES
    return np.round(part * (np.arange(STRETCHES) + 0.5) - FRAMES / 2).astype(int)


def make_sample(source: Path, target: Path) -> None:
    """Write stretches of consecutive frames, each a trajectory of its own, with the topology of the run."""
    with np.load(source, allow_pickle=False) as file:
        run = {name: file[name] for name in file.files}
    first = stretch_starts(len(run["xyz"]))
    rows = (first[:, None] + np.arange(FRAMES)).reshape(-1)
    sample = {name: array for name, array in run.items() if name not in ("xyz", "traj")}
    # Digits that no one needs are what does not compress.
    sample["xyz"] = np.round(run["xyz"][rows], DECIMALS).astype(np.float32)
    sample["traj"] = np.repeat(np.arange(STRETCHES, dtype=np.int16), FRAMES)
    np.savez_compressed(target, **sample)


def main() -> None:
    """Read the two runs and write the two sample files."""
    parser = argparse.ArgumentParser(description="Make the samples of the molecules family.")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    folders = parser.parse_args()
    folders.output.mkdir(parents=True, exist_ok=True)
    for name, run in RUNS.items():
        make_sample(folders.source / run, folders.output / f"{name}.npz")


if __name__ == "__main__":
    main()
