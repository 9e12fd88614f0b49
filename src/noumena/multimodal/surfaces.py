"""Reading the surface that displacements live on: an archive of arrays, or the two text files of a template."""

import io
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError
from noumena.multimodal.modality import Surface
from noumena.readers.arrays import ArrayInfo, list_arrays, whole_array
from noumena.readers.common import reading, suffix_of

NODES_FILE = "surf_node.txt"
TRIANGLES_FILE = "surf_triangles.txt"
MESH_FILE = "surface_mesh.npz"
_ARCHIVES = (".npz", ".h5", ".hdf5")


def read_surface(path: Path) -> Surface:
    """A surface.

    Args:
        path: an .npz or HDF5 file with ``nodes`` (points, 3) and, if there, ``triangles`` (triangles, 3) or ``quads``
            (quads, 4), counted from 0; or a folder with surf_node.txt and surf_triangles.txt, see :func:`text_surface`.

    Raises:
        DataError: a file is missing, damaged or holds something else.
    """
    if path.is_dir():
        return text_surface(path)
    suffix_of(path, _ARCHIVES)
    return surface_of(path, list_arrays(path), "")


def surface_of(path: Path, arrays: dict[str, ArrayInfo], prefix: str) -> Surface:
    """The surface of an archive whose arrays' names begin with ``prefix``."""
    if prefix + "nodes" not in arrays:
        raise DataError(f"{path}: expected 'nodes' and 'triangles', found {', '.join(arrays) or 'nothing'}. Add them.")
    triangles = None
    if prefix + "triangles" in arrays:
        triangles = whole_array(path, prefix + "triangles")
    elif prefix + "quads" in arrays:
        quads = whole_array(path, prefix + "quads")
        if quads.ndim != 2 or quads.shape[1] != 4:
            raise DataError(f"{path}: expected 'quads' of shape (quads, 4), found {quads.shape}. Check the mesh.")
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return Surface.of(whole_array(path, prefix + "nodes"), triangles, where=str(path))


def text_surface(folder: Path) -> Surface:
    """The surface of the text files surf_node.txt and surf_triangles.txt.

    Numbers are separated by commas or white space. A first column that counts the lines is left out. Triangles name
    nodes by their line, from 0 or from 1, whichever the smallest and largest number tell.

    Raises:
        DataError: a file is missing, is no table of numbers, or the counting cannot be told.
    """
    nodes = _without_index(_table(folder / NODES_FILE), folder / NODES_FILE)
    place = folder / TRIANGLES_FILE
    triangles = _without_index(_table(place), place)
    corners = triangles.astype(np.int64)
    if (corners != triangles).any():
        raise DataError(f"{place}: expected whole numbers, found {triangles[(corners != triangles)][0]:g}. Correct it.")
    low, high = int(corners.min()), int(corners.max())
    if low < 0 or high > len(nodes) or (low == 0 and high == len(nodes)):
        raise DataError(
            f"{place}: triangles name the nodes {low} to {high}, but {NODES_FILE} has {len(nodes)}. Take both files of "
            "the same template."
        )
    if low > 0 and high < len(nodes):
        raise DataError(
            f"{place}: triangles name the nodes {low} to {high} of {len(nodes)}, counted from 0 or from 1: it cannot "
            f"be told. Write {MESH_FILE} with 'nodes' and 'triangles' counted from 0, and name it with mesh=..."
        )
    return Surface.of(nodes, corners - (high == len(nodes)), where=str(place))


def has_text_surface(folder: Path) -> bool:
    """Whether a folder has the text files."""
    return (folder / NODES_FILE).is_file() and (folder / TRIANGLES_FILE).is_file()


def _table(path: Path) -> np.ndarray:
    """A text file of numbers, shape (lines, columns)."""
    suffix_of(path, (".txt",))
    with reading(path):
        text = path.read_text(encoding="utf-8").replace(",", " ")
        if not text.strip():
            raise ValueError("no line with numbers")
        return np.loadtxt(io.StringIO(text), ndmin=2)


def _without_index(table: np.ndarray, path: Path) -> np.ndarray:
    """The last three columns, if the one before them counts the lines."""
    counts = table.shape[1] == 4 and (np.diff(table[:, 0]) == 1).all() and table[0, 0] in (0, 1)
    if table.shape[1] == 3 or counts:
        return table[:, -3:]
    raise DataError(
        f"{path}: expected 3 numbers in a line, or 4 of which the first counts the lines, found {table.shape[1]}. "
        "Take the file of a template."
    )
