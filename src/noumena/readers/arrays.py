"""Named arrays in .npy, .npz and .h5/.hdf5 files, read block by block at constant memory and never unpickled."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

from noumena.core.errors import DataError
from noumena.readers.checks import check_dtype
from noumena.readers.common import ARRAY_SUFFIXES, block_rows, reading, suffix_of

Blocks = Iterator[dict[str, np.ndarray]]
_SPOOLED_BYTES = 1 << 20


@dataclass(frozen=True)
class ArrayInfo:
    """What a file says of one of its arrays before any of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False

    @property
    def kind(self) -> str:
        """The letter of its type, as numpy has it, and U for text of any sort."""
        return "U" if self.dtype.kind == "S" or _is_hdf5_text(self.dtype) else self.dtype.kind


def list_arrays(path: Path) -> dict[str, ArrayInfo]:
    """The arrays of a file by name (the one of a .npy file is called ""), from headers alone.

    Raises:
        DataError: the file is missing, damaged, or of another format.
    """
    suffix = suffix_of(path, ARRAY_SUFFIXES)
    with reading(path):
        if suffix == ".npy":
            with path.open("rb") as handle:
                return {"": _read_header(handle, path.stat().st_size)}
        if suffix == ".npz":
            return _list_members(path)
        return _list_datasets(path)


def array_blocks(path: Path, names: Sequence[str]) -> Blocks:
    """Arrays of one file side by side, a bounded number of their first axis at a time.

    Args:
        path: a .npy, .npz, .h5 or .hdf5 file.
        names: arrays of equal length (see :func:`list_arrays`).

    Yields:
        name to array; every array of a block has the same number of rows.

    Raises:
        DataError: an array holds no numbers or text, or the file is damaged or ends early.
    """
    infos = list_arrays(path)
    for name in names:
        _check_readable(infos[name].dtype, f"{path}: '{name}'" if name else str(path))
    width = sum(math.prod(infos[name].shape[1:]) for name in names)
    step = block_rows(width, max(infos[name].dtype.itemsize for name in names))
    open_blocks = {".npy": _npy_blocks, ".npz": _npz_blocks}.get(path.suffix.lower(), _hdf5_blocks)
    with reading(path):
        yield from open_blocks(path, {name: infos[name] for name in names}, step)


def whole_array(path: Path, name: str) -> np.ndarray:
    """One array in memory."""
    return np.concatenate([block[name] for block in array_blocks(path, [name])])


def _check_readable(dtype: np.dtype, where: str) -> None:
    """Numbers, and text too: labels and group names may be text."""
    if dtype.kind not in "US" and not _is_hdf5_text(dtype):
        check_dtype(dtype, where)


def _is_hdf5_text(dtype: np.dtype) -> bool:
    # h5py marks text of variable length as an object type with this metadata; it is text in the file, not a pickle.
    return dtype.kind == "O" and bool(dtype.metadata) and dtype.metadata.get("vlen") in (str, bytes)


def _read_header(handle: IO[bytes], size: int) -> ArrayInfo:
    """The header of a .npy stream of ``size`` bytes, which is left at the first byte of the data.

    Raises:
        ValueError: it is not one, or announces another amount of data: found before any memory is taken for them.
    """
    version = npy.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format holds records with named fields")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(handle)
    if any(length < 0 for length in shape):
        raise ValueError(f"negative shape {shape}")
    announced = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and announced != size - handle.tell():
        raise ValueError(f"{announced} bytes of data announced for shape {shape}, found {size - handle.tell()}")
    return ArrayInfo(shape, dtype, fortran)


def _list_members(path: Path) -> dict[str, ArrayInfo]:
    with ZipFile(path) as archive:
        infos = {}
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as handle:
                    infos[member.filename.removesuffix(".npy")] = _read_header(handle, member.file_size)
    return infos


def _list_datasets(path: Path) -> dict[str, ArrayInfo]:
    import h5py

    infos: dict[str, ArrayInfo] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            infos[name] = ArrayInfo(item.shape or (), item.dtype)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return infos


def _npy_blocks(path: Path, infos: dict[str, ArrayInfo], step: int) -> Blocks:
    with path.open("rb") as handle:
        info = _read_header(handle, path.stat().st_size)
        parts = _mapped(handle, handle.tell(), info, step) if info.fortran else _streamed(handle, info, step)
        for part in parts:
            yield dict.fromkeys(infos, part)


def _npz_blocks(path: Path, infos: dict[str, ArrayInfo], step: int) -> Blocks:
    with ExitStack() as stack:
        archive = stack.enter_context(ZipFile(path))
        members = [_member_blocks(stack, archive, f"{name}.npy", step) for name in infos]
        for parts in zip(*members, strict=True):
            yield dict(zip(infos, parts, strict=True))


def _member_blocks(stack: ExitStack, archive: ZipFile, member: str, step: int) -> Iterator[np.ndarray]:
    handle = stack.enter_context(archive.open(member))
    info = _read_header(handle, archive.getinfo(member).file_size)
    if not info.fortran:
        yield from _streamed(handle, info, step)
        return
    # Columns come one after the other in the file: walking along the rows takes a plain copy of it on disk.
    with tempfile.TemporaryFile() as plain:
        copyfileobj(handle, plain, _SPOOLED_BYTES)
        plain.flush()
        yield from _mapped(plain, 0, info, step)


def _streamed(handle: IO[bytes], info: ArrayInfo, step: int) -> Iterator[np.ndarray]:
    """Blocks of an array whose rows come one after the other; with the last one zipfile compares checksums."""
    row_bytes = info.dtype.itemsize * math.prod(info.shape[1:])
    length = info.shape[0]
    for start in range(0, length, step):
        rows = min(step, length - start)
        content = handle.read(rows * row_bytes)
        if len(content) < rows * row_bytes:
            raise EOFError(f"{length} rows announced, the data end before row {start + rows}")
        yield np.frombuffer(content, info.dtype).reshape(rows, *info.shape[1:])


def _mapped(handle: IO[bytes], offset: int, info: ArrayInfo, step: int) -> Iterator[np.ndarray]:
    """Blocks of an array whose columns come one after the other."""
    for start in range(0, info.shape[0], step):
        # Mapped anew each time: pages of the file that were read would otherwise count as used memory to the end.
        array = np.memmap(handle, info.dtype, "r", offset, info.shape, "F")
        yield np.array(array[start : start + step])


def _hdf5_blocks(path: Path, infos: dict[str, ArrayInfo], step: int) -> Blocks:
    import h5py

    with h5py.File(path, "r") as file:
        for start in range(0, next(iter(infos.values())).shape[0], step):
            stop = start + step
            yield {name: _dataset(file, name, info)[start:stop] for name, info in infos.items()}


def _dataset(file: Any, name: str, info: ArrayInfo) -> Any:
    return file[name].asstr() if _is_hdf5_text(info.dtype) else file[name]


def check_two_dimensional(path: Path, name: str, info: ArrayInfo) -> None:
    """Refuse an array that is not a table of numbers with rows and columns.

    Raises:
        DataError: it says what the array is.
    """
    where = f"{path}: '{name}'" if name else str(path)
    check_dtype(info.dtype, where)
    if len(info.shape) != 2:
        raise DataError(f"{where}: expected shape (rows, columns), found shape {info.shape}. Reshape or name another.")
    if 0 in info.shape:
        raise DataError(f"{where}: expected rows and columns, found none (shape {info.shape}). Write it again.")
