"""Opening moving dots: the keyword arguments of :func:`open_dots` are the ``data`` section of a recipe."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.core.seeding import fold
from noumena.worldmodels.dots.images import Images, load_images
from noumena.worldmodels.dots.noise import Kind, Overlays, Scene, both_axes
from noumena.worldmodels.dots.sequences import Dots, FreshDots, stored
from noumena.worldmodels.dots.world import Arrangement, DotWorld
from noumena.worldmodels.sequences import check_counts

Side = Literal["train", "test"]

# Streams of random numbers: of the parts of a data set, and of sequences drawn beside them.
_TRAIN, _VAL, _TEST, _FRESH = range(4)


def open_dots(
    *,
    dots: Arrangement = "single",
    channels: int = 1,
    steps: int = 17,
    noise: Kind = "uniform",
    fixed: float = 0.0,
    changing: float = 0.0,
    drift: float | list[float] = 0.0,
    images: str = "sample:patches",
    sequences: int = 10_000,
    val_sequences: int = 0,
    test_sequences: int = 1200,
    materialise: bool = False,
    size: int = 28,
    dot_std: float = 1.3,
    max_step: float = 4.0,
    kappa: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Sequences of dots that walk, under noise that is fixed in a sequence, changes from frame to frame, or both.

    The world of Sobal et al. 2022 (arXiv 2211.10831). Training draws new sequences in each epoch; those for validation
    and test are always the same. Whatever the noise, the same seed gives the same walks.

    Args:
        dots: one dot; or three, one that the actions move, one that walks by itself, one that stays.
        channels: 1; or 3, one for each of three dots.
        steps: frames of a sequence; there is one action fewer.
        noise: ``uniform``, drawn for each pixel; or ``structured``, grey photographs.
        fixed: level of the overlay that a sequence keeps, in units of the brightness of a dot's centre.
        changing: level of the overlay that each frame has anew.
        drift: pixels per frame by which the fixed overlay rolls along x, or [along x, along y]; part pixels add up.
        images: photographs for structured noise, see :func:`noumena.worldmodels.dots.images.load_images`. The test has
            photographs of its own; validation has those of training.
        sequences: of an epoch of training.
        val_sequences, test_sequences: 0 leaves the part out.
        materialise: draw the sequences of training once and keep them in memory: a data set of limited size.
        size: height and width of a frame, in pixels.
        dot_std: size of a dot, in pixels.
        max_step: most pixels a dot walks in one step.
        kappa: concentration of a sequence's directions about its heading.
        seed: of every random number.

    Raises:
        ConfigError: an option is out of range.
        DataError, NotSupportedError: the photographs cannot be read.
    """
    check_counts(steps=steps, sequences=sequences, val_sequences=val_sequences, test_sequences=test_sequences)
    world = DotWorld(dots, channels, size, dot_std, max_step, kappa)
    overlays = Overlays(noise, fixed, changing, both_axes(drift))
    photographs = load_images(images, size) if overlays.needs_images else None
    facts = None if photographs is None else {"source": images, "fingerprint": photographs.fingerprint}
    train, test = (_scene(world, overlays, photographs, side) for side in get_args(Side))
    made = FreshDots(train, steps, sequences, seed, _TRAIN, images_of=facts)
    about: dict[str, Any] = {
        "source": "moving dots",
        "train": f"{sequences:,} sequences, " + ("drawn once" if materialise else "new ones in each epoch"),
        "val": val_sequences,
        "test": test_sequences,
    }
    if photographs is not None:
        about["images"] = photographs.about
    return Splits(
        stored(made) if materialise else made,
        Dots(train, steps, val_sequences, seed, _VAL, images_of=facts) if val_sequences else None,
        Dots(test, steps, test_sequences, seed, _TEST, images_of=facts) if test_sequences else None,
        about=about,
    )


def open_scene(world: Mapping[str, Any], side: Side = "test", *, device: torch.device | str = "cpu") -> Scene:
    """The world and the noise that a model was trained on, to make further frames with.

    Args:
        world: of a data set's schema.
        side: whose photographs structured noise is made of.
        device: where frames are to be made.

    Raises:
        DataError: the world is incomplete, or its photographs are no longer those of the training.
        ConfigError: a value of it is out of range.
    """
    if side not in get_args(Side):
        raise ConfigError(f"side: unknown '{side}'. {did_you_mean(side, get_args(Side))}")
    square, overlays = DotWorld.from_json(world), Overlays.from_json(world)
    photographs = None
    if overlays.needs_images:
        facts = world.get("images")
        if not facts:
            raise DataError("world: has structured noise but no 'images'. Take the schema of a data set of dots.")
        photographs = load_images(facts["source"], square.size)
        if photographs.fingerprint != facts["fingerprint"]:
            raise DataError(
                f"{facts['source']}: holds other images than those the model was trained with "
                f"({photographs.fingerprint[:15]}..., expected {facts['fingerprint'][:15]}...). Put the old ones back."
            )
    return _scene(square, overlays, photographs, side).to(device)


def fresh(
    schema: Mapping[str, Any],
    *,
    side: Side,
    sequences: int,
    seed: int,
    steps: int | None = None,
    device: torch.device | str = "cpu",
) -> Dots:
    """Sequences like those of a data set that no part of it holds, whatever its seed.

    Args:
        schema: of the data set.
        side: whose photographs structured noise is made of. The two sides' sequences differ for the same seed.
        sequences: how many.
        seed: of every random number.
        steps: frames of a sequence; those of the data set where missing.
        device: where they are to be made.

    Raises:
        ConfigError, DataError: as :func:`open_scene`.
    """
    scene = open_scene(schema["world"], side, device=device)
    length: int = schema["steps"] if steps is None else steps
    check_counts(steps=length, sequences=sequences)
    stream = fold(_FRESH, get_args(Side).index(side))
    return Dots(
        scene, length, sequences, seed, stream, images_of=schema["world"].get("images"), place=torch.device(device)
    )


def _scene(world: DotWorld, overlays: Overlays, images: Images | None, side: Side) -> Scene:
    return Scene(world, overlays, None if images is None else images.train if side == "train" else images.test)
