"""Minari data sets, read without Minari: an HDF5 file with a group for each episode."""

from dataclasses import replace
from pathlib import Path

from noumena.core.errors import DataError
from noumena.readers.common import minari_metadata
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
    facts = data / "metadata.json"
    metadata = minari_metadata(facts) if facts.is_file() else {}
    if (found := metadata.get("data_format", "hdf5")) != "hdf5":
        raise DataError(
            f"{folder}: Minari data of format '{found}' are not read. Make the data set again with data_format='hdf5'."
        )
    source = open_array_file(data / _FILE, names, episode_axis=None)
    return replace(source, layout="Minari, a group for each episode")
