"""The files that GORMPO saves a model as: which they are, and what is in them, read without running any of it."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn, cast

import torch
from torch import Tensor

from noumena.core.errors import ArtifactError, NotSupportedError
from noumena.density.gormpo.pickled import read_plain_pickle

log = logging.getLogger("noumena")

_WEIGHTS, _METADATA, _NEIGHBOURS = "_model.pth", "_meta_data.pkl", ".faiss"
_MOST_SHOWN = 5


@dataclass(frozen=True)
class SavedFiles:
    """The two files of a saved model, by the ``name`` they share; ``metadata`` need not be there."""

    name: str
    weights: Path
    metadata: Path


def find_files(place: Path) -> SavedFiles:
    """The files of the model that ``place`` stands for."""
    base = place.parent / place.name.removesuffix(_METADATA)
    beside = base.parent / (base.name + _WEIGHTS)
    if place.is_file() and place.name != base.name:
        if not beside.is_file():
            raise ArtifactError(f"{place}: its weights {beside.name} are not beside it. Put them there.")
        return _named(beside)
    if place.is_file():
        if place.suffix == _NEIGHBOURS:
            _refuse_neighbours(place)
        return _named(place)
    if beside.is_file():
        return _named(beside)
    if place.is_dir():
        return _named(_only(place))
    if (neighbours := place.parent / (place.name + _NEIGHBOURS)).is_file():
        _refuse_neighbours(neighbours)
    known = _bases(place.parent) if place.parent.is_dir() else []
    hint = f"Models there: {', '.join(known[:_MOST_SHOWN])}." if known else "Check the path."
    raise ArtifactError(
        f"{place}: expected a folder, a file *{_WEIGHTS}, or what stands before {_WEIGHTS} in the name of one; there "
        f"is none. {hint}"
    )


def _named(weights: Path) -> SavedFiles:
    name = weights.name.removesuffix(_WEIGHTS).removesuffix(weights.suffix)
    return SavedFiles(name or "gormpo", weights, weights.parent / (name + _METADATA))


def _only(folder: Path) -> Path:
    """The weights in a folder that has one model."""
    names = _bases(folder)
    if len(names) == 1:
        return folder / (names[0] + _WEIGHTS)
    if not names and (neighbours := sorted(folder.glob(f"*{_NEIGHBOURS}"))):
        _refuse_neighbours(neighbours[0])
    found = f"{len(names)} ({', '.join(names[:_MOST_SHOWN])}{', ...' if len(names) > _MOST_SHOWN else ''})"
    raise ArtifactError(
        f"{folder}: expected one file *{_WEIGHTS} in the folder, found {found if names else 'none'}. Name the file."
    )


def _bases(folder: Path) -> list[str]:
    return sorted(file.name.removesuffix(_WEIGHTS) for file in folder.glob(f"*{_WEIGHTS}"))


def _refuse_neighbours(path: Path) -> NoReturn:
    raise NotSupportedError(
        f"{path}: is the index of a KDE, which is not taken over: it holds training rows, no weights. Fit density/knn "
        "(noumena.density.neighbours) to the rows that it was made of; it takes seconds."
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dictionary, float32; nothing but tensors is unpickled."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))  # torch's first words advise to run the file
        asked = f"it asks for {named[1][:200]}" if named else "it holds more than tensors"
        raise ArtifactError(
            f"{path}: is no file of weights alone, or damaged: {asked}. It was not loaded, and nothing was executed. "
            "Save model.state_dict() in the environment that wrote it."
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, LookupError, TypeError, AttributeError) as error:
        first = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise ArtifactError(f"{path}: is no checkpoint of PyTorch, or damaged: {first}. Get a fresh copy.") from error
    if not isinstance(found, Mapping) or not found:
        raise ArtifactError(
            f"{path}: expected a state dictionary of tensors, found {type(found).__name__}. Save model.state_dict()."
        )
    state = cast("Mapping[Any, Any]", found)
    for name, tensor in state.items():
        if not _is_plain(tensor):
            raise ArtifactError(f"{path}: '{name}' is no plain tensor of real numbers. Save model.state_dict().")
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: '{name}' is not finite throughout. The training had diverged.")
    return {str(name): tensor.float() for name, tensor in state.items()}


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose numbers all stand in the file."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.device.type == "cpu"
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """What the metadata say; nothing without a file."""
    if not path.exists():
        log.warning("%s: is not there, so the model has no threshold. model.calibrate(rows) sets one.", path)
        return {}
    found = read_plain_pickle(path)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ArtifactError(f"{path}: expected a dictionary with 'threshold', ..., found {type(found).__name__}.")
    return cast("dict[str, Any]", found)
