"""Make the Hopper sample of the density family: stretches of episodes, and small graded out-of-distribution sets.

usage: python tools/make_density_sample.py SOURCE OUTPUT
    SOURCE  folder with hopper_medium.hdf5 and hopper_ood_levels.npz
    OUTPUT  folder for hopper_sample.hdf5 and hopper_ood.npz
"""

import argparse
from pathlib import Path

import h5py
import numpy as np

KEYS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
TRANSITIONS = 5000
OOD_ROWS = 200  # in-distribution rows of a level, and as many out of distribution
# The in-distribution rows of the levels come from the last 20 % of the episodes' file, in time order.
USED_SHARE = 0.6


def choose_windows(ends: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A stretch of consecutive steps of every episode, all of one length where the episode is long enough.

    Many short stretches cover all phases of the gait and give finer splits by trajectory than a few whole episodes.

    Args:
        ends: row number of each episode's last transition.
        seed: of where a stretch lies in its episode.

    Returns:
        First row and row after the last of each stretch.
    """
    lengths = np.diff(ends, prepend=-1)
    limit = next(n for n in range(1, lengths.max() + 1) if np.minimum(lengths, n).sum() >= TRANSITIONS)
    kept = np.minimum(lengths, limit)
    first = ends + 1 - lengths + np.random.default_rng(seed).integers(0, lengths - kept + 1)
    return first, first + kept


def make_episodes(source: Path, target: Path) -> None:
    """Write the stretches in the D4RL layout."""
    with h5py.File(source) as file:
        arrays = {key: np.asarray(file[key]) for key in KEYS}
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
    first, stop = choose_windows(ends[ends < USED_SHARE * len(arrays["rewards"])])
    rows = np.concatenate([np.arange(*window) for window in zip(first, stop, strict=True)])
    # A stretch that ends before its episode does is closed as a time-out.
    arrays["timeouts"][stop - 1] = ~arrays["terminals"][stop - 1]
    with h5py.File(target, "w") as file:
        for key, array in arrays.items():
            part = array[rows]
            part = part if part.dtype == bool else part.astype(np.float32)
            file.create_dataset(key, data=part, compression="gzip", compression_opts=9, shuffle=True)
        file.attrs["origin"] = (
            f"stretches of {len(first)} episodes of Hopper-v5 (gymnasium, mujoco) under a linear policy trained by "
            "augmented random search, Gaussian action noise of standard deviation 0.1; made for the Noumena project, "
            "Apache-2.0."
        )


def make_levels(source: Path, target: Path) -> None:
    """Write every level with ``OOD_ROWS`` rows, evenly spaced, of each of its halves."""
    levels = {}
    with np.load(source, allow_pickle=False) as file:
        for name in file.files:
            if file[name].ndim == 2 and name not in ("train", "val"):
                half = len(file[name]) // 2
                even = np.linspace(0, half - 1, OOD_ROWS).round().astype(int)
                levels[name] = file[name][np.concatenate([even, half + even])].astype(np.float32)
    np.savez_compressed(target, **levels)


def main() -> None:
    """Read the two source files and write the two sample files."""
    parser = argparse.ArgumentParser(description="Make the Hopper sample of the density family.")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    folders = parser.parse_args()
    folders.output.mkdir(parents=True, exist_ok=True)
    make_episodes(folders.source / "hopper_medium.hdf5", folders.output / "hopper_sample.hdf5")
    make_levels(folders.source / "hopper_ood_levels.npz", folders.output / "hopper_ood.npz")


if __name__ == "__main__":
    main()
