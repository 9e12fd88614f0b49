"""Opening two rooms: the keyword arguments of :func:`open_two_rooms` are the ``data`` section of a recipe."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from noumena.core.data import Splits
from noumena.core.seeding import fold
from noumena.worldmodels.environments.rooms import TwoRooms
from noumena.worldmodels.environments.walks import FreshRooms, Rooms, Walker
from noumena.worldmodels.sequences import check_counts

Side = Literal["train", "test"]

# Streams of random numbers: of the parts of a data set, and of sequences drawn beside them.
_TRAIN, _VAL, _TEST, _FRESH = range(4)


def open_two_rooms(
    *,
    steps: int = 17,
    sequences: int = 10_000,
    val_sequences: int = 0,
    test_sequences: int = 1200,
    materialise: bool = False,
    size: int = 64,
    dot_std: float = 2.0,
    max_step: float = 4.5,
    wall_x: float | None = None,
    wall_width: float = 2.0,
    door_y: float | None = None,
    door_size: float = 12.0,
    vary_door: bool = False,
    kappa: float = 4.0,
    near_door: float = 0.25,
    seed: int = 0,
) -> Splits:
    """Sequences of a dot that walks at random in two rooms with a door between them.

    Training draws new sequences in each epoch; those for validation and test are always the same. Frames are made for
    each batch, so a data set takes no memory whatever its size.

    Args:
        steps: frames of a sequence; there is one action fewer.
        sequences: of an epoch of training.
        val_sequences, test_sequences: 0 leaves the part out.
        materialise: draw the sequences of training once, the same in each epoch: a data set of limited size.
        size: height and width of a frame, in pixels.
        dot_std: deviation of the dot, which is also its collision radius, in pixels.
        max_step: longest action, in pixels.
        wall_x, wall_width, door_y, door_size, vary_door: see
            :class:`~noumena.worldmodels.environments.rooms.TwoRooms`; wall and door are in the middle where missing.
        kappa, near_door: see :class:`~noumena.worldmodels.environments.walks.Walker`.
        seed: of every random number.

    Raises:
        ConfigError: an option is out of range.
    """
    check_counts(steps=steps, sequences=sequences, val_sequences=val_sequences, test_sequences=test_sequences)
    middle = (size - 1) / 2
    world = TwoRooms(
        size=size,
        dot_std=dot_std,
        max_step=max_step,
        wall_x=middle if wall_x is None else wall_x,
        wall_width=wall_width,
        door_y=middle if door_y is None else door_y,
        door_size=door_size,
        vary_door=vary_door,
    )
    walker = Walker(kappa, near_door)
    kind = Rooms if materialise else FreshRooms
    return Splits(
        kind(world, walker, steps, sequences, seed, _TRAIN),
        Rooms(world, walker, steps, val_sequences, seed, _VAL) if val_sequences else None,
        Rooms(world, walker, steps, test_sequences, seed, _TEST) if test_sequences else None,
        about={
            "source": "random walks in two rooms",
            "train": f"{sequences:,} sequences, " + ("drawn once" if materialise else "new ones in each epoch"),
            "val": val_sequences,
            "test": test_sequences,
        },
    )


def fresh(
    schema: Mapping[str, Any],
    *,
    side: Side,
    sequences: int,
    seed: int,
    steps: int | None = None,
    device: torch.device | str = "cpu",
) -> Rooms:
    """Sequences like those of a data set that no part of it holds, whatever its seed.

    Args:
        schema: of the data set.
        side: sequences of the two sides differ for the same seed.
        sequences: how many.
        seed: of every random number.
        steps: frames of a sequence; those of the data set where missing.
        device: where they are to be made.

    Raises:
        ConfigError, DataError: the schema's world is out of range or incomplete.
    """
    length: int = schema["steps"] if steps is None else steps
    check_counts(steps=length, sequences=sequences)
    world = schema["world"]
    walker = Walker(world["kappa"], world["near_door"])
    stream = fold(_FRESH, int(side == "test"))
    return Rooms(TwoRooms.from_json(world), walker, length, sequences, seed, stream, place=torch.device(device))
