"""Grey photographs for structured noise: read, cut into patches, and divided so that no photograph is on both sides."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError, NotSupportedError, did_you_mean
from noumena.readers.arrays import list_arrays, whole_array
from noumena.readers.common import reading, suffix_of

SAMPLE = "sample:"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")

# Formats that Pillow decodes by itself; others, such as PostScript, would start another program.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
_PATCH = 32
_LEAST_SHARE, _LARGEST_SHARE = 0.15, 0.2
_MOST_PATCHES = 1_000_000


@dataclass(frozen=True)
class Images:
    """Patches of grey photographs.

    Attributes:
        train, test: uint8, shape (patches, size * size), row by row.
        about: JSON-able: how many there are, and by which rule they were divided.
        fingerprint: ``sha256:`` over all patches.
    """

    train: Tensor
    test: Tensor
    about: Mapping[str, Any]
    fingerprint: str


def load_images(source: str | Path, size: int) -> Images:
    """Grey patches of ``size`` x ``size`` pixels, divided into train and test by photograph.

    Images are cut into tiles of 32 x 32 pixels (of ``size`` where that is more) without overlap, of which the upper
    left ``size`` x ``size`` pixels are kept; what is left over at the right and at the bottom is not used. One smaller
    than a tile but not than ``size`` gives one patch. Colours become grey by ITU-R 601-2 luma.

    The test part is that of the data, where they have one. Otherwise photographs, in the order of a hash of their
    names, are put into it until it has 15 to 20 % of all patches, or the nearest that whole photographs allow.

    Args:
        source: a folder of image files, those of its subfolders included (if it has subfolders ``train`` and ``test``,
            these are the parts); an .npz file with ``train`` and ``test``, or with ``images`` and, if known, the name
            of the photograph that each is of as ``source``, images being uint8 of shape (images, height, width); or
            ``sample:patches``.
        size: height and width of a frame, in pixels.

    Raises:
        ConfigError: there is no such sample.
        DataError: the source is missing, empty or damaged; an image is smaller than ``size``, or has more than 8 bits
            per channel; or there is a single photograph, which cannot be divided.
        NotSupportedError: a folder is given and Pillow is not installed.
    """
    path = _sample_path(str(source)) if str(source).startswith(SAMPLE) else Path(source).expanduser()
    if path.is_dir():
        parts = _folder_parts(path, size)
    else:
        suffix_of(path, (".npz",))
        parts = _npz_parts(path, size)
    if len(parts) == 2:
        train, test = (part.patches for part in parts)
        rule = "the train and test parts of the source"
    else:
        ((patches, names),) = ((part.patches, part.names) for part in parts)
        kept = _test_rows(names, str(source))
        train, test = patches[~kept], patches[kept]
        rule = parts[0].rule
    about = {
        "source": str(source),
        "train_patches": len(train),
        "test_patches": len(test),
        "test_share": round(len(test) / (len(train) + len(test)), 3),
        "rule": rule,
    }
    return Images(torch.from_numpy(train), torch.from_numpy(test), about, _fingerprint(train, test))


@dataclass(frozen=True)
class _Part:
    patches: np.ndarray
    names: np.ndarray
    rule: str


def _sample_path(name: str) -> Path:
    folder = Path(str(resources.files("noumena.worldmodels") / "samples"))
    known = [SAMPLE + file.stem for file in sorted(folder.glob("*.npz"))]
    if name not in known:
        raise ConfigError(f"data.images: no '{name}' in the package. {did_you_mean(name, known)}")
    return folder / f"{name.removeprefix(SAMPLE)}.npz"


def _npz_parts(path: Path, size: int) -> list[_Part]:
    arrays = list_arrays(path)
    if "train" in arrays and "test" in arrays:
        return [_npz_part(path, name, size) for name in ("train", "test")]
    if "images" not in arrays:
        raise DataError(
            f"{path}: expected arrays 'train' and 'test', or 'images' (and 'source'), of images; "
            f"found {', '.join(sorted(arrays)) or 'none'}. Rename the arrays."
        )
    return [_npz_part(path, "images", size, "source" if "source" in arrays else None)]


def _npz_part(path: Path, name: str, size: int, source: str | None = None) -> _Part:
    info = list_arrays(path)[name]
    where = f"{path}: '{name}'"
    if len(info.shape) != 3 or info.dtype != np.uint8:
        raise DataError(
            f"{where}: expected grey images, uint8 of shape (images, height, width), found {info.dtype} of shape "
            f"{info.shape}. Convert them to grey values from 0 to 255."
        )
    if info.shape[0] == 0:
        raise DataError(f"{where}: holds no image. Give at least one.")
    _check_size(info.shape[2], info.shape[1], size, where)
    _check_many(info.shape[0] * len(_corners(info.shape[1], size)) * len(_corners(info.shape[2], size)), where)
    with reading(path):
        tiles = _tiles(whole_array(path, name), size)  # (images, tiles, size * size)
        if source is None:
            photographs, rule = np.arange(len(tiles)).astype(str), "by image; of which photograph each is, is not known"
        else:
            photographs, rule = whole_array(path, source).astype(str), "by photograph"
    if photographs.shape != (len(tiles),):
        raise DataError(
            f"{path}: 'source' has shape {photographs.shape}; expected one name for each of the {len(tiles)} images."
        )
    return _Part(tiles.reshape(-1, size * size), photographs.repeat(tiles.shape[1]), rule)


def _folder_parts(folder: Path, size: int) -> list[_Part]:
    inner = [folder / "train", folder / "test"]
    return [_folder_part(part, size) for part in (inner if all(part.is_dir() for part in inner) else [folder])]


def _folder_part(folder: Path, size: int) -> _Part:
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        pickled = any(folder.rglob("*batch*"))
        hint = (
            "Its batches are pickles, which can run code when they are opened and are not read: save the images as "
            "files, or as arrays 'train' and 'test' of an .npz."
            if pickled
            else "Check the path."
        )
        raise DataError(f"{folder}: a folder without any {', '.join(SUFFIXES)} file. {hint}")
    patches: list[np.ndarray] = []
    names: list[str] = []
    for file, pixels in _grey(files):
        _check_size(pixels.shape[1], pixels.shape[0], size, str(file))
        tiles = _tiles(pixels[None], size)[0]
        patches.append(tiles)
        names.extend([file.relative_to(folder).as_posix()] * len(tiles))
        _check_many(len(names), str(folder))
    return _Part(np.concatenate(patches), np.array(names), "by photograph, that is, by file")


def _grey(files: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Files and their pixels, uint8 of shape (height, width)."""
    try:
        from PIL import Image
    except ImportError as error:
        raise NotSupportedError(
            "reading image files needs Pillow. Install it with: pip install 'noumena[worldmodels]'"
        ) from error
    for file in files:
        try:
            with reading(file), Image.open(file, formats=_FORMATS) as image:
                mode = image.mode
                pixels = np.asarray(image.convert("L")) if mode not in _DEEP else None
        except (Image.DecompressionBombError, SyntaxError) as error:
            raise DataError(
                f"{file}: cannot be read as an image ({error}). Leave it out, or make it smaller."
            ) from error
        if pixels is None:
            raise DataError(f"{file}: expected 8 bits per channel, found mode {mode}. Convert the image to 8 bits.")
        yield file, pixels


