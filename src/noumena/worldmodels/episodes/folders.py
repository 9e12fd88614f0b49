"""Episodes as folders of image files, with the actions beside them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from noumena.core.errors import DataError, NotSupportedError
from noumena.readers.arrays import list_arrays, whole_array
from noumena.readers.common import block_rows, reading
from noumena.worldmodels.episodes.source import STATE, Names, Source, natural_order

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Formats that Pillow decodes by itself; others, such as PostScript, would start another program.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
_TABLES = (".npy", ".npz", ".csv")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")


def has_images(folder: Path) -> bool:
    """Whether image files lie in the folder or in a folder of it."""
    return any(file.suffix.lower() in _IMAGES for pattern in ("*", "*/*") for file in folder.glob(pattern))


def open_folder(path: Path, names: Names) -> Source:
    """Episodes of a folder: each of its folders that holds images, or itself.

    Frames are in the order of the numbers in their files' names; actions are ``actions.npy``, ``.npz`` or ``.csv``
    beside them (or of the name asked for), one row for each step.

    Raises:
        DataError: there are no images, they differ in size, or a file is damaged.
        NotSupportedError: Pillow is not installed.
    """
    folders = [path] if _images(path) else [place for place in sorted(path.iterdir(), key=_by_name) if _images(place)]
    if not folders:
        raise DataError(f"{path}: expected image files ({', '.join(_IMAGES)}), or folders of them; found none.")
    episodes = [folder.name for folder in folders]
    files = [_images(folder) for folder in folders]
    model = _pixels(files[0][0])
    state = names.state or (STATE if _table(folders[0], STATE) else None)

    def rows(name: str) -> list[np.ndarray]:
        return [_read_table(folder, name) for folder in folders]

    has_actions = any(_table(folder, names.actions) for folder in folders)
    return Source(
        path,
        "a folder of images for each episode" if folders[0] != path else "a folder of images, a single episode",
        Names("images", names.actions, state),
        episodes,
        [len(images) for images in files],
        model.shape,
        model.dtype,
        partial(_blocks, [file for images in files for file in images], model),
        partial(rows, names.actions) if has_actions else None,
        partial(rows, state) if state else None,
        is_images=True,
    )


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.suffix.lower() in _IMAGES), key=_by_name)


def _by_name(path: Path) -> list[str | int]:
    return natural_order(path.name)


def _blocks(files: Sequence[Path], model: np.ndarray) -> Iterator[np.ndarray]:
    step = block_rows(model.size, model.itemsize)
    for start in range(0, len(files), step):
        pictures = [_pixels(file) for file in files[start : start + step]]
        for file, picture in zip(files[start:], pictures, strict=False):
            if picture.shape != model.shape:
                raise DataError(
                    f"{file}: is {_described(picture)}, the first image is {_described(model)}. Bring all images to "
                    "one size and number of channels."
                )
        yield np.stack(pictures)


def _described(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]} pixels, {'RGB' if picture.ndim == 3 else 'grey'}"


def _pixels(file: Path) -> np.ndarray:
    """An image as uint8, shape (height, width) or (height, width, 3); transparency is left out."""
    try:
        from PIL import Image
    except ImportError as error:
        raise NotSupportedError(
            "reading image files needs Pillow. Install it with: pip install 'noumena[worldmodels]'"
        ) from error
    try:
        with reading(file), Image.open(file, formats=_FORMATS) as image:
            if image.mode in _DEEP:
                raise DataError(f"{file}: expected 8 bits per channel, found mode {image.mode}. Convert it to 8 bits.")
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"{file}: cannot be read as an image ({error}). Leave it out, or make it smaller.") from error


def _table(folder: Path, name: str) -> Path | None:
    return next((file for suffix in _TABLES if (file := folder / f"{name}{suffix}").is_file()), None)


def _read_table(folder: Path, name: str) -> np.ndarray:
    file = _table(folder, name)
    if file is None:
        wanted = " or ".join(f"{name}{suffix}" for suffix in _TABLES)
        raise DataError(f"{folder}: expected {wanted} beside the images, found none. Add it, a row for each step.")
    if file.suffix == ".csv":
        return _read_csv(file)
    arrays = list_arrays(file)
    if file.suffix == ".npz" and name not in arrays and len(arrays) != 1:
        raise DataError(f"{file}: expected an array '{name}', found {', '.join(arrays) or 'none'}. Rename it.")
    return whole_array(file, name if name in arrays else next(iter(arrays)))


def _read_csv(file: Path) -> np.ndarray:
    """Numbers, with or without a line of names above them."""
    with reading(file):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if lines and not _is_number(lines[0].split(",")[0]):
            lines = lines[1:]
        if not lines:
            raise DataError(f"{file}: holds no rows. Write a row of numbers for each step.")
        values = np.loadtxt(lines, delimiter=",", ndmin=2)
    # Whole numbers are choices among actions, as in a file that keeps their type.
    whole = values.shape[1] == 1 and bool((values == values.round()).all()) and "." not in "".join(lines)
    return values.astype(np.int64) if whole else values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
