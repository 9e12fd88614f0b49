"""Actions and states of episodes as tables of numbers, one row for each step of the data set."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.errors import DataError
from noumena.readers.checks import check_dtype, check_rows, column_names
from noumena.worldmodels.episodes.source import Source, check_length

# More kinds of an action than this are not kinds.
_MOST_CHOICES = 1024


@dataclass(frozen=True)
class Actions:
    """The actions of all episodes.

    Attributes:
        rows: of each episode, shape (frames - 1, action), float32; frames are those that ``frame_skip`` keeps.
        names: of the components.
        choices: how many kinds there are where actions are whole numbers that name one; ``None`` for quantities.
        last_unused: episodes with as many actions as frames, the last of which leads to no recorded frame.
    """

    rows: list[Tensor]
    names: tuple[str, ...]
    choices: int | None
    last_unused: int


def read_actions(source: Source, *, frame_skip: int = 1, choices: int | None = None) -> Actions:
    """The actions of all episodes.

    Whole numbers, one for each step, name a choice among actions and become rows that are 1 at its place, 0 elsewhere.
    With ``frame_skip`` the actions between two frames that are kept stand side by side.

    Args:
        source: the recording.
        frame_skip: only each of so many frames is kept.
        choices: kinds of action that a model knows; found from the data where missing.

    Raises:
        DataError: there are none, their number does not fit that of the frames, they are not finite, not of one width,
            or never change.
    """
    name = source.names.actions
    if source.actions is None:
        raise DataError(
            f"{source.path}: no array '{name}' beside the frames ('{source.names.frames}'). Name the actions with "
            "actions=..., one row for each step of an episode."
        )
    stored = source.actions()[: len(source.lengths)]
    for episode, (array, length) in enumerate(zip(stored, source.lengths, strict=True)):
        check_dtype(array.dtype, source.where(episode, name))
        check_length(source, episode, name, len(array), length)
    last_unused = sum(len(array) == length for array, length in zip(stored, source.lengths, strict=True))
    stored = [array[: max(0, length - 1)] for array, length in zip(stored, source.lengths, strict=True)]
    if choices is not None or all(array.dtype.kind in "iu" and array[:1].size <= 1 for array in stored):
        rows, count = _one_hot(source, stored, choices)
        names = tuple(f"{name}={number}" for number in range(count))
    else:
        rows, count = _quantities(source, stored), None
        names = column_names(name.rpartition("/")[2], rows[0].shape[1])
    _check_changing(source, rows)
    if frame_skip > 1:
        rows = [_side_by_side(part, frame_skip) for part in rows]
        names = tuple(f"{one}@{step}" for step in range(frame_skip) for one in names)
    return Actions(rows, names, count, last_unused)


def read_state(source: Source, *, frame_skip: int = 1) -> tuple[list[Tensor] | None, tuple[str, ...]]:
    """The states of all episodes, each of shape (frames, things, dims), and the names of the things.

    A row of numbers is as many things of one number each; a row of places, shape (things, dims), is as many things.

    Raises:
        DataError: there is not one row for each frame, or they are not finite or not of one shape.
    """
    if source.state is None:
        return None, ()
    name = source.names.state
    assert name is not None
    found: list[Tensor] = []
    for episode, (array, length) in enumerate(zip(source.state(), source.lengths, strict=False)):
        where = source.where(episode, name)
        if len(array) != length or array.ndim not in (1, 2, 3):
            raise DataError(
                f"{where} has shape {array.shape} for {length} frames; expected ({length}, numbers) or ({length}, "
                "things, dims). Give one row for each frame, or leave the state out."
            )
        rows = _finite(array.reshape(length, -1), name, where)
        found.append(rows.reshape(length, -1, array.shape[2] if array.ndim == 3 else 1)[::frame_skip])
    _check_one_shape(source, name, found)
    return found, column_names(name.rpartition("/")[2], found[0].shape[1])


def _quantities(source: Source, stored: list[np.ndarray]) -> list[Tensor]:
    name = source.names.actions
    rows: list[Tensor] = []
    for episode, array in enumerate(stored):
        where = source.where(episode, name)
        if array.ndim not in (1, 2):
            raise DataError(f"{where}: expected shape (steps, numbers), found {array.shape}. Reshape the actions.")
        wide = array.reshape(len(array), -1) if len(array) else array.reshape(0, *array.shape[1:] or (1,))
        rows.append(_finite(wide, name, where))
    _check_one_shape(source, name, rows)
    return rows


def _finite(array: np.ndarray, name: str, where: str) -> Tensor:
    """Numbers as float32; an episode of one frame has no actions to check."""
    if not len(array):
        return torch.zeros(array.shape)
    return check_rows(array, column_names(name.rpartition("/")[2], array.shape[1]), where)


def _check_one_shape(source: Source, name: str, parts: list[Tensor]) -> None:
    for episode, part in enumerate(parts):
        if part.shape[1:] != parts[0].shape[1:]:
            raise DataError(
                f"{source.where(episode, name)} has {tuple(part.shape[1:])} numbers in a row, the first episode "
                f"{tuple(parts[0].shape[1:])}. Give all episodes the same."
            )


def _one_hot(source: Source, stored: list[np.ndarray], choices: int | None) -> tuple[list[Tensor], int]:
    name = source.names.actions
    for episode, array in enumerate(stored):
        if array[:1].size > 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"{source.where(episode, name)}: expected one whole number for each step, found {array.dtype} of shape "
                f"{array.shape}. Record the actions as the model's training data have them."
            )
    flat = [array.reshape(-1).astype(np.int64) for array in stored]
    most = choices or 1 + max((int(array.max()) for array in flat if len(array)), default=0)
    for episode, array in enumerate(flat):
        if len(array) and (array.min() < 0 or array.max() >= min(most, _MOST_CHOICES)):
            raise DataError(
                f"{source.where(episode, name)}: whole numbers name one of several actions, counted from 0; found "
                f"{array.min()} to {array.max()}, expected 0 to {min(most, _MOST_CHOICES) - 1}. Store quantities as "
                "float."
            )
    return [functional.one_hot(torch.from_numpy(array), most).float() for array in flat], most


def _check_changing(source: Source, rows: list[Tensor]) -> None:
    all_rows = torch.cat(rows)
    if len(all_rows) > 1 and bool((all_rows == all_rows[0]).all()):
        raise DataError(
            f"{source.path}: '{source.names.actions}' is {all_rows[0].tolist()} in every step. Nothing can be learned "
            "about actions that never change: name another array with actions=..., or record others."
        )


def _side_by_side(rows: Tensor, skip: int) -> Tensor:
    """Actions (steps, action) of which so many lead from a kept frame to the next: (steps // skip, skip * action)."""
    kept = len(rows) // skip
    return rows[: kept * skip].reshape(kept, skip * rows.shape[1])