def _corners(length: int, size: int) -> range:
    """Where the tiles begin along an axis of ``length`` pixels."""
    tile = max(size, _PATCH)
    return range(0, max(1, length // tile) * tile, tile)


def _tiles(images: np.ndarray, size: int) -> np.ndarray:
    """Upper left corners of all tiles: shape (images, height, width) to (images, tiles, size * size)."""
    rows = np.add.outer(_corners(images.shape[1], size), np.arange(size))  # (tiles down, size)
    columns = np.add.outer(_corners(images.shape[2], size), np.arange(size))
    # Both pairs of indices side by side: (images, tiles down, tiles across, size, size).
    tiles = images[:, rows[:, None, :, None], columns[None, :, None, :]]
    return tiles.reshape(len(images), -1, size * size)


def _test_rows(names: np.ndarray, where: str) -> np.ndarray:
    """Which patches are of the photographs that training does not see, bool, shape (patches,)."""
    photographs, number, counts = np.unique(names, return_inverse=True, return_counts=True)
    if len(photographs) < 2:
        raise DataError(
            f"{where}: all patches are of one photograph; expected at least two, one of them for the test. Add images."
        )
    order = sorted(range(len(photographs)), key=lambda i: hashlib.sha256(str(photographs[i]).encode()).digest())
    chosen: list[int] = []
    total = 0
    for i in order:
        if total < _LEAST_SHARE * len(names) and total + counts[i] <= _LARGEST_SHARE * len(names):
            chosen.append(i)
            total += int(counts[i])
    # Where each photograph is more than that share, the one with the fewest patches.
    return np.isin(number, chosen or [int(counts.argmin())])


def _check_size(width: int, height: int, size: int, where: str) -> None:
    if min(width, height) < size:
        raise DataError(
            f"{where}: expected images of at least {size} x {size} pixels, got {width} x {height} (width x height). "
            "Leave them out, or enlarge them."
        )


def _check_many(count: int, where: str) -> None:
    if count > _MOST_PATCHES:
        raise DataError(f"{where}: more than {_MOST_PATCHES:,} patches. Give fewer or smaller images.")


def _fingerprint(*parts: np.ndarray) -> str:
    digest = hashlib.sha256(repr([part.shape for part in parts]).encode())
    for part in parts:
        digest.update(part.tobytes())
    return f"sha256:{digest.hexdigest()}"
