"""Make the image patches of the world models family: some of each photograph that may be passed on.

usage: python tools/make_worldmodels_sample.py SOURCE OUTPUT
    SOURCE  .npz with images (uint8, shape (patches, 32, 32)) and source (the file name of each patch's photograph)
    OUTPUT  folder for patches.npz
"""

import argparse
from pathlib import Path

import numpy as np

PER_PHOTOGRAPH = 63
# Whose licence is stated and allows it; see samples/LICENSES.md.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "china.jpg",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "rocket.jpg",
)


def main() -> None:
    """Read the source and write the sample."""
    parser = argparse.ArgumentParser(description="Make the image patches of the world models family.")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    with np.load(options.source, allow_pickle=False) as arrays:
        images, source = arrays["images"], arrays["source"]
    rows: list[np.ndarray] = []
    for name in PHOTOGRAPHS:
        own = np.flatnonzero(source == name)
        if not len(own):
            raise SystemExit(f"the source has no patch of {name}")
        # Evenly spread over the source, so that they are as varied as all of them.
        rows.append(own[np.linspace(0, len(own) - 1, min(len(own), PER_PHOTOGRAPH)).round().astype(int)])
    chosen = np.concatenate(rows)
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "patches.npz"
    np.savez_compressed(target, allow_pickle=False, images=images[chosen], source=source[chosen])


if __name__ == "__main__":
    main()
