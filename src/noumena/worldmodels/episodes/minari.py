"""Minari data sets, read without Minari: an HDF5 file with a group for each episode."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from noumena.core.errors import DataError
from noumena.worldmodels.episodes.arrayfiles import open_array_file
from noumena.worldmodels.episodes.source import Names, Source

_FILE = "main_data.hdf5"


def is_minari(folder: Path) -> bool:
    """Whether the folder is that of a Minari data set, or its ``data``."""
    return any((place / name).is_file() for place in (folder, folder / "data") for name in (_FILE, "metadata.json"))


def open_minari(folder: Path, names: Names) -> Source:
    """Episodes of a Minari data set of HDF5 format.

    Observations are ``observations``, or of a dictionary ``observations/<key>``; one more than actions.

    Raises:
        DataError: the data are of another format or not there, or as
            :func:`noumena.worldmodels.episodes.arrayfiles.open_array_file`.
    """
    data = folder if (folder / _FILE).is_file() or (folder / "metadata.json").is_file() else folder / "data"
    if (found := _metadata(data / "metadata.json").get("data_format", "hdf5")) != "hdf5":
        raise DataError(
            f"{folder}: Minari data of format '{found}' are not read. Make the data set again with data_format='hdf5'."
        )
    source = open_array_file(data / _FILE, names, episode_axis=None)
    return replace(source, layout="Minari, a group for each episode")


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Download the data set again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(found).__name__}. Download the data set again.")
    return found
